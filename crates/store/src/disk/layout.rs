//! What is where in sled, and the versions of that.
//!
//! Format 2: format 1, and what sled may not have yet is in the journal (see `journal.rs`).
//! Format 1: the tree `khufu-1` holds records (see `record.rs`) under `r<key>`, pieces of large values under `c<id><index>`,
//! and under `m…` the sequence number of the last group of batches and the group whose pieces are being written. The
//! tree `khufu-format` holds the number of the format.
//! Format 0: plain keys and values in sled's default tree, as the first experiments had them.

use std::any::Any;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::StoreError;
use crate::error::means_full;
use crate::record::{self, Kind};

/// The format that this version writes.
pub(super) const FORMAT: u32 = 2;

const FORMAT_TREE: &str = "khufu-format";
const FORMAT_KEY: &str = "version";
const DATA_TREE: &str = "khufu-1";

/// The sequence number of its record is that of the last group of batches. Its payload names the records that the group
/// deleted, as far as there is room: where records have to be found in the raw log, so can what became of them.
pub(super) const SEQUENCE: &[u8] = b"m-sequence";
/// Keys of records that name more which was deleted start with it.
pub(super) const DELETED: &[u8] = b"m-deleted-";
/// The most such records, which are written over and over.
const MOST_DELETED: u8 = 24;
/// There while pieces are written which no record refers to yet.
pub(super) const PENDING: &[u8] = b"m-pending";
/// Keys of pieces start with it.
pub(super) const CHUNK: u8 = b'c';
/// Keys of records start with it.
pub(super) const RECORD: u8 = b'r';

/// The size of a segment of sled's log: what it writes, and later uses again, as a whole.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;
/// Values up to this size are kept in their record. A leaf of sled's tree has up to 17 entries, each with its key twice,
/// and must stay below a quarter of a segment: else sled puts it into a file of its own, which it neither syncs nor
/// writes in order, and a power loss can then take old records along with new ones.
pub(super) const INLINE_BYTES: usize = 8 << 10;
/// Larger values are cut into pieces of this size.
pub(super) const CHUNK_BYTES: usize = 16 << 10;

pub(super) fn record_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(RECORD);
    out.extend_from_slice(key);
    out
}

pub(super) fn chunk_key(id: u64, index: u32) -> Vec<u8> {
    let mut out = vec![CHUNK];
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    out
}

/// The id in the key of a piece.
pub(super) fn chunk_id(key: &[u8]) -> Option<u64> {
    (key.len() == 13 && key.first() == Some(&CHUNK)).then_some(())?;
    key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

/// Runs something of sled's. It is known to panic on damage that it does not expect.
pub(super) fn guarded<T>(dir: &Path, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure(dir, error)),
        Err(panic) => Err(StoreError::Corrupt { dir: dir.to_owned(), reason: said(panic.as_ref()) }),
    }
}

/// What a panic said.
pub(super) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("sled stopped: {}", text.unwrap_or("without a reason"))
}

pub(super) fn failure(dir: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) if means_full(&source) => {
            StoreError::DiskFull { dir: dir.to_owned(), free: fs4::available_space(dir).unwrap_or(0) }
        }
        sled::Error::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt { dir: dir.to_owned(), reason: "a file is cut short".to_owned() }
        }
        sled::Error::Io(source) => StoreError::io("use the files under", dir, source),
        other => StoreError::Corrupt { dir: dir.to_owned(), reason: other.to_string() },
    }
}

/// What the store found when it looked at the format.
pub(super) enum Found {
    /// A store of the format of this version, or none yet.
    Current(sled::Tree),
    /// A store of an older format; [`finish`] ends the upgrade.
    Older(u32, sled::Tree),
}

/// Finds out the format, and makes a new store if there is none.
pub(super) fn open(dir: &Path, db: &sled::Db) -> Result<Found, StoreError> {
    let format = guarded(dir, || db.open_tree(FORMAT_TREE))?;
    let data = |db: &sled::Db| guarded(dir, || db.open_tree(DATA_TREE));
    match guarded(dir, || format.get(FORMAT_KEY))? {
        Some(bytes) => match <[u8; 4]>::try_from(bytes.as_ref()).map(u32::from_le_bytes) {
            Ok(FORMAT) => Ok(Found::Current(data(db)?)),
            Ok(1) => Ok(Found::Older(1, data(db)?)),
            Ok(found) if found > FORMAT => Err(StoreError::TooNew { dir: dir.to_owned(), found, known: FORMAT }),
            _ => Err(StoreError::Corrupt { dir: dir.to_owned(), reason: "its format makes no sense".to_owned() }),
        },
        None if guarded(dir, || db.iter().next().transpose())?.is_some() => {
            let tree = data(db)?;
            // An earlier upgrade may have been interrupted.
            guarded(dir, || tree.clear())?;
            Ok(Found::Older(0, tree))
        }
        None => {
            let tree = data(db)?;
            if guarded(dir, || tree.iter().next().transpose())?.is_some() {
                let reason = "it has records and no format".to_owned();
                return Err(StoreError::Corrupt { dir: dir.to_owned(), reason });
            }
            finish(dir, db)?;
            Ok(Found::Current(tree))
        }
    }
}

/// Writes down that the store has the format of this version.
pub(super) fn finish(dir: &Path, db: &sled::Db) -> Result<(), StoreError> {
    let format = guarded(dir, || db.open_tree(FORMAT_TREE))?;
    guarded(dir, || format.insert(FORMAT_KEY, &FORMAT.to_le_bytes()))?;
    guarded(dir, || db.flush())?;
    Ok(())
}

/// A digest of all records, kept up to date with every group. sled can lose a page without a word when its log is
/// damaged in the wrong place; this tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    count: u64,
    sum: u64,
}

impl Contents {
    /// FNV-1a over header and key; the header has the checksum of the rest. A sum, so that the order does not matter.
    fn hash(stored: &[u8]) -> u64 {
        let key_len = stored.get(5..7).map_or(0, |len| usize::from(len[0]) | usize::from(len[1]) << 8);
        let head = stored.get(..record::HEADER + key_len).unwrap_or(stored);
        head.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }

    pub(super) fn add(&mut self, stored: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(Self::hash(stored));
    }

    pub(super) fn remove(&mut self, stored: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::hash(stored));
    }
}

/// What is known of the last group of batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) sequence: u64,
    pub(super) contents: Contents,
}

/// Reads the record of the last group of batches.
pub(super) fn last(dir: &Path, tree: &sled::Tree) -> Result<Last, StoreError> {
    let Some(bytes) = guarded(dir, || tree.get(SEQUENCE))? else { return Ok(Last::default()) };
    let corrupt =
        |reason| StoreError::Corrupt { dir: dir.to_owned(), reason: format!("the sequence number: {reason}") };
    let record = record::decode(SEQUENCE, &bytes).map_err(corrupt)?;
    let (count, rest) = record.payload.split_first_chunk().ok_or_else(|| corrupt("it is cut short"))?;
    let (sum, _) = rest.split_first_chunk().ok_or_else(|| corrupt("it is cut short"))?;
    let contents = Contents { count: u64::from_le_bytes(*count), sum: u64::from_le_bytes(*sum) };
    Ok(Last { sequence: record.sequence, contents })
}

/// The records that say which group of batches was the last, and what it and those that came with it deleted.
pub(super) fn encode_last<'a>(last: Last, deleted: impl Iterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut payload = last.contents.count.to_le_bytes().to_vec();
    payload.extend_from_slice(&last.contents.sum.to_le_bytes());
    let mut deleted = deleted.peekable();
    payload.extend(name_deleted(&mut deleted));
    let mut records = vec![(SEQUENCE.to_vec(), record::encode(Kind::Inline, last.sequence, SEQUENCE, &payload))];
    for nth in 0..MOST_DELETED {
        if deleted.peek().is_none() {
            break;
        }
        let key = [DELETED, &[nth]].concat();
        let payload = [vec![0; 16], name_deleted(&mut deleted)].concat();
        let record = record::encode(Kind::Inline, last.sequence, &key, &payload);
        records.push((key, record));
    }
    records
}

/// Names as many as there is room for in one record.
fn name_deleted<'a>(keys: &mut Peekable<impl Iterator<Item = &'a [u8]>>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(key) = keys.next_if(|key| out.len() + key.len() + 2 + 16 <= INLINE_BYTES) {
        out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(key);
    }
    out
}

/// The keys that the payload of such a record names as deleted.
pub(crate) fn deleted_keys(payload: &[u8]) -> Vec<&[u8]> {
    let mut payload = payload.get(16..).unwrap_or_default();
    let mut out = Vec::new();
    while let Some((len, rest)) = payload.split_first_chunk::<2>()
        && let Some((key, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
    {
        out.push(key);
        payload = rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_keys_round_trip_and_are_bounded() {
        let payload = |keys: &[Vec<u8>]| {
            let named = name_deleted(&mut keys.iter().map(Vec::as_slice).peekable());
            [vec![0; 16], named].concat()
        };
        let keys: Vec<Vec<u8>> = (0..1000_u32).map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(deleted_keys(&payload(&keys)), keys);
        assert_eq!(deleted_keys(&payload(&vec![vec![7; 1000]; 20])).len(), 8);
        let all: Vec<Vec<u8>> = (0..30_u8).map(|n| vec![n; 1000]).collect();
        let records = encode_last(Last::default(), all.iter().map(Vec::as_slice));
        let named = records.iter().flat_map(|(key, record)| deleted_keys(record::decode(key, record).unwrap().payload));
        assert_eq!(named.collect::<Vec<_>>(), all);
        assert_eq!(encode_last(Last::default(), vec![&[7; 1000][..]; 999].into_iter()).len(), 25);
        assert!(deleted_keys(&[5, 0, 1]).is_empty());
    }

    #[test]
    fn the_digest_notices_what_is_missing_or_older() {
        let record = |sequence, value: &[u8]| record::encode(Kind::Inline, sequence, b"rkey", value);
        let mut contents = Contents::default();
        contents.add(&record(1, b"a"));
        let before = contents;
        contents.remove(&record(1, b"a"));
        assert_eq!(contents, Contents::default());
        contents.add(&record(2, b"a"));
        assert_ne!(contents, before);
        contents.remove(&record(2, b"a"));
        contents.add(&record(1, b"b"));
        assert_ne!(contents, before);
    }
}
