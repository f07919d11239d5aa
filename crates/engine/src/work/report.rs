//! What this site says of its replica.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use khufu_crdt::{
    Fate, MAX_OUTPUT_BYTES, OperationId, OperationReport, Outcome, ReplicantId, Report, Status, Step, clip_output,
};

use crate::timers::Due;
use crate::{Engine, Happening};

/// The bytes of what is said of one operation besides its id and what the platform said, roughly.
const OPERATION_BYTES: usize = 64;

impl Engine {
    /// Says what has come of things, if it is anything new. That something has begun is said only if it does not end
    /// soon: nothing waits for it, and the end is said in any case.
    pub(crate) fn report(&mut self, id: &ReplicantId) {
        self.report_at(id, false);
    }

    /// Says what is under way.
    pub(crate) fn report_now(&mut self, id: &ReplicantId) {
        self.report_at(id, true);
    }

    fn report_at(&mut self, id: &ReplicantId, now: bool) {
        let site = self.config.site.clone();
        let handed_over = self.is_handed_over(id);
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        if resident.provisional && !resident.work.removed {
            return;
        }
        let settled = self.replicants.index.get(id).is_none_or(|entry| entry.settled);
        // The rest is heads, names and what was executed.
        let (together, operations) =
            reported_operations(resident, self.config.reported, self.config.report_bytes() / 2);
        let resident = &*resident;
        let work = &resident.work;
        // Whoever says that it is gone is told nothing more, so that is said last.
        let leaves = work.removed && handed_over;
        let state = resident.doc.state();
        let placement = state.placement.as_ref().filter(|_| state.deleted.is_none() && work.expelled.is_empty());
        let member = placement.is_some_and(|placement| placement.has_replica(&site));
        // Of what spans sites most of them hold only the document.
        let keeps = placement.is_some_and(|placement| placement.sites.contains(&site)) && !member;
        let capabilities = self.config.kinds.get(&state.kind);
        let old = resident.reports.get(&site);
        let mut report = Report {
            replicant: id.clone(),
            epoch: resident.doc.id().epoch,
            site: site.clone(),
            seq: old.map_or(0, |old| old.seq),
            status: Status::Pending,
            heads: resident.doc.heads().iter().map(ToString::to_string).collect(),
            applied: newest_applied(work, self.config.reported),
            desired: work.desired_report.clone(),
            operations: if keeps && leaves { BTreeMap::new() } else { operations },
            local_id: work.local_id.clone().filter(|id| id.len() <= MAX_OUTPUT_BYTES),
            observed: work.observed.clone(),
            decided_at: state.placement.as_ref().map(|placement| placement.decided_at),
            decided_by: state.placement.as_ref().map(|placement| placement.decided_by.clone()),
        };
        if let Some(drift) = report.observed.as_mut().and_then(|seen| seen.drift.as_mut()) {
            *drift = clip_output(drift);
        }
        report.status = if leaves && keeps {
            Status::Applied
        } else if leaves {
            Status::Removed
        } else if work.attention.is_some() {
            Status::NeedsAttention
        } else if member {
            match (together, work.desired_report.as_ref().map_or(Status::Applied, |desired| desired.status)) {
                (Status::Failed, _) | (_, Status::Failed) => Status::Failed,
                (Status::Pending, _) | (_, Status::Pending) => Status::Pending,
                // Something is under way, or what has just come in has not been looked at yet.
                _ if !settled => Status::Pending,
                _ => Status::Applied,
            }
        } else {
            // The replica is to go and is still there, or nobody else has the document yet.
            Status::Pending
        };
        let due = Due::Report(id.clone());
        if old.is_some_and(|old| *old == report) {
            return self.timers.cancel(&due);
        }
        // Should this site lose its disk, and its platform can be neither looked at nor made as new, what others have heard
        // is all that tells what was run.
        let unseen = |capabilities: &khufu_crdt::Capabilities| !capabilities.observe && !capabilities.reset;
        let blind = !report.operations.is_empty() && capabilities.is_some_and(unseen);
        // What is not settled is taken up again after a crash, and then said.
        if report.status == Status::Pending && !settled && !now && !blind {
            return self.timers.set_by(due, self.now.plus(self.config.report_begun));
        }
        self.timers.cancel(&due);
        let seq = self.clock.tick(self.now.wall_ms).0.max(work.seq.saturating_add(1));
        report.seq = seq;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.work.seq = seq;
        if resident.work.born == 0 {
            resident.work.born = seq;
        }
        resident.reports.insert(site.clone(), report.clone());
        let cleaned = resident.cleaned();
        if let Some(entry) = self.replicants.index.get_mut(id) {
            entry.reported(&report);
            entry.cleaned = cleaned.iter().map(|site| entry.name(site)).collect();
            entry.add_current(&site);
        }
        self.write_report(&report);
        self.write_work(id);
        self.write_index(id);
        self.store_clock();
        self.tell_report(id, &report, blind);
        self.event(Happening::Reported { replicant: id.clone(), site, status: report.status, seq });
        self.check_waits(id);
        self.close_soon(id);
    }
}

/// What was executed since the base; the newest, where it is very much.
fn newest_applied(work: &super::Work, most: usize) -> Vec<OperationId> {
    let all = work.applied.sequence();
    all.iter().skip(all.len().saturating_sub(most)).map(|id| (*id).clone()).collect()
}

/// How all operations are together, and what is said of each: what was noted of it, and `skipped` for those that will not
/// be run. Of more than `most`, what failed or is pending is named first, then the newest; and what the platform said of the
/// rest is left out where it comes to more than `room` bytes.
fn reported_operations(
    resident: &mut crate::replicant::Resident,
    most: usize,
    room: usize,
) -> (Status, BTreeMap<OperationId, OperationReport>) {
    let listed = resident.listed();
    let (fates, known) = (&listed.resolved.fates, listed.operations(resident.doc.state()));
    let work = &resident.work;
    let outcomes: BTreeMap<_, _> = work.applied.entries().iter().map(|entry| (&entry.id, entry.outcome)).collect();
    // What is about to be started over from a replica as new is not done, whatever was noted of it.
    let again = work.rebuild || matches!(work.applied.intent(), Some(Step::Reset));
    let mut all = Vec::new();
    let mut together = Status::Applied;
    for operation in known.values() {
        let id = &operation.id;
        let noted = work.operations.get(id);
        let executed = outcomes.get(id).copied().filter(|outcome| !again || *outcome == Outcome::Failed);
        let live = matches!(fates.get(id), Some(Fate::Live));
        // A noted success counts while the operation is still part of the replica, or was replaced since.
        let status = match (live, executed) {
            (_, Some(Outcome::Failed)) => Status::Failed,
            (true, Some(Outcome::Succeeded)) => Status::Applied,
            (true, Some(Outcome::Skipped)) => Status::Skipped,
            (true, None) if work.skipped.contains(id) => Status::Skipped,
            (true, None) => Status::Pending,
            (false, _) => Status::Skipped,
        };
        // What failed and was replaced is over.
        let urgent = live && matches!(status, Status::Failed | Status::Pending);
        if urgent && together != Status::Failed {
            together = status;
        }
        all.push((!urgent, Reverse((operation.at, id)), status, noted));
    }
    all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut left = room;
    let operations = all
        .into_iter()
        .take(most)
        .map_while(|(_, Reverse((_, id)), status, noted)| {
            left = left.checked_sub(id.as_str().len().saturating_add(OPERATION_BYTES))?;
            let mut said = OperationReport { status, ..noted.cloned().unwrap_or_default() };
            match left.checked_sub(said.output.len()) {
                Some(rest) => left = rest,
                None => said.output.clear(),
            }
            Some((id.clone(), said))
        })
        .collect();
    (together, operations)
}
