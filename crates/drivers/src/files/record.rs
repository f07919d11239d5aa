//! How a journal is written down.
//!
//! A journal begins with a header: eight letters, the generation, a random seed, and a checksum of these; all numbers are
//! little-endian. Records follow, each at a multiple of eight bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `Khu1` |
//! | 4 | how many bytes the body has |
//! | 8 | the record's number in the journal, greater than that of all before |
//! | 4 | checksum of the body |
//! | 4 | checksum of the 20 bytes before, begun with the seed of the header |
//! | | the body: how many bytes the entry has (4), the entry as JSON, and the new contents |
//!
//! So nothing is taken for a record that was written under another header, wherever it lies.

use khufu_crdt::ReplicantId;
use serde::{Deserialize, Serialize};

use super::MAX_FILE_BYTES;
use super::note::State;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const HEAD_BYTES: usize = 24;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
const MAX_ENTRY_BYTES: usize = 16 << 10;
/// The most bytes that the body of a record has.
pub(super) const MAX_BODY_BYTES: usize = 4 + MAX_ENTRY_BYTES + MAX_FILE_BYTES;

const MAGIC: &[u8; 8] = b"KhufuJrn";
pub(super) const MARK: &[u8; 4] = b"Khu1";

/// What one record says about its replica, beside the contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: ReplicantId,
    /// Grows with every change of the replica.
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// What the file was [known by](super::place::Found::mark) before.
    pub(super) found: Option<String>,
    /// Its permissions before.
    pub(super) mode: Option<u32>,
    /// The state afterwards.
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// The file has the contents of this record.
    Written,
    /// There is no file.
    Removed,
    /// There is no file, and nothing is remembered of it.
    Forgotten,
    /// The last record of this replica, which has the same number, did not happen after all.
    Void,
}

/// What a journal says at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Of two journals, the one with the greater generation is newer.
    pub(super) generation: u64,
    pub(super) seed: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seed.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let good = bytes.starts_with(MAGIC) && u32_at(bytes, 24)? == crc32fast::hash(&bytes[..24]);
        Some(Self { generation: u64_at(bytes, 8)?, seed: u64_at(bytes, 16)? }).filter(|_| good)
    }
}

/// A body on its way into a journal.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    sum: u32,
}

impl Body {
    /// None if it is larger than a body may be.
    pub(super) fn new(entry: &Entry, contents: &[u8]) -> Option<Self> {
        let json = serde_json::to_vec(entry).ok().filter(|json| json.len() <= MAX_ENTRY_BYTES)?;
        let length = u32::try_from(json.len()).ok()?;
        let bytes = [&length.to_le_bytes(), json.as_slice(), contents].concat();
        let sum = crc32fast::hash(&bytes);
        (bytes.len() <= MAX_BODY_BYTES).then_some(Self { bytes, sum })
    }

    /// How many bytes the record will have.
    pub(super) fn record_bytes(&self) -> usize {
        (HEAD_BYTES + self.bytes.len()).next_multiple_of(ALIGN)
    }

    /// Writes the record behind others.
    pub(super) fn put(&self, seed: u64, sequence: u64, into: &mut Vec<u8>) {
        let from = into.len();
        into.extend_from_slice(MARK);
        into.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        into.extend_from_slice(&sequence.to_le_bytes());
        into.extend_from_slice(&self.sum.to_le_bytes());
        let sum = head_sum(seed, &into[from..]);
        into.extend_from_slice(&sum.to_le_bytes());
        into.extend_from_slice(&self.bytes);
        into.resize(from + self.record_bytes(), 0);
    }
}

/// The part of a record before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) sequence: u64,
    sum: u32,
}

impl Head {
    /// None unless it was written under this seed.
    pub(super) fn decode(seed: u64, bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        if !bytes.starts_with(MARK) || u32_at(bytes, 20)? != head_sum(seed, &bytes[..20]) {
            return None;
        }
        let length = u32_at(bytes, 4)? as usize;
        Some(Self { length, sequence: u64_at(bytes, 8)?, sum: u32_at(bytes, 16)? }).filter(|_| length <= MAX_BODY_BYTES)
    }

    /// How many bytes the record has.
    pub(super) fn record_bytes(self) -> u64 {
        (HEAD_BYTES + self.length).next_multiple_of(ALIGN) as u64
    }

    /// The entry of a body, and where in it the contents begin. None if the body is not the one of this head.
    pub(super) fn entry(self, body: &[u8]) -> Option<(Entry, usize)> {
        if body.len() != self.length || crc32fast::hash(body) != self.sum {
            return None;
        }
        let end = (u32_at(body, 0)? as usize).checked_add(4)?;
        Some((serde_json::from_slice(body.get(4..end)?).ok()?, end))
    }
}

fn head_sum(seed: u64, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(head);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
