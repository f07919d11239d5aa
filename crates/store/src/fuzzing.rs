//! What reads bytes of the disk, for the fuzz targets.

use crate::disk::{deleted_keys, journal};
use crate::record::{self, Chunks, Kind};

/// Reads a record that is stored under `key`, and gives it as it would be written again. None if it is damaged.
#[must_use]
pub fn record(key: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
    let read = record::decode(key, stored).ok()?;
    Some(record::encode(read.kind, read.sequence, read.key, read.payload))
}

/// The key of the record at the start of `bytes`, and how long it is with all that belongs to it.
#[must_use]
pub fn record_at_front(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let read = record::decode_front(bytes).ok()?;
    Some((read.key.to_vec(), record::HEADER + read.key.len() + read.payload.len()))
}

/// A record as the store writes it.
#[must_use]
pub fn write_record(key: &[u8], payload: &[u8]) -> Vec<u8> {
    record::encode(Kind::Inline, 1, key, payload)
}

/// Reads where the pieces of a large value are, and gives it as it would be written again.
#[must_use]
pub fn pieces(payload: &[u8]) -> Option<Vec<u8>> {
    Chunks::decode(payload).map(Chunks::encode)
}

/// How many groups of writes there are in the bytes of a journal: in order from the front, and wherever they are.
#[must_use]
pub fn journal(bytes: &[u8]) -> (usize, usize) {
    let remains = journal::remains(bytes);
    (journal::turn(bytes).groups.len(), remains.fresh.len() + remains.stale.len())
}

/// The keys that the note of a group of batches names as deleted.
#[must_use]
pub fn deleted(payload: &[u8]) -> Vec<Vec<u8>> {
    deleted_keys(payload).into_iter().map(<[u8]>::to_vec).collect()
}
