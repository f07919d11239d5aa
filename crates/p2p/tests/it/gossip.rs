//! Frames published on topics.

use std::collections::BTreeSet;

use khufu_p2p::{Event, MAX_TOPICS, TopicError};

use crate::support::{Node, config, pair, start, until};

async fn gossip(node: &mut Node) -> (String, Vec<u8>) {
    node.find("gossip", |event| match event {
        Event::Gossip { topic, frame, .. } => Some((topic.clone(), frame.clone())),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_all_subscribers_once() {
    let mut nodes = vec![start(config(None)).await];
    for _ in 0..3 {
        let mut config = config(None);
        config.bootstrap = vec![nodes[0].address.clone()];
        nodes.push(start(config).await);
    }
    for node in &nodes[..3] {
        node.network.subscribe("news").unwrap();
        node.network.subscribe("news").unwrap();
    }
    nodes[3].network.subscribe("other").unwrap();
    // Gossip that comes before the topic's subscribers know each other is lost, so it is published until all have some.
    let mut warmed: BTreeSet<usize> = BTreeSet::new();
    let mut round = 0_u32;
    until("the topic to be known to all", || {
        round += 1;
        nodes[0].network.publish("news", format!("warm {round}").into_bytes()).unwrap();
        for (index, node) in nodes.iter_mut().enumerate() {
            while let Ok(event) = node.events.try_recv() {
                if matches!(event, Event::Gossip { .. }) {
                    warmed.insert(index);
                }
            }
        }
        let done = warmed.len() == 2;
        async move { done }
    })
    .await;
    assert_eq!(warmed, BTreeSet::from([1, 2]));
    for (author, text) in [(0, "a"), (0, "a"), (1, "a"), (1, "b"), (0, "end"), (1, "end of 1")] {
        nodes[author].network.publish("news", text.into()).unwrap();
    }
    let mut got: Vec<Vec<String>> = vec![Vec::new(); 3];
    for (index, node) in nodes.iter_mut().take(3).enumerate() {
        let last = if index == 0 {
            vec!["end of 1"]
        } else if index == 1 {
            vec!["end"]
        } else {
            vec!["end", "end of 1"]
        };
        while !last.iter().all(|text| got[index].iter().any(|seen| seen == text)) {
            let (topic, frame) = gossip(node).await;
            assert_eq!(topic, "news");
            let text = String::from_utf8(frame).unwrap();
            if !text.starts_with("warm") {
                got[index].push(text);
            }
        }
    }
    for texts in &mut got {
        let count = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), count, "nothing twice: {texts:?}");
    }
    assert_eq!(got[2], ["a", "b", "end", "end of 1"]);
    let news = |node: &mut Node| node.events.try_recv().is_ok_and(|event| matches!(event, Event::Gossip { .. }));
    assert!(!news(&mut nodes[3]), "nothing for those who did not subscribe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_gossip_have_limits() {
    let (left, _right) = pair(|config| config.limits.max_gossip_bytes = 1000).await;
    for number in 0..MAX_TOPICS {
        left.network.subscribe(&format!("topic {number}")).unwrap();
    }
    left.network.subscribe("topic 0").unwrap();
    let limit = MAX_TOPICS;
    assert_eq!(left.network.subscribe("one more"), Err(TopicError::TooManyTopics { limit }));
    left.network.unsubscribe("topic 0").unwrap();
    left.network.subscribe("one more").unwrap();
    assert_eq!(left.network.topics().len(), MAX_TOPICS);
    assert!(matches!(left.network.subscribe(""), Err(TopicError::Name { bytes: 0, .. })));
    assert!(matches!(left.network.publish(&"x".repeat(129), vec![1]), Err(TopicError::Name { bytes: 129, .. })));
    assert_eq!(left.network.publish("x", vec![0; 1001]), Err(TopicError::TooLarge { bytes: 1001, limit: 1000 }));
    left.network.shutdown().await;
    assert_eq!(left.network.publish("x", vec![0; 10]), Err(TopicError::Stopped));
    assert_eq!(left.network.subscribe("one more"), Err(TopicError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_of_the_largest_size_arrives() {
    let (left, mut right) = pair(|_| {}).await;
    right.network.subscribe("large").unwrap();
    let mut number = 0;
    let frame = loop {
        // Different bytes each time: the same would be taken for a duplicate.
        number += 1;
        left.network.publish("large", vec![number; 64 << 10]).unwrap();
        let wait = tokio::time::timeout(std::time::Duration::from_millis(200), gossip(&mut right));
        if let Ok((_, frame)) = wait.await {
            break frame;
        }
        assert!(number < 100);
    };
    assert_eq!(frame.len(), 64 << 10);
}
