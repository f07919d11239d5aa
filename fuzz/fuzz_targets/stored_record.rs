//! Records as the store lays them out.
#![no_main]

use khufu_fuzz::run;
use khufu_store::fuzzing::{deleted, pieces, record, record_at_front};
use libfuzzer_sys::fuzz_target;

/// The first bytes of a record before its key, and where its checksum is.
const HEADER: usize = 23;

/// Makes the checksum of a record right, so that what lies behind that check is reached.
fn mend(bytes: &mut [u8]) {
    if bytes.len() >= HEADER {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..19]);
        crc.update(&bytes[HEADER..]);
        let crc = crc.finalize().to_le_bytes();
        bytes[19..HEADER].copy_from_slice(&crc);
    }
}

fuzz_target!(|input: &[u8]| run(|| {
    let Some((flags, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if flags & 1 == 1 {
        mend(&mut bytes);
    }
    if let Some((key, length)) = record_at_front(&bytes) {
        assert!(length <= bytes.len());
        let again = record(&key, &bytes[..length]).expect("it was read once");
        assert_eq!(again, &bytes[..length], "what is read is written the same");
        assert_eq!(record(&key, &bytes).is_some(), length == bytes.len());
        let mut other = key.clone();
        other.push(0);
        assert_eq!(record(&other, &bytes[..length]), None);
    }
    if let Some(again) = pieces(&bytes) {
        assert_eq!(again, bytes);
    }
    assert!(deleted(&bytes).iter().map(|key| key.len() + 2).sum::<usize>() <= bytes.len());
}));
