//! A disk without space: what could not be stored is forgotten as in a crash, what is stored can be read, and nothing
//! is changed or taken in until there is room.

use crate::engine::Task;
use crate::stock::Stock;
use crate::work::Doing;
use crate::{Engine, Record, Request, RequestError};

impl Request {
    /// Whether it may change something.
    fn changes(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Patch { .. } | Self::Operate(_) | Self::Pick { .. } | Self::Delete { .. })
    }
}

impl Engine {
    /// Why the disk takes nothing at present, if it does not.
    #[must_use]
    pub fn full(&self) -> Option<&str> {
        self.full.as_deref()
    }

    /// Whether this node changes nothing at present: what it would write is lost.
    pub(crate) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// What whoever wants a change is told while there is no space for it.
    pub(crate) fn refusal(&self, request: &Request) -> Option<RequestError> {
        let full = self.full.as_ref().filter(|_| request.changes())?;
        Some(self.full_error(full))
    }

    fn full_error(&self, full: &str) -> RequestError {
        let message = format!(
            "site {} has no space to store this ({full}): make room there, or ask another site, then ask again",
            self.config.site
        );
        RequestError::Full { message }
    }

    /// There is no space. What is in memory and not stored was told to nobody; it is forgotten.
    pub(crate) fn disk_full(&mut self, error: String, restore: Vec<Record>) {
        let refusal = self.full_error(&error);
        let never_called = self.outbox.freeze(&refusal);
        let message = format!(
            "the disk is full ({error}): changes are refused, and nothing is taken in or carried out, until there is room"
        );
        self.full = Some(error);
        self.forget(restore, &never_called);
        self.end_waits(&refusal);
        self.warn(None, message);
    }

    /// There is space again: everything goes on from what is stored.
    pub(crate) fn disk_has_room(&mut self, restore: Vec<Record>) {
        if self.full.take().is_none() {
            return;
        }
        self.outbox.thaw();
        // What was learned of others in the meantime was not written.
        self.store_clock();
        self.store_members();
        self.forget(restore, &[]);
        self.warn(None, "the disk has room again: changes are taken".to_owned());
        self.take_up();
        self.placements_may_change();
        let nodes: Vec<_> = self.members.connected().cloned().collect();
        nodes.iter().for_each(|node| self.reconcile_with(node));
    }

    /// Memory holds what is stored and nothing else. What was under way for somebody begins anew.
    fn forget(&mut self, restore: Vec<Record>, never_called: &[crate::CallId]) {
        let stock = match Stock::take(restore, self.config.doubtful) {
            Ok(stock) => stock,
            Err(error) => return self.outbox.store_failed(&error.to_string()),
        };
        let old = std::mem::replace(&mut self.replicants, stock.replicants);
        self.sync.forget();
        self.members.untell();
        self.waiting_calls.clear();
        let mut again = Vec::new();
        for (id, tasks) in old.parked {
            again.extend(tasks.into_iter().map(|task| (id.clone(), task)));
        }
        for (id, resident) in old.resident {
            again.extend(resident.side.into_iter().map(|side| (id.clone(), Task::Side(side))));
        }
        for (id, doing) in self.calls.values_mut() {
            // A driver at work is waited for before it is told anything else, and its answer is not believed.
            if let Doing::Side(side) = std::mem::replace(doing, Doing::Forgotten) {
                again.push((id.clone(), Task::Side(side)));
            }
        }
        never_called.iter().for_each(|call| drop(self.calls.remove(call)));
        self.end_histories();
        self.update_topics();
        for (id, task) in again {
            self.run(id, task);
        }
    }
}
