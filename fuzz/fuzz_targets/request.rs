//! What users ask, as JSON.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use khufu_engine::Request;
use khufu_fuzz::{Site, split, two_sites};
use libfuzzer_sys::fuzz_target;

fn stored() -> BTreeMap<Vec<u8>, Vec<u8>> {
    static STORED: OnceLock<BTreeMap<Vec<u8>, Vec<u8>>> = OnceLock::new();
    STORED.get_or_init(|| two_sites().0.stored).clone()
}

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let requests: Vec<Request> =
        split(input).into_iter().take(8).filter_map(|(_, part)| serde_json::from_slice(part).ok()).collect();
    if requests.is_empty() {
        return;
    }
    let mut paris = Site::new("paris", stored(), false).expect("what was stored can be started from");
    for request in requests {
        if let Some(Ok(answer)) = paris.ask(request) {
            serde_json::to_string(&answer).expect("an answer can be written");
        }
        paris.pass(100_000);
    }
    paris.pass(30_000_000);
    assert!(Site::new("paris", paris.stored, false).is_ok());
}));
