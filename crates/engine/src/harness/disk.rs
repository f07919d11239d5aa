//! A simulated disk: what was stored survives a crash, what was on its way may not.

use std::collections::{BTreeMap, VecDeque};

use crate::{Record, Token, Write};

/// The disk of one site.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    queued: VecDeque<(Token, Vec<Write>)>,
    /// The documents cannot be read, though they are there.
    pub unreadable: bool,
    /// The disk is full: nothing can be stored until it is not.
    pub full: bool,
    /// The disk is broken: nothing can be stored any more.
    pub broken: bool,
}

impl SimulatedDisk {
    /// A batch to store.
    pub(super) fn submit(&mut self, token: Token, writes: Vec<Write>) {
        self.queued.push_back((token, writes));
    }

    /// Stores the oldest batch that is not stored yet.
    pub(super) fn sync_one(&mut self) -> Option<(Token, bool)> {
        let (token, writes) = self.queued.pop_front()?;
        if self.full || self.broken {
            self.queued.clear();
            return Some((token, false));
        }
        for write in writes {
            match write {
                Write::Put { key, value } => self.stored.insert(key, value),
                Write::Delete { key } => self.stored.remove(&key),
            };
        }
        Some((token, true))
    }

    /// The machine loses power: `survive` of the batches on their way reach the disk, the rest do not.
    pub(super) fn crash(&mut self, survive: usize) {
        for _ in 0..survive {
            if self.sync_one().is_none() {
                break;
            }
        }
        self.queued.clear();
    }

    /// How many batches are on their way.
    pub(super) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// All stored records whose keys start with a prefix.
    #[must_use]
    pub fn scan(&self, prefix: &[u8]) -> Vec<Record> {
        self.stored
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| Record { key: key.clone(), value: value.clone() })
            .collect()
    }

    /// Flips a bit of every record whose key holds `part`. How many.
    pub fn damage(&mut self, part: &[u8]) -> usize {
        let mut damaged = 0;
        for (key, value) in &mut self.stored {
            if key.windows(part.len().max(1)).any(|window| window == part)
                && let Some(byte) = value.get_mut(3)
            {
                *byte ^= 0x10;
                damaged += 1;
            }
        }
        damaged
    }

    /// Records whose key holds `part` are again what they were on another disk, where it had them.
    pub fn roll_back(&mut self, old: &Self, part: &[u8]) {
        let chosen = |key: &[u8]| part.is_empty() || key.windows(part.len()).any(|window| window == part);
        if part.is_empty() {
            self.stored.clear();
        }
        for (key, value) in old.stored.iter().filter(|(key, _)| chosen(key)) {
            self.stored.insert(key.clone(), value.clone());
        }
    }

    /// Records whose key starts with `prefix` are gone.
    pub fn lose(&mut self, prefix: &[u8]) {
        self.stored.retain(|key, _| !key.starts_with(prefix));
    }

    /// Everything is gone.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }
}
