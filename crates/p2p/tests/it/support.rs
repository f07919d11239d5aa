//! Nodes for tests. Everything waits for a condition, and gives up loudly after [`PATIENCE`].

use std::collections::VecDeque;
use std::time::Duration;

use khufu_p2p::{Config, Event, Identity, Network, Psk};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far more than anything needs, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) network: Network,
    pub(crate) events: mpsc::Receiver<Event>,
    /// Seen while looking for something else.
    pub(crate) seen: VecDeque<Event>,
    pub(crate) address: String,
}

pub(crate) fn config(psk: Option<Psk>) -> Config {
    Config { psk, ..Config::fast(Identity::generate()) }
}

pub(crate) async fn start(config: Config) -> Node {
    start_with_metrics(config, &mut Registry::default()).await
}

/// What `registry` shows.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

pub(crate) async fn start_with_metrics(config: Config, registry: &mut Registry) -> Node {
    let (network, events) = Network::start_with_metrics(config, registry).unwrap();
    let mut node = Node { network, events, seen: VecDeque::new(), address: String::new() };
    node.address = node
        .find("a listen address", |event| match event {
            Event::Listening { address } => Some(address.clone()),
            _ => None,
        })
        .await;
    node
}

/// Two nodes that are up to each other.
pub(crate) async fn pair(change: impl Fn(&mut Config)) -> (Node, Node) {
    let psk = Some(Psk::generate());
    let mut first = config(psk);
    change(&mut first);
    let mut left = start(first).await;
    let mut second = config(psk);
    second.bootstrap = vec![left.address.clone()];
    change(&mut second);
    let mut right = start(second).await;
    let (left_id, right_id) = (left.id(), right.id());
    left.until_up(&right_id).await;
    right.until_up(&left_id).await;
    (left, right)
}

impl Node {
    pub(crate) fn id(&self) -> String {
        self.network.peer_id().to_owned()
    }

    pub(crate) fn full_address(&self) -> String {
        format!("{}/p2p/{}", self.address, self.id())
    }

    /// The first event that `matches`, from among those seen before and those still to come; the others are kept.
    pub(crate) async fn find<T>(&mut self, what: &str, mut matches: impl FnMut(&Event) -> Option<T>) -> T {
        for index in 0..self.seen.len() {
            if let Some(found) = matches(&self.seen[index]) {
                self.seen.remove(index);
                return found;
            }
        }
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = matches(&event) {
                    return found;
                }
                self.seen.push_back(event);
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("{} waited in vain for {what}; it saw {:#?}", self.network.peer_id(), self.seen),
        }
    }

    pub(crate) async fn until_up(&mut self, peer: &str) {
        self.find("a peer to be up", |event| {
            matches!(event, Event::PeerUp { peer: up, .. } if up == peer).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_down(&mut self, peer: &str) {
        self.find("a peer to be down", |event| {
            matches!(event, Event::PeerDown { peer: down, .. } if down == peer).then_some(())
        })
        .await;
    }

    pub(crate) async fn frame(&mut self) -> (String, Vec<u8>) {
        self.find("a frame", |event| match event {
            Event::Frame { from, frame } => Some((from.clone(), frame.clone())),
            _ => None,
        })
        .await
    }

    pub(crate) async fn peers(&self) -> Vec<String> {
        self.network.peers().await.into_iter().map(|peer| peer.id).collect()
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let search = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
