//! From batches of writes to what sled keeps, durably.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::layout::{
    CHUNK_BYTES, Contents, INLINE_BYTES, Last, PENDING, RECORD, SEQUENCE, chunk_key, encode_last, failure, guarded,
    record_key,
};
use super::steps::DiskSteps;
use crate::error::means_full;
use crate::record::{self, Chunks, Kind, Record};
use crate::{StoreError, Write};

/// Pieces are written in batches of this size, each synced. sled reuses a part of its log when what was there has been
/// written anew, on the belief that this is durable by then. It is, as long as less than a segment is written between
/// two syncs.
const CHUNK_BATCH_BYTES: usize = 256 << 10;

/// Held for writing while a group becomes visible, for reading by whoever reads more than one entry.
pub(super) type View = Arc<RwLock<()>>;

#[derive(Debug)]
pub(super) struct Applier {
    pub(super) dir: PathBuf,
    /// Where sled's files are.
    pub(super) files: PathBuf,
    pub(super) db: sled::Db,
    pub(super) tree: sled::Tree,
    pub(super) view: View,
    pub(super) steps: Arc<dyn DiskSteps>,
    /// Of the last group that was applied.
    pub(super) sequence: u64,
    /// Of all records.
    pub(super) contents: Contents,
    /// How often the files were synced.
    pub(super) syncs: u64,
}

type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Applier {
    /// Makes a group of writes durable as one: after a crash all of it is there or nothing.
    pub(super) fn apply<'a>(&mut self, writes: impl Iterator<Item = &'a Write>) -> Result<(), StoreError> {
        self.sequence += 1;
        let mut group = Overlay::new();
        let mut pieces = Pieces::default();
        for (nth, write) in writes.enumerate() {
            let key = record_key(write.key());
            if let Some(old) = self.old(&key, &mut group)? {
                self.contents.remove(&old);
            }
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
            if let Some(stored) = &stored {
                self.contents.add(stored);
            }
            group.insert(key, stored);
        }
        self.flush_pieces(&mut pieces)?;
        if pieces.started {
            group.insert(PENDING.to_vec(), None);
        }
        let deleted = group.iter().filter(|(key, value)| value.is_none() && key.first() == Some(&RECORD));
        let last = Last { sequence: self.sequence, contents: self.contents };
        let last = encode_last(last, deleted.map(|(key, _)| &key[..]));
        group.insert(SEQUENCE.to_vec(), Some(last));
        self.write(group)?;
        self.sync()
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
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        let _alone = self.view.write().unwrap_or_else(PoisonError::into_inner);
        guarded(&self.dir, || self.tree.apply_batch(batch))
    }

    /// Hands everything to the operating system and has it forced to the disk.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        guarded(&self.dir, || self.db.flush())?;
        self.steps.flushed(&self.files);
        self.syncs += 1;
        self.steps.sync(&self.files).map_err(|source| match means_full(&source) {
            true => failure(&self.dir, sled::Error::Io(source)),
            false => StoreError::io("sync the files under", &self.files, source),
        })
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

#[derive(Default)]
struct Pieces {
    waiting: Overlay,
    bytes: usize,
    started: bool,
}
