//! What is known of replicas that changed since their notes were written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use khufu_crdt::ReplicantId;

use super::note::State;

/// The newest that is known of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Latest {
    pub(super) number: u64,
    /// None if nothing is to be remembered: it was deleted.
    pub(super) state: Option<State>,
}

/// The newest of all replicas that a journal knows. What is not in here is as its note says.
#[derive(Debug, Default)]
pub(super) struct AllLatest(Mutex<BTreeMap<ReplicantId, Latest>>);

impl AllLatest {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ReplicantId, Latest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &ReplicantId) -> Option<Latest> {
        self.all().get(id).cloned()
    }

    pub(super) fn set(&self, id: &ReplicantId, latest: Latest) {
        self.all().insert(id.clone(), latest);
    }

    /// Forgets what notes say by now, except what has changed again.
    pub(super) fn settled(&self, settled: &[(ReplicantId, Latest)]) {
        let mut all = self.all();
        for (id, latest) in settled {
            if all.get(id) == Some(latest) {
                all.remove(id);
            }
        }
    }

    /// Adds replicas that have no note yet, and takes out those that will have none.
    pub(super) fn correct(&self, ids: &mut BTreeSet<ReplicantId>) {
        for (id, latest) in &*self.all() {
            if latest.state.is_some() {
                ids.insert(id.clone());
            } else {
                ids.remove(id);
            }
        }
    }
}
