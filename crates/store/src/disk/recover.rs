//! Making a new store of what can be read of a damaged one.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::journal;
use super::layout::{Contents, RECORD};
use super::mark::Mark;
use super::read::{self, Gap};
use super::salvage::Salvage;
use super::{Options, Parts, RolledBack};
use crate::{Damaged, StoreError};

/// What was done to open a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Why the store could not be used as it was. Empty: it could, and nothing was done.
    pub reason: String,
    /// Where the damaged files are now. They are never read again: look into them, then delete them.
    pub moved_to: Option<PathBuf>,
    /// How many records the new store has.
    pub salvaged: u64,
    /// The keys of those that were found in a damaged part. What they hold may be older than what was last written
    /// there, or have been deleted since.
    pub stale: BTreeSet<Vec<u8>>,
    /// What was there and could not be read, even where an older record stands in for it.
    pub damaged: Vec<Damaged>,
    /// There if something acknowledged is missing because the end of the log was damaged.
    pub rolled_back: Option<RolledBack>,
    /// The store was recovered, now or by an earlier process, and nobody has said since that what follows from it is
    /// stored ([`Store::confirm_recovery`](crate::Store::confirm_recovery)).
    pub unconfirmed: bool,
}

impl Recovery {
    /// Whether the store is what it was when it was last closed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.reason.is_empty() && self.damaged.is_empty() && self.rolled_back.is_none() && !self.unconfirmed
    }
}

/// The log as it was before sled opened it.
const COPY: &str = "db.copy";
/// There while a recovery is not confirmed.
const UNCONFIRMED: &str = "recovered";

/// What follows from a recovery is stored.
pub(super) fn confirm(dir: &Path) -> Result<(), StoreError> {
    remove(&dir.join(UNCONFIRMED))
}

/// Before the new store takes its place, so that there is no moment at which nobody would know.
fn note_unconfirmed(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(UNCONFIRMED);
    File::create(&path)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|source| StoreError::io("make", path, source))
}

/// Ends, or takes back, a recovery that a crash interrupted.
pub(super) fn finish_interrupted(dir: &Path) -> Result<(), StoreError> {
    remove(&dir.join(COPY))?;
    let unfinished = dir.join("sled.making");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(|source| StoreError::io("remove", unfinished, source))?;
    }
    let (old, new) = (dir.join("sled"), dir.join("sled.new"));
    if !new.exists() {
        return Ok(());
    }
    let result = if old.exists() { std::fs::remove_dir_all(&new) } else { std::fs::rename(&new, &old) };
    result.map_err(|source| StoreError::io("finish the recovery of", dir, source))
}

/// Larger logs are not copied before they are opened.
const LARGEST_COPY: u64 = 1 << 30;

pub(super) fn open(dir: &Path, options: &Options) -> Result<(Parts, Recovery), StoreError> {
    let files = dir.join("sled");
    // sled takes damage near the end of its log for the end, and overwrites what follows while it opens. So it opens
    // only what there is a copy of (which costs nothing where the file system can share the bytes).
    let copy = copy_log(dir, options);
    let (source, reason, rolled_back) = match Parts::open(dir, &files, options) {
        Ok(parts) => match look(dir, &parts)? {
            Look::Fine(damaged) => {
                if let Some(copy) = copy {
                    remove(&copy)?;
                }
                let unconfirmed = dir.join(UNCONFIRMED).exists();
                return Ok((parts, Recovery { damaged, unconfirmed, ..Recovery::default() }));
            }
            Look::Unreadable(reason) => (Some((parts, true)), reason, None),
            Look::Missing(reason, rolled_back) => (Some((parts, false)), reason, rolled_back),
            Look::Journal(reason, rolled_back) => (Some((parts, true)), reason, rolled_back),
        },
        Err(StoreError::Corrupt { reason, .. }) => {
            let parts = without_snapshot(dir, &files, options);
            let look = parts.as_ref().map(|parts| look(dir, parts)).transpose()?;
            match look {
                Some(Look::Missing(_, rolled_back)) => (parts.map(|parts| (parts, false)), reason, rolled_back),
                _ => (parts.map(|parts| (parts, true)), reason, None),
            }
        }
        Err(error) => return Err(error),
    };
    tracing::error!(dir = %dir.display(), reason, "the store is damaged; what can be read is copied into a new one");
    let new = dir.join("sled.new");
    let mut target = Parts::open(dir, &new, options)?;
    let mut salvage = Salvage::new(dir, &mut target);
    let mut recovery = Recovery { reason, rolled_back, ..Recovery::default() };
    let mut doubtful =
        vec![Gap { after: Vec::new(), before: None, reason: read::Unread::Damaged(recovery.reason.clone()) }];
    let in_sled = source.as_ref().map_or(0, |(source, _)| source.in_sled);
    if let Some((source, complete)) = source {
        let gaps = salvage.copy(source, &mut recovery)?;
        // Where sled has lost entries without a word, any of them may be the old version of one.
        if complete {
            doubtful = gaps;
        }
    }
    let log = files.join("db");
    if let Some(copy) = copy {
        std::fs::rename(copy, &log).map_err(|source| StoreError::io("put back", &log, source))?;
    }
    salvage.carve(&log, &doubtful, &mut recovery)?;
    salvage.add(journal::remains(&journal::read(dir)), in_sled, &mut recovery)?;
    salvage.delete(&mut recovery)?;
    salvage.tidy(&mut recovery)?;
    recovery.damaged.extend(doubtful.iter().filter_map(named));
    recovery.damaged.sort_by(|a, b| a.key.cmp(&b.key));
    drop(target);
    note_unconfirmed(dir)?;
    recovery.unconfirmed = true;
    let aside = free_name(dir);
    std::fs::rename(&files, &aside)
        .and_then(|()| std::fs::rename(&new, &files))
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|source| StoreError::io("move aside", &files, source))?;
    recovery.moved_to = Some(aside);
    let parts = Parts::open(dir, &files, options)?;
    Ok((parts, recovery))
}

enum Look {
    /// Everything can be read, but for these records, which stay where they are.
    Fine(Vec<Damaged>),
    /// There are places that cannot be read.
    Unreadable(String),
    /// There are too few records, or old ones.
    Missing(String, Option<RolledBack>),
    /// sled has all that it had, and the journal has not.
    Journal(String, Option<RolledBack>),
}

/// Reads everything once.
fn look(dir: &Path, parts: &Parts) -> Result<Look, StoreError> {
    let (_, acknowledged) = Mark::open(dir)?;
    let (found, acknowledged) = (parts.applier.before, acknowledged.max(parts.known));
    let rolled_back = (found < acknowledged).then_some(RolledBack { found, acknowledged });
    let tree = &parts.applier.tree;
    let (mut contents, mut damaged) = (Contents::default(), Vec::new());
    let whole = read::each(tree, |key, stored| {
        let Some((&RECORD, bare)) = key.split_first() else { return };
        contents.add(stored);
        if let Err(unread) = read::value(tree, key, stored) {
            damaged.push(Damaged { key: bare.to_vec(), until: None, reason: unread.reason() });
        }
    });
    if let Err(unread) = whole {
        return Ok(match rolled_back {
            Some(_) => Look::Missing("the log ends too early".to_owned(), rolled_back),
            None => Look::Unreadable(unread.reason()),
        });
    }
    if contents != parts.applier.contents {
        return Ok(Look::Missing("records are missing from it".to_owned(), rolled_back));
    }
    if rolled_back.is_some() {
        let remains = journal::remains(&journal::read(dir));
        // What the journal began with follows on what sled has.
        let of_sled = remains.fresh.first().is_none_or(|first| first.before > parts.in_sled);
        let reason = if of_sled { "the log ends too early" } else { "the journal is damaged" };
        return Ok(match of_sled {
            true => Look::Missing(reason.to_owned(), rolled_back),
            false => Look::Journal(reason.to_owned(), rolled_back),
        });
    }
    Ok(Look::Fine(damaged))
}

fn copy_log(dir: &Path, options: &Options) -> Option<PathBuf> {
    let (log, copy) = (dir.join("sled/db"), dir.join(COPY));
    let size = log.metadata().ok()?.len();
    let free = fs4::available_space(dir).ok()?;
    if size > LARGEST_COPY || size.saturating_add(options.keep_free_bytes) > free {
        tracing::warn!(dir = %dir.display(), size, free, "the log is opened without a copy of it");
        return None;
    }
    match std::fs::copy(log, &copy) {
        Ok(_) => Some(copy),
        Err(error) => {
            tracing::warn!(%error, "the log is opened without a copy of it");
            let _ = std::fs::remove_file(copy);
            None
        }
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// sled refuses to open with a damaged snapshot of its page table. It can do without, from the whole log.
fn without_snapshot(dir: &Path, files: &Path, options: &Options) -> Option<Parts> {
    let mut moved = false;
    for entry in std::fs::read_dir(files).ok()?.flatten() {
        let name = entry.file_name();
        if let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("snap.")) {
            moved |= std::fs::rename(entry.path(), files.join(format!("unread-snap.{rest}"))).is_ok();
        }
    }
    if moved { Parts::open(dir, files, options).ok() } else { None }
}

fn free_name(dir: &Path) -> PathBuf {
    (1_u64..).map(|n| dir.join(format!("damaged-{n}"))).find(|path| !path.exists()).unwrap_or_default()
}

/// A gap in the words of the store's user; none if it holds no records of theirs.
fn named(gap: &Gap) -> Option<Damaged> {
    let beyond = gap.after.first().is_some_and(|first| *first > RECORD);
    let below = gap.before.as_ref().and_then(|before| before.first()).is_some_and(|first| *first < RECORD);
    if beyond || below {
        return None;
    }
    let bare = |key: &[u8]| key.strip_prefix(&[RECORD]).unwrap_or_default().to_vec();
    let until = Some(gap.before.as_deref().map(bare).unwrap_or_default());
    Some(Damaged { key: bare(&gap.after), until, reason: gap.reason.clone().reason() })
}
