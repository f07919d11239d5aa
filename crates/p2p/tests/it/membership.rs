//! Finding each other, and finding each other again.

use khufu_p2p::{Config, Discovery, Event, Identity, Psk};

use prometheus_client::registry::Registry;

use crate::support::{config, start, start_with_metrics, text, until};

/// An address at which nobody listens for now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_one_find_all() {
    let psk = Some(Psk::generate());
    let first = start(config(psk)).await;
    let mut nodes = vec![first];
    for _ in 0..4 {
        // Without a peer id.
        let bootstrap = vec![nodes[0].address.clone()];
        nodes.push(start(Config { bootstrap, ..config(psk) }).await);
    }
    for node in &nodes {
        until("all to be connected to all", || async { node.peers().await.len() == 4 }).await;
    }
    let (left, right) = nodes.split_at_mut(4);
    let (from, to) = (&left[3], &mut right[0]);
    from.network.send(&to.id(), b"direct".to_vec()).unwrap();
    assert_eq!(to.frame().await, (from.id(), b"direct".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_is_found_again_by_all() {
    let psk = Some(Psk::generate());
    let identity = Identity::generate();
    let hub = start(Config { identity: identity.clone(), ..config(psk) }).await;
    let mut with_id = start(Config { bootstrap: vec![hub.full_address()], ..config(psk) }).await;
    let mut without_id = start(Config { bootstrap: vec![hub.address.clone()], ..config(psk) }).await;
    let id = hub.id();
    with_id.until_up(&id).await;
    without_id.until_up(&id).await;
    for _ in 0..2 {
        hub.network.shutdown().await;
    }
    with_id.until_down(&id).await;
    without_id.until_down(&id).await;
    let again = Config { identity: identity.clone(), listen: vec![hub.address.clone()], ..config(psk) };
    let hub = start(again).await;
    with_id.until_up(&id).await;
    without_id.until_up(&id).await;
    until("both to be back", || async { hub.peers().await.len() == 2 }).await;
    with_id.network.send(&id, vec![1]).unwrap();
    let mut hub = hub;
    assert_eq!(hub.frame().await, (with_id.id(), vec![1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_peer_is_dialled_and_a_wrong_one_is_told() {
    let mut first = start(config(None)).await;
    let second = start(Config { known: vec![first.full_address()], ..config(None) }).await;
    first.until_up(&second.id()).await;
    let stranger = Identity::generate().peer_id();
    let wrong = format!("{}/p2p/{stranger}", first.address);
    let mut third = start(Config { bootstrap: vec![wrong], kademlia: false, ..config(None) }).await;
    let first_id = first.id();
    third
        .find("a refusal", |event| match event {
            Event::Refused { peer, reason, .. } => {
                (peer.as_ref() == Some(&stranger) && reason.to_string().contains(&first_id)).then_some(())
            }
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_says_of_itself_can_be_kept_for_the_next_start() {
    let left = start(config(None)).await;
    // Also when it is what was known already.
    let mut right = start(Config { known: vec![left.full_address()], ..config(None) }).await;
    let (peer, addresses) = right
        .find("a discovery", |event| match event {
            Event::Discovered { peer, addresses, source: Discovery::Identify } => {
                Some((peer.clone(), addresses.clone()))
            }
            _ => None,
        })
        .await;
    assert_eq!((peer, addresses), (left.id(), vec![left.full_address()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_dial_each_other_at_once_end_with_one_session() {
    // Ports known beforehand, so that both dial from the first moment.
    for _ in 0..5 {
        let addresses = [free_address(), free_address()];
        let node =
            |own: usize| Config { listen: vec![addresses[own].clone()], bootstrap: addresses.to_vec(), ..config(None) };
        let (mut left, mut right) = tokio::join!(start(node(0)), start(node(1)));
        let (left_id, right_id) = (left.id(), right.id());
        left.until_up(&right_id).await;
        right.until_up(&left_id).await;
        for number in 0..100_u8 {
            left.network.send(&right_id, vec![number]).unwrap();
            right.network.send(&left_id, vec![number]).unwrap();
        }
        for number in 0..100 {
            assert_eq!(left.frame().await.1, [number]);
            assert_eq!(right.frame().await.1, [number]);
        }
        for node in [&left, &right] {
            let flapped = node.seen.iter().any(|event| matches!(event, Event::PeerDown { .. } | Event::PeerUp { .. }));
            assert!(!flapped, "{:#?}", node.seen);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_there_yet_is_waited_for_without_alarm() {
    for psk in [None, Some(Psk::generate())] {
        let place = free_address();
        let mut registry = Registry::default();
        let early = Config { bootstrap: vec![place.clone()], ..config(psk) };
        let mut early = start_with_metrics(early, &mut registry).await;
        // Until it has tried in vain.
        until("a failed attempt", || async { text(&registry).contains("outgoing_connection_error_total{") }).await;
        let late = start(Config { listen: vec![place], ..config(psk) }).await;
        early.until_up(&late.id()).await;
        let refused = early.seen.iter().any(|event| matches!(event, Event::Refused { .. }));
        assert!(!refused, "{:#?}", early.seen);
    }
}
