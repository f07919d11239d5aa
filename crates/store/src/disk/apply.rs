//! From batches of writes to what sled keeps, durably.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::journal::{Journal, Turn};
use super::layout::{
    CHUNK_BYTES, Contents, INLINE_BYTES, Last, PENDING, RECORD, chunk_key, encode_last, failure, guarded, record_key,
};
use super::queue::lacking;
use super::steps::DiskSteps;
use crate::error::means_full;
use crate::record::{self, Chunks, Kind, Record};
use crate::{StoreError, Write};

/// Pieces are written in batches of this size, each synced. sled reuses a part of its log when what was there has been
/// written anew, on the belief that this is durable by then. It is, as long as less than a segment is written between
/// two syncs.
const CHUNK_BATCH_BYTES: usize = 256 << 10;

/// What was put or deleted last under a key, and sled does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newest {
    /// The number of the group.
    pub(super) sequence: u64,
    pub(super) value: Option<Vec<u8>>,
}

/// What sled does not have yet, by key. Held for writing while anything becomes visible, for reading by whoever reads.
pub(super) type Recent = Arc<RwLock<BTreeMap<Vec<u8>, Newest>>>;

#[derive(Debug)]
pub(super) struct Applier {
    pub(super) dir: PathBuf,
    /// Where sled's files are.
    pub(super) files: PathBuf,
    pub(super) db: sled::Db,
    pub(super) tree: sled::Tree,
    pub(super) recent: Recent,
    /// The bytes of what is in `recent`, and how many there may be: so much is a checkpoint at most.
    pub(super) recent_bytes: usize,
    pub(super) turn_bytes: usize,
    pub(super) steps: Arc<dyn DiskSteps>,
    /// Of the last group.
    pub(super) sequence: u64,
    /// Of the last group that is there: lower than `sequence` where what was acknowledged is missing.
    pub(super) before: u64,
    /// What the journal holds that sled does not have, where there was no space for it when the store was opened: the salt
    /// and the end.
    pub(super) turn: Option<(u64, usize)>,
    /// None while the store is being opened or made: then everything goes to sled at once.
    pub(super) journal: Option<Journal>,
    /// Of all records that sled has.
    pub(super) contents: Contents,
    /// How often the files were synced.
    pub(super) syncs: u64,
}

/// What a write takes beside key and value at most: its own header in the journal, and that of a group of one.
const HEADERS: usize = 43;

type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Applier {
    /// Makes a group of writes durable as one: after a crash all of it is there or nothing.
    pub(super) fn apply(&mut self, writes: &[&Write]) -> Result<(), StoreError> {
        self.sequence += 1;
        if !self.write_to_journal(writes)? {
            return self.settle(writes);
        }
        self.remember(self.sequence, writes.iter().copied());
        Ok(())
    }

    /// Whether it was for the journal, and is durable there.
    fn write_to_journal(&mut self, writes: &[&Write]) -> Result<bool, StoreError> {
        let (before, sequence) = (self.before, self.sequence);
        let Some(group) = self.journal.as_ref().and_then(|journal| journal.encode(before, sequence, writes)) else {
            return Ok(false);
        };
        let fits = self.recent_bytes.saturating_add(group.len()) <= self.turn_bytes;
        let Some(journal) = self.journal.as_mut().filter(|journal| fits && journal.has_room(group.len())) else {
            return Ok(false);
        };
        self.syncs += 1;
        journal.append(&group, self.steps.as_ref()).map_err(|source| self.no_sync(source))?;
        Ok(true)
    }

    /// Shows a group of writes, which sled will have with the next checkpoint.
    fn remember<'a>(&mut self, sequence: u64, writes: impl IntoIterator<Item = &'a Write>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            let value = match write {
                Write::Put { value, .. } => Some(value.clone()),
                Write::Delete { .. } => None,
            };
            self.recent_bytes += write.bytes() + HEADERS;
            if let Some(older) = recent.insert(write.key().to_vec(), Newest { sequence, value }) {
                let bytes = write.key().len() + older.value.map_or(0, |value| value.len()) + HEADERS;
                self.recent_bytes = self.recent_bytes.saturating_sub(bytes);
            }
        }
        self.before = sequence;
    }

    /// Takes over what was found in the journal and sled does not have: all groups since the last that it has.
    /// Where there is no space for that, they stay in the journal. The number of the last group that is known of.
    pub(super) fn catch_up(&mut self, turn: &Turn, keep_free: u64) -> Result<u64, StoreError> {
        for group in &turn.groups {
            if group.sequence <= self.before {
                continue;
            }
            if group.before > self.before {
                let (found, journal) = (self.before, group.before);
                tracing::error!(dir = %self.dir.display(), found, journal, "the log ends before the journal begins");
                break;
            }
            self.sequence = group.sequence;
            self.remember(group.sequence, &group.writes);
        }
        let known = turn.groups.last().map_or(0, |group| group.sequence).max(self.before);
        let is_empty = self.recent.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !is_empty {
            if lacking(&self.dir, keep_free, turn.end as u64).is_some() {
                self.turn = Some((turn.salt, turn.end));
            } else {
                self.settle(&[])?;
            }
        }
        Ok(known)
    }

    /// How many bytes of the journal sled does not have yet.
    pub(super) fn bytes_behind(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.bytes() as u64)
    }

    /// Whether it is time for a checkpoint.
    pub(super) fn is_behind(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_nearly_full) || self.recent_bytes > self.turn_bytes / 4 * 3
    }

    /// Whether there is anything that sled does not have.
    pub(super) fn is_begun(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| !journal.is_empty())
    }

    /// A checkpoint: sled has all that is only in the journal, durably, and the journal begins anew.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.settle(&[])
    }

    /// A checkpoint together with a group of writes that is not for the journal.
    fn settle(&mut self, writes: &[&Write]) -> Result<(), StoreError> {
        self.put(writes)?;
        self.sync()?;
        let steps = self.steps.as_ref();
        match self.journal.as_mut().filter(|journal| !journal.is_empty()).map(|journal| journal.begin_anew(steps)) {
            Some(Err(source)) => Err(self.no_sync(source)),
            _ => Ok(()),
        }
    }

    /// Lets sled have what it does not have yet, and a group of writes after it, as one.
    fn put(&mut self, writes: &[&Write]) -> Result<(), StoreError> {
        let mut group = Overlay::new();
        let mut pieces = Pieces::default();
        let view = self.recent.clone();
        {
            let recent = view.read().unwrap_or_else(PoisonError::into_inner);
            for (key, newest) in &*recent {
                let key = record_key(key);
                let stored = newest.value.as_ref().map(|value| {
                    // Larger values are not for the journal.
                    record::encode(Kind::Inline, newest.sequence, &key, value)
                });
                self.replace(key, stored, &mut group)?;
            }
        }
        for (nth, write) in writes.iter().enumerate() {
            let key = record_key(write.key());
            let stored = match write {
                Write::Delete { .. } => None,
                Write::Put { value, .. } if value.len() <= INLINE_BYTES => {
                    Some(record::encode(Kind::Inline, self.sequence, &key, value))
                }
                Write::Put { value, .. } => {
                    // Unique: a group has fewer than 2^16 writes, and sequence numbers never repeat.
                    let id = (self.sequence << 16) | (nth as u64 & 0xffff);
                    let chunks = self.write_pieces(id, value, &mut pieces)?;
                    Some(record::encode(Kind::Chunked, self.sequence, &key, &chunks.encode()))
                }
            };
            self.replace(key, stored, &mut group)?;
        }
        self.flush_pieces(&mut pieces)?;
        if pieces.started {
            group.insert(PENDING.to_vec(), None);
        }
        let deleted = group.iter().filter(|(key, value)| value.is_none() && key.first() == Some(&RECORD));
        let last = Last { sequence: self.sequence, contents: self.contents };
        let last = encode_last(last, deleted.map(|(key, _)| &key[..]));
        group.extend(last.into_iter().map(|(key, record)| (key, Some(record))));
        let batch = batch(group);
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        guarded(&self.dir, || self.tree.apply_batch(batch))?;
        recent.clear();
        drop(recent);
        self.recent_bytes = 0;
        self.before = self.sequence;
        Ok(())
    }

    /// Puts a record, or nothing, in the place of another.
    fn replace(&mut self, key: Vec<u8>, stored: Option<Vec<u8>>, group: &mut Overlay) -> Result<(), StoreError> {
        if let Some(old) = self.old(&key, group)? {
            self.contents.remove(&old);
        }
        if let Some(stored) = &stored {
            self.contents.add(stored);
        }
        group.insert(key, stored);
        Ok(())
    }

    /// What is under `key` now. Its pieces will be deleted with it.
    fn old(&self, key: &[u8], group: &mut Overlay) -> Result<Option<Vec<u8>>, StoreError> {
        let old = match group.get(key) {
            Some(value) => value.clone(),
            None => guarded(&self.dir, || self.tree.get(key))?.map(|value| value.to_vec()),
        };
        let Some(old) = old else { return Ok(None) };
        // Of a damaged record nobody knows the pieces; they stay until the store is rebuilt.
        if let Ok(Record { kind: Kind::Chunked, payload, .. }) = record::decode(key, &old)
            && let Some(chunks) = Chunks::decode(payload)
        {
            group.extend((0..chunks.count).map(|index| (chunk_key(chunks.id, index), None)));
        }
        Ok(Some(old))
    }

    fn write_pieces(&mut self, id: u64, value: &[u8], pieces: &mut Pieces) -> Result<Chunks, StoreError> {
        let mut count = 0;
        for piece in value.chunks(CHUNK_BYTES) {
            if !pieces.started {
                pieces.started = true;
                let pending = record::encode(Kind::Inline, self.sequence, PENDING, b"");
                pieces.waiting.insert(PENDING.to_vec(), Some(pending));
            }
            let key = chunk_key(id, count);
            pieces.waiting.insert(key.clone(), Some(record::encode(Kind::Inline, self.sequence, &key, piece)));
            pieces.bytes += piece.len();
            count += 1;
            if pieces.bytes >= CHUNK_BATCH_BYTES {
                self.flush_pieces(pieces)?;
            }
        }
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        Ok(Chunks { id, count, bytes, crc: crc32fast::hash(value) })
    }

    fn flush_pieces(&mut self, pieces: &mut Pieces) -> Result<(), StoreError> {
        if pieces.waiting.is_empty() {
            return Ok(());
        }
        pieces.bytes = 0;
        self.write(std::mem::take(&mut pieces.waiting))?;
        self.sync()
    }

    /// Lets sled have entries, as one.
    pub(super) fn write(&self, entries: Overlay) -> Result<(), StoreError> {
        let batch = batch(entries);
        let _alone = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        guarded(&self.dir, || self.tree.apply_batch(batch))
    }

    /// Hands everything to the operating system and has it forced to the disk.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        guarded(&self.dir, || self.db.flush())?;
        self.steps.flushed(&self.files);
        self.syncs += 1;
        self.steps.sync(&self.files).map_err(|source| self.no_sync(source))
    }

    fn no_sync(&self, source: io::Error) -> StoreError {
        match means_full(&source) {
            true => failure(&self.dir, sled::Error::Io(source)),
            false => StoreError::io("sync the files under", &self.files, source),
        }
    }

    /// Deletes the pieces that a crash left behind before a record referred to them.
    pub(super) fn clean_up(&mut self) -> Result<(), StoreError> {
        let Some(pending) = guarded(&self.dir, || self.tree.get(PENDING))? else { return Ok(()) };
        let from = record::decode(PENDING, &pending).map_or(self.sequence + 1, |record| record.sequence);
        let keys = guarded(&self.dir, || {
            self.tree
                .range(chunk_key(from << 16, 0)..vec![super::layout::CHUNK + 1])
                .keys()
                .collect::<Result<Vec<_>, _>>()
        })?;
        tracing::info!(pieces = keys.len(), "a crash left pieces of a value behind; they are removed");
        for keys in keys.chunks(1024) {
            self.write(keys.iter().map(|key| (key.to_vec(), None)).collect())?;
            self.sync()?;
        }
        self.write([(PENDING.to_vec(), None)].into())?;
        self.sync()
    }
}

fn batch(entries: Overlay) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in entries {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    batch
}

#[derive(Default)]
struct Pieces {
    waiting: Overlay,
    bytes: usize,
    started: bool,
}
