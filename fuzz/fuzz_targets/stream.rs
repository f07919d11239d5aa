//! The stream of frames that a peer sends.
#![no_main]

use khufu_p2p::fuzzing::frames;
use libfuzzer_sys::fuzz_target;

const MAX: usize = 1000;

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let found = runtime.block_on(frames(input, MAX));
    // They are the beginning of what was sent, byte for byte.
    let mut sent = Vec::new();
    for frame in &found {
        assert!(!frame.is_empty() && frame.len() <= MAX);
        sent.extend_from_slice(&u32::try_from(frame.len()).expect("it is small").to_be_bytes());
        sent.extend_from_slice(frame);
    }
    assert!(input.starts_with(&sent));
    // Nothing that is whole was left out.
    let rest = &input[sent.len()..];
    if let Some((length, rest)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        assert!(length == 0 || length > MAX || rest.len() < length);
    }
}));
