//! Syncing one directory for many at once.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::DriverError;

/// A directory whose names are forced to the disk. Whoever comes while that is under way waits for the next turn, and one
/// turn is enough for all who have come by then.
#[derive(Debug)]
pub(super) struct GroupSync {
    dir: PathBuf,
    turns: Mutex<Turns>,
    ended: Condvar,
}

/// Turns are counted from 1.
#[derive(Debug, Default)]
struct Turns {
    running: bool,
    begun: u64,
    /// The last that went well.
    done: u64,
    /// The last that failed, and how.
    failed: (u64, String),
    #[cfg(test)]
    waiting: usize,
}

impl GroupSync {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), turns: Mutex::default(), ended: Condvar::new() }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all names durable that were changed before. Blocks.
    pub(super) fn sync(&self) -> Result<(), DriverError> {
        self.sync_by(|dir| File::open(dir)?.sync_all())
    }

    fn sync_by(&self, force: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), DriverError> {
        let mut turns = self.turns();
        // A turn that has begun may have missed what was changed since.
        let wanted = turns.begun + 1;
        while turns.running {
            #[cfg(test)]
            {
                turns.waiting += 1;
            }
            turns = self.ended.wait(turns).unwrap_or_else(PoisonError::into_inner);
            // The system tells of a failure once. Whoever waited for that turn must hear of it.
            if turns.failed.0 >= wanted {
                return Err(DriverError::io("sync", &self.dir, io::Error::other(turns.failed.1.clone())));
            }
            if turns.done >= wanted {
                return Ok(());
            }
        }
        turns.running = true;
        turns.begun += 1;
        let this = turns.begun;
        drop(turns);
        let result = force(&self.dir);
        let mut turns = self.turns();
        turns.running = false;
        match &result {
            Ok(()) => turns.done = this,
            Err(error) => turns.failed = (this, error.to_string()),
        }
        drop(turns);
        self.ended.notify_all();
        result.map_err(|source| DriverError::io("sync", &self.dir, source))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_who_wait_share_the_next_turn_and_its_failure() {
        for fails in [false, true] {
            let group = GroupSync::new(Path::new("/nowhere"));
            let syncs = AtomicU64::new(0);
            let (begun, has_begun) = mpsc::channel();
            let (go_on, may_go_on) = mpsc::channel::<()>();
            let good = std::thread::scope(|scope| {
                let (group, syncs) = (&group, &syncs);
                let first = scope.spawn(move || {
                    group.sync_by(|_| {
                        begun.send(()).unwrap();
                        may_go_on.recv().map_err(io::Error::other)
                    })
                });
                has_begun.recv().unwrap();
                let force = move |_: &Path| {
                    syncs.fetch_add(1, SeqCst);
                    if fails { Err(io::Error::other("no")) } else { Ok(()) }
                };
                let later: Vec<_> = (0..8).map(|_| scope.spawn(move || group.sync_by(force))).collect();
                while group.turns().waiting < 8 {
                    std::thread::yield_now();
                }
                go_on.send(()).unwrap();
                first.join().unwrap().unwrap();
                later.into_iter().map(|thread| thread.join().unwrap()).filter(Result::is_ok).count()
            });
            assert_eq!((good, syncs.into_inner()), (if fails { 0 } else { 8 }, 1));
        }
    }

    #[test]
    fn what_was_changed_before_is_durable_after() {
        let group = GroupSync::new(Path::new("/nowhere"));
        let (changed, durable, turns) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mine = changed.fetch_add(1, SeqCst) + 1;
                        let synced = group.sync_by(|_| {
                            let before = changed.load(SeqCst);
                            std::thread::yield_now();
                            if turns.fetch_add(1, SeqCst) % 5 == 4 {
                                return Err(io::Error::other("no"));
                            }
                            durable.fetch_max(before, SeqCst);
                            Ok(())
                        });
                        assert!(synced.is_err() || durable.load(SeqCst) >= mine);
                    }
                });
            }
        });
        assert!(turns.into_inner() <= 1600);
    }
}
