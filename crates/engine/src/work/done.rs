//! What a driver's answer means.

use khufu_crdt::{Observation, OperationId, OperationReport, Outcome, ReplicantId, Status, Step, clip_output};

use super::{Doing, Doubt, REFUSED, UNKNOWN};
use crate::{DriverDone, DriverFailure, Engine};

/// What is said of an operation while nobody can look whether it was done.
const INTERRUPTED: &str = "it was interrupted, and the platform must be looked at before it is tried again";

impl Engine {
    /// A driver has answered about a resident document.
    pub(crate) fn done(&mut self, id: &ReplicantId, doing: Doing, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.call = None;
        if let Err(failure) = &result {
            self.counters.driver_failures += 1;
            tracing::debug!(replicant = %id, message = %failure.message, "a driver failed");
        }
        match doing {
            Doing::Desired(digest) => self.desired_done(id, digest, result),
            Doing::Step => self.step_done(id, result),
            Doing::Anew(digest) => self.anew_done(id, digest, result),
            Doing::First => self.looked_first(id, result),
            Doing::Left => self.looked_for_left(id, result),
            Doing::Lookup => self.looked_up(id, result),
            Doing::Remove => self.remove_done(id, result),
            Doing::Side(side) => self.side_done(id, side, result),
            Doing::Forgotten => {}
        }
        self.write_work(id);
        self.work(id);
    }

    /// The pause before the next attempt.
    fn pause_ms(&self, id: &ReplicantId, failure: &DriverFailure) -> u64 {
        let attempt = self.replicants.resident.get(id).map_or(0, |resident| resident.work.attempt);
        self.pause_after_ms(id, failure, attempt)
    }

    /// The pause after something was tried so often, doubling with each time up to the policy's longest.
    fn pause_after_ms(&self, id: &ReplicantId, failure: &DriverFailure, times: u32) -> u64 {
        let Some(resident) = self.replicants.resident.get(id) else { return 1000 };
        let retry = &resident.doc.state().policy.retry;
        let doublings = times.saturating_sub(1).min(20);
        let pause = retry.backoff_ms.max(1).saturating_mul(1 << doublings).min(retry.backoff_max_ms.max(1));
        failure.retry_after_ms.unwrap_or(0).max(pause)
    }

    /// Whether a failure is the last word on a step.
    fn is_final(&self, id: &ReplicantId, failure: &DriverFailure) -> bool {
        let attempt = self.replicants.resident.get(id).map_or(0, |resident| resident.work.attempt);
        self.is_final_after(id, failure, attempt)
    }

    /// Whether a failure is the last word on what was tried so often.
    fn is_final_after(&self, id: &ReplicantId, failure: &DriverFailure, times: u32) -> bool {
        let Some(resident) = self.replicants.resident.get(id) else { return true };
        // What nobody answers is not refused.
        if !failure.permanent && self.record.away.contains_key(&resident.doc.state().kind) {
            return false;
        }
        failure.permanent || times >= resident.doc.state().policy.retry.attempts.max(1)
    }

    pub(super) fn noted(&self, status: Status, output: &str, attempt: u32) -> OperationReport {
        OperationReport { status, output: clip_output(output), attempt, at: self.now.wall_ms }
    }

    /// What the platform has after something was done. `whole` says that nothing of what was there before is left.
    fn seen(&mut self, id: &ReplicantId, done: &DriverDone, whole: bool) {
        let at = self.now.wall_ms;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let work = &mut resident.work;
        if done.local_id.is_some() {
            work.local_id.clone_from(&done.local_id);
        }
        work.expected.clone_from(&done.digest);
        // What somebody has changed by hand elsewhere in the replica is so still.
        let drift = work.observed.take().and_then(|seen| seen.drift).filter(|_| !whole);
        let doubtful = drift.is_some() || std::mem::take(&mut resident.missed_drift);
        resident.work.observed =
            Some(Observation { at, digest: done.digest.clone(), drift, health: done.health.clone() });
        if doubtful {
            self.look_again(id, 0);
        }
    }

    fn desired_done(&mut self, id: &ReplicantId, digest: String, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.work.desired_intent = None;
        resident.work.attempt = resident.work.attempt.saturating_add(1);
        let attempt = resident.work.attempt;
        match result {
            Ok(done) => {
                resident.work.desired = Some(digest);
                resident.work.attempt = 0;
                self.seen(id, &done, true);
                let noted = self.noted(Status::Applied, &done.output, attempt);
                self.note_desired(id, noted);
            }
            Err(failure) => {
                // Of what has several parts some may be written. Neither this nor what was there before can be counted on.
                let none_before = matches!(resident.work.desired.as_deref(), None | Some(REFUSED));
                let refused = none_before && failure.permanent && !failure.unknown;
                resident.work.desired = Some(if refused { REFUSED } else { UNKNOWN }.into());
                // A desired state is never given up: it is only said that it fails.
                let status = if self.is_final(id, &failure) { Status::Failed } else { Status::Pending };
                let noted = self.noted(status, &failure.message, attempt);
                self.note_desired(id, noted);
                let pause = if failure.permanent { self.longest_pause(id) } else { self.pause_ms(id, &failure) };
                self.work_later(id, pause);
            }
        }
    }

    /// What cannot succeed as it is gets another try only now and then: somebody may have mended the platform.
    fn longest_pause(&self, id: &ReplicantId) -> u64 {
        self.replicants
            .resident
            .get(id)
            .map_or(30_000, |resident| resident.doc.state().policy.retry.backoff_max_ms.max(1000))
    }

    fn note_desired(&mut self, id: &ReplicantId, noted: OperationReport) {
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.desired_report = Some(noted);
        }
    }

    pub(super) fn note_operation(&mut self, id: &ReplicantId, op: OperationId, noted: OperationReport) {
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.operations.insert(op, noted);
        }
    }

    fn step_done(&mut self, id: &ReplicantId, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let Some(step) = resident.work.applied.intent().cloned() else { return };
        resident.work.attempt = resident.work.attempt.saturating_add(1);
        let attempt = resident.work.attempt;
        match result {
            Ok(done) => {
                self.seen(id, &done, matches!(step, Step::Reset | Step::Rebase(_)));
                if step == Step::Reset {
                    self.was_reset(id);
                } else if let Step::Run(op) | Step::Rebase(op) = &step {
                    let (op, is_base) = (op.clone(), matches!(step, Step::Rebase(_)));
                    let noted = self.noted(Status::Applied, &done.output, attempt);
                    if is_base && let Some(resident) = self.replicants.resident.get_mut(id) {
                        // Nothing of what was there before is left.
                        resident.work.rebuild = false;
                    }
                    self.forget_rebuilding(id, &op);
                    self.note_operation(id, op, noted);
                }
                self.finish_step(id, Outcome::Succeeded);
            }
            Err(failure) => self.step_failed(id, &step, attempt, &failure),
        }
    }

    /// All that was made was to be replaced by the desired state.
    fn anew_done(&mut self, id: &ReplicantId, digest: String, result: Result<DriverDone, DriverFailure>) {
        match &result {
            Ok(_) => {
                self.was_reset(id);
                self.finish_step(id, Outcome::Succeeded);
            }
            Err(failure) => {
                if let Some(resident) = self.replicants.resident.get_mut(id) {
                    // What could not be written is not what was run, and is tried for as long as it is wanted.
                    resident.work.start_over();
                    if !failure.unknown {
                        resident.work.applied.abandon_intent();
                    }
                }
            }
        }
        self.desired_done(id, digest, result);
    }

    /// The operation from which the replica was to be made anew is not taken. Where it succeeded here before, that is no
    /// failure of its own: what somebody has changed by hand stays so, and anything else is tried on, since nobody
    /// knows what the replica holds. Whether it was so.
    fn could_not_start_over(&mut self, id: &ReplicantId, op: &OperationId, failure: &DriverFailure) -> bool {
        let done = |entry: &khufu_crdt::Entry| entry.id == *op && entry.outcome == Outcome::Succeeded;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        let work = &mut resident.work;
        if !work.rebuild || !work.applied.entries().iter().any(done) {
            return false;
        }
        work.applied.abandon_intent();
        if work.put_back {
            (work.rebuild, work.attempt) = (false, 0);
            self.warn(Some(id.clone()), format!("the replica cannot be put back: {}", failure.message));
            return true;
        }
        work.attention = Some(format!(
            "the replica must be made anew from {op}, which is not taken ({}): mend what it complains of; it is tried on",
            clip_output(&failure.message)
        ));
        let pause = self.longest_pause(id);
        self.work_later(id, pause);
        true
    }

    /// It is known what became of an operation for which the replica was made anew.
    fn forget_rebuilding(&mut self, id: &ReplicantId, op: &OperationId) {
        if let Some(resident) = self.replicants.resident.get_mut(id)
            && resident.work.rebuilt_for.as_ref() == Some(op)
        {
            (resident.work.rebuilt_for, resident.work.rebuilt) = (None, 0);
        }
    }

    fn was_reset(&mut self, id: &ReplicantId) {
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.desired = None;
            resident.work.rebuild = false;
            resident.work.was_reset = true;
        }
    }

    fn step_failed(&mut self, id: &ReplicantId, step: &Step, attempt: u32, failure: &DriverFailure) {
        if self.was_lost(id, step, attempt, failure) {
            return;
        }
        let last = self.is_final(id, failure);
        let pause = self.pause_ms(id, failure);
        if failure.unknown {
            // The intent stays, so that this is found out as after a crash.
            if let Some(op) = step.operation() {
                let noted = self.noted(Status::Pending, &failure.message, attempt);
                self.note_operation(id, op.clone(), noted);
            }
            if last {
                self.no_answer(id, failure);
            }
            return self.work_later(id, pause);
        }
        if let Step::Run(op) | Step::Rebase(op) = step
            && self.may_have_been_done(id, last)
        {
            let noted = self.noted(Status::Pending, &failure.message, attempt);
            self.note_operation(id, op.clone(), noted);
            return self.work_later(id, pause);
        }
        match step {
            Step::Run(op) | Step::Rebase(op) => {
                let status = if last { Status::Failed } else { Status::Pending };
                let noted = self.noted(status, &failure.message, attempt);
                self.note_operation(id, op.clone(), noted);
                if last && matches!(step, Step::Rebase(_)) && self.could_not_start_over(id, op, failure) {
                    return;
                }
                if last {
                    return self.finish_step(id, Outcome::Failed);
                }
            }
            // What must be taken back before anything else can happen is tried for ever, unless there is another way or
            // the driver says that it never will.
            Step::Undo(_) | Step::Reset => {
                if *step == Step::Reset
                    && let Some(resident) = self.replicants.resident.get_mut(id)
                {
                    // An attempt before may have done it: then nothing stands on what was run.
                    if resident.work.doubt != Doubt::None {
                        resident.work.start_over();
                    }
                }
                if failure.permanent || (last && matches!(step, Step::Undo(_))) {
                    self.warn(Some(id.clone()), format!("what was applied cannot be taken back: {}", failure.message));
                    return self.finish_step(id, Outcome::Failed);
                }
            }
            Step::Forget(_) => {}
        }
        // The replica is as it was before: the step is planned anew when its time comes.
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.applied.abandon_intent();
        }
        self.work_later(id, pause);
    }

    /// An attempt at the open intent has failed. Whether one before it, which gave no answer, may have done it: then the
    /// platform is looked at, or, where nobody can look, the replica is made anew after the last attempt.
    fn may_have_been_done(&mut self, id: &ReplicantId, last: bool) -> bool {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        let work = &mut resident.work;
        if work.doubt == Doubt::None {
            return false;
        }
        work.doubt = Doubt::Failed;
        let capabilities = self.config.kinds.get(&resident.doc.state().kind);
        if last && !capabilities.is_some_and(|capabilities| capabilities.observe) {
            let operation = work.applied.intent().and_then(Step::operation).cloned();
            if work.rebuilt_for == operation {
                // It would be so again, for ever.
                work.attention = Some(format!(
                    "the driver does not say what became of {}, also after the replica was made anew: see why its \
                     platform does not answer; it is asked on",
                    work.trying
                ));
                return true;
            }
            work.rebuilt_for = operation;
            work.give_up_knowing();
        }
        true
    }

    /// The driver has had its attempts, and nobody knows what became of them. What comes after must wait, so that is said;
    /// it is tried on, since the platform may come back.
    fn no_answer(&mut self, id: &ReplicantId, failure: &DriverFailure) {
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            let what = &resident.work.trying;
            resident.work.attention = Some(format!(
                "the driver does not say what became of \"{what}\" ({}): see whether its platform answers; it is asked on",
                clip_output(&failure.message)
            ));
        }
    }

    /// The platform could not be looked at: that is tried again. It says nothing of what is to be done there, and so counts as
    /// no attempt at it. Whether it is time to call a person.
    fn look_later(&mut self, id: &ReplicantId, failure: &DriverFailure) -> bool {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        resident.work.in_the_dark = resident.work.in_the_dark.saturating_add(1);
        let times = resident.work.in_the_dark;
        let is_long = self.is_final_after(id, failure, times);
        if is_long && let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.attention = Some(format!(
                "the platform cannot be looked at ({}): see whether it answers; it is asked on",
                clip_output(&failure.message)
            ));
        }
        let pause = self.pause_after_ms(id, failure, times);
        self.work_later(id, pause);
        is_long
    }

    /// Whether the step that was interrupted was carried out cannot be looked up.
    fn look_up_later(&mut self, id: &ReplicantId, step: &Step, failure: &DriverFailure) {
        if self.look_later(id, failure) {
            self.no_answer(id, failure);
        }
        let Some(resident) = self.replicants.resident.get(id) else { return };
        // What the attempt after it has failed with is told in the end.
        if let Step::Run(op) | Step::Rebase(op) = step
            && resident.work.doubt != Doubt::Failed
        {
            let said = format!("{INTERRUPTED}: {}", clip_output(&failure.message));
            let noted = self.noted(Status::Pending, &said, resident.work.attempt);
            // It is so since it was first said.
            let is_said = resident.work.operations.get(op).is_some_and(|before| before.output == noted.output);
            if !is_said {
                self.note_operation(id, op.clone(), noted);
            }
        }
    }

    /// The platform was looked at to see whether the step that a crash interrupted was carried out.
    fn looked_up(&mut self, id: &ReplicantId, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let Some(step) = resident.work.applied.intent().cloned() else { return };
        let done = match result {
            Ok(done) => {
                resident.work.in_the_dark = 0;
                // Nobody waits for that any more.
                if let Some(said) = step.operation().and_then(|op| resident.work.operations.get_mut(op))
                    && said.output.starts_with(INTERRUPTED)
                {
                    said.output.clear();
                }
                done
            }
            Err(failure) => return self.look_up_later(id, &step, &failure),
        };
        let marked = |op: &OperationId| done.marker.as_deref() == Some(op.as_str());
        let was_done = match &step {
            Step::Run(op) | Step::Rebase(op) => marked(op),
            Step::Undo(op) => !marked(op),
            Step::Reset | Step::Forget(_) => false,
        };
        if was_done {
            resident.missed_drift |= done.drift.is_some();
            self.seen(id, &done, false);
            if let Step::Run(op) | Step::Rebase(op) = step {
                let noted = self.noted(Status::Applied, "found done after a crash", 1);
                self.note_operation(id, op, noted);
            }
            self.finish_step(id, Outcome::Succeeded);
            return;
        }
        let attempts = resident.doc.state().policy.retry.attempts.max(1);
        let tried_enough = resident.work.attempt >= attempts;
        if let Step::Run(op) | Step::Rebase(op) = &step
            && done.unsettled.as_deref() == Some(op.as_str())
        {
            // How often nobody could look says nothing of how often it was begun.
            return resident.work.start_over_for(op, attempts, self.now.wall_ms);
        }
        let doubt = std::mem::take(&mut resident.work.doubt);
        match &step {
            Step::Run(op) | Step::Rebase(op) if tried_enough => {
                let attempt = resident.work.attempt;
                let said = match resident.work.operations.get(op) {
                    Some(noted) if doubt == Doubt::Failed => noted.output.clone(),
                    _ => "the driver gave no answer, and the platform shows no effect".to_owned(),
                };
                let noted = self.noted(Status::Failed, &said, attempt);
                self.note_operation(id, op.clone(), noted);
                self.finish_step(id, Outcome::Failed);
            }
            _ => resident.work.applied.abandon_intent(),
        }
    }

    /// What is on the platform before the first operation is run was left by somebody else, or by an earlier life of
    /// this site that lost its disk.
    fn looked_first(&mut self, id: &ReplicantId, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        match result {
            Ok(done) => {
                resident.work.looked = true;
                resident.work.in_the_dark = 0;
                if done.digest.is_some() {
                    resident.work.start_over();
                }
            }
            Err(failure) => drop(self.look_later(id, &failure)),
        }
    }

    /// Nothing is to be on the platform, as far as this site knows. What is there all the same goes only if it shows that it
    /// was made from this document: anything else may be somebody's.
    fn looked_for_left(&mut self, id: &ReplicantId, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        match result {
            Ok(done) => {
                let mut markers = [done.marker, done.unsettled].into_iter().flatten();
                let known = |marker| OperationId::new(marker).is_ok_and(|marker| resident.doc.knows_operation(&marker));
                let ours = markers.any(known);
                let kind = resident.doc.state().kind.clone();
                let work = &mut resident.work;
                work.searched = true;
                work.in_the_dark = 0;
                if ours {
                    // Taken away where there is to be no replica, and made as new where there is.
                    work.touched = true;
                    work.start_over();
                    work.kind = kind;
                } else if done.digest.is_some() {
                    let message = "the platform has a replica that nothing here tells of: it is left alone".to_owned();
                    self.warn(Some(id.clone()), message);
                }
            }
            Err(failure) => drop(self.look_later(id, &failure)),
        }
    }

    fn remove_done(&mut self, id: &ReplicantId, result: Result<DriverDone, DriverFailure>) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.work.removing = false;
        match result {
            Ok(_) => {
                let expelled = std::mem::take(&mut resident.work.expelled);
                let (seq, born, past) = (resident.work.seq, resident.work.born, resident.work.past);
                resident.work = super::Work { seq, born, past, expelled, removed: true, ..super::Work::default() };
            }
            Err(failure) => {
                if failure.unknown {
                    resident.work.start_over();
                }
                resident.work.attempt = resident.work.attempt.saturating_add(1);
                if self.is_final(id, &failure) {
                    let message = format!("the replica cannot be removed: {}", failure.message);
                    if let Some(resident) = self.replicants.resident.get_mut(id) {
                        resident.work.attention = Some(message);
                    }
                }
                let pause = self.pause_ms(id, &failure);
                self.work_later(id, pause);
            }
        }
    }
}
