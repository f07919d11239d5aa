//! Records and groups of the journal as the store lays them out.
#![no_main]

use khufu_fuzz::run;
use khufu_store::fuzzing::{deleted, journal, pieces, record, record_at_front};
use libfuzzer_sys::fuzz_target;

/// The first bytes of a record before its key, and where its checksum is.
const HEADER: usize = 23;

/// The first bytes of a group in the journal before its writes, of which the last four are its checksum.
const GROUP_HEADER: usize = 36;

/// Makes the checksum right that is the end of a header, so that what lies behind that check is reached.
fn mend(bytes: &mut [u8], header: usize) {
    if bytes.len() >= header {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..header - 4]);
        crc.update(&bytes[header..]);
        let crc = crc.finalize().to_le_bytes();
        bytes[header - 4..header].copy_from_slice(&crc);
    }
}

/// Makes a group of all that is there.
fn mend_group(bytes: &mut [u8]) {
    if let Some(length) = bytes.len().checked_sub(GROUP_HEADER) {
        bytes[..4].copy_from_slice(b"KhJ1");
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        mend(bytes, GROUP_HEADER);
    }
}

fuzz_target!(|input: &[u8]| run(|| {
    let Some((flags, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if flags & 2 == 2 {
        mend_group(&mut bytes);
    } else if flags & 1 == 1 {
        mend(&mut bytes, HEADER);
    }
    let (in_order, all) = journal(&bytes);
    assert!(in_order <= all && all * GROUP_HEADER <= bytes.len());
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
