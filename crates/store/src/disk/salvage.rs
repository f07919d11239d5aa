//! Records from wherever they can still be found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::journal::Remains;
use super::layout::{self, CHUNK, Contents, Last, RECORD, chunk_id, guarded};
use super::read::{self, Gap};
use super::{Parts, Recovery};
use crate::record::{self, Chunks, HEADER, Kind, MAGIC, Record};
use crate::{Damaged, MAX_KEY_BYTES, Printed, StoreError, Write};

/// Fills a new store.
pub(super) struct Salvage<'a> {
    dir: &'a Path,
    target: &'a mut Parts,
    waiting: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    sequence: u64,
    /// When records were deleted last, as far as the log still says.
    deleted: BTreeMap<Vec<u8>, u64>,
}

impl<'a> Salvage<'a> {
    pub(super) fn new(dir: &'a Path, target: &'a mut Parts) -> Self {
        Self { dir, target, waiting: BTreeMap::new(), bytes: 0, sequence: 0, deleted: BTreeMap::new() }
    }

    fn keep(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len();
        self.waiting.insert(key.to_vec(), Some(bytes.to_vec()));
        if self.bytes >= 256 << 10 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        self.target.applier.write(std::mem::take(&mut self.waiting))?;
        self.target.applier.sync()
    }

    /// Takes over all records that are whole, as they are. Answers what is missing.
    pub(super) fn copy(&mut self, source: Parts, recovery: &mut Recovery) -> Result<Vec<Gap>, StoreError> {
        let (entries, mut gaps) = read::range(&source.applier.tree, &[], None);
        self.sequence = self.sequence.max(source.applier.sequence);
        for (key, bytes) in &entries {
            if !matches!(key.first(), Some(&(CHUNK | RECORD))) {
                continue;
            }
            match record::decode(key, bytes) {
                Ok(record) => {
                    self.sequence = self.sequence.max(record.sequence);
                    self.keep(key, bytes)?;
                }
                Err(reason) => {
                    if key.first() == Some(&RECORD) {
                        let reason = reason.to_owned();
                        recovery.damaged.push(Damaged { key: key[1..].to_vec(), until: None, reason });
                    }
                    // Looked for again below, by exactly this key.
                    let mut before = key.to_vec();
                    before.push(0);
                    let after = key.to_vec();
                    gaps.push(Gap { after, before: Some(before), reason: reason.into() });
                }
            }
        }
        Ok(gaps)
    }

    /// Finds records in the raw bytes of the log, the newest of each key, for the places that sled could not read.
    pub(super) fn carve(&mut self, log: &Path, gaps: &[Gap], recovery: &mut Recovery) -> Result<(), StoreError> {
        const WINDOW: usize = 4 << 20;
        const LONGEST: usize = HEADER + 1 + MAX_KEY_BYTES + layout::CHUNK_BYTES;
        let Ok(mut file) = File::open(log) else { return Ok(()) };
        let mut window = Vec::new();
        loop {
            let before = window.len();
            // A disk that cannot be read gives less, not an error: all that can be had is wanted here.
            let ended = file.by_ref().take(WINDOW as u64).read_to_end(&mut window).is_err() || window.len() == before;
            let end = if ended { window.len() } else { window.len().saturating_sub(LONGEST) };
            let mut at = 0;
            while at < end {
                let Some(found) = window.get(at..end).and_then(|rest| rest.iter().position(|byte| *byte == MAGIC[0]))
                else {
                    break;
                };
                at += found;
                at += match window.get(at..).map(record::decode_front) {
                    Some(Ok(record)) => {
                        let whole = HEADER + record.key.len() + record.payload.len();
                        let bytes = window.get(at..at + whole).unwrap_or_default();
                        let wanted = gaps.iter().any(|gap| gap.holds(record.key));
                        if record.key == layout::SEQUENCE || record.key.starts_with(layout::DELETED) {
                            self.deletions(record);
                        }
                        if wanted && matches!(record.key.first(), Some(&(CHUNK | RECORD))) {
                            self.found(record, bytes, recovery)?;
                        }
                        whole
                    }
                    _ => 1,
                };
            }
            if ended {
                return Ok(());
            }
            window.drain(..end.max(at).min(window.len()));
        }
    }

    fn deletions(&mut self, record: record::Record<'_>) {
        for key in layout::deleted_keys(record.payload) {
            let last = self.deleted.entry(key.to_vec()).or_default();
            *last = record.sequence.max(*last);
        }
    }

    /// Takes those records away again that were deleted after they were written.
    pub(super) fn delete(&mut self, recovery: &mut Recovery) -> Result<(), StoreError> {
        self.flush()?;
        for (key, at) in std::mem::take(&mut self.deleted) {
            let Some(bytes) = guarded(self.dir, || self.target.applier.tree.get(&key))? else { continue };
            if record::decode(&key, &bytes).is_ok_and(|record| record.sequence < at) && recovery.stale.remove(&key[1..])
            {
                self.waiting.insert(key, None);
            }
        }
        self.flush()
    }

    /// Takes what is in the journal and newer than what was found. What sled had already may be old.
    pub(super) fn add(&mut self, remains: Remains, in_sled: u64, recovery: &mut Recovery) -> Result<(), StoreError> {
        let Remains { fresh, stale } = remains;
        let mut groups: Vec<_> = stale.into_iter().map(|group| (group, true)).collect();
        groups.extend(fresh.into_iter().map(|group| {
            let stale = group.sequence <= in_sled;
            (group, stale)
        }));
        groups.sort_by_key(|(group, _)| group.sequence);
        for (group, stale) in groups {
            self.sequence = self.sequence.max(group.sequence);
            for write in group.writes {
                let key = layout::record_key(write.key());
                if self.known(&key)?.is_some_and(|known| known >= group.sequence) {
                    continue;
                }
                match stale {
                    true => _ = recovery.stale.insert(write.key().to_vec()),
                    false => _ = recovery.stale.remove(write.key()),
                }
                match write {
                    Write::Put { value, .. } => {
                        let stored = record::encode(Kind::Inline, group.sequence, &key, &value);
                        self.keep(&key, &stored)?;
                    }
                    Write::Delete { .. } => _ = self.waiting.insert(key, None),
                }
            }
        }
        self.flush()
    }

    /// The number of the group that wrote what is there under a key.
    fn known(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let known = match self.waiting.get(key) {
            Some(bytes) => bytes.clone(),
            None => guarded(self.dir, || self.target.applier.tree.get(key))?.map(|bytes| bytes.to_vec()),
        };
        Ok(known.as_deref().and_then(|bytes| Some(record::decode(key, bytes).ok()?.sequence)))
    }

    fn found(&mut self, record: record::Record<'_>, bytes: &[u8], recovery: &mut Recovery) -> Result<(), StoreError> {
        if self.known(record.key)?.is_some_and(|known| known >= record.sequence) {
            return Ok(());
        }
        if record.key.first() == Some(&RECORD) {
            recovery.stale.insert(record.key[1..].to_vec());
        }
        self.sequence = self.sequence.max(record.sequence);
        self.keep(record.key, bytes)
    }

    /// Counts, drops pieces that nothing refers to and records whose pieces are missing, and notes what there is.
    pub(super) fn tidy(self, recovery: &mut Recovery) -> Result<(), StoreError> {
        let tree = self.target.applier.tree.clone();
        let mut used = BTreeSet::new();
        let mut changes = BTreeMap::new();
        let mut contents = Contents::default();
        let (entries, _) = read::range(&tree, &[], None);
        for (key, bytes) in entries.iter().filter(|(key, _)| key.first() == Some(&RECORD)) {
            match read::value(&tree, key, bytes) {
                Ok(_) => {
                    recovery.salvaged += 1;
                    contents.add(bytes);
                    if let Ok(Record { kind: Kind::Chunked, payload, .. }) = record::decode(key, bytes) {
                        used.extend(Chunks::decode(payload).map(|chunks| chunks.id));
                    }
                }
                Err(unread) => {
                    let reason = unread.reason();
                    tracing::error!(key = %Printed(key[1..].to_vec()), reason, "a record is lost");
                    recovery.damaged.push(Damaged { key: key[1..].to_vec(), until: None, reason });
                    changes.insert(key.to_vec(), None);
                }
            }
        }
        let orphans = entries.iter().filter(|(key, _)| chunk_id(key).is_some_and(|id| !used.contains(&id)));
        changes.extend(orphans.map(|(key, _)| (key.to_vec(), None)));
        let last = Last { sequence: self.sequence, contents };
        changes
            .extend(layout::encode_last(last, std::iter::empty()).into_iter().map(|(key, record)| (key, Some(record))));
        self.target.applier.write(changes)?;
        self.target.applier.sync()
    }
}
