//! The journal: what makes changes durable, many with one sync.
//!
//! A change is one record in `.khufu/journal.a` or `.khufu/journal.b`, with all that it takes to make it again. Whoever
//! comes while records are written and synced waits for the next turn, which is for all who have come by then. Files and
//! notes are not synced with each change. At a [checkpoint](super::checkpoint) new records go to the other journal, the
//! replicas that the first one speaks of are synced, and then that one is emptied.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use khufu_crdt::ReplicantId;
use rustix::fs::OFlags;

use super::place::{Place, refused};
use super::record::{Body, Entry, HEADER_BYTES, Header};
use super::step::{Hook, Step};
use crate::DriverError;

/// A journal of so many bytes wants a checkpoint,
const WANTS_BYTES: u64 = 4 << 20;
/// as does one that speaks of so many replicas,
const WANTS_REPLICAS: usize = 1000;
/// or one with a record so old.
const WANTS_AFTER: Duration = Duration::from_secs(30);
/// A checkpoint that failed is tried again after that.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// While a journal has so many bytes, changes wait for the checkpoint before they begin.
const WAIT_BYTES: u64 = 16 << 20;
/// The most bytes that a journal may have.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// An empty journal keeps so many bytes of its file: writing where something was written before needs no new space, which
/// makes syncs cheap.
const KEEP_BYTES: u64 = 8 << 20;
/// For the same reason a file grows by so many bytes at once.
const GROW_BYTES: u64 = 256 << 10;

/// The two files of a journal, held by this driver alone.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) paths: [PathBuf; 2],
    pub(super) files: [File; 2],
    pub(super) hook: Hook,
}

impl Drop for Files {
    /// A process that is just being started has all open files of this one for a moment, and with them the lock.
    fn drop(&mut self) {
        let _ = self.files[0].unlock();
    }
}

impl Files {
    /// None if another driver holds them.
    pub(super) fn open(place: &Place) -> Result<Option<Self>, DriverError> {
        let paths = ["journal.a", "journal.b"].map(|name| place.own(name));
        let is_new = paths.iter().any(|path| path.symlink_metadata().is_err());
        let [first, second] = &paths;
        let files = [open(first)?, open(second)?];
        match files[0].try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(dir = %place.dir.display(), "this file system has no locks: see that no other driver works here");
            }
            Err(TryLockError::Error(source)) => return Err(DriverError::io("lock", first, source)),
        }
        if is_new {
            place.sync_all_names()?;
        }
        Ok(Some(Self { paths, files, hook: place.hook.clone() }))
    }

    fn failed(&self, what: &'static str, nth: usize, source: io::Error) -> DriverError {
        DriverError::io(what, &self.paths[nth], source)
    }

    /// Whether something was ever written to a journal.
    pub(super) fn is_used(&self, nth: usize) -> Result<bool, DriverError> {
        self.bytes(nth).map(|bytes| bytes > 0)
    }

    fn bytes(&self, nth: usize) -> Result<u64, DriverError> {
        let metadata = self.files[nth].metadata().map_err(|source| self.failed("look at", nth, source))?;
        Ok(metadata.len())
    }

    pub(super) fn sync(&self, nth: usize) -> Result<(), DriverError> {
        self.hook
            .sync(&self.paths[nth], || self.files[nth].sync_data())
            .map_err(|source| self.failed("sync", nth, source))
    }

    /// Says durably that a journal has nothing. Until then it has all of it.
    pub(super) fn empty(&self, nth: usize) -> Result<(), DriverError> {
        let file = &self.files[nth];
        let write = || {
            if file.metadata()?.len() > KEEP_BYTES {
                file.set_len(KEEP_BYTES)?;
            }
            file.write_all_at(&[0; HEADER_BYTES], 0)
        };
        write().map_err(|source| self.failed("write", nth, source))?;
        self.sync(nth)?;
        self.hook.at(Step::Retired, &self.paths[nth])
    }
}

fn open(path: &PathBuf) -> Result<File, DriverError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path);
    match opened {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(file),
        Ok(_) => Err(refused(path, "it is not a file: remove it")),
        Err(error) if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) => {
            Err(refused(path, &format!("it is not a file ({error}): remove it")))
        }
        Err(source) => Err(DriverError::io("open", path, source)),
    }
}

/// What became of the records of one turn.
type Outcome = OnceLock<Result<(), DriverError>>;

/// The records that go with the next turn.
#[derive(Debug, Default)]
struct Waiting {
    bodies: Vec<(ReplicantId, Body)>,
    bytes: u64,
    outcome: Arc<Outcome>,
}

#[derive(Debug)]
struct State {
    /// Where records go.
    active: usize,
    header: Header,
    /// Where the next record begins; 0 if there is not even a header.
    end: u64,
    /// How far each file has been written, by this generation or an earlier one.
    filled: [u64; 2],
    sequence: u64,
    waiting: Waiting,
    writing: bool,
    /// The replicas that the active journal speaks of.
    touched: BTreeSet<ReplicantId>,
    since: Option<Instant>,
    /// The other journal, while a checkpoint is made for it.
    behind: Option<Behind>,
    /// Why the last checkpoint failed, and when.
    stuck: Option<(DriverError, Instant)>,
    /// Why nothing more may be written: what is on the disk is not known.
    broken: Option<DriverError>,
    ending: bool,
    #[cfg(test)]
    in_line: usize,
}

#[derive(Debug, Clone)]
struct Behind {
    nth: usize,
    touched: BTreeSet<ReplicantId>,
}

#[derive(Debug)]
pub(super) struct Journal {
    files: Files,
    state: Mutex<State>,
    changed: Condvar,
    /// Of whoever makes checkpoints.
    due: Condvar,
}

impl Journal {
    /// Goes on with files that are both empty; the generation is to be greater than all that they had.
    pub(super) fn new(files: Files, generation: u64) -> Result<Self, DriverError> {
        let filled = [files.bytes(0)?, files.bytes(1)?];
        let state = State {
            active: 0,
            header: Header { generation, seed: seed(generation) },
            end: 0,
            filled,
            sequence: 0,
            waiting: Waiting::default(),
            writing: false,
            touched: BTreeSet::new(),
            since: None,
            behind: None,
            stuck: None,
            broken: None,
            ending: false,
            #[cfg(test)]
            in_line: 0,
        };
        Ok(Self { files, state: Mutex::new(state), changed: Condvar::new(), due: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while so much is in the journal that a checkpoint has to come first. To be called before a replica is
    /// locked, as the checkpoint locks replicas.
    pub(super) fn wait_for_room(&self) -> Result<(), DriverError> {
        let mut state = self.state();
        while state.end >= WAIT_BYTES && state.broken.is_none() {
            if let Some((error, _)) = &state.stuck {
                return Err(error.clone());
            }
            state = self.wait(state);
        }
        Ok(())
    }

    /// Adds a record and returns when it is on the disk.
    pub(super) fn append(&self, entry: &Entry, contents: &[u8]) -> Result<(), DriverError> {
        self.append_by(entry, contents, |file| file.sync_data())
    }

    fn append_by(
        &self,
        entry: &Entry,
        contents: &[u8],
        force: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), DriverError> {
        let body = Body::new(entry, contents)
            .ok_or_else(|| DriverError::invalid("contents", "they are too large for the journal".to_owned()))?;
        let mut state = self.state();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let bytes = body.record_bytes() as u64;
        if state.end + state.waiting.bytes + bytes > MAX_BYTES {
            let reason = "the journal is full until its checkpoint is done".to_owned();
            return Err(DriverError::Unavailable { reason, retry_after: Some(TRY_AGAIN_AFTER) });
        }
        state.waiting.bytes += bytes;
        state.waiting.bodies.push((entry.id.clone(), body));
        let outcome = state.waiting.outcome.clone();
        #[cfg(test)]
        {
            state.in_line += 1;
        }
        loop {
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            if !state.writing {
                // Nobody has taken what waits, so this record is among it.
                return self.turn(state, force);
            }
            state = self.wait(state);
        }
    }

    /// Writes and syncs all that waits.
    fn turn(
        &self,
        mut state: MutexGuard<'_, State>,
        force: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), DriverError> {
        let Waiting { bodies, outcome, .. } = std::mem::take(&mut state.waiting);
        if let Some(error) = &state.broken {
            let result = Err(error.clone());
            let _ = outcome.set(result.clone());
            return result;
        }
        state.writing = true;
        let (nth, at, filled) = (state.active, state.end, state.filled[state.active]);
        let mut bytes = Vec::new();
        if at == 0 {
            bytes.extend_from_slice(&state.header.encode());
        }
        for (_, body) in &bodies {
            state.sequence += 1;
            body.put(state.header.seed, state.sequence, &mut bytes);
        }
        drop(state);

        let end = at + bytes.len() as u64;
        let file = &self.files.files[nth];
        let written = write(file, at, filled, bytes);
        let synced = match &written {
            Ok(_) => self.files.hook.sync(&self.files.paths[nth], || force(file)),
            Err(_) => Ok(()),
        };

        let mut state = self.state();
        state.writing = false;
        let result = match (written, synced) {
            (Ok(filled), Ok(())) => {
                state.end = end;
                state.filled[nth] = filled;
                state.touched.extend(bodies.into_iter().map(|(id, _)| id));
                let is_first = state.since.is_none();
                state.since.get_or_insert_with(Instant::now);
                if is_first || state.due_in() == Some(Duration::ZERO) {
                    self.due.notify_all();
                }
                Ok(())
            }
            // The system tells of a failure once, and nobody knows what is on the disk since.
            (Ok(_), Err(source)) => Err(self.break_off(&mut state, self.files.failed("sync", nth, source))),
            (Err(source), _) => {
                let error = self.files.failed("write", nth, source);
                // What was written of it must not come to be a part of the journal.
                match file.set_len(at) {
                    Ok(()) => {
                        state.filled[nth] = at;
                        Err(error)
                    }
                    Err(_) => Err(self.break_off(&mut state, error)),
                }
            }
        };
        let _ = outcome.set(result.clone());
        drop(state);
        self.changed.notify_all();
        result
    }

    fn break_off(&self, state: &mut State, error: DriverError) -> DriverError {
        tracing::error!(%error, "the driver changes no file any more: start the node again");
        state.broken = Some(error.clone());
        self.changed.notify_all();
        error
    }

    /// Lets nothing more be written, as what is on the disk is not known.
    pub(super) fn give_up(&self, error: &DriverError) {
        let mut state = self.state();
        if state.broken.is_none() {
            self.break_off(&mut state, error.clone());
        }
    }

    /// Begins a checkpoint, or the one again that failed: the replicas that have to be settled. None if there are none.
    /// New records go to the other journal.
    pub(super) fn turn_over(&self) -> Result<Option<BTreeSet<ReplicantId>>, DriverError> {
        let mut state = self.state();
        while state.writing {
            state = self.wait(state);
        }
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        if state.behind.is_none() && state.end > 0 {
            state.behind = Some(Behind { nth: state.active, touched: std::mem::take(&mut state.touched) });
            state.active = 1 - state.active;
            let generation = state.header.generation + 1;
            state.header = Header { generation, seed: seed(generation) };
            (state.end, state.since) = (0, None);
            drop(state);
            // There is room again.
            self.changed.notify_all();
            state = self.state();
        }
        Ok(state.behind.as_ref().map(|behind| behind.touched.clone()))
    }

    /// Ends a checkpoint: all that the other journal speaks of is in its place durably.
    pub(super) fn retire(&self) -> Result<(), DriverError> {
        let mut state = self.state();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let Some(Behind { nth, .. }) = state.behind.clone() else { return Ok(()) };
        drop(state);
        self.files.empty(nth)?;
        state = self.state();
        state.filled[nth] = state.filled[nth].min(KEEP_BYTES);
        (state.behind, state.stuck) = (None, None);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Remembers why a checkpoint failed, for those who wait for room.
    pub(super) fn is_stuck(&self, error: DriverError) {
        self.state().stuck = Some((error, Instant::now()));
        self.changed.notify_all();
    }

    /// Waits until a checkpoint is due; false at the end of the driver.
    pub(super) fn wait_until_due(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.ending {
                return false;
            }
            state = match state.due_in() {
                None => self.due.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return true,
                Some(left) => self.due.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Ends [`wait_until_due`](Self::wait_until_due).
    pub(super) fn end(&self) {
        self.state().ending = true;
        self.due.notify_all();
    }
}

impl State {
    /// In how long a checkpoint is due; none if nothing makes it due.
    fn due_in(&self) -> Option<Duration> {
        if self.broken.is_some() {
            None
        } else if let Some((_, when)) = &self.stuck {
            Some(TRY_AGAIN_AFTER.saturating_sub(when.elapsed()))
        } else if self.end >= WANTS_BYTES || self.touched.len() >= WANTS_REPLICAS {
            Some(Duration::ZERO)
        } else {
            self.since.map(|since| WANTS_AFTER.saturating_sub(since.elapsed()))
        }
    }
}

/// Writes records at a place, growing the file by more than that if it has to grow. How far it is filled then.
fn write(file: &File, at: u64, filled: u64, mut bytes: Vec<u8>) -> io::Result<u64> {
    let (length, end) = (bytes.len(), at + bytes.len() as u64);
    if end <= filled {
        return file.write_all_at(&bytes, at).map(|()| filled);
    }
    let grown = end.next_multiple_of(GROW_BYTES);
    bytes.resize(length + (grown - end) as usize, 0);
    if file.write_all_at(&bytes, at).is_ok() {
        return Ok(grown);
    }
    // There may be space for the records alone.
    file.set_len(filled.max(at))?;
    file.write_all_at(&bytes[..length], at).map(|()| end)
}

/// Another one each time.
fn seed(generation: u64) -> u64 {
    RandomState::new().hash_one((generation, SystemTime::now(), std::process::id()))
}

#[cfg(test)]
mod tests;
