//! What is due when. One timer of the runner serves them all.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::ReplicantId;

use crate::NodeId;
use crate::origin::Origin;

/// What to do at a moment. Setting the same one again moves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Heartbeats to all connected nodes, and a look at who is silent.
    Heartbeat,
    /// Compare what is shared with a node.
    Reconcile(NodeId),
    /// Tell others about this site again.
    Announce,
    /// Apply the changes of a document that have come in.
    Flush(ReplicantId),
    /// Try again to read a document from disk.
    Read(ReplicantId),
    /// Try again what a driver could not do.
    Work(ReplicantId),
    /// Look again at a platform: it could not be looked at, or what was put back is changed by hand ever again.
    Look(ReplicantId),
    /// Give up a sync session that has gone silent.
    Session(NodeId, ReplicantId),
    /// Give up waiting for an answer of another site.
    Ask(u64),
    /// Answer with what is known by now.
    Gather(u64),
    /// Answer another node with what was looked at by now.
    Job(u64),
    /// Answer an operation with what is known by now.
    Wait(Origin),
    /// Decide placements anew that depend on who is alive.
    Place,
    /// See whether an epoch can be closed.
    Close(ReplicantId),
    /// Compact what has grown and drop documents from memory that nobody uses.
    Sweep,
    /// Say that something is under way which has not come to an end meanwhile.
    Report(ReplicantId),
    /// Send the reports that have gathered.
    Tell,
}

/// A queue of moments.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(u64, Due)>,
    by_what: BTreeMap<Due, u64>,
    announced: Option<u64>,
}

impl Timers {
    /// Sets or moves.
    pub(crate) fn set(&mut self, due: Due, at_us: u64) {
        self.cancel(&due);
        self.by_what.insert(due.clone(), at_us);
        self.by_time.insert((at_us, due));
    }

    /// Sets unless it is set for earlier.
    pub(crate) fn set_by(&mut self, due: Due, at_us: u64) {
        if self.by_what.get(&due).is_none_or(|set| *set > at_us) {
            self.set(due, at_us);
        }
    }

    /// Whether it is set.
    pub(crate) fn is_set(&self, due: &Due) -> bool {
        self.by_what.contains_key(due)
    }

    /// When it is due, if it is set.
    pub(crate) fn at(&self, due: &Due) -> Option<u64> {
        self.by_what.get(due).copied()
    }

    /// Forgets; nothing happens if it was not set.
    pub(crate) fn cancel(&mut self, due: &Due) {
        if let Some(at) = self.by_what.remove(due) {
            self.by_time.remove(&(at, due.clone()));
        }
    }

    /// Takes the next one that is due.
    pub(crate) fn pop(&mut self, now_us: u64) -> Option<Due> {
        let (at, _) = self.by_time.first()?;
        if *at > now_us {
            return None;
        }
        let (_, due) = self.by_time.pop_first()?;
        self.by_what.remove(&due);
        Some(due)
    }

    /// The runner's timer has fired, so it must be set again.
    pub(crate) fn fired(&mut self) {
        self.announced = None;
    }

    /// The moment that the runner must be told of, if it changed.
    pub(crate) fn announce(&mut self) -> Option<u64> {
        let next = self.by_time.first().map(|(at, _)| *at);
        if next == self.announced {
            return None;
        }
        self.announced = next;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_what_is_set_again_and_says_so() {
        let mut timers = Timers::default();
        timers.set(Due::Sweep, 50);
        timers.set(Due::Heartbeat, 20);
        assert_eq!(timers.announce(), Some(20));
        assert_eq!(timers.announce(), None);
        timers.set(Due::Heartbeat, 70);
        assert_eq!(timers.announce(), Some(50));
        assert_eq!(timers.pop(49), None);
        assert_eq!(timers.pop(60), Some(Due::Sweep));
        assert_eq!(timers.pop(60), None);
        timers.set_by(Due::Heartbeat, 90);
        assert_eq!(timers.announce(), Some(70));
    }
}
