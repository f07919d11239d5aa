//! A replicant that is held here was deleted elsewhere and made anew, or somebody says so. What is held goes on as if nothing
//! had been said until the later document is complete and turns out to live here; then it takes the place of the other.

use khufu_crdt::DocumentId;

use crate::engine::Task;
use crate::{Engine, NodeId};

impl Engine {
    /// Works on a document of a later life than the resident one.
    pub(crate) fn perform_on_later(&mut self, document: &DocumentId, from: &NodeId, task: Task) {
        let id = &document.replicant;
        let known = self.replicants.later.remove(document);
        if known.is_none() && !task.begins() {
            self.counters.ignored += 1;
            return;
        }
        let Some(held) = self.replicants.resident.remove(id) else { return };
        match known {
            Some(later) => _ = self.replicants.resident.insert(id.clone(), later),
            None if self.unknown(document.clone(), from) => {}
            None => {
                self.replicants.resident.insert(id.clone(), held);
                return;
            }
        }
        if let Some(later) = self.replicants.resident.get_mut(id) {
            later.used_us = self.now.monotonic_us;
            later.instead_of = Some(Box::new(held));
        }
        self.perform(id, task);
        let Some(mut later) = self.replicants.resident.remove(id) else { return };
        let now = match later.instead_of.take() {
            Some(held) => {
                self.replicants.later.insert(document.clone(), later);
                *held
            }
            None => later,
        };
        self.replicants.resident.insert(id.clone(), now);
    }

    /// Drops those of which nothing was heard for a while. If there is anything to them, they are told of again.
    pub(crate) fn sweep_later(&mut self) {
        let now = self.now;
        let patience = self.config.session_timeout;
        self.replicants.later.retain(|_, later| now.since(later.used_us) <= patience);
        // Later epochs likewise: while one is fetched there is a session.
        let (replicants, sync) = (&mut self.replicants, &self.sync);
        for (id, resident) in replicants.resident.iter_mut().filter(|(_, resident)| resident.next.is_some()) {
            if !sync.has_session(id) {
                resident.next = None;
            }
        }
    }
}
