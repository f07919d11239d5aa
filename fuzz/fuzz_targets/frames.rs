//! Frames and gossip that a node gets from others, one after the other.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use khufu_engine::{Input, NodeId, Request};
use khufu_fuzz::{Site, split, two_sites};
use libfuzzer_sys::fuzz_target;

/// What a site holds that has met another.
fn stored() -> BTreeMap<Vec<u8>, Vec<u8>> {
    static STORED: OnceLock<BTreeMap<Vec<u8>, Vec<u8>>> = OnceLock::new();
    STORED.get_or_init(|| two_sites().0.stored).clone()
}

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let rennes = NodeId("node-rennes".into());
    let stranger = NodeId("node-stranger".into());
    let mut paris = Site::new("paris", stored(), false).expect("what was stored can be started from");
    paris.hand(Input::PeerUp { node: rennes.clone() });
    for (kind, part) in split(input).into_iter().take(32) {
        let bytes = part.to_vec();
        match kind % 4 {
            0 => paris.hand(Input::Frame { from: rennes.clone(), bytes }),
            1 => paris.hand(Input::Gossip { source: rennes.clone(), bytes }),
            2 => {
                paris.hand(Input::PeerUp { node: stranger.clone() });
                paris.hand(Input::Frame { from: stranger.clone(), bytes });
            }
            _ => paris.pass(u64::try_from(part.len()).unwrap_or(0) * 1000),
        }
    }
    paris.pass(10_000_000);
    for id in ["web", "log", "gone"] {
        let _ = paris.ask(Request::Get { id: id.parse().expect("an id") });
    }
    let _ = paris.ask(Request::Sites);
    let listed = paris.ask(Request::List(khufu_engine::ListQuery { limit: 100, ..Default::default() }));
    assert!(matches!(listed, Some(Ok(_))), "{listed:?}");
    // What it has written down is something to start from.
    let after = Site::new("paris", paris.stored, false);
    assert!(after.is_ok(), "{:?}", after.err());
}));
