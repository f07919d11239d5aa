//! Places for driver calls: how many are under way at once, and who is next.

use std::collections::BTreeMap;
use std::sync::Arc;

use khufu_crdt::ReplicantId;

use crate::Engine;

/// The calls that are under way.
struct Busy {
    all: usize,
    most: usize,
    /// The most of one kind.
    share: usize,
    /// Of each kind; none at all of some that this node drives.
    of: BTreeMap<Arc<str>, usize>,
}

impl Busy {
    /// Whether another driver call may begin: not too many in all, not so many of one kind that a platform which does not
    /// answer leaves little to the others, and none in the last place of another kind, however many platforms do not answer.
    fn leaves_room_for(&self, kind: &str) -> bool {
        let kept = self.of.iter().filter(|(other, calls)| **calls == 0 && &***other != kind).count();
        self.all + kept < self.most && self.of.get(kind).is_none_or(|calls| *calls < self.share)
    }
}

impl Engine {
    /// Whether another driver call for a replicant may begin.
    pub(super) fn may_call(&self, id: &ReplicantId) -> bool {
        // Mostly there are so few calls that it does not matter of which kinds they are.
        let kept = self.config.kinds.len().saturating_sub(1);
        let few = self.share().min(self.most().saturating_sub(kept));
        self.calls.len() < few || self.busy(false).leaves_room_for(&self.kind_of(id))
    }

    fn kind_of(&self, id: &ReplicantId) -> Arc<str> {
        self.replicants.index.get(id).map(|entry| entry.kind.clone()).unwrap_or_default()
    }

    /// Waits for a place for a driver call.
    pub(crate) fn wait_for_call(&mut self, id: ReplicantId) {
        let kind = self.kind_of(&id);
        self.waiting_calls.push(id, kind);
    }

    /// The most calls at once: there is a place for each kind.
    fn most(&self) -> usize {
        self.config.calls.max(self.config.kinds.len())
    }

    /// The most calls of one kind.
    fn share(&self) -> usize {
        let most = self.most();
        if self.config.kinds.len() > 1 { (most * 3 / 4).max(1) } else { most }
    }

    /// What keeps drivers busy, and, where that is asked, what will as soon as it is read from disk.
    fn busy(&self, soon: bool) -> Busy {
        let called = self.calls.values().map(|(id, _)| self.kind_of(id));
        let of = self.config.kinds.keys().map(|kind| (Arc::from(kind.as_str()), 0)).collect();
        let mut busy = Busy { all: 0, most: self.most(), share: self.share(), of };
        for kind in called.chain(self.waiting_calls.reading().filter(|_| soon).cloned()) {
            busy.all += 1;
            *busy.of.entry(kind).or_default() += 1;
        }
        busy
    }

    /// A place for a driver call has become free.
    pub(crate) fn next_waiting_call(&mut self) {
        // Whoever is next may need none any more; then it is for the one after. No more are read from disk than may then
        // have something done.
        loop {
            let busy = self.busy(true);
            let Some((id, kind)) = self.waiting_calls.pop(|kind| busy.leaves_room_for(kind)) else { return };
            if self.replicants.index.contains_key(&id) && !self.replicants.resident.contains_key(&id) {
                self.waiting_calls.reads(&id, kind);
            }
            self.run(id, crate::engine::Task::Work);
        }
    }
}
