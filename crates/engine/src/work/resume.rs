//! Picks up what was under way when a crash, or a driver that gave no answer, left it.

use khufu_crdt::{Operation, OperationId, Recovery, Step};

use super::{Doing, Doubt, Work};
use crate::DriverCall;

/// What comes next for one replicant.
pub(super) enum Next {
    /// Nothing: the replica is as it should be, or waits for something.
    Nothing { settled: bool },
    /// Call the driver.
    Call(Doing, DriverCall),
    /// The work changed without the driver: look again.
    Again,
}

/// A pause between two attempts at the same thing. Something else is not held up by it.
#[derive(Clone, Copy)]
pub(super) struct Pause {
    pub(super) until_us: Option<u64>,
}

impl Pause {
    /// Whether this must wait. If not, it is what is tried from now on.
    pub(super) fn holds(self, work: &mut Work, what: &str) -> bool {
        if work.trying == what {
            return self.until_us.is_some();
        }
        what.clone_into(&mut work.trying);
        work.attempt = 0;
        false
    }
}

pub(super) fn name(step: &Step) -> String {
    match step {
        Step::Run(op) | Step::Rebase(op) => format!("run {op}"),
        Step::Undo(op) => format!("undo {op}"),
        Step::Reset => "reset".into(),
        Step::Forget(op) => format!("forget {op}"),
    }
}

pub(super) fn call_for(step: &Step, operation: impl Fn(&OperationId) -> Option<Operation>) -> Option<DriverCall> {
    match step {
        Step::Run(op) | Step::Rebase(op) => operation(op).map(DriverCall::Operation),
        Step::Undo(op) => operation(op).map(DriverCall::Undo),
        Step::Reset => Some(DriverCall::Reset),
        Step::Forget(_) => None,
    }
}

/// A crash, or a driver that gave no answer, left an intent behind. It counts as executed until it is known, so it is
/// never just forgotten: what may be done twice is done again, as often as the policy says, and else the platform is asked.
pub(super) fn resume(
    work: &mut Work,
    step: &Step,
    recovery: Recovery,
    operation: impl Fn(&OperationId) -> Option<Operation>,
    pause: Pause,
    (attempts, observe, now_ms): (u32, bool, u64),
    anew: impl FnOnce() -> (Doing, DriverCall),
) -> Next {
    let tried_enough = work.attempt >= attempts && work.trying == name(step);
    let recovery = match (recovery, step) {
        (Recovery::Repeat, Step::Run(_) | Step::Rebase(_))
            if observe && (tried_enough || work.doubt == Doubt::Failed) =>
        {
            Recovery::Observe
        }
        _ => recovery,
    };
    match (recovery, call_for(step, operation)) {
        (Recovery::Repeat, Some(call)) => {
            if pause.holds(work, &name(step)) {
                return Next::Nothing { settled: false };
            }
            work.doubt = Doubt::Repeated;
            let (doing, call) = if *step == Step::Reset { anew() } else { (Doing::Step, call) };
            Next::Call(doing, call)
        }
        (Recovery::Observe, _) => {
            if pause.until_us.is_some() {
                return Next::Nothing { settled: false };
            }
            Next::Call(Doing::Lookup, DriverCall::Observe)
        }
        // Nobody can say whether it was done: start over.
        (Recovery::Repeat | Recovery::Ask, _) => {
            match step {
                Step::Run(op) | Step::Rebase(op) if matches!(recovery, Recovery::Ask) => {
                    work.start_over_for(op, attempts, now_ms);
                }
                _ => work.give_up_knowing(),
            }
            Next::Again
        }
    }
}
