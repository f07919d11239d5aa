//! A store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::record::{self, Kind};
use crate::{Damaged, Done, Printed, Scan, Stats, Store, StoreError, Write, check, lock};

/// A store that forgets everything when the last clone is dropped. Clones share their contents; [`fork`](Self::fork)
/// copies them. Batches are acknowledged on the caller's thread, before [`submit`](Store::submit) returns.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

#[derive(Debug, Clone, Default)]
struct Inner {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    sequence: u64,
    stats: Stats,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store with the same contents, which goes its own way from here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(lock(&self.0).clone())))
    }

    /// Flips one bit of what is stored for `key` (counted over the whole stored record, round again beyond its end).
    /// Answers whether there was a record.
    pub fn flip(&self, key: &[u8], bit: usize) -> bool {
        let mut inner = lock(&self.0);
        let Some(bytes) = inner.records.get_mut(key) else { return false };
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        true
    }

    fn apply(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        check(&writes)?;
        let mut inner = lock(&self.0);
        inner.sequence += 1;
        inner.stats.commits += 1;
        inner.stats.syncs += 1;
        inner.stats.writes += writes.len() as u64;
        let sequence = inner.sequence;
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    let bytes = record::encode(Kind::Inline, sequence, &key, &value);
                    inner.records.insert(key, bytes);
                }
                Write::Delete { key } => {
                    inner.records.remove(&key);
                }
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn submit(&self, writes: Vec<Write>, done: Done) {
        done(self.apply(writes));
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = lock(&self.0);
        let Some(bytes) = inner.records.get(key) else { return Ok(None) };
        match record::decode(key, bytes) {
            Ok(record) => Ok(Some(record.payload.to_vec())),
            Err(reason) => Err(StoreError::Damaged { key: Printed(key.to_vec()), reason: reason.to_owned() }),
        }
    }

    fn scan(&self, prefix: &[u8]) -> Result<Scan, StoreError> {
        let inner = lock(&self.0);
        let mut scan = Scan::default();
        for (key, bytes) in inner.records.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            match record::decode(key, bytes) {
                Ok(record) => scan.records.push((key.clone(), record.payload.to_vec())),
                Err(reason) => {
                    scan.damaged.push(Damaged { key: key.clone(), until: None, reason: reason.to_owned() });
                }
            }
        }
        Ok(scan)
    }

    fn stats(&self) -> Stats {
        let inner = lock(&self.0);
        let bytes = inner.records.iter().map(|(key, bytes)| key.len() + bytes.len()).sum::<usize>();
        Stats { bytes_on_disk: bytes as u64, ..inner.stats }
    }
}
