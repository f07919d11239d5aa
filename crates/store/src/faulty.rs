//! A store that fails on purpose.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;

use crate::{Done, Scan, Stats, Store, StoreError, Write, lock};

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full. The batch is refused, later ones are taken.
    DiskFull,
    /// The disk reports an error before anything of the batch is kept. Later batches are refused as poisoned.
    Lost,
    /// The disk reports an error although the batch is kept. Later batches are refused as poisoned.
    Kept,
}

/// A store around another one, for tests: fails at chosen commits, holds writes back as a disk's cache does, and
/// crashes.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: u64,
    faults: BTreeMap<u64, Fault>,
    holding: bool,
    held: VecDeque<(Vec<Write>, Done)>,
    poisoned: bool,
    crashed: bool,
    unread: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("seen", &self.seen).field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl<S: Store> FaultyStore<S> {
    /// A store that behaves like `inner` until told otherwise.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Makes the `nth` batch from now (the next is 1) fail.
    pub fn fail(&self, nth: u64, fault: Fault) {
        let mut state = lock(&self.state);
        let at = state.seen + nth;
        state.faults.insert(at, fault);
    }

    /// Makes the next scans fail, so many of them, as if the system refused to read.
    pub fn fail_scans(&self, scans: u64) {
        lock(&self.state).unread = scans;
    }

    /// From now on batches are taken and neither kept nor acknowledged: they are written and not yet synced.
    pub fn hold(&self) {
        lock(&self.state).holding = true;
    }

    /// How many batches are held.
    pub fn held(&self) -> usize {
        lock(&self.state).held.len()
    }

    /// Syncs: keeps and acknowledges what was held, in order, and holds no more.
    pub fn release(&self) {
        let held = {
            let mut state = lock(&self.state);
            state.holding = false;
            std::mem::take(&mut state.held)
        };
        for (writes, done) in held {
            self.inner.submit(writes, done);
        }
    }

    /// Crashes: of the batches held, the first `kept` had reached the disk, the others are gone, one that was torn
    /// with them. None is acknowledged. Every later call fails with [`StoreError::Closed`]; what a restart would find
    /// is in [`inner`](Self::inner).
    pub fn crash(&self, kept: usize) {
        let held = {
            let mut state = lock(&self.state);
            state.crashed = true;
            std::mem::take(&mut state.held)
        };
        for (writes, _) in held.into_iter().take(kept) {
            let _ = self.inner.commit(writes);
        }
    }

    fn dir() -> PathBuf {
        PathBuf::from("a store that fails on purpose")
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn submit(&self, writes: Vec<Write>, done: Done) {
        let mut state = lock(&self.state);
        if state.crashed {
            drop(state);
            return done(Err(StoreError::Closed));
        }
        if state.poisoned {
            drop(state);
            return done(Err(StoreError::Poisoned { dir: Self::dir(), reason: "a fault on purpose".to_owned() }));
        }
        state.seen += 1;
        let seen = state.seen;
        let fault = state.faults.remove(&seen);
        if fault.is_none() && state.holding {
            state.held.push_back((writes, done));
            return;
        }
        let poisons = matches!(fault, Some(Fault::Lost | Fault::Kept));
        state.poisoned = poisons;
        // What waits in front shares the fate of the batch that fails, as it shares the sync: the order is kept.
        let held = if fault.is_some() { std::mem::take(&mut state.held) } else { VecDeque::new() };
        drop(state);
        let failure = || StoreError::io("sync", Self::dir(), std::io::Error::other("a fault on purpose"));
        for (writes, done) in held.into_iter().chain([(writes, done)]) {
            match fault {
                None => self.inner.submit(writes, done),
                Some(Fault::DiskFull) => done(Err(StoreError::DiskFull { dir: Self::dir(), free: 0 })),
                Some(Fault::Lost) => done(Err(failure())),
                Some(Fault::Kept) => self.inner.submit(writes, Box::new(move |_| done(Err(failure())))),
            }
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if lock(&self.state).crashed { Err(StoreError::Closed) } else { self.inner.get(key) }
    }

    fn scan(&self, prefix: &[u8]) -> Result<Scan, StoreError> {
        let mut state = lock(&self.state);
        if state.crashed {
            return Err(StoreError::Closed);
        }
        if state.unread > 0 {
            state.unread -= 1;
            return Err(StoreError::io("read", Self::dir(), std::io::Error::other("a fault on purpose")));
        }
        drop(state);
        self.inner.scan(prefix)
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.inner.has_room(bytes)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}
