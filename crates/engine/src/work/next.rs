//! What the driver is to do next. Decided anew after every step and every change.

use std::collections::BTreeSet;

use khufu_crdt::{
    Capabilities, ChangeHash, Fate, Operation, OperationId, OperationReport, Operations, Outcome, Policy, ReplicantId,
    Resolved, Status, Step, clip_output, plan,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::resume::{Next, Pause, call_for, name, resume};
use super::same::essence;
use super::{Doing, Doubt, REFUSED, Side, UNKNOWN, Work};
use crate::timers::Due;
use crate::{CallId, DriverCall, Engine, Output, ReplicaRef};

/// The last absolute operation of a list, but for those that have failed: all before it does not matter to the replica.
fn base(work: &Work, resolved: &Resolved, operations: &Operations, policy: &Policy) -> Option<Operation> {
    let failed = |op: &OperationId| {
        work.applied.entries().iter().any(|entry| entry.id == *op && entry.outcome == Outcome::Failed)
    };
    let counts = |operation: &Operation| !failed(&operation.id) && !work.has_given_up(operation);
    let is_base = |operation: &&Operation| policy.is_absolute(&operation.op_type) && counts(operation);
    resolved.list.iter().rev().filter_map(|op| operations.get(op)).find(is_base).cloned()
}

/// SHA-256 of a value, in hexadecimal.
pub(crate) fn digest(value: &Value) -> String {
    // serde_json keeps the keys of objects sorted, so equal values have equal text.
    ChangeHash(Sha256::digest(value.to_string()).into()).to_string()
}

/// What tells apart what a driver was asked for: a desired state, and what the policy says to the driver about it.
pub(crate) fn wanted(effective: &Value, policy: &Policy) -> Option<String> {
    let asked = || match policy.options.is_empty() {
        true => digest(effective),
        false => digest(&serde_json::json!({"desired": effective, "options": policy.options})),
    };
    (!says_nothing(effective)).then(asked)
}

/// Whether a desired state says anything. Every document starts with an empty map.
pub(crate) fn says_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Whether a replica may be made as new. Where that is a loss: only in that a desired state is written in place of it, or
/// where nothing is wanted any more.
pub(crate) fn may_reset(capabilities: &Capabilities, wanted: bool, resolved: &Resolved) -> bool {
    capabilities.reset && (!capabilities.reset_is_loss || wanted || resolved.list.is_empty())
}

impl Work {
    /// The override of this site does not fit the desired state: why.
    fn does_not_fit(&mut self, output: String, at: u64) {
        if self.desired_report.as_ref().is_none_or(|report| report.output != output) {
            self.desired_report = Some(OperationReport { status: Status::Failed, output, attempt: 0, at });
        }
    }
}

impl Engine {
    /// Sees what the driver is to do for a resident document, and has it done.
    pub(crate) fn work(&mut self, id: &ReplicantId) {
        // Every turn either ends, or brings the work nearer to its end; the bound is for a driver that lies.
        for _ in 0..64 {
            let Some(resident) = self.replicants.resident.get(id) else { return };
            if resident.call.is_some() {
                break;
            }
            if !self.may_call(id) {
                self.wait_for_call(id.clone());
                break;
            }
            // Who looks ever again does not keep from being done what is to be.
            let may_look = !self.replicants.resident.get(id).is_some_and(|resident| resident.looked_last);
            if (may_look || self.is_full()) && self.begin_look(id) {
                break;
            }
            if self.is_full() {
                // Nothing can be noted of what would be done, and nothing new can be said of it.
                return;
            }
            match self.next(id) {
                Next::Nothing { settled } => {
                    let provisional = self.replicants.resident.get(id).is_some_and(|resident| resident.provisional);
                    if !provisional {
                        self.set_settled(id, settled);
                    }
                    self.begin_look(id);
                    break;
                }
                Next::Call(doing, call) => {
                    if matches!(doing, Doing::Desired(_) | Doing::Step | Doing::Anew(_))
                        && let Some(resident) = self.replicants.resident.get_mut(id)
                    {
                        resident.looked_last = false;
                        resident.work.touched = true;
                        resident.work.kind.clone_from(&resident.doc.state().kind);
                    }
                    self.set_settled(id, false);
                    self.write_work(id);
                    self.call(id, doing, call);
                    break;
                }
                Next::Again => self.write_work(id),
            }
        }
        if self.is_full() {
            return;
        }
        self.report(id);
        self.give_away_if_removed(id);
    }

    fn set_settled(&mut self, id: &ReplicantId, settled: bool) {
        if let Some(entry) = self.replicants.index.get_mut(id)
            && entry.settled != settled
        {
            entry.settled = settled;
            self.write_index(id);
        }
    }

    /// A site that left the scope keeps nothing of the replicant, once it has said that it cleaned up.
    fn give_away_if_removed(&mut self, id: &ReplicantId) {
        let here = &self.config.site;
        let Some(resident) = self.replicants.resident.get(id) else { return };
        if resident.provisional || !resident.work.removed || !resident.is_idle() {
            return;
        }
        let state = resident.doc.state();
        let left = !resident.work.expelled.is_empty()
            || state.placement.as_ref().is_some_and(|placement| !placement.sites.contains(here));
        if left && self.replicants.held(id).is_some() && self.is_handed_over(id) {
            self.give_away(id);
        }
    }

    /// Whether this site may forget what it knows of a replicant: one of the sites where it lives has said that it has
    /// the very same document. Until then this may be the only copy of what was acknowledged here.
    pub(crate) fn is_handed_over(&self, id: &ReplicantId) -> bool {
        let Some(entry) = self.replicants.held(id) else { return true };
        if self.replicants.resident.get(id).is_some_and(|resident| !resident.work.expelled.is_empty()) {
            return true;
        }
        entry.placement.as_ref().is_some_and(|placement| {
            // Whoever has the document of the epoch before may never hear of this one from anybody else.
            let follows =
                |site: &khufu_crdt::SiteName| entry.reports.get(site).is_none_or(|(_, _, epoch)| *epoch >= entry.epoch);
            let has_it = |site: &&khufu_crdt::SiteName| {
                **site == self.config.site || (entry.current.contains(*site) && follows(site))
            };
            // The one replica of what spans sites does not go before there can be another.
            placement.sites().iter().filter(has_it).any(|site| placement.has_replica(site))
        })
    }

    /// Calls a driver, once the intent is on disk.
    pub(crate) fn call(&mut self, id: &ReplicantId, doing: Doing, work: DriverCall) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        self.next_call += 1;
        let call = CallId(self.next_call);
        resident.call = Some(call);
        let replica = ReplicaRef {
            id: id.clone(),
            site: self.config.site.clone(),
            local_id: resident.work.local_id.clone(),
            expected: resident.work.expected.clone(),
            options: resident.doc.state().policy.options.clone(),
            written: matches!(work, DriverCall::Observe | DriverCall::Operation(_) | DriverCall::Diff(_))
                .then(|| resident.doc.effective(&self.config.site).ok())
                .flatten()
                .filter(|effective| {
                    let wanted = wanted(effective, &resident.doc.state().policy);
                    wanted.is_some() && resident.work.desired == wanted
                }),
        };
        let kind = match &doing {
            Doing::Remove if !resident.work.kind.is_empty() => resident.work.kind.clone(),
            _ => resident.doc.state().kind.clone(),
        };
        self.counters.driver_calls += 1;
        self.calls.insert(call, (id.clone(), doing));
        self.outbox.after(Output::CallDriver { call, kind, replica, work });
    }

    /// Begins the look that has waited longest, if one waits.
    fn begin_look(&mut self, id: &ReplicantId) -> bool {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        resident.looked_last = false;
        let Some(side) = resident.side.pop_front() else { return false };
        let work = match &side {
            Side::Drift | Side::Verify(_) => DriverCall::Observe,
            Side::Diff(_) => DriverCall::Diff(self.forecast(id).map(|forecast| forecast.work).unwrap_or_default()),
        };
        self.call(id, Doing::Side(side), work);
        true
    }

    /// Whether a replica can be made as it should be without anything of what is there: from its desired state, from nothing,
    /// or by an absolute operation.
    pub(super) fn can_begin_anew(&mut self, id: &ReplicantId) -> bool {
        let here = &self.config.site;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        let listed = resident.listed();
        let state = resident.doc.state();
        let Some(capabilities) = self.config.kinds.get(&state.kind) else { return false };
        let wanted = resident.doc.effective(here).ok().and_then(|effective| wanted(&effective, &state.policy));
        may_reset(capabilities, wanted.is_some(), &listed.resolved)
            || resident.work.applied.sequence().is_empty()
            || base(&resident.work, &listed.resolved, listed.operations(state), &state.policy).is_some()
    }

    fn next(&mut self, id: &ReplicantId) -> Next {
        let here = self.config.site.clone();
        let (now_ms, now_us) = (self.now.wall_ms, self.now.monotonic_us);
        let handed_over = self.is_handed_over(id);
        self.compare_executed(id);
        let others_speak = self.sync.has_session(id);
        let Some(resident) = self.replicants.resident.get_mut(id) else { return Next::Nothing { settled: true } };
        if resident.provisional {
            return Next::Nothing { settled: false };
        }
        let listed = resident.listed();
        let state = resident.doc.state();
        let (resolved, operations) = (&listed.resolved, listed.operations(state));
        let effective = resident.doc.effective(&here);
        let kind = state.kind.clone();
        let member = state.deleted.is_none()
            && resident.work.expelled.is_empty()
            && state.placement.as_ref().is_some_and(|placement| placement.has_replica(&here));
        let deleted = state.deleted.is_some();
        let keep = state.deleted.as_ref().is_some_and(|deleted| deleted.keep);
        let known = self.config.kinds.get(&kind).copied();
        let work = &mut resident.work;
        // What is left out is said anew with every plan.
        work.skipped.clear();

        // A crash left a call behind of which nobody knows whether it was carried out.
        if work.removing {
            work.removing = false;
            // Should it be wanted again after all, it may be gone.
            work.start_over();
            return Next::Again;
        }
        if work.desired_intent.take().is_some() {
            // Writing a desired state twice is the same as writing it once. But it may not be wanted any more.
            work.desired = Some(UNKNOWN.into());
            return Next::Again;
        }
        let Some(capabilities) = known else {
            if member {
                work.attention = Some(format!("this site has no driver of kind {kind:?}: start its node with one"));
            } else if work.removed || (work.is_blank() && !work.touched) {
                work.removed = true;
                return Next::Nothing { settled: handed_over };
            } else {
                work.attention = Some(format!(
                    "the replica cannot be removed, since this site has no driver of kind {kind:?}: start its node with one"
                ));
            }
            return Next::Nothing { settled: true };
        };
        if let Some(Step::Run(op) | Step::Rebase(op)) = work.applied.intent()
            && work.doubt == Doubt::Failed
            && !capabilities.observe
            && (!member || !matches!(resolved.fates.get(op), Some(Fate::Live)))
        {
            // It is not wanted any more, so it need not be known whether it was done.
            work.give_up_knowing();
            return Next::Again;
        }
        if !member && (deleted || handed_over) && matches!(work.applied.intent(), Some(Step::Run(_) | Step::Rebase(_)))
        {
            // The replica goes, however far it came.
            work.give_up_knowing();
            return Next::Again;
        }
        let operation = |op: &khufu_crdt::OperationId| operations.get(op).cloned();
        // What does not fit is nobody's to write, and nothing is taken away for it either: what there is stays as it is until
        // the override or the desired state is another.
        let (effective, misfit) = match effective {
            Ok(effective) => (effective, None),
            Err(error) => (Value::Null, Some(clip_output(&error.to_string()))),
        };
        if member
            && work.applied.intent() == Some(&Step::Reset)
            && let Some(misfit) = misfit
        {
            work.does_not_fit(misfit, now_ms);
            return Next::Nothing { settled: true };
        }
        let wanted = wanted(&effective, &state.policy);
        let reset = may_reset(&capabilities, wanted.is_some(), resolved);
        let capabilities = Capabilities { reset, ..capabilities };
        if matches!(work.applied.intent(), Some(Step::Reset)) && !(member && reset) {
            // It was to begin anew, and is not wanted here any more, or not to be taken away for that.
            work.applied.abandon_intent();
            work.touched = true;
            work.start_over();
            return Next::Again;
        }
        // Whoever writes a desired state need not take away first what is there: that would be an outage for nothing.
        let anew = || match (&wanted, member) {
            (Some(digest), true) => (Doing::Anew(digest.clone()), DriverCall::Desired(effective.clone())),
            _ => (Doing::Step, DriverCall::Reset),
        };
        let pause = Pause { until_us: resident.retry_us.filter(|at| *at > now_us) };
        if let (Some(step), Some(recovery)) =
            (work.applied.intent().cloned(), work.applied.recovery(operations, &state.policy, &capabilities))
        {
            let attempts = state.policy.retry.attempts.max(1);
            return resume(work, &step, recovery, operation, pause, (attempts, capabilities.observe, now_ms), anew);
        }
        if !member {
            if work.removed {
                return Next::Nothing { settled: handed_over };
            }
            // The replica stays until one of those who follow knows all that it was made from.
            if !deleted && !handed_over {
                return Next::Nothing { settled: false };
            }
            let untouched = work.is_blank() && !work.touched && !work.rebuild;
            // It holds the document and no replica, and may have had one before it lost its disk. What others have heard
            // of does not come here.
            let holds = state.placement.as_ref().is_some_and(|placement| placement.sites.contains(&here));
            if untouched && !keep && !work.searched && holds && capabilities.observe {
                if pause.holds(work, "look") {
                    return Next::Nothing { settled: false };
                }
                return Next::Call(Doing::Left, DriverCall::Observe);
            }
            if work.trying != "remove" {
                work.attention = None;
            }
            if keep || (untouched && work.expected.is_none() && work.local_id.is_none()) {
                work.removed = true;
                return Next::Again;
            }
            if pause.holds(work, "remove") {
                return Next::Nothing { settled: false };
            }
            work.removing = true;
            return Next::Call(Doing::Remove, DriverCall::Delete);
        }
        // Back in the scope, or made anew after a deletion.
        if work.removed {
            *work = Work { seq: work.seq, born: work.born, past: work.past, ..Work::default() };
            return Next::Again;
        }
        if work.touched && !work.kind.is_empty() && work.kind != kind {
            if resident.doc.was_kept() || !self.config.kinds.contains_key(&work.kind) {
                // What is on the other platform stays there.
                *work = Work { seq: work.seq, born: work.born, past: work.past, ..Work::default() };
                return Next::Again;
            }
            if pause.holds(work, "remove") {
                return Next::Nothing { settled: false };
            }
            work.removing = true;
            return Next::Call(Doing::Remove, DriverCall::Delete);
        }
        if let Some(misfit) = misfit {
            work.does_not_fit(misfit, now_ms);
            return Next::Nothing { settled: true };
        }
        // What was run stands on something that is no more: start over. An absolute operation does not ask what was there
        // before it, nor what is desired: where taking away is a loss, all begins with the last of them.
        if work.rebuild
            && (!capabilities.reset || capabilities.reset_is_loss)
            && let Some(base) = base(work, resolved, operations, &state.policy)
        {
            let step = Step::Rebase(base.id.clone());
            if pause.holds(work, &name(&step)) {
                return Next::Nothing { settled: false };
            }
            self.counters.rebuilds += 1;
            work.desired = wanted;
            work.ran.insert(base.id.clone(), essence(&base));
            work.applied.start(step);
            work.doubt = Doubt::None;
            return Next::Call(Doing::Step, DriverCall::Operation(base));
        }
        if work.rebuild && !capabilities.reset {
            if !work.applied.sequence().is_empty() {
                work.attention =
                    Some("the replica must be rebuilt from the start, and this driver cannot reset".into());
                return Next::Nothing { settled: true };
            }
            // Writing the desired state again is all that such a driver can do, and all that it needs.
            work.rebuild = false;
            work.desired = None;
            return Next::Again;
        }
        if work.rebuild && work.applied.is_refused(&Step::Reset) {
            work.attention =
                Some("the replica must be rebuilt from the start, and the driver refused to reset it".into());
            return Next::Nothing { settled: true };
        }
        if work.rebuild {
            if pause.holds(work, "reset") {
                return Next::Nothing { settled: false };
            }
            self.counters.rebuilds += 1;
            work.applied.start(Step::Reset);
            work.doubt = Doubt::None;
            let (doing, call) = anew();
            return Next::Call(doing, call);
        }
        if wanted != work.desired {
            let Some(wanted) = wanted else {
                // What was refused and is wanted no more holds up nobody where nothing can be made anew anyway.
                let refused = work.desired.as_deref() == Some(REFUSED) && !work.applied.sequence().is_empty();
                let stays = refused && !capabilities.reset && base(work, resolved, operations, &state.policy).is_none();
                if stays {
                    work.desired = None;
                } else {
                    work.start_over();
                }
                work.desired_report = None;
                return Next::Again;
            };
            if !work.applied.sequence().is_empty() && capabilities.reset {
                work.start_over();
                return Next::Again;
            }
            if pause.holds(work, &wanted) {
                return Next::Nothing { settled: false };
            }
            work.desired_intent = Some(wanted.clone());
            let report = work.desired_report.get_or_insert_default();
            report.status = Status::Pending;
            report.at = now_ms;
            return Next::Call(Doing::Desired(wanted), DriverCall::Desired(effective));
        }
        match work.desired_report.as_mut() {
            Some(_) if wanted.is_none() => work.desired_report = None,
            // What did not fit was never tried, or an absolute operation has taken its place.
            Some(report) if report.status != Status::Applied => {
                report.status = Status::Applied;
                report.output.clear();
            }
            _ => {}
        }
        let said = work.attention.take();
        let plan = plan(&work.applied, resolved, operations, &state.policy, &capabilities);
        let is_absolute =
            |op: &OperationId| operations.get(op).is_some_and(|operation| state.policy.is_absolute(&operation.op_type));
        // What is before an absolute operation is left out for good only with the success of that one. (And also what was
        // run before the replica was started over: it is not run again.)
        if !plan.steps.iter().filter_map(Step::operation).any(is_absolute) {
            work.skipped = plan.skipped.into_iter().collect();
        }
        if let Some(reason) = plan.needs_attention {
            work.attention = Some(reason);
            return Next::Nothing { settled: true };
        }
        let first_step = plan.steps.first().cloned();
        let absolute = first_step.as_ref().and_then(Step::operation).is_some_and(is_absolute);
        let first = first_step.is_some() && work.is_blank() && !work.looked && !absolute;
        // Where nothing is to be run any more, there may be something from before all the same, if this site has lost its
        // disk. What a deletion left on the platform stays until something else is asked for.
        let doc = &resident.doc;
        let left = first_step.is_none() && work.is_blank() && !work.looked && !work.searched;
        let left = left && !doc.was_kept() && doc.had_operations();
        if (first || left) && !capabilities.observe && capabilities.reset {
            // Nobody can see whether this site was here before and lost its disk, and what it said may have reached nobody.
            work.looked = true;
            work.start_over();
            return Next::Again;
        }
        if first && !capabilities.observe && others_speak {
            // Should this site have lost its disk, only others can tell what is on the platform, and they are about to.
            self.timers.set_by(Due::Work(id.clone()), self.now.plus(self.config.gather));
            return Next::Nothing { settled: false };
        }
        if (first || left) && capabilities.observe {
            // What is the matter is the matter until somebody could look.
            work.attention = said;
            if pause.holds(work, "look") {
                return Next::Nothing { settled: false };
            }
            return Next::Call(if first { Doing::First } else { Doing::Left }, DriverCall::Observe);
        }
        let Some(step) = first_step else { return Next::Nothing { settled: true } };
        if !step.calls_driver() {
            work.applied.start(step);
            return Next::Again;
        }
        let Some(call) = call_for(&step, operation) else {
            // An operation that was applied and is not in the document any more cannot be taken back.
            work.attention = Some("what was applied is not in the document: the replica must be looked at".into());
            return Next::Nothing { settled: true };
        };
        if let DriverCall::Operation(operation) = &call
            && work.has_given_up(operation)
        {
            // Its turn has come on a replica that was made anew: it keeps its place, and nothing of it is done.
            work.applied.start(step);
            work.applied.finish(Outcome::Failed);
            return Next::Again;
        }
        if pause.holds(work, &name(&step)) {
            return Next::Nothing { settled: false };
        }
        if matches!(step, Step::Rebase(_) | Step::Reset) {
            self.counters.rebuilds += 1;
        }
        if let DriverCall::Operation(operation) = &call {
            if work.ran.len() > work.applied.entries().len() {
                let executed: BTreeSet<_> = work.applied.sequence().into_iter().collect();
                work.ran.retain(|op, _| executed.contains(op));
                work.given_up.retain(|op, _| operations.contains_key(op));
            }
            work.ran.insert(operation.id.clone(), essence(operation));
        }
        let (doing, call) = if step == Step::Reset { anew() } else { (Doing::Step, call) };
        work.applied.start(step);
        work.doubt = Doubt::None;
        Next::Call(doing, call)
    }

    /// Notes that an operation of the list was finished without the driver.
    pub(crate) fn finish_step(&mut self, id: &ReplicantId, outcome: Outcome) {
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.applied.finish(outcome);
            resident.work.attempt = 0;
            resident.work.doubt = Doubt::None;
        }
    }

    /// Tries again after a pause.
    pub(crate) fn work_later(&mut self, id: &ReplicantId, pause_ms: u64) {
        let pause_us = pause_ms.saturating_mul(1000);
        let jitter = self.jitter(id.as_str(), pause_us / 4);
        let at = self.now.monotonic_us.saturating_add(pause_us).saturating_add(jitter);
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.retry_us = Some(at);
        }
        self.timers.set(Due::Work(id.clone()), at);
    }
}
