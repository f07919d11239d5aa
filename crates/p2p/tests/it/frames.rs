//! Frames between two peers.

use khufu_p2p::{Event, Limits, SendError};

use crate::support::{PATIENCE, config, pair, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_frames_arrive_in_order_both_ways() {
    const FRAMES: u32 = 10_000;
    let (left, right) = pair(|_| {}).await;
    let (left_id, right_id) = (left.id(), right.id());
    let run = |mut node: crate::support::Node, to: String| async move {
        let network = node.network.clone();
        let sender = async {
            for number in 0..FRAMES {
                let frame = || [number.to_be_bytes().as_slice(), &vec![7; (number % 300) as usize]].concat();
                while let Err(error) = network.send(&to, frame()) {
                    assert!(matches!(error, SendError::QueueFull { .. }), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        };
        let receiver = async {
            for number in 0..FRAMES {
                let (from, frame) = node.frame().await;
                assert_eq!(from, to);
                assert_eq!(frame[..4], number.to_be_bytes());
                assert_eq!(frame.len(), 4 + (number % 300) as usize);
            }
        };
        tokio::join!(sender, receiver);
        let peer = node.network.peers().await.pop().unwrap();
        assert_eq!(peer.frames_in, u64::from(FRAMES));
        // Stays alive until the other is through as well.
        node
    };
    let both = async { tokio::join!(run(left, right_id), run(right, left_id)) };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_have_a_size() {
    let (left, mut right) = pair(|config| config.limits.max_frame_bytes = 1 << 20).await;
    let to = right.id();
    assert_eq!(left.network.send(&to, vec![]), Err(SendError::Empty));
    let limit = 1 << 20;
    assert_eq!(left.network.send(&to, vec![0; limit + 1]), Err(SendError::TooLarge { bytes: limit + 1, limit }));
    left.network.send(&to, vec![1; limit]).unwrap();
    left.network.send(&to, vec![2]).unwrap();
    assert_eq!(right.frame().await.1, vec![1; limit]);
    assert_eq!(right.frame().await.1, [2]);
    for nobody in ["", "nobody", &left.id()] {
        assert!(matches!(left.network.send(nobody, vec![1]), Err(SendError::NotConnected { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_too_much_is_refused() {
    let mut left = start(config(None)).await;
    let mut small = config(None);
    small.bootstrap = vec![left.full_address()];
    small.limits.max_frame_bytes = 1000;
    let mut right = start(small).await;
    let (left_id, right_id) = (left.id(), right.id());
    left.until_up(&right_id).await;
    right.until_up(&left_id).await;
    left.network.send(&right_id, vec![1; 1000]).unwrap();
    left.network.send(&right_id, vec![2; 1001]).unwrap();
    assert_eq!(right.frame().await.1.len(), 1000);
    let reason = right
        .find("a refusal", |event| match event {
            Event::Refused { peer: Some(peer), reason, .. } if *peer == left_id => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert_eq!(reason, khufu_p2p::Refusal::Oversized { bytes: 1001, limit: 1000 });
    right.until_down(&left_id).await;
    left.until_down(&right_id).await;
    // It may come back and behave.
    left.until_up(&right_id).await;
    right.until_up(&left_id).await;
    left.network.send(&right_id, vec![3]).unwrap();
    assert_eq!(right.frame().await.1, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_fills_its_own_queue_only() {
    let tight = |bootstrap: Vec<String>| {
        let mut config = config(None);
        config.kademlia = false;
        config.bootstrap = bootstrap;
        config.limits = Limits { send_queue_frames: 8, event_queue: 4, ..Limits::default() };
        config
    };
    let mut hub = start(tight(vec![])).await;
    let deaf = start(tight(vec![hub.address.clone()])).await;
    let mut reader = start(tight(vec![hub.address.clone()])).await;
    hub.until_up(&deaf.id()).await;
    hub.until_up(&reader.id()).await;
    let (network, to) = (hub.network.clone(), deaf.id());
    // Filled to the brim again and again, since the network between takes some; what it takes has an end.
    let mut taken = 0_usize;
    let mut fill = || loop {
        assert!(taken < 64 << 20, "{taken} bytes went to a peer that reads nothing");
        match network.send(&to, vec![0; 64 << 10]) {
            Ok(()) => taken += 64 << 10,
            Err(error) => break error,
        }
    };
    for number in 0..100 {
        let error = fill();
        assert!(matches!(error, SendError::QueueFull { frames: 8, .. }), "{error:?}");
        while network.send(&reader.id(), vec![number]).is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.frame().await, (hub.id(), vec![number]));
    }
    drop(deaf);
}
