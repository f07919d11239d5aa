//! When an epoch is closed.

use std::time::Duration;

use khufu_crdt::{ChangeHash, OperationId, Replicant, ReplicantId, Report, Ripeness};

use crate::record::archive_key;
use crate::timers::Due;
use crate::{Engine, Happening, Write};

/// How long after a change or a report it is seen whether an epoch may be closed: with whatever else comes until then.
const LOOK: Duration = Duration::from_millis(100);
/// The most epochs that are looked at in one sweep.
const MAX_LOOKED: usize = 8;

impl Engine {
    /// The document or what sites say of it has changed: its epoch may have come to its end.
    pub(crate) fn close_soon(&mut self, id: &ReplicantId) {
        let rule = self.config.epochs;
        let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| !entry.dropped) else { return };
        entry.looked = false;
        if entry.changes >= rule.changes {
            self.timers.set_by(Due::Close(id.clone()), self.now.plus(LOOK));
        }
    }

    /// Epochs that are long or old enough, also where nobody touches them.
    pub(crate) fn close_idle(&mut self) {
        let rule = self.config.epochs;
        let due = |entry: &crate::replicant::Entry| {
            let aged = entry.changes >= rule.aged_changes
                && entry.begun_ms > 0
                && entry.latest_ms.saturating_sub(entry.begun_ms) >= rule.age_ms;
            !entry.dropped && !entry.looked && (entry.changes >= rule.changes || aged)
        };
        let here = &self.config.site;
        let all_here = |entry: &crate::replicant::Entry| {
            entry.holders().iter().all(|site| site == here || entry.current.contains(site))
        };
        let index = self.replicants.index.iter();
        let due: Vec<_> = index
            .filter(|(_, entry)| due(entry) && all_here(entry))
            .map(|(id, _)| id.clone())
            .take(MAX_LOOKED)
            .collect();
        for id in due {
            self.timers.set_by(Due::Close(id), self.now.monotonic_us);
        }
    }

    /// Closes the epoch of a resident document if that may be done.
    pub(crate) fn close(&mut self, id: &ReplicantId) {
        self.flush(id);
        let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| !entry.dropped) else { return };
        entry.looked = true;
        let holders = entry.holders();
        let Some(resident) = self.replicants.resident.get(id).filter(|resident| !resident.provisional) else { return };
        let doc = &resident.doc;
        let epoch = doc.id().epoch;
        let heads =
            |report: &Report| report.heads.iter().filter_map(|head| head.parse().ok()).collect::<Vec<ChangeHash>>();
        // A site that has said nothing of this epoch yet has nothing of it.
        let reported: Vec<Vec<ChangeHash>> = holders
            .iter()
            .filter(|site| **site != self.config.site)
            .map(|site| {
                resident.reports.get(site).filter(|report| report.epoch == epoch).map(heads).unwrap_or_default()
            })
            .collect();
        let (cut, first) = match doc.ripeness(&self.config.epochs, &reported) {
            Ripeness::Ripe { cut, first } => (cut, first),
            Ripeness::Divided => return self.join_heads(id),
            Ripeness::Young | Ripeness::Waiting(_) => return,
        };
        let sites = doc.state().placement.iter().flat_map(|placement| &placement.sites);
        let reports: Vec<&Report> = sites.filter_map(|site| resident.reports.get(site)).collect();
        let mut needed = doc.is_needed_by(&cut, &reports).map(|needed| (needed, cut));
        if cut != first && matches!(needed, Ok((true, _))) {
            // The last operations may be under way somewhere all the time.
            needed = doc.is_needed_by(&first, &reports).map(|needed| (needed, first));
        }
        match needed {
            Ok((false, at)) => {
                self.counters.epochs_far += u64::from(self.close_at(id, &at) && at != first);
            }
            Ok((true, _)) => {}
            Err(error) => self.warn(Some(id.clone()), format!("its history cannot be shortened: {error}")),
        }
    }

    /// Its sites write without seeing each other's changes: a change that follows all of them is where the epoch can be
    /// closed, once they pause for as long as it takes to reach them.
    fn join_heads(&mut self, id: &ReplicantId) {
        let pause = self.config.quiet;
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let again = resident.joined_us.is_none_or(|joined| self.now.since(joined) >= pause);
        if self.decides(id, |_| true) && again {
            let author = self.author("khufu", "bring concurrent changes together");
            let Some(resident) = self.replicants.resident.get_mut(id) else { return };
            resident.joined_us = Some(self.now.monotonic_us);
            if let Ok(Some(change)) = resident.doc.join(&author) {
                self.counters.joins += 1;
                self.commit(id, vec![change]);
            }
        }
        self.timers.set_by(Due::Close(id.clone()), self.now.plus(pause));
    }

    /// Closes the epoch of what was deleted, so that it takes no room any more, if all its sites know of that. Whether
    /// that was possible.
    pub(crate) fn close_deleted(&mut self, id: &ReplicantId) -> bool {
        let here = &self.config.site;
        let Some(entry) = self.replicants.held(id).filter(|entry| entry.deleted) else { return false };
        let known = entry.holders().iter().all(|site| site == here || entry.current.contains(site));
        match entry.heads.as_slice() {
            [head] if known => {
                let head = *head;
                self.close_at(id, &head)
            }
            _ => false,
        }
    }

    /// Closes the epoch of a resident document at a cut. Whether that was possible.
    pub(crate) fn close_at(&mut self, id: &ReplicantId, cut: &ChangeHash) -> bool {
        let actor = self.actors.next();
        let Some(resident) = self.replicants.resident.get(id) else { return false };
        match resident.doc.close(cut, &actor) {
            Ok(next) => {
                self.begin_epoch(id, next.replicant, next.carried);
                true
            }
            Err(error) => {
                self.warn(Some(id.clone()), format!("its history cannot be shortened: {error}"));
                false
            }
        }
    }

    /// Goes on with a later document, into which everything was carried over that the one so far has.
    pub(crate) fn begin_epoch(&mut self, id: &ReplicantId, next: Replicant, carried: khufu_crdt::Carried) {
        self.answer_last_waits(id, &next);
        let document = next.id().clone();
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let mut old = std::mem::replace(&mut resident.doc, next);
        // What comes from others is with them. What is of here waits only where what it was made from was lost.
        let lost: Vec<_> = old.queued_by().into_iter().filter(|author| author.site == self.config.site).collect();
        resident.next = None;
        resident.joined_us = None;
        resident.earlier.clear();
        resident.offers.clear();
        // Who said that this site is out spoke of the document so far.
        resident.work.expelled.clear();
        resident.renamed = carried.names;
        resident.renamed_of = old.id().epoch;
        resident.touched();
        let state = resident.doc.state();
        resident.work.operations.retain(|operation, _| state.operation(operation).is_some());
        if !lost.is_empty() {
            self.name_lost(id, &lost, "an epoch was closed without it");
        }
        self.counters.epochs += 1;
        self.counters.epochs_changed += u64::from(old.id().closings() == document.closings());
        self.counters.carried += u64::try_from(carried.made.len()).unwrap_or(u64::MAX);
        if self.config.archives > 0 {
            let value = old.save();
            self.outbox.write(Write::Put { key: archive_key(id, old.id().epoch), value });
        }
        self.delete_document(old.id());
        let Some(entry) = self.replicants.index.get_mut(id) else { return };
        entry.epoch = document.epoch;
        entry.begun_ms = 0;
        entry.changed_us = self.now.monotonic_us;
        entry.settled = false;
        if self.config.archives > 0 {
            entry.archives.push(old.id().epoch);
        }
        let surplus = entry.archives.len().saturating_sub(self.config.archives);
        let gone: Vec<_> = entry.archives.drain(..surplus).collect();
        for epoch in gone {
            self.outbox.write(Write::Delete { key: archive_key(id, epoch) });
        }
        self.end_old_sessions(id, document.epoch);
        self.compact(id);
        self.refresh_index(id);
        self.write_work(id);
        let heads = self.replicants.index.get(id).map(|entry| entry.heads.iter().map(ToString::to_string).collect());
        self.event(Happening::Changed { replicant: id.clone(), local: false, heads: heads.unwrap_or_default() });
        // What was made here may not have reached the others before they went on.
        let here = self.config.site.clone();
        let own = |site: &Option<khufu_crdt::SiteName>| site.as_ref() == Some(&here);
        let own: Vec<_> = carried.made.into_iter().filter(|(_, site)| own(site)).map(|(change, _)| change).collect();
        if !own.is_empty() {
            self.tell_changes(id, &own, false);
        }
        self.changed(id);
        self.close_soon(id);
    }

    /// Takes the archived epochs of a replicant off the disk.
    pub(crate) fn delete_archives(&mut self, id: &ReplicantId) {
        let Some(entry) = self.replicants.index.get_mut(id) else { return };
        for epoch in std::mem::take(&mut entry.archives) {
            self.outbox.write(Write::Delete { key: archive_key(id, epoch) });
        }
    }

    /// An operation that somebody waits for may not be in the next document any more, since others replaced it.
    fn answer_last_waits(&mut self, id: &ReplicantId, next: &Replicant) {
        let gone = |operation: &OperationId| next.state().operation(operation).is_none();
        self.end_waits_for(id, gone);
    }
}
