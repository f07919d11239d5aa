//! Wrong keys, garbage, blocks.

use khufu_p2p::{Config, Event, Psk, Refusal};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Node, config, pair, start, start_with_metrics, text, until};

async fn handshake_refusal(node: &mut Node) -> Refusal {
    node.find("a failed handshake", |event| match event {
        Event::Refused { reason, address: Some(_), .. } if matches!(reason, Refusal::Handshake { .. }) => {
            Some(reason.clone())
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_is_refused_and_both_sides_are_told_their_fingerprint() {
    let (right_key, wrong_key) = (Psk::generate(), Psk::generate());
    let mut inside = start(config(Some(right_key))).await;
    for psk in [Some(wrong_key), None] {
        let mut outside = start(Config { bootstrap: vec![inside.full_address()], ..config(psk) }).await;
        let text = handshake_refusal(&mut outside).await.to_string();
        match psk {
            Some(psk) => assert!(text.contains(&psk.fingerprint()) && text.contains("PSK"), "{text}"),
            None => assert!(text.contains("no PSK"), "{text}"),
        }
        let text = handshake_refusal(&mut inside).await.to_string();
        assert!(text.contains(&right_key.fingerprint()), "{text}");
        assert_eq!(outside.peers().await, Vec::<String>::new());
    }
    assert!(!inside.seen.iter().any(|event| matches!(event, Event::PeerUp { .. })), "{:#?}", inside.seen);
    let mut member = start(Config { bootstrap: vec![inside.address.clone()], ..config(Some(right_key)) }).await;
    member.until_up(&inside.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_outside_does_not_stop_a_node() {
    for psk in [None, Some(Psk::generate())] {
        let mut node = start(config(psk)).await;
        let target = node.address.trim_start_matches("/ip4/").replace("/tcp/", ":");
        let silent = TcpStream::connect(&target).await.unwrap();
        for content in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            &[0; 4096],
            &[0xff; 65536],
            b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff",
            b"",
        ] {
            let mut stream = TcpStream::connect(&target).await.unwrap();
            let _ = stream.write_all(content).await;
            let _ = stream.shutdown().await;
            // Until the node has hung up on it.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        let reason = handshake_refusal(&mut node).await;
        assert_eq!(reason.kind(), "handshake");
        let mut member = start(Config { bootstrap: vec![node.address.clone()], ..config(psk) }).await;
        member.until_up(&node.id()).await;
        drop(silent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_peer_is_out_in_both_directions_until_it_is_unblocked() {
    let mut registries = [Registry::default(), Registry::default()];
    let [first, second] = &mut registries;
    let mut left = start_with_metrics(config(None), first).await;
    let joining = Config { bootstrap: vec![left.address.clone()], ..config(None) };
    let mut right = start_with_metrics(joining, second).await;
    let (left_id, right_id) = (left.id(), right.id());
    left.until_up(&right_id).await;
    right.until_up(&left_id).await;
    // The side that is dialled blocks, and then the side that dials.
    for (round, metrics) in (0_u8..).zip(&registries) {
        let (blocker, blocked) = if round == 0 { (&mut left, &mut right) } else { (&mut right, &mut left) };
        let (blocker_id, blocked_id) = if round == 0 { (&left_id, &right_id) } else { (&right_id, &left_id) };
        blocker.network.block(blocked_id).unwrap();
        blocker.until_down(blocked_id).await;
        blocked.until_down(blocker_id).await;
        assert_eq!(blocker.network.blocked(), [blocked_id.as_str()]);
        blocked.network.dial(&blocker.full_address()).unwrap();
        blocker
            .find("the blocked peer to be refused", |event| {
                matches!(event, Event::Refused { reason: Refusal::Blocked, .. }).then_some(())
            })
            .await;
        // By its name, which is not even tried, and by its address, where its name shows on the way.
        blocker.network.dial(&blocked.full_address()).unwrap();
        blocker.network.dial(&blocked.address).unwrap();
        until("the node to have refused itself the blocked peer", || async {
            text(metrics).lines().any(|line| {
                line.starts_with("libp2p_swarm_outgoing_connection_error")
                    && line.contains("Denied")
                    && !line.ends_with(" 0")
            })
        })
        .await;
        assert_eq!(blocker.peers().await, Vec::<String>::new());
        blocker.network.unblock(blocked_id).unwrap();
        blocker.until_up(blocked_id).await;
        blocked.until_up(blocker_id).await;
        assert_eq!(blocker.network.blocked(), Vec::<String>::new());
        for node in [&mut *blocker, &mut *blocked] {
            let flapped = node.seen.iter().any(|event| matches!(event, Event::PeerUp { .. } | Event::PeerDown { .. }));
            assert!(!flapped, "a refused peer is never up: {:#?}", node.seen);
        }
        let (from, to) = (blocked_id.clone(), blocker_id.clone());
        blocked.network.send(&to, vec![7]).unwrap();
        assert_eq!(blocker.frame().await, (from, vec![7]));
    }
    assert!(left.network.block("nobody").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_disconnected_comes_back() {
    let (mut left, mut right) = pair(|_| {}).await;
    let (left_id, right_id) = (left.id(), right.id());
    for _ in 0..3 {
        left.network.disconnect(&right_id).unwrap();
        left.until_down(&right_id).await;
        right.until_down(&left_id).await;
        left.until_up(&right_id).await;
        right.until_up(&left_id).await;
    }
}
