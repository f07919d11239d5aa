//! Noticing that somebody edited a file.

use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::Duration;

use khufu_crdt::ReplicantId;
use tokio::sync::broadcast;

use super::opening::Opening;

/// So many changes are kept for a receiver that is slow.
const CAPACITY: usize = 1024;
/// So many files are looked at in one round; the others wait for the next.
const PER_ROUND: usize = 20_000;

/// Looks at the files now and then, for as long as there is a driver.
#[derive(Debug)]
pub(super) struct Watcher {
    changes: broadcast::Sender<ReplicantId>,
    thread: Option<Thread>,
}

impl Watcher {
    pub(super) fn start(opening: &Arc<Opening>, interval: Duration) -> Self {
        let (changes, _) = broadcast::channel(CAPACITY);
        let (weak, sender) = (Arc::downgrade(opening), changes.clone());
        let thread = std::thread::Builder::new().name("khufu-files".to_owned()).spawn(move || {
            let mut after = None;
            while round(&weak, &sender, &mut after) {
                std::thread::park_timeout(interval);
            }
        });
        if let Err(error) = &thread {
            tracing::error!(%error, "changes by hand are only seen when a replica is observed");
        }
        Self { changes, thread: thread.ok().map(|thread| thread.thread().clone()) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ReplicantId> {
        self.changes.subscribe()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// Looks at the files after the one that was looked at last. Answers whether there is still a driver.
fn round(opening: &Weak<Opening>, changes: &broadcast::Sender<ReplicantId>, after: &mut Option<ReplicantId>) -> bool {
    let Some(opening) = opening.upgrade() else { return false };
    if changes.receiver_count() == 0 {
        return true;
    }
    let known = opening.replicas().and_then(|replicas| Ok((replicas, replicas.known()?)));
    let (replicas, known) = match known {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(%error, "cannot look for changes by hand");
            return true;
        }
    };
    let from = after.as_ref().map_or(0, |after| known.partition_point(|id| id <= after));
    let some: Vec<_> = known.into_iter().skip(from).take(PER_ROUND).collect();
    *after = if some.len() == PER_ROUND { some.last().cloned() } else { None };
    for id in some {
        if replicas.has_changed(&id) {
            let _ = changes.send(id);
        }
    }
    true
}
