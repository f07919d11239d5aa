//! What a node finds on its disk: index, documents, what was done, reports, the clock.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use khufu_engine::{Input, NodeId, Put, Request};
use khufu_fuzz::{Site, split, two_sites};
use libfuzzer_sys::fuzz_target;

fn keys() -> &'static [Vec<u8>] {
    static KEYS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    KEYS.get_or_init(|| two_sites().0.stored.into_keys().collect())
}

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let mut stored = BTreeMap::new();
    let parts = split(input);
    let doubtful = parts.len() % 2 == 1;
    for (kind, part) in parts.into_iter().take(64) {
        match keys().get(usize::from(kind)) {
            Some(key) => drop(stored.insert(key.clone(), part.to_vec())),
            // A key of its own, up to the first zero but for those in the number of an epoch.
            None => {
                let (key, value) = part.split_at(part.len().min(usize::from(u8::MAX - kind)));
                stored.insert(key.to_vec(), value.to_vec());
            }
        }
    }
    let Ok(mut paris) = Site::new("paris", stored, doubtful) else { return };
    paris.hand(Input::PeerUp { node: NodeId("node-rennes".into()) });
    paris.pass(3_000_000);
    for id in ["web", "log", "gone"] {
        let id: khufu_crdt::ReplicantId = id.parse().expect("an id");
        let _ = paris.ask(Request::Get { id: id.clone() });
        let _ = paris.ask(Request::Plan { id: id.clone() });
        let put = Put {
            id: id.clone(),
            kind: Some("text".into()),
            scope: None,
            policy: None,
            desired: Some(serde_json::json!({"a": 7})),
            overrides: None,
            base: None,
        };
        let _ = paris.ask(Request::Put(put));
        let _ = paris.ask(Request::Verify { id: Some(id) });
    }
    paris.pass(60_000_000);
    let after = Site::new("paris", paris.stored, false);
    assert!(after.is_ok(), "{:?}", after.err());
}));
