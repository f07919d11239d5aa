//! Policy files: YAML or JSON of operators, and what of it stands in documents.
#![no_main]

#[path = "../../crates/cli/src/input.rs"]
#[allow(dead_code)]
mod input;

use khufu_crdt::Policy;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| khufu_fuzz::run(|| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let value: Value = match input::parse("policy.yaml", text) {
        Ok(value) => value,
        Err(error) => return assert!(error.to_string().contains("policy.yaml")),
    };
    // What stands in a document is read with less strictness, and never refused as a whole.
    if let Ok(policy) = Policy::deserialize(&value) {
        let _ = policy.warnings();
    }
    match Policy::parse(value) {
        Ok(policy) => {
            let _ = policy.warnings();
            let written = serde_json::to_value(&policy).expect("a policy can be written");
            assert_eq!(Policy::parse(written).expect("what is written can be read"), policy);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}));
