//! Group commit: whoever has the turn takes whatever waits, makes it durable with one sync, and acknowledges all of it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{JoinHandle, ThreadId};

use super::apply::Applier;
use super::mark::Mark;
use crate::{Done, MAX_BATCH_WRITES, StoreError, Write, check, lock};

/// Beyond so many bytes a group takes no further batch. Less than a segment of sled's, see `apply.rs`.
const GROUP_BYTES: usize = 256 << 10;
/// So many bytes may wait; beyond that `submit` blocks.
const QUEUE_BYTES: usize = 64 << 20;
/// So many batches may wait.
const QUEUE_BATCHES: usize = 8192;
/// For each byte of a batch so many should be free: sled writes a page anew when it has changed often enough.
const SPACE_FACTOR: u64 = 4;
/// Space in which deletes are still taken when the disk is as good as full.
const SPACE_FOR_DELETES: u64 = 2 << 20;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
    room: Condvar,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) writes: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<(Vec<Write>, Done)>,
    bytes: usize,
    closed: bool,
    /// A checkpoint is due.
    due: bool,
    /// The thread that has the turn.
    leader: Option<ThreadId>,
    /// How many wait for room.
    blocked: usize,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("batches", &self.batches.len()).field("closed", &self.closed).finish()
    }
}

fn size(writes: &[Write]) -> usize {
    writes.iter().map(Write::bytes).sum()
}

impl Queue {
    /// Has a batch wait for the thread that commits.
    pub(super) fn submit(&self, writes: Vec<Write>, done: Done) {
        self.put(writes, done);
        self.more.notify_one();
    }

    /// Has a batch committed, by this thread unless another has the turn: then with what else waits by the end of that.
    pub(super) fn commit(&self, turn: &Mutex<Committer>, writes: Vec<Write>) -> Result<(), StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        self.put(writes, Box::new(move |result| _ = tell.send(result)));
        loop {
            let mut committer = lock(turn);
            match told.try_recv() {
                Ok(result) => return result,
                Err(mpsc::TryRecvError::Disconnected) => return Err(StoreError::Closed),
                Err(mpsc::TryRecvError::Empty) => committer.commit_next(self),
            }
            if committer.applier.is_behind() {
                lock(&self.waiting).due = true;
                self.more.notify_one();
            }
        }
    }

    fn put(&self, writes: Vec<Write>, done: Done) {
        let bytes = size(&writes);
        let mut waiting = lock(&self.waiting);
        // The committing thread itself must never wait for room that only it can make.
        while !waiting.closed
            && !waiting.batches.is_empty()
            && (waiting.bytes + bytes > QUEUE_BYTES || waiting.batches.len() >= QUEUE_BATCHES)
            && waiting.leader != Some(std::thread::current().id())
        {
            waiting.blocked += 1;
            waiting = self.room.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.blocked -= 1;
        }
        if waiting.closed {
            drop(waiting);
            return done(Err(StoreError::Closed));
        }
        waiting.bytes += bytes;
        waiting.batches.push_back((writes, done));
    }

    pub(super) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.more.notify_all();
        self.room.notify_all();
    }

    /// Waits until there is something to do; not after the end, once all is done.
    fn wait(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        while waiting.batches.is_empty() && !waiting.due && !waiting.closed {
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.due = false;
        !waiting.batches.is_empty() || !waiting.closed
    }

    /// The next group, for this thread, which has the turn; empty if nothing waits.
    fn take(&self) -> Vec<(Vec<Write>, Done)> {
        let mut waiting = lock(&self.waiting);
        waiting.leader = Some(std::thread::current().id());
        let mut group = Vec::new();
        let (mut bytes, mut count) = (0, 0);
        while let Some((writes, _)) = waiting.batches.front() {
            bytes += size(writes);
            count += writes.len();
            if !group.is_empty() && (bytes > GROUP_BYTES || count > MAX_BATCH_WRITES) {
                break;
            }
            group.extend(waiting.batches.pop_front());
        }
        waiting.bytes = waiting.batches.iter().map(|(writes, _)| size(writes)).sum();
        // To wake nobody costs as much as to wake somebody.
        if waiting.blocked > 0 {
            self.room.notify_all();
        }
        group
    }
}

/// What commits: one thread at a time.
#[derive(Debug)]
pub(super) struct Committer {
    applier: Applier,
    mark: Mark,
    keep_free: u64,
    poison: Option<String>,
}

/// Held by whoever commits.
pub(super) type Turn = Arc<Mutex<Committer>>;

impl Committer {
    pub(super) fn new(applier: Applier, mark: Mark, keep_free: u64) -> Self {
        Self { applier, mark, keep_free, poison: None }
    }

    /// Commits the next group of those that wait, and tells its authors.
    fn commit_next(&mut self, queue: &Queue) {
        let group = queue.take();
        let results = catch_unwind(AssertUnwindSafe(|| self.commit(&group))).unwrap_or_else(|_| {
            // Nobody knows how far it came.
            let (dir, reason) = (self.applier.dir.clone(), "a commit panicked".to_owned());
            tracing::error!(dir = %dir.display(), "a commit panicked; the store takes no more writes");
            self.poison = Some(reason.clone());
            let poisoned = StoreError::Poisoned { dir, reason };
            group.iter().map(|_| Err(poisoned.clone())).collect()
        });
        queue.syncs.store(self.applier.syncs, Relaxed);
        for ((writes, done), result) in group.into_iter().zip(results) {
            if result.is_ok() {
                queue.commits.fetch_add(1, Relaxed);
                queue.writes.fetch_add(writes.len() as u64, Relaxed);
            }
            drop(writes);
            if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                tracing::error!("what a store was to do after a commit panicked");
            }
        }
        lock(&queue.waiting).leader = None;
    }

    /// Makes a checkpoint if it is time for one, or at once if there is anything for it. Nobody waits for it but who comes
    /// next.
    fn check(&mut self, queue: &Queue, at_once: bool) {
        let due = self.applier.is_behind() || (at_once && self.applier.is_begun());
        // What sled cannot take now, the journal keeps.
        let fits = || lacking(&self.applier.dir, SPACE_FOR_DELETES, self.applier.bytes_behind()).is_none();
        if self.poison.is_none() && due && fits() {
            let result = self.applier.checkpoint();
            self.note(&result);
            queue.syncs.store(self.applier.syncs, Relaxed);
        }
    }

    fn commit(&mut self, group: &[(Vec<Write>, Done)]) -> Vec<Result<(), StoreError>> {
        let applier = &mut self.applier;
        let mut results: Vec<_> = group
            .iter()
            .map(|(writes, _)| match &self.poison {
                Some(reason) => Err(StoreError::Poisoned { dir: applier.dir.clone(), reason: reason.clone() }),
                None => check(writes),
            })
            .collect();
        let fail = |results: &mut Vec<Result<(), StoreError>>, error: &StoreError| {
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(error.clone()));
        };
        let accepted: Vec<&Write> = group
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .flat_map(|((writes, _), _)| writes)
            .collect();
        if !results.iter().any(Result::is_ok) {
            return results;
        }
        if let Err(error) = enough_space(applier, self.keep_free, &accepted) {
            fail(&mut results, &error);
            return results;
        }
        let applied = applier.apply(&accepted);
        if let Err(error) = &applied {
            fail(&mut results, error);
        } else {
            self.mark.set(applier.sequence);
            applier.steps.acknowledged(results.iter().filter(|result| result.is_ok()).count());
        }
        self.note(&applied);
        results
    }

    /// After a failure nobody knows what the disk holds.
    fn note(&mut self, result: &Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(%error, dir = %self.applier.dir.display(), "a commit failed; the store takes no more writes");
            self.poison = Some(error.to_string());
        }
    }
}

/// Starts the thread that commits what nobody waits for, and makes the checkpoints.
pub(super) fn start(queue: Arc<Queue>, turn: Turn) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("khufu-commit".to_owned()).spawn(move || {
        while queue.wait() {
            let mut committer = lock(&turn);
            committer.commit_next(&queue);
            committer.check(&queue, false);
        }
        lock(&turn).check(&queue, true);
        // sled flushes when its last handle goes, and may stop on what it finds.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(turn)));
    })
}

/// Looks before it leaps: a disk found full before sled has touched it leaves the store usable.
fn enough_space(applier: &Applier, keep_free: u64, writes: &[&Write]) -> Result<(), StoreError> {
    let puts: usize = writes.iter().filter(|write| matches!(write, Write::Put { .. })).map(|write| write.bytes()).sum();
    // What is only in the journal may have to go to sled along with it.
    let behind = if puts > 0 { applier.bytes_behind() } else { 0 };
    match lacking(&applier.dir, keep_free, behind.saturating_add(puts as u64)) {
        Some(free) => Err(StoreError::DiskFull { dir: applier.dir.clone(), free }),
        None => Ok(()),
    }
}

/// How much is free, if that is not enough to put so many bytes (to delete, if none).
pub(super) fn lacking(dir: &Path, keep_free: u64, puts: u64) -> Option<u64> {
    let free = fs4::available_space(dir).ok()?;
    let needed = match puts {
        0 => keep_free.min(SPACE_FOR_DELETES),
        _ => keep_free.saturating_add(SPACE_FACTOR.saturating_mul(puts)),
    };
    (free < needed).then_some(free)
}
