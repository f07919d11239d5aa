//! Starting, refusing to start, stopping.

use std::net::TcpListener;

use khufu_p2p::{Config, Network, Psk, SendError, StartError};
use prometheus_client::registry::Registry;

use crate::support::{config, pair, start, start_with_metrics, text};

fn refused(config: Config) -> StartError {
    Network::start(config).map(drop).unwrap_err()
}

#[tokio::test]
async fn without_a_key_the_node_stays_on_loopback() {
    for address in ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0", "/ip4/192.0.2.1/tcp/7000"] {
        let mut config = config(None);
        config.listen.push(address.into());
        let error = refused(config.clone());
        assert!(matches!(&error, StartError::OpenNetwork { address: named } if named == address), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("pre-shared key") && text.contains(address), "{text}");
    }
    for (psk, open_network) in [(None, true), (Some(Psk::generate()), false)] {
        let listen = vec!["/ip4/0.0.0.0/tcp/0".to_owned()];
        let node = start(Config { listen, open_network, ..config(psk) }).await;
        assert!(!node.address.contains("0.0.0.0"), "{}", node.address);
    }
    let loopback = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.3.2.1/tcp/0"].map(str::to_owned).to_vec();
    start(Config { listen: loopback, ..config(None) }).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", other.local_addr().unwrap().port());
    let taken = |error: StartError| match error {
        StartError::Listen { address, reason } => {
            assert!(reason.contains("taken"), "{reason}");
            address
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(taken(refused(Config { listen: vec![address.clone()], ..config(None) })), address);
    // By another node as well, although libp2p lets two share a port.
    let node = start(config(None)).await;
    assert_eq!(taken(refused(Config { listen: vec![node.address.clone()], ..config(None) })), node.address);
    node.network.shutdown().await;
    start(Config { listen: vec![node.address.clone()], ..config(None) }).await;
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = config(None);
        change(&mut config);
        refused(config).to_string()
    };
    let named = |text: String, parts: &[&str]| assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    named(with(&|config| config.listen = vec!["localhost:7000".into()]), &["listen", "localhost:7000", "/ip4/"]);
    named(with(&|config| config.listen = vec!["/ip4/127.0.0.1/udp/1/quic-v1".into()]), &["listen", "TCP"]);
    named(with(&|config| config.listen = vec!["x".repeat(100_000)]), &["listen", "too long"]);
    named(with(&|config| config.bootstrap = vec!["/ip4/1.2.3.4".into()]), &["bootstrap", "/ip4/1.2.3.4"]);
    named(with(&|config| config.bootstrap = vec!["/ip4/1.2.3.4/tcp/1/p2p/nobody".into()]), &["bootstrap", "nobody"]);
    named(with(&|config| config.known = vec!["/ip4/1.2.3.4/tcp/1".into()]), &["known", "/p2p/"]);
    named(with(&|config| config.announce = vec!["".into()]), &["announce"]);
    named(with(&|config| config.limits.max_frame_bytes = 0), &["max_frame_bytes", "0"]);
    named(with(&|config| config.limits.event_queue = 0), &["event_queue"]);
    named(with(&|config| config.timing.ping_interval = std::time::Duration::ZERO), &["ping_interval"]);
    named(with(&|config| config.timing.redial_max = std::time::Duration::ZERO), &["redial_max"]);
}

#[test]
fn a_runtime_is_needed() {
    assert!(matches!(refused(config(None)), StartError::NoRuntime));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_is_gone() {
    let (left, mut right) = pair(|_| {}).await;
    left.network.shutdown().await;
    left.network.shutdown().await;
    right.until_down(&left.id()).await;
    assert!(matches!(left.network.send(&right.id(), vec![1]), Err(SendError::NotConnected { .. })));
    assert_eq!(left.peers().await, Vec::<String>::new());
    // Also when nobody holds a handle, and when nobody wants its events.
    for keep_events in [true, false] {
        let mut other = start(Config { bootstrap: vec![right.address.clone()], psk: None, ..config(None) }).await;
        drop(other.network.clone());
        let (network, mut events) = (other.network, other.events);
        if keep_events {
            drop(network);
            while events.recv().await.is_some() {}
        } else {
            drop(events);
            network.shutdown().await;
        }
        other.seen.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_described() {
    let (left, right) = pair(|_| {}).await;
    crate::support::until("identification and a ping", || async {
        left.network.peers().await.iter().all(|peer| peer.agent.is_some() && peer.rtt_ms.is_some())
    })
    .await;
    let peer = left.network.peers().await.pop().unwrap();
    assert_eq!(peer.id, right.id());
    assert_eq!(peer.addresses, [right.full_address()]);
    assert_eq!(peer.agent.as_deref(), Some(concat!("khufu/", env!("CARGO_PKG_VERSION"))));
    assert!(peer.rtt_ms.unwrap() > 0.0 && peer.rtt_ms.unwrap() < 30_000.0);
    assert!(!peer.outbound && right.network.peers().await.pop().unwrap().outbound);
    assert_eq!(left.network.listen_addresses(), [left.address.as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_libp2p_and_ours() {
    let mut registry = Registry::default();
    let mut node = start_with_metrics(config(None), &mut registry).await;
    let mut other = start(Config { bootstrap: vec![node.address.clone()], ..config(None) }).await;
    other.until_up(&node.id()).await;
    other.network.send(&node.id(), vec![1, 2, 3]).unwrap();
    node.frame().await;
    let text = text(&registry);
    for line in [
        "khufu_p2p_frames_total{direction=\"in\"} 1",
        "khufu_p2p_frame_bytes_total{direction=\"in\"} 3",
        "khufu_p2p_peers 1",
        "libp2p_swarm_connections_established_total",
        "libp2p_bandwidth_bytes_total",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
