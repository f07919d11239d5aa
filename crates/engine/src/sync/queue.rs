//! Documents that wait for a session with a node, because there are enough of them under way.

use std::collections::BTreeMap;

use khufu_crdt::{ChangeHash, ReplicantId};
use sha2::{Digest, Sha256};

use crate::timers::Due;
use crate::{Engine, NodeId};

/// The most documents that wait for a session with one node. What finds no place is found again by the next comparison.
const MAX_QUEUED: usize = 16_384;

/// Those that wait for one node, in an order that is another for each two nodes: where two nodes bring a third up to date,
/// each begins with what the other would come to late, and most comes once.
#[derive(Debug, Default)]
pub(crate) struct Queued(BTreeMap<(u64, ReplicantId), Option<Seen>>);

/// What was known of a document when it was found to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    heads: Vec<ChangeHash>,
    /// The number of the newest report of the other site.
    report: u64,
}

/// Where a document stands in the order for two nodes.
fn place(here: &NodeId, there: &NodeId, id: &ReplicantId) -> u64 {
    let (first, second) = (here.min(there), here.max(there));
    let digest = Sha256::new().chain_update(&first.0).chain_update(&second.0).chain_update(id.as_str()).finalize();
    digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Queued {
    /// Takes the first of which there is no session; such a one stays until that is over.
    fn pop(&mut self, busy: impl Fn(&ReplicantId) -> bool) -> Option<(ReplicantId, Option<Seen>)> {
        let first = self.0.keys().find(|(_, id)| !busy(id))?.clone();
        let ((_, id), seen) = self.0.remove_entry(&first)?;
        Some((id, seen))
    }
}

impl Engine {
    /// What is known at present of a document, and of the site of a node.
    fn seen_of(&self, id: &ReplicantId, node: &NodeId) -> Option<Seen> {
        let entry = self.replicants.held(id)?;
        let report = self.members.site_of(node).and_then(|site| entry.reports.get(site)).map_or(0, |known| known.0);
        Some(Seen { heads: entry.heads.clone(), report })
    }

    /// Has a document wait for a session.
    pub(super) fn queue_session(&mut self, id: &ReplicantId, with: &NodeId) {
        let seen = self.seen_of(id, with);
        let place = place(&self.config.node, with, id);
        let queued = self.sync.queued.entry(with.clone()).or_default();
        if queued.0.len() < MAX_QUEUED {
            queued.0.entry((place, id.clone())).or_insert(seen);
        }
    }

    /// Begins sessions with a node, a few at a time.
    pub(super) fn meet_all(&mut self, ids: impl IntoIterator<Item = ReplicantId>, with: &NodeId) {
        for id in ids {
            self.queue_session(&id, with);
        }
        self.next_queued(with);
    }

    /// There is room for sessions with a node. What needs none any more makes room for the next.
    pub(super) fn next_queued(&mut self, node: &NodeId) {
        for _ in 0..self.config.sessions {
            if self.sync.sessions_with(node) >= self.config.sessions {
                return;
            }
            let Some(next) = self.next_that_differs(node) else { return };
            self.meet(&next, node);
        }
    }

    /// The next of those that wait. What has changed since, or what the other has said to have as it is here, was brought by
    /// somebody else, most likely: the next comparison tells.
    fn next_that_differs(&mut self, node: &NodeId) -> Option<ReplicantId> {
        let mut passed = false;
        let next = loop {
            let sessions = &self.sync.sessions;
            let busy = |id: &ReplicantId| sessions.contains_key(&(node.clone(), id.clone()));
            let queued = self.sync.queued.get_mut(node);
            let Some((id, before)) = queued.and_then(|queued| queued.pop(busy)) else {
                self.sync.queued.retain(|of, queued| of != node || !queued.0.is_empty());
                break None;
            };
            let now = self.seen_of(&id, node);
            let same = now.as_ref().map(|now| &now.heads) == before.as_ref().map(|before| &before.heads);
            if same && (now == before || !self.says_the_same(&id, node)) {
                break Some(id);
            }
            passed = true;
        };
        if passed {
            self.timers.set_by(Due::Reconcile(node.clone()), self.now.plus(self.config.quiet));
        }
        next
    }

    /// Whether the newest report of a node's site is of the document as it is here.
    fn says_the_same(&self, id: &ReplicantId, node: &NodeId) -> bool {
        let site = self.members.site_of(node);
        site.is_some_and(|site| self.replicants.held(id).is_some_and(|entry| entry.current.contains(site)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_busy_waits_on_and_lets_others_pass() {
        let id = |name: &str| ReplicantId::new(name).unwrap();
        let mut queued = Queued::default();
        for (place, name) in [(1, "busy"), (2, "free")] {
            queued.0.insert((place, id(name)), None);
        }
        let busy = |of: &ReplicantId| *of == id("busy");
        assert_eq!(queued.pop(busy), Some((id("free"), None)));
        assert_eq!(queued.pop(busy), None);
        assert_eq!(queued.pop(|_| false), Some((id("busy"), None)));
    }
}
