//! Planning: what one site still has to do.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::policy::Matrix;
use crate::{AfterFailure, OperationId, Operations, Policy, Resolved};

mod applied;

pub use applied::{Applied, Entry, Outcome, Recovery};

/// What a driver can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Capabilities {
    /// It can run operations at all, not only bring a replica to a desired state.
    pub operations: bool,
    /// It can take back the operation that ran last, if the policy names an `undo` for its type.
    pub undo: bool,
    /// It can make a replica as new.
    pub reset: bool,
    /// What a reset takes away may be more than what is then made again: it is called only where nothing is wanted any more.
    pub reset_is_loss: bool,
    /// It can tell whether a step happened, and what the contents are.
    pub observe: bool,
    /// It can show what a step would do without doing it.
    pub dry_run: bool,
}

/// One thing for a site to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "step", content = "operation", rename_all = "kebab-case")]
pub enum Step {
    /// Run the operation on the contents as they are.
    Run(OperationId),
    /// Run this absolute operation whatever the contents are: with its success it becomes the base.
    Rebase(OperationId),
    /// Take back the operation, the last that was executed with success.
    Undo(OperationId),
    /// Make the replica as new.
    Reset,
    /// Nothing for the driver: the operation, the last in the sequence, failed or was skipped and loses its place.
    Forget(OperationId),
}

impl Step {
    /// The operation that the step is about.
    #[must_use]
    pub fn operation(&self) -> Option<&OperationId> {
        match self {
            Self::Run(id) | Self::Rebase(id) | Self::Undo(id) | Self::Forget(id) => Some(id),
            Self::Reset => None,
        }
    }

    /// Whether the driver is called for it. Where not, [`Applied::start`] does all there is to do.
    #[must_use]
    pub fn calls_driver(&self) -> bool {
        !matches!(self, Self::Forget(_))
    }
}

/// What a site has to do, as far as it can be foreseen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Which of the six rules of planning applied.
    pub rule: u8,
    /// Whether something that was executed does not stay: rules 3 to 5.
    pub rebuild: bool,
    /// All that is to be done if nothing fails and nothing arrives. The caller does the first and plans anew.
    pub steps: Vec<Step>,
    /// To be reported skipped: not needed, as they come before the last absolute operation, or held by a failed one
    /// where the policy says so. Nothing of this is recorded in [`Applied`].
    pub skipped: Vec<OperationId>,
    /// Held by a failed operation before them, where the policy says that they wait for it to be replaced.
    pub waiting: Vec<OperationId>,
    /// Why only a person can go on; there are no steps then.
    pub needs_attention: Option<String>,
}

/// Works out what a site has to do to bring its replica from what it has executed to what has converged.
///
/// An open intent in `applied` counts as done; settle it before another step is started. What `operations` does not hold
/// counts as neither absolute nor commuting nor possible to undo.
#[must_use]
pub fn plan(
    applied: &Applied,
    resolved: &Resolved,
    operations: &Operations,
    policy: &Policy,
    capabilities: &Capabilities,
) -> Plan {
    let situation = Situation::new(applied, resolved, operations, policy, capabilities);
    let plan = situation.go_on().or_else(|| situation.fill_holes()).unwrap_or_else(|| situation.rebuild());
    if !capabilities.operations && plan.steps.iter().any(Step::calls_driver) {
        let why = "this kind of replica takes no operations: change its desired state instead";
        return Plan { rule: 6, needs_attention: Some(why.into()), ..Plan::default() };
    }
    plan
}

/// One executed operation, as planning sees it.
#[derive(Clone, Copy)]
struct Done<'a> {
    id: &'a OperationId,
    /// None while its result is not known.
    outcome: Option<Outcome>,
}

impl Done<'_> {
    /// Whether the contents are as they were before it.
    fn without_effect(self) -> bool {
        matches!(self.outcome, Some(Outcome::Failed | Outcome::Skipped))
    }
}

struct Situation<'a> {
    applied: &'a Applied,
    operations: &'a Operations,
    policy: &'a Policy,
    capabilities: &'a Capabilities,
    /// What was executed, without what counts no more.
    done: Vec<Done<'a>>,
    /// How each operation ended at its last execution.
    outcomes: BTreeMap<&'a OperationId, Option<Outcome>>,
    /// The whole list.
    resolved: &'a [OperationId],
    /// The list without what counts no more.
    list: Vec<&'a OperationId>,
    /// The place in `list` of the last absolute operation that has not failed for good here.
    base: Option<usize>,
}

impl<'a> Situation<'a> {
    fn new(
        applied: &'a Applied,
        resolved: &'a Resolved,
        operations: &'a Operations,
        policy: &'a Policy,
        capabilities: &'a Capabilities,
    ) -> Self {
        let mut done: Vec<Done<'_>> = applied.done().into_iter().map(|(id, outcome)| Done { id, outcome }).collect();
        let outcomes = done.iter().map(|d| (d.id, d.outcome)).collect();
        let any_without_effect = done.iter().any(|d| d.without_effect());
        let resolved = resolved.list.as_slice();
        let (list, base) = (resolved.iter().collect(), None);
        let mut situation =
            Self { applied, operations, policy, capabilities, done: Vec::new(), outcomes, resolved, list, base };
        if any_without_effect {
            // What had no effect and is not in the list is as if it had never been there. So is an absolute operation
            // that failed, wherever it stands: what does not depend on the contents before fails anywhere.
            let wanted: BTreeSet<&OperationId> = resolved.iter().collect();
            done.retain(|d| !d.without_effect() || (wanted.contains(d.id) && !situation.is_absolute(d.id)));
            let executed: BTreeSet<&OperationId> = done.iter().filter(|d| !d.without_effect()).map(|d| d.id).collect();
            let nowhere = |id: &OperationId| {
                situation.is_absolute(id) && situation.was_without_effect(id) && !executed.contains(id)
            };
            let list = resolved.iter().filter(|id| !nowhere(id)).collect();
            situation.list = list;
        }
        situation.done = done;
        let can_be_base = |id: &&OperationId| situation.is_absolute(id) && !situation.was_without_effect(id);
        situation.base = situation.list.iter().rposition(can_be_base);
        situation
    }

    fn op_type(&self, id: &OperationId) -> Option<&'a str> {
        self.operations.get(id).map(|o| o.op_type.as_str())
    }

    fn is_absolute(&self, id: &OperationId) -> bool {
        self.op_type(id).is_some_and(|t| self.policy.is_absolute(t))
    }

    fn was_without_effect(&self, id: &OperationId) -> bool {
        matches!(self.outcomes.get(id), Some(Some(Outcome::Failed | Outcome::Skipped)))
    }

    fn has_failed(&self, id: &OperationId) -> bool {
        self.outcomes.get(id) == Some(&Some(Outcome::Failed))
    }

    fn holds_after_failure(&self) -> bool {
        self.policy.after_failure != AfterFailure::Continue
    }

    /// Where the part of the list begins that shows in the contents.
    fn start(&self) -> usize {
        self.base.unwrap_or(0)
    }

    /// What is before the base and was not executed.
    fn not_needed(&self) -> Vec<OperationId> {
        let before = self.list.get(..self.start()).unwrap_or_default();
        before.iter().filter(|id| !self.outcomes.contains_key(**id)).map(|id| (*id).clone()).collect()
    }

    /// Runs those from a place of the list on that `wanted` tells, without those that come after one of which `failed`
    /// says that it holds them.
    fn run(
        &self,
        mut plan: Plan,
        from: usize,
        wanted: impl Fn(usize) -> bool,
        failed: impl Fn(&OperationId) -> bool,
    ) -> Plan {
        // From the base on, in the whole list: what failed may have lost its place in the other.
        let base = self.base.and_then(|place| self.list.get(place));
        let start = base.and_then(|base| self.resolved.iter().position(|id| id == *base)).unwrap_or(0);
        let since = self.resolved.get(start..).unwrap_or_default();
        let holds = |id: &OperationId| self.holds_after_failure() && self.has_failed(id) && failed(id);
        let free = since.iter().position(holds).map(|end| since.get(..end).unwrap_or_default());
        let free: Option<BTreeSet<&OperationId>> = free.map(|free| free.iter().collect());
        for (place, id) in self.list.iter().enumerate().skip(from).filter(|(place, _)| wanted(*place)) {
            let held = place >= self.start() && free.as_ref().is_some_and(|free| !free.contains(*id));
            match self.policy.after_failure {
                AfterFailure::Wait if held => plan.waiting.push((*id).clone()),
                AfterFailure::Skip if held => plan.skipped.push((*id).clone()),
                _ => plan.steps.push(Step::Run((*id).clone())),
            }
        }
        plan
    }

    /// Rule 1: what was executed is how the list begins.
    fn go_on(&self) -> Option<Plan> {
        let done = self.done.len();
        let begins = done <= self.list.len() && self.done.iter().zip(&self.list).all(|(d, id)| d.id == *id);
        if !begins {
            return None;
        }
        if self.holds_after_failure()
            && let Some(base) = self.base.and_then(|place| self.list.get(place))
            && done <= self.start()
            && self.resolved.iter().take_while(|id| id != base).any(|id| self.has_failed(id))
        {
            // What failed holds all up to the next absolute operation; that one does not need what is held.
            return None;
        }
        Some(self.run(Plan { rule: 1, ..Plan::default() }, done, |_| true, |_| true))
    }

    /// Rule 2: what was executed since the base is there, and what is missing can still be run.
    fn fill_holes(&self) -> Option<Plan> {
        let since = match self.base.and_then(|b| self.list.get(b)) {
            Some(base) => self.done.iter().rposition(|d| d.id == *base)?,
            None => 0,
        };
        let before: BTreeSet<&OperationId> = self.done.get(..since)?.iter().map(|d| d.id).collect();
        let needed = self.list.get(self.start()..)?;
        let places: BTreeMap<&OperationId, usize> = needed.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut executed = vec![false; needed.len()];
        let mut order = Vec::with_capacity(needed.len());
        for done in self.done.get(since..)? {
            let place = *places.get(done.id)?;
            // Executed twice since the base: the list holds it once.
            if std::mem::replace(executed.get_mut(place)?, true) {
                return None;
            }
            order.push(place);
        }
        let missing: Vec<usize> =
            executed.iter().enumerate().filter(|(_, done)| !**done).map(|(place, _)| place).collect();
        if missing.iter().any(|place| needed.get(*place).is_some_and(|id| before.contains(id))) {
            return None;
        }
        order.extend(&missing);
        if !self.same_contents(needed, &order) {
            return None;
        }
        let is_missing = |place: usize| executed.get(place - self.start()) == Some(&false);
        let plan = Plan { rule: 2, skipped: self.not_needed(), ..Plan::default() };
        Some(self.run(plan, self.start(), is_missing, |_| true))
    }

    /// Whether any two that `order` (places in `needed`) turns round commute.
    fn same_contents(&self, needed: &[&OperationId], order: &[usize]) -> bool {
        let (matrix, classes) = Matrix::new(self.policy, needed.iter().map(|id| self.op_type(id).unwrap_or_default()));
        // Of each class, the last place of the list that came so far; 0 is none.
        let mut last = vec![0; matrix.classes()];
        for place in order {
            let Some(class) = classes.get(*place) else { return false };
            let turned = last.iter().enumerate().filter(|(_, last)| **last > place + 1);
            if turned.into_iter().any(|(other, _)| !matrix.commute(other, *class)) {
                return false;
            }
            if let Some(last) = last.get_mut(*class) {
                *last = (*last).max(place + 1);
            }
        }
        true
    }

    /// Rules 3 to 6: something that was executed cannot stay.
    fn rebuild(&self) -> Plan {
        if let Some((place, id)) = self.base.and_then(|place| Some((place, self.list.get(place)?))) {
            let steps = vec![Step::Rebase((*id).clone())];
            let plan = Plan { rule: 3, rebuild: true, steps, skipped: self.not_needed(), ..Plan::default() };
            return self.run(plan, place + 1, |_| true, |_| false);
        }
        let common = self.done.iter().zip(&self.list).take_while(|(d, id)| d.id == **id).count();
        let back: Option<Vec<Step>> = self.done.iter().skip(common).rev().map(|d| self.take_back(*d)).collect();
        if let Some(steps) = back {
            let plan = Plan { rule: 4, rebuild: true, steps, ..Plan::default() };
            // What failed and is taken back may succeed the next time.
            let back: BTreeSet<&OperationId> = self.done.iter().skip(common).map(|d| d.id).collect();
            return self.run(plan, common, |_| true, |id| !back.contains(id));
        }
        if self.capabilities.reset && !self.applied.is_refused(&Step::Reset) {
            let plan = Plan { rule: 5, rebuild: true, steps: vec![Step::Reset], ..Plan::default() };
            return self.run(plan, 0, |_| true, |_| false);
        }
        let stuck = self.done.iter().skip(common).rev().find(|d| self.take_back(**d).is_none());
        let what = stuck.map_or_else(String::new, |d| format!(" {}", d.id));
        let why = format!(
            "this site has run operation{what}, which does not stay where it is, and its driver can neither undo it nor \
             reset the replica: ask for an absolute operation, or set the replica right by hand"
        );
        Plan { rule: 6, needs_attention: Some(why), ..Plan::default() }
    }

    /// How an executed operation is taken back, if it can be.
    fn take_back(&self, done: Done<'_>) -> Option<Step> {
        if done.without_effect() {
            return Some(Step::Forget(done.id.clone()));
        }
        let op_type = self.op_type(done.id)?;
        let undo = Step::Undo(done.id.clone());
        let can = self.capabilities.undo
            && self.policy.types.get(op_type).is_some_and(|t| t.undo.is_some() && !t.absolute)
            && !self.applied.is_refused(&undo);
        can.then_some(undo)
    }
}
