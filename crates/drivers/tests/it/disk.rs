//! What a power loss may leave of a driver's directory: all that was not forced to the disk may be there, in part, or not.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use khufu_drivers::Step;

/// Numbers that follow from a seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % end.max(1) as u64) as usize
    }
}

/// A file under a name; none for no file.
type Version = Option<u64>;

#[derive(Debug)]
struct Contents {
    bytes: Vec<u8>,
    /// Forced to the disk.
    is_whole: bool,
}

#[derive(Debug)]
struct Journal {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// Follows a directory from step to step.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    /// By inode.
    contents: BTreeMap<u64, Contents>,
    /// The files of the old ones of these are kept here by a number that no inode has.
    next: u64,
    /// What may be under a name after a power loss; the last is what readers see.
    names: BTreeMap<PathBuf, Vec<Version>>,
    journals: BTreeMap<PathBuf, Journal>,
}

fn is_journal(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "journal") && path.parent().is_some_and(|dir| dir.ends_with(".khufu"))
}

impl Disk {
    /// All that is there now is on the disk.
    pub(crate) fn new(dir: &Path) -> Self {
        let dir = dir.canonicalize().unwrap();
        let mut disk = Self {
            dir: dir.clone(),
            contents: BTreeMap::new(),
            next: 1 << 62,
            names: BTreeMap::new(),
            journals: BTreeMap::new(),
        };
        disk.look();
        disk.contents.values_mut().for_each(|contents| contents.is_whole = true);
        disk.journals.values_mut().for_each(|journal| journal.durable = journal.now.clone());
        disk.names_are_durable(&dir);
        disk.names_are_durable(&dir.join(".khufu"));
        disk
    }

    pub(crate) fn step(&mut self, step: Step, path: &Path) {
        self.look();
        if step != Step::Syncing {
            return;
        }
        if path.is_dir() {
            self.names_are_durable(path);
        } else if let Some(journal) = self.journals.get_mut(path) {
            journal.durable = journal.now.clone();
        } else {
            let inode = path.metadata().unwrap().ino();
            if let Some(contents) = self.contents.get_mut(&inode) {
                contents.is_whole = true;
            }
        }
    }

    fn names_are_durable(&mut self, dir: &Path) {
        for (path, versions) in &mut self.names {
            if path.parent() == Some(dir) {
                versions.drain(..versions.len() - 1);
            }
        }
    }

    /// Sees what has changed.
    pub(crate) fn look(&mut self) {
        let mut seen = BTreeMap::new();
        for dir in [self.dir.clone(), self.dir.join(".khufu")] {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                // Others may work there meanwhile.
                let Ok(metadata) = path.metadata() else { continue };
                if metadata.is_dir() {
                    continue;
                }
                let Ok(bytes) = std::fs::read(&path) else { continue };
                if is_journal(&path) {
                    let journal = self.journals.entry(path).or_insert(Journal { now: Vec::new(), durable: Vec::new() });
                    journal.now = bytes;
                } else {
                    seen.insert(path, (metadata.ino(), bytes));
                }
            }
        }
        for (inode, bytes) in seen.values() {
            let old = self.contents.get(inode);
            if old.is_none_or(|old| old.bytes != *bytes) {
                // The number of a file that is gone is given to another one; what a power loss may bring back keeps one.
                if let Some(old) = self.contents.remove(inode) {
                    self.next += 1;
                    self.contents.insert(self.next, old);
                    for version in self.names.values_mut().flatten().filter(|version| **version == Some(*inode)) {
                        *version = Some(self.next);
                    }
                }
                self.contents.insert(*inode, Contents { bytes: bytes.clone(), is_whole: false });
            }
        }
        let gone: Vec<_> = self.names.keys().filter(|path| !seen.contains_key(*path)).cloned().collect();
        let now = seen
            .into_iter()
            .map(|(path, (inode, _))| (path, Some(inode)))
            .chain(gone.into_iter().map(|path| (path, None)));
        for (path, version) in now {
            let versions = self.names.entry(path).or_insert_with(|| vec![None]);
            if versions.last() != Some(&version) {
                versions.push(version);
            }
        }
    }

    /// Writes what may be left to another directory.
    pub(crate) fn lose_power(&self, to: &Path, chance: &mut Chance) {
        std::fs::create_dir_all(to.join(".khufu")).unwrap();
        let place = |path: &Path| to.join(path.strip_prefix(&self.dir).unwrap());
        for (path, versions) in &self.names {
            let Some(inode) = versions[chance.below(versions.len())] else { continue };
            let contents = &self.contents[&inode];
            let mut bytes = contents.bytes.clone();
            if !contents.is_whole {
                match chance.below(5) {
                    0 => bytes.clear(),
                    1 => bytes.truncate(chance.below(bytes.len() + 1)),
                    2 => {
                        let from = chance.below(bytes.len() + 1);
                        let to = from + chance.below(bytes.len() - from + 1);
                        bytes[from..to].fill(0);
                    }
                    3 => bytes.fill(0),
                    _ => {}
                }
            }
            std::fs::write(place(path), bytes).unwrap();
        }
        for (path, journal) in &self.journals {
            std::fs::write(place(path), journal.torn(chance)).unwrap();
        }
    }
}

impl Journal {
    /// What was forced to the disk, and something of what was not.
    fn torn(&self, chance: &mut Chance) -> Vec<u8> {
        let mut new = self.now.clone();
        let mut old = self.durable.clone();
        // A file that grew is as long as it was or as it is; what was not written to has zeros.
        let length = if chance.below(2) == 0 { old.len() } else { new.len() };
        old.resize(length, 0);
        new.resize(length, 0);
        let Some(from) = (0..length).find(|at| old[*at] != new[*at]) else { return old };
        let to = (0..length).rfind(|at| old[*at] != new[*at]).unwrap() + 1;
        let cut = from + chance.below(to - from + 1);
        match chance.below(5) {
            0 => {}
            1 => old = new,
            2 => old[from..cut].copy_from_slice(&new[from..cut]),
            3 => old[cut..to].copy_from_slice(&new[cut..to]),
            _ => {
                old[from..cut].copy_from_slice(&new[from..cut]);
                old[cut..to].iter_mut().for_each(|byte| *byte = chance.below(256) as u8);
            }
        }
        old
    }
}
