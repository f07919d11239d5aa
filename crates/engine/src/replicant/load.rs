//! Bringing documents into memory and out again.

use std::collections::BTreeMap;

use khufu_crdt::{DocumentId, Replicant, ReplicantId, Report, SiteName};

use super::{Entry, LeftOver, MAX_PARKED, Resident};
use crate::engine::Task;
use crate::record::{Part, part, replicant_prefix};
use crate::timers::Due;
use crate::wire;
use crate::work::{Side, Work, says_nothing};
use crate::{Damaged, Engine, Output, Record, RequestError, Write};

/// Keys of records.
type Keys = Vec<Vec<u8>>;

impl Engine {
    /// Works on a document, at once if it is in memory.
    pub(crate) fn run(&mut self, id: ReplicantId, task: Task) {
        if let Some(resident) = self.replicants.resident.get_mut(&id) {
            resident.used_us = self.now.monotonic_us;
            return self.perform(&id, task);
        }
        // A replicant that was given away is read too: what it left behind tells that its replica is gone.
        if !self.replicants.index.contains_key(&id) {
            return self.perform_without(&id, task);
        }
        let parked = self.replicants.parked.entry(id.clone()).or_default();
        if parked.len() >= MAX_PARKED {
            let message = format!("too many requests wait for {id}: ask again later");
            return self.put_off(&id, task, &RequestError::Busy { message });
        }
        let first = parked.is_empty();
        parked.push(task);
        if first {
            self.read(&id);
        }
    }

    pub(crate) fn loaded(&mut self, id: &ReplicantId, records: &[Record], damaged: &[Damaged]) {
        let Some(tasks) = self.replicants.parked.remove(id) else { return };
        if !self.replicants.resident.contains_key(id) {
            match self.restore(id, records, damaged) {
                Ok((mut resident, damaged)) => {
                    // A driver may still be at work for what was forgotten when the disk was full.
                    let busy = self.calls.iter().find(|(_, (of, _))| of == id);
                    resident.call = busy.map(|(call, _)| *call);
                    resident.used_us = self.now.monotonic_us;
                    // What the index says of it is no longer so.
                    let other = self.replicants.index.get(id).is_some_and(|entry| entry.heads != resident.doc.heads());
                    self.replicants.resident.insert(id.clone(), Box::new(resident));
                    self.after_load(id, other);
                    if let Some(damaged) = damaged.filter(|_| !self.is_full()) {
                        self.replace_damaged(id, damaged);
                    }
                }
                Err(message) => {
                    self.warn(Some(id.clone()), message.clone());
                    for task in tasks {
                        self.put_off(id, task, &RequestError::Storage { message: message.clone() });
                    }
                    return;
                }
            }
        }
        for task in tasks {
            self.run(id.clone(), task);
        }
    }

    /// A document could not be read. It is held all the same, and may be the only copy of what was acknowledged here: so
    /// nothing takes its place, and it is read again. Users are told at once.
    pub(crate) fn unread(&mut self, id: &ReplicantId, error: &str) {
        if self.replicants.resident.contains_key(id) {
            return self.loaded(id, &[], &[]);
        }
        let Some(tasks) = self.replicants.parked.remove(id) else { return };
        let site = &self.config.site;
        let message =
            format!("the document of {id} could not be read from the disk of site {site}: {error}; it is tried again");
        self.warn(Some(id.clone()), message.clone());
        let (told, mut others): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|task| matches!(task, Task::Request { .. } | Task::Side(Side::Verify(_))));
        for task in told {
            self.put_off(id, task, &RequestError::Storage { message: message.clone() });
        }
        // Whoever asks in between waits for the next attempt. Others will say again what they said.
        others.retain(|task| !matches!(task, Task::Push { .. } | Task::Told { .. } | Task::Sync { .. }));
        if others.is_empty() {
            others.push(Task::Work);
        }
        self.replicants.parked.insert(id.clone(), others);
        self.timers.set(Due::Read(id.clone()), self.now.plus(self.config.session_timeout));
    }

    /// Reads a document again that could not be read.
    pub(crate) fn read_again(&mut self, id: &ReplicantId) {
        if self.replicants.parked.contains_key(id) {
            self.read(id);
        }
    }

    fn read(&mut self, id: &ReplicantId) {
        // What is read must include what was written last.
        self.outbox.after(Output::Load { replicant: id.clone(), prefix: replicant_prefix(id) });
    }

    /// What cannot be done now: whoever waits for it is told.
    fn put_off(&mut self, id: &ReplicantId, task: Task, error: &RequestError) {
        match task {
            Task::Request { origin, .. } => self.answer(&origin, Err(error.clone())),
            Task::Side(Side::Verify(job)) => self.held(job, id, None),
            _ => {}
        }
    }

    /// The document of a replicant from its records, and the keys of those that are damaged, if any is.
    fn restore(
        &mut self,
        id: &ReplicantId,
        records: &[Record],
        damaged: &[Damaged],
    ) -> Result<(Resident, Option<Keys>), String> {
        let actor = self.actors.next();
        let prefix = replicant_prefix(id);
        let entry = self.replicants.index.get_mut(id).ok_or_else(|| format!("{id} is not in the index"))?;
        if entry.doubtful && !entry.dropped {
            // The entry may be older than what it speaks of.
            let parts = records.iter().filter_map(|record| record.key.strip_prefix(prefix.as_slice()).and_then(part));
            entry.epoch = parts.filter_map(Part::epoch).fold(entry.epoch, u64::max);
        }
        let document = DocumentId { replicant: id.clone(), epoch: entry.epoch };
        let (dropped, here) = (entry.dropped, &self.config.site);
        let mut lost: Vec<String> = damaged.iter().map(|damaged| damaged.what.clone()).collect();
        let mut keys: Keys = damaged.iter().filter_map(|damaged| damaged.key.clone()).collect();
        let (mut snapshot, mut changes) = (None, Vec::new());
        let (mut work, mut reports) = (None, BTreeMap::<SiteName, Report>::new());
        let (mut first, mut next) = (None, 0);
        for record in records {
            match record.key.strip_prefix(prefix.as_slice()).and_then(part) {
                Some(Part::Snapshot { epoch }) if epoch == document.epoch => snapshot = Some(record.value.as_slice()),
                Some(Part::Change { epoch, number }) if epoch == document.epoch => {
                    first.get_or_insert(number);
                    next = number.saturating_add(1);
                    changes.push(record.value.clone());
                }
                Some(Part::Work) => match wire::decode::<Work>(&record.value) {
                    Ok(stored) => work = Some(stored),
                    Err(error) => {
                        lost.push(format!("what was applied ({error})"));
                        keys.push(record.key.clone());
                    }
                },
                Some(Part::Report) => match wire::decode::<Report>(&record.value) {
                    Ok(report) => {
                        reports.insert(report.site.clone(), report);
                    }
                    Err(error) => {
                        lost.push(format!("a report ({error})"));
                        keys.push(record.key.clone());
                    }
                },
                _ => {}
            }
        }
        let loaded = Replicant::load(document.clone(), &actor, snapshot, &changes)
            .or_else(|error| {
                // The rest of the replicant is still good, and the other sites have the document.
                lost.push(error.to_string());
                Replicant::load(document, &actor, None, &changes)
            })
            .map_err(|error| format!("the document of {id} cannot be read: {error}"))?;
        lost.extend(loaded.damaged);
        let replicant = loaded.replicant.with_limits(self.config.limits.clone());
        let provisional = dropped || !replicant.is_created();
        let doubtful = self.replicants.index.get(id).is_some_and(|entry| entry.doubtful);
        let forgotten = doubtful || (work.is_none() && !provisional);
        let mut work = work.unwrap_or_default();
        if forgotten {
            let nothing = replicant.effective(here).is_ok_and(|effective| says_nothing(&effective));
            work.distrust(!replicant.state().has_operations() && !nothing);
            reports.remove(here);
        }
        if let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| !entry.dropped) {
            // A number is never given to two changes, whatever an old entry says. One that knows less than what is here has
            // not seen that it was taken in again after it had been given away.
            if next > entry.next_change {
                entry.gone.clear();
            }
            entry.next_change = entry.next_change.max(next);
            entry.first_change = first.unwrap_or(entry.next_change);
            if doubtful || !lost.is_empty() {
                entry.reports.clear();
                reports.values().for_each(|report| entry.reported(report));
                // What was done may no longer be what the document says. The next process must know that, too: what is written
                // in place of what was lost shows nothing of it any more.
                let settled = entry.settled && !replicant.is_created();
                if std::mem::replace(&mut entry.settled, settled) != settled {
                    self.write_index(id);
                }
            }
        }
        let is_damaged = !lost.is_empty();
        if is_damaged {
            self.warn(
                Some(id.clone()),
                format!("damaged on disk: {}. What is missing is fetched again from the other sites", lost.join("; ")),
            );
        }
        Ok((Resident::new(replicant, work, reports, provisional), is_damaged.then_some(keys)))
    }

    /// Writes what could be read in place of what could not, which would be found again each time it is read. Where nothing
    /// is left of a document that was not given away, all stays as it is until there is another.
    fn replace_damaged(&mut self, id: &ReplicantId, damaged: Keys) {
        let given_away = self.replicants.index.get(id).is_some_and(|entry| entry.dropped && !entry.gone.is_empty());
        let provisional = self.replicants.resident.get(id).is_none_or(|resident| resident.provisional);
        if provisional && !given_away {
            return;
        }
        for key in damaged {
            self.outbox.write(Write::Delete { key });
        }
        if !provisional {
            self.write_work(id);
            self.compact(id);
        }
    }

    /// Something may have been written between the last step of the work and a crash.
    fn after_load(&mut self, id: &ReplicantId, other: bool) {
        // Of what was given away there is no document, and an entry that was made anew knows nothing of that.
        let nothing = self.replicants.resident.get(id).is_some_and(|resident| !resident.doc.is_created());
        if nothing && let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| entry.doubtful) {
            (entry.dropped, entry.doubtful, entry.settled) = (true, false, true);
            // Where it is not known that it was given away, changes that wait for what is lost may be nowhere else.
            if !entry.gone.is_empty() {
                let document = DocumentId { replicant: id.clone(), epoch: entry.epoch };
                self.delete_document(&document);
            }
            self.write_index(id);
        }
        let given_away = self.replicants.index.get(id).is_none_or(|entry| entry.dropped && !entry.gone.is_empty());
        if nothing
            && !given_away
            && let Some(resident) = self.replicants.resident.get_mut(id)
        {
            resident.left_over = LeftOver::of(&resident.doc);
        }
        let created = self.replicants.resident.get(id).is_some_and(|resident| !resident.provisional);
        if created && let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| entry.doubtful) {
            entry.doubtful = false;
            self.refresh_index(id);
            self.write_work(id);
        }
        if other && let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| !entry.dropped) {
            // Reconciliation sees what is missing if the index says what there is.
            entry.changed_us = 0;
            match self.replicants.resident.get(id) {
                Some(resident) if !created => entry.heads = resident.doc.heads(),
                _ => self.refresh_index(id),
            }
        }
        if let (Some(entry), Some(resident)) = (self.replicants.index.get_mut(id), self.replicants.resident.get(id)) {
            entry.changes = resident.doc.change_count();
        }
        let unsettled = self.replicants.index.get(id).is_some_and(|entry| !entry.settled);
        // What is to be tried again later is not tried sooner for having been out of memory.
        let later = self.timers.at(&Due::Work(id.clone())).filter(|at| *at > self.now.monotonic_us);
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.retry_us = later;
        }
        if unsettled && later.is_none() {
            self.timers.set_by(Due::Work(id.clone()), self.now.monotonic_us);
        }
    }

    /// Looks again at what is not done, or is to be given away, and has nothing to wait for.
    fn nudge(&mut self) {
        let here = &self.config.site;
        let waits = |entry: &Entry| {
            !entry.dropped
                && (!entry.settled
                    || entry.placement.as_ref().is_some_and(|placement| !placement.sites().contains(here)))
        };
        let busy = |id: &ReplicantId| {
            let resident = self.replicants.resident.get(id);
            self.timers.is_set(&Due::Work(id.clone()))
                || resident.is_some_and(|resident| resident.call.is_some() || resident.provisional)
        };
        let index = self.replicants.index.iter();
        let idle: Vec<_> = index.filter(|(id, entry)| waits(entry) && !busy(id)).map(|(id, _)| id.clone()).collect();
        // A few at a time, and not always the same.
        let first = usize::try_from(self.jitter("nudge", u64::try_from(idle.len()).unwrap_or(0))).unwrap_or(0);
        for id in idle.iter().cycle().skip(first).take(idle.len().min(self.config.calls)) {
            self.timers.set_by(Due::Work(id.clone()), self.now.monotonic_us);
        }
    }

    /// Compacts what has grown and takes documents out of memory that nobody uses.
    pub(crate) fn sweep(&mut self) {
        let grown: Vec<_> = self
            .replicants
            .index
            .iter()
            .filter(|(_, entry)| {
                !entry.dropped
                    && entry.next_change - entry.first_change.min(entry.next_change) >= self.config.compact_after
            })
            .map(|(id, _)| id.clone())
            .take(8)
            .collect();
        for id in grown {
            self.run(id, Task::Compact);
        }
        self.nudge();
        self.sweep_next();
        self.close_idle();
        self.evict();
        self.timers.set(Due::Sweep, self.now.plus(self.config.session_timeout));
    }

    /// Documents can be read, made and received faster than they are swept.
    pub(crate) fn evict_if_crowded(&mut self) {
        let some_more = self.config.resident.saturating_add(self.config.resident / 4);
        if self.replicants.resident.len() > self.replicants.crowded.max(some_more) {
            self.evict();
        }
    }

    /// Takes documents out of memory that nobody uses: those that were only hearsay, and those beyond the limit. What only
    /// waits to be tried again is read again then.
    fn evict(&mut self) {
        let later =
            |id: &ReplicantId| self.timers.at(&Due::Work(id.clone())).is_none_or(|at| at > self.now.monotonic_us);
        let mut idle: Vec<_> = self
            .replicants
            .resident
            .iter()
            .filter(|(id, resident)| {
                resident.may_leave()
                    && !self.is_waited_for(id)
                    && !self.sync.has_session(id)
                    && !self.timers.is_set(&Due::Report((*id).clone()))
                    && later(id)
            })
            .map(|(id, resident)| (!resident.provisional, resident.retry_us.is_some(), resident.used_us, id.clone()))
            .collect();
        idle.sort();
        let over = self.replicants.resident.len().saturating_sub(self.config.resident);
        for (number, (kept, _, used_us, id)) in idle.into_iter().enumerate() {
            let stale = self.now.since(used_us) > self.config.session_timeout;
            if (!kept && stale) || number < over {
                self.replicants.resident.remove(&id);
            }
        }
        // Where most are in use, looking again at each that comes would take too long.
        let left = self.replicants.resident.len();
        self.replicants.crowded = left.saturating_add(left / 4).saturating_add(64);
    }
}
