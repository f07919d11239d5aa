//! Site records, as others sign them and as they are stored.
#![no_main]

use std::collections::BTreeMap;

use khufu_engine::{Input, NodeId, Request};
use khufu_fuzz::{Site, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let mut stored = BTreeMap::new();
    let mut frames = Vec::new();
    for (n, (kind, part)) in split(input).into_iter().take(16).enumerate() {
        match kind % 3 {
            0 => drop(stored.insert(format!("m/node/{n}").into_bytes(), part.to_vec())),
            1 => frames.push((true, part.to_vec())),
            _ => frames.push((false, part.to_vec())),
        }
    }
    let mut paris = Site::new("paris", stored, false).expect("a record of another node keeps none from starting");
    let rennes = NodeId("node-rennes".into());
    paris.hand(Input::PeerUp { node: rennes.clone() });
    for (gossip, bytes) in frames {
        paris.hand(match gossip {
            true => Input::Gossip { source: rennes.clone(), bytes },
            false => Input::Frame { from: rennes.clone(), bytes },
        });
    }
    paris.pass(5_000_000);
    assert!(matches!(paris.ask(Request::Sites), Some(Ok(_))));
    for scope in ["all", "2 of {country=fr}"] {
        let _ = paris.ask(Request::Explain { scope: scope.into() });
    }
    assert!(Site::new("paris", paris.stored, false).is_ok());
}));
