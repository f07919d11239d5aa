//! The store on a disk.
//!
//! A directory holds `LOCK` (who has it open), `acknowledged` (how far that got), `sled/` (sled's files), `journal` (what
//! sled may not have written yet) and, after damage, `damaged-<n>/` (what was moved aside).

mod apply;
pub(crate) mod journal;
mod layout;
mod lock;
mod mark;
mod queue;
mod read;
mod recover;
mod salvage;
mod steps;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Damaged, Done, Printed, Scan, Stats, Store, StoreError, Write};
use apply::{Applier, Newest, Recent};
use journal::Journal;
use layout::{Contents, Last, RECORD, guarded, record_key};
use lock::Lock;
use mark::Mark;
use queue::{Committer, Queue, Turn};
use read::Unread;

#[cfg(feature = "fuzzing")]
pub(crate) use layout::deleted_keys;
pub use recover::Recovery;
pub use steps::{DiskSteps, SyncFiles};

/// sled uses parts of its log again on the belief that what it has written since is durable. It is, as long as less than a
/// segment is written between two syncs: so a checkpoint is a small part of one.
const TURNS_IN_A_SEGMENT: usize = 8;
/// The journal holds so many times as much: what was written again and again is in a checkpoint once.
const JOURNAL_OF_TURNS: usize = 2;

/// How a [`SledStore`] is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many bytes of pages sled keeps in memory. 16 MiB unless set; the pages in use are not counted.
    pub cache_bytes: u64,
    /// Puts are refused as [`StoreError::DiskFull`] while less than that would stay free. 32 MiB unless set.
    pub keep_free_bytes: u64,
    /// How the files are forced to the disk. For tests.
    pub steps: Arc<dyn DiskSteps>,
    /// The size of a segment of sled's log, fixed when the store is made. For tests.
    #[doc(hidden)]
    pub segment_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            keep_free_bytes: 32 << 20,
            steps: Arc::new(SyncFiles::default()),
            segment_bytes: layout::SEGMENT_BYTES,
        }
    }
}

impl Options {
    /// Changes the size of the cache.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Changes how much of the disk is left alone.
    #[must_use]
    pub fn keep_free_bytes(mut self, bytes: u64) -> Self {
        self.keep_free_bytes = bytes;
        self
    }

    /// Changes how the files are forced to the disk.
    #[must_use]
    pub fn steps(mut self, steps: Arc<dyn DiskSteps>) -> Self {
        self.steps = steps;
        self
    }

    /// Changes the size of a segment.
    #[doc(hidden)]
    #[must_use]
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.segment_bytes = bytes;
        self
    }
}

/// What was found when a store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opening {
    /// The format that the store had before it was upgraded.
    pub upgraded_from: Option<u32>,
    /// There if something acknowledged is missing.
    pub rolled_back: Option<RolledBack>,
}

/// The end of the log was damaged: the store is consistent, and what it acknowledged last is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolledBack {
    /// The last group of batches that is there.
    pub found: u64,
    /// The last group of batches that was acknowledged, at least.
    pub acknowledged: u64,
}

/// A [`Store`] on a disk, in sled. Dropping it waits for what was submitted.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    handles: Option<(sled::Db, sled::Tree)>,
    turn: Option<Turn>,
    recent: Recent,
    opening: Opening,
    keep_free_bytes: u64,
    // Last, so that the directory is given free after everything else.
    _lock: Lock,
}

/// A store whose files are open and whose thread does not run yet.
struct Parts {
    applier: Applier,
    upgraded_from: Option<u32>,
    /// The last group that was found in sled.
    in_sled: u64,
    /// The last that was found at all, be it after others that are missing.
    known: u64,
}

impl SledStore {
    /// Opens the store in a directory, which is made if it is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, found out before anything else is touched.
    /// [`StoreError::TooNew`] if a newer version wrote it. [`StoreError::CannotOpen`] if the files are damaged so that
    /// only [`open_or_recover`](Self::open_or_recover) helps. [`StoreError::Io`] and [`StoreError::DiskFull`] if the
    /// system refuses.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let (lock, dir) = take(dir.as_ref())?;
        let parts = Parts::open(&dir, &dir.join("sled"), &options).map_err(|error| cannot_open(&dir, error))?;
        Self::start(&dir, lock, parts, &options)
    }

    /// Opens the store in a directory whatever it takes. Everything is read once; if a part cannot be, the files are
    /// moved aside to `damaged-<n>` in the directory (never deleted), and a new store is made of all that is readable.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) that are no damage.
    pub fn open_or_recover(dir: impl AsRef<Path>, options: Options) -> Result<(Self, Recovery), StoreError> {
        let (lock, dir) = take(dir.as_ref())?;
        let (parts, mut recovery) = recover::open(&dir, &options)?;
        let store = Self::start(&dir, lock, parts, &options)?;
        recovery.rolled_back = recovery.rolled_back.or(store.opening.rolled_back);
        Ok((store, recovery))
    }

    fn start(dir: &Path, lock: Lock, parts: Parts, options: &Options) -> Result<Self, StoreError> {
        let Parts { mut applier, upgraded_from, known, .. } = parts;
        let (mark, acknowledged) = Mark::open(dir)?;
        let acknowledged = acknowledged.max(known);
        let found = applier.sequence;
        let rolled_back = (found < acknowledged).then_some(RolledBack { found, acknowledged });
        if let Some(RolledBack { found, acknowledged }) = rolled_back {
            tracing::error!(dir = %dir.display(), found, acknowledged, "the end of the log was damaged: the last batches are missing");
        }
        // Sequence numbers never repeat, also where some are missing.
        applier.sequence = found.max(acknowledged);
        // What was in the journal is in sled by now, unless there was no space for it.
        applier.turn_bytes = options.segment_bytes / TURNS_IN_A_SEGMENT;
        let journal = Journal::open(dir, applier.turn, applier.turn_bytes * JOURNAL_OF_TURNS, options.steps.as_ref())
            .map_err(|source| StoreError::io("open the journal in", dir, source))?;
        applier.journal = Some(journal);
        let handles = Some((applier.db.clone(), applier.tree.clone()));
        let recent = applier.recent.clone();
        let turn = Turn::new(Mutex::new(Committer::new(applier, mark, options.keep_free_bytes)));
        let store = Self {
            dir: dir.to_owned(),
            queue: Arc::default(),
            thread: Mutex::default(),
            handles,
            turn: Some(turn.clone()),
            recent,
            opening: Opening { upgraded_from, rolled_back },
            keep_free_bytes: options.keep_free_bytes,
            _lock: lock,
        };
        let thread = queue::start(store.queue.clone(), turn)
            .map_err(|source| StoreError::io("start a thread for", dir, source))?;
        *crate::lock(&store.thread) = Some(thread);
        Ok(store)
    }

    /// What was found when the store was opened.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The directory of the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The system refused to read.
    fn refused(&self, reason: String) -> StoreError {
        StoreError::io("read the files under", &self.dir, std::io::Error::other(reason))
    }

    fn tree(&self) -> Result<&sled::Tree, StoreError> {
        self.handles.as_ref().map(|(_, tree)| tree).ok_or(StoreError::Closed)
    }
}

fn take(dir: &Path) -> Result<(Lock, PathBuf), StoreError> {
    let lock = Lock::take(dir)?;
    // A full path, so that the directories above can be synced too.
    let dir = dir.canonicalize().map_err(|source| StoreError::io("find", dir, source))?;
    recover::finish_interrupted(&dir)?;
    Ok((lock, dir))
}

/// Damage that is found while opening is told with the way out.
fn cannot_open(dir: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { reason, .. } => StoreError::CannotOpen { dir: dir.to_owned(), reason },
        other => other,
    }
}

impl Parts {
    /// Opens sled's files in `files`, for the store in `dir`.
    fn open(dir: &Path, files: &Path, options: &Options) -> Result<Self, StoreError> {
        if !files.exists() {
            make(dir, files, options)?;
        }
        let db = open_sled(dir, files, options)?;
        let (tree, upgraded_from) = match layout::open(dir, &db)? {
            layout::Found::Current(tree) => (tree, None),
            layout::Found::Older(version, tree) => (tree, Some(version)),
        };
        let mut applier = Applier {
            dir: dir.to_owned(),
            files: files.to_owned(),
            db,
            tree,
            recent: Recent::default(),
            recent_bytes: 0,
            turn_bytes: usize::MAX,
            steps: options.steps.clone(),
            sequence: 0,
            before: 0,
            turn: None,
            journal: None,
            contents: Contents::default(),
            syncs: 0,
        };
        applier.sync()?;
        let Last { sequence, contents } = layout::last(dir, &applier.tree)?;
        (applier.sequence, applier.before, applier.contents) = (sequence, sequence, contents);
        match upgraded_from {
            Some(0) => upgrade(&mut applier)?,
            // From 1 to 2 only the journal came.
            Some(_) => {
                layout::finish(dir, &applier.db)?;
                // A program that knows no journal must not open it from now on.
                applier.sync()?;
            }
            None => {}
        }
        applier.clean_up()?;
        let mut known = sequence;
        if files == dir.join("sled") {
            known = applier.catch_up(&journal::turn(&journal::read(dir)), options.keep_free_bytes)?;
        }
        Ok(Self { applier, upgraded_from, in_sled: sequence, known })
    }
}

/// Makes a new store aside and puts it in its place when it is durable: sled itself does not sync the file without which
/// it cannot open the others.
fn make(dir: &Path, files: &Path, options: &Options) -> Result<(), StoreError> {
    let aside = files.with_extension("making");
    let failed = |source| StoreError::io("make", &aside, source);
    std::fs::create_dir_all(&aside).map_err(failed)?;
    let db = open_sled(dir, &aside, options)?;
    layout::open(dir, &db)?;
    guarded(dir, || db.flush())?;
    let synced = options.steps.sync(&aside);
    guarded(dir, || {
        drop(db);
        Ok(())
    })?;
    synced.map_err(failed)?;
    std::fs::rename(&aside, files).and_then(|()| File::open(dir)?.sync_all()).map_err(failed)
}

/// From format 0 to the present one. Interrupted, it starts again: the old records go last.
fn upgrade(applier: &mut Applier) -> Result<(), StoreError> {
    let dir = applier.dir.clone();
    let old = applier.db.iter();
    let mut batch = Vec::new();
    for entry in old {
        let (key, value) = guarded(&dir, || entry)?;
        batch.push(Write::put(key.to_vec(), value.to_vec()));
        crate::check(&batch[batch.len() - 1..])?;
        if batch.iter().map(Write::bytes).sum::<usize>() >= 128 << 10 {
            applier.apply(&batch.iter().collect::<Vec<_>>())?;
            batch.clear();
        }
    }
    applier.apply(&batch.iter().collect::<Vec<_>>())?;
    layout::finish(&dir, &applier.db)?;
    applier.sync()?;
    guarded(&dir, || applier.db.clear())?;
    applier.sync()
}

fn open_sled(dir: &Path, files: &Path, options: &Options) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(files)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(None)
        .segment_size(options.segment_bytes);
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match guarded(dir, || config.open()) {
            // The directory is ours. If this process had it open before, sled's own threads may not have noticed yet.
            Err(StoreError::Io { source, .. })
                if source.to_string().contains("could not acquire lock") && Instant::now() < patience =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

impl Store for SledStore {
    fn submit(&self, writes: Vec<Write>, done: Done) {
        self.queue.submit(writes, done);
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.queue.commit(self.turn.as_ref().ok_or(StoreError::Closed)?, writes)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let tree = self.tree()?;
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Newest { value, .. }) = recent.get(key) {
            return Ok(value.clone());
        }
        let stored = record_key(key);
        let damaged = |reason| StoreError::Damaged { key: Printed(key.to_vec()), reason };
        let unread = |unread| match unread {
            Unread::Damaged(reason) => damaged(reason),
            Unread::Refused(reason) => self.refused(reason),
        };
        match guarded(&self.dir, || tree.get(&stored)) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => read::value(tree, &stored, &bytes).map(Some).map_err(unread),
            Err(StoreError::Corrupt { reason, .. }) => Err(damaged(reason)),
            Err(error) => Err(error),
        }
    }

    fn scan(&self, prefix: &[u8]) -> Result<Scan, StoreError> {
        let tree = self.tree()?;
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let from = record_key(prefix);
        let (entries, gaps) = read::range(tree, &from, read::end_of(&from).as_deref());
        let bare = |key: &[u8]| key.strip_prefix(&[RECORD]).unwrap_or_default().to_vec();
        let mut scan = Scan::default();
        for (key, bytes) in entries.into_iter().filter(|(key, _)| !recent.contains_key(&bare(key))) {
            match read::value(tree, &key, &bytes) {
                Ok(value) => scan.records.push((bare(&key), value)),
                Err(Unread::Damaged(reason)) => scan.damaged.push(Damaged { key: bare(&key), until: None, reason }),
                Err(Unread::Refused(reason)) => return Err(self.refused(reason)),
            }
        }
        for gap in gaps {
            let reason = match gap.reason {
                Unread::Damaged(reason) => reason,
                Unread::Refused(reason) => return Err(self.refused(reason)),
            };
            let until = Some(gap.before.as_deref().map(bare).unwrap_or_default());
            scan.damaged.push(Damaged { key: bare(&gap.after), until, reason });
        }
        scan.damaged.sort_by(|a, b| a.key.cmp(&b.key));
        let newer = recent.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        scan.records.extend(newer.filter_map(|(key, newest)| Some((key.clone(), newest.value.clone()?))));
        scan.records.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(scan)
    }

    fn has_room(&self, bytes: u64) -> bool {
        queue::lacking(&self.dir, self.keep_free_bytes, bytes).is_none()
    }

    fn confirm_recovery(&self) -> Result<(), StoreError> {
        recover::confirm(&self.dir)
    }

    fn stats(&self) -> Stats {
        let bytes_on_disk = self.handles.as_ref().and_then(|(db, _)| db.size_on_disk().ok()).unwrap_or(0);
        let bytes_on_disk = bytes_on_disk.saturating_add(journal::FILE_BYTES as u64);
        Stats {
            bytes_on_disk,
            commits: self.queue.commits.load(Relaxed),
            syncs: self.queue.syncs.load(Relaxed),
            writes: self.queue.writes.load(Relaxed),
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.queue.close();
        let thread = crate::lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
        let handles = (self.handles.take(), self.turn.take());
        let _ = catch_unwind(AssertUnwindSafe(move || drop(handles)));
    }
}
