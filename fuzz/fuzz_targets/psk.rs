//! The text of a `swarm.key`, and addresses.
#![no_main]

use khufu_p2p::{Psk, check_address};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let digits = |text: &str| text.split_whitespace().last().unwrap_or_default().to_lowercase();
    match Psk::parse(text) {
        Ok(key) => {
            assert_eq!(key.fingerprint().len(), 32);
            // Nobody sees the key by accident.
            assert!(!format!("{key:?}{key}").to_lowercase().contains(&digits(text)));
        }
        Err(error) => {
            let (said, digits) = (error.to_string(), digits(text));
            assert!(digits.len() < 32 || !said.to_lowercase().contains(&digits), "{said}");
        }
    }
    let _ = check_address(text);
}));
