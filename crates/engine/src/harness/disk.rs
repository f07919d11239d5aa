//! A simulated disk: what was stored survives a crash, what was on its way may not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{Damaged, Record, Token, Write};

/// The disk of one site.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    queued: VecDeque<(Token, Vec<Write>)>,
    /// Keys of records that are damaged, as checksums say: they are named and not handed out.
    damaged: BTreeSet<Vec<u8>>,
    /// The documents cannot be read, though they are there.
    pub unreadable: bool,
    /// The disk is full: nothing can be stored until it is not.
    pub full: bool,
    /// The disk is broken: nothing can be stored any more.
    pub broken: bool,
    /// It was recovered from damage, and what follows from that is not stored yet.
    pub doubtful: bool,
}

impl SimulatedDisk {
    /// A batch to store.
    pub(super) fn submit(&mut self, token: Token, writes: Vec<Write>) {
        self.queued.push_back((token, writes));
    }

    /// Stores the oldest batch that is not stored yet, and whether it could. A disk that cannot takes none of the others
    /// either. One that is broken `lies` if the batch is stored after all.
    pub(super) fn sync_one(&mut self, lies: bool) -> Option<(Token, bool)> {
        let (token, writes) = self.queued.pop_front()?;
        let fails = self.full || self.broken;
        if !fails || (self.broken && lies) {
            self.store(writes);
        }
        if fails {
            self.queued.clear();
        } else {
            self.doubtful = false;
        }
        Some((token, !fails))
    }

    fn store(&mut self, writes: Vec<Write>) {
        for write in writes {
            let (Write::Put { key, .. } | Write::Delete { key }) = &write;
            self.damaged.remove(key);
            match write {
                Write::Put { key, value } => self.stored.insert(key, value),
                Write::Delete { key } => self.stored.remove(&key),
            };
        }
    }

    /// The machine loses power: `survive` of the batches on their way are on the disk, the rest are not. How many are not.
    pub(super) fn crash(&mut self, survive: usize) -> usize {
        let survive = if self.full || self.broken { 0 } else { survive };
        for (_, writes) in self.queued.drain(..survive.min(self.queued.len())).collect::<Vec<_>>() {
            self.store(writes);
        }
        let lost = self.queued.len();
        self.queued.clear();
        lost
    }

    /// How many batches are on their way.
    pub(super) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// All stored records whose keys start with a prefix.
    #[must_use]
    pub fn scan(&self, prefix: &[u8]) -> Vec<Record> {
        self.range(prefix).map(|(key, value)| Record { key: key.clone(), value: value.clone() }).collect()
    }

    /// The same as the node itself reads them: also with the first `ahead` of the batches that are on their way.
    pub(super) fn read(&self, prefix: &[u8], ahead: usize) -> (Vec<Record>, bool) {
        let mut found: BTreeMap<&[u8], &[u8]> = self.range(prefix).map(|(key, value)| (&key[..], &value[..])).collect();
        let mut early = false;
        for write in self.queued.iter().take(ahead).flat_map(|(_, writes)| writes) {
            match write {
                Write::Put { key, value } if key.starts_with(prefix) => {
                    early |= found.insert(key, value) != Some(value);
                }
                Write::Delete { key } => early |= found.remove(&key[..]).is_some(),
                Write::Put { .. } => {}
            }
        }
        (found.into_iter().map(|(key, value)| Record { key: key.to_vec(), value: value.to_vec() }).collect(), early)
    }

    fn range<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
        self.stored.range(prefix.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The keys of all stored records that start with a prefix.
    pub(super) fn keys<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a Vec<u8>> {
        self.range(prefix).map(|(key, _)| key)
    }

    /// One record.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.stored.get(key).map(Vec::as_slice)
    }

    /// Damages all records with such keys, which the store sees by their checksums. How many.
    pub fn spoil(&mut self, chosen: impl Fn(&[u8]) -> bool) -> usize {
        let keys: Vec<_> = self.stored.keys().filter(|key| chosen(key)).cloned().collect();
        for key in &keys {
            self.stored.remove(key);
        }
        let spoiled = keys.len();
        self.damaged.extend(keys);
        spoiled
    }

    /// The damaged records whose keys start with a prefix.
    pub(super) fn damaged(&self, prefix: &[u8]) -> Vec<Damaged> {
        let of = |key: &Vec<u8>| Damaged { key: Some(key.clone()), what: key.escape_ascii().to_string() };
        self.damaged.iter().filter(|key| key.starts_with(prefix)).map(of).collect()
    }

    /// Flips a bit of every record whose key holds `part`, which no checksum sees. How many.
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
