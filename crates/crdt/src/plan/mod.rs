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
    list: &'a [OperationId],
    operations: &'a Operations,
    policy: &'a Policy,
    capabilities: &'a Capabilities,
    done: Vec<Done<'a>>,
    /// How each operation ended at its last execution.
    outcomes: BTreeMap<&'a OperationId, Option<Outcome>>,
    /// The place in the list of the last absolute operation that has not failed for good here.
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
        let results = applied.entries().iter().map(|e| Some(e.outcome)).chain(std::iter::repeat(None));
        let mut done: Vec<Done<'_>> =
            applied.sequence().into_iter().zip(results).map(|(id, outcome)| Done { id, outcome }).collect();
        if done.iter().any(|d| d.without_effect()) {
            // What had no effect and counts no more is as if it had never been there.
            let wanted: BTreeSet<&OperationId> = resolved.list.iter().collect();
            done.retain(|d| !d.without_effect() || wanted.contains(d.id));
        }
        let outcomes = done.iter().map(|d| (d.id, d.outcome)).collect();
        let mut situation =
            Self { applied, list: &resolved.list, operations, policy, capabilities, done, outcomes, base: None };
        situation.base =
            situation.list.iter().rposition(|id| situation.is_absolute(id) && !situation.was_without_effect(id));
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
        let executed = |id: &OperationId| self.outcomes.contains_key(id) && !self.was_without_effect(id);
        before.iter().filter(|id| !executed(id) && !self.has_failed(id)).cloned().collect()
    }

    /// Runs those of the list at the given places that no failed operation holds, after the given steps.
    fn run(&self, mut plan: Plan, places: impl Iterator<Item = usize>, failed: Option<usize>) -> Plan {
        for place in places {
            let Some(id) = self.list.get(place) else { continue };
            let held = self.holds_after_failure() && failed.is_some_and(|failed| failed < place);
            match self.policy.after_failure {
                AfterFailure::Wait if held => plan.waiting.push(id.clone()),
                AfterFailure::Skip if held => plan.skipped.push(id.clone()),
                _ => plan.steps.push(Step::Run(id.clone())),
            }
        }
        plan
    }

    /// The first place from `start` on, before `end`, whose operation failed here.
    fn first_failed(&self, start: usize, end: usize) -> Option<usize> {
        let part = self.list.get(start..end)?;
        part.iter().position(|id| self.has_failed(id)).map(|i| start + i)
    }

    /// Rule 1: what was executed is how the list begins.
    fn go_on(&self) -> Option<Plan> {
        let done = self.done.len();
        let begins = done <= self.list.len() && self.done.iter().zip(self.list).all(|(d, id)| d.id == id);
        // What failed holds all up to the next absolute operation, which does not need what is held.
        let held_before_base =
            self.holds_after_failure() && done <= self.start() && self.first_failed(0, self.start()).is_some();
        if !begins || held_before_base {
            return None;
        }
        let failed = self.first_failed(self.start(), self.list.len());
        Some(self.run(Plan { rule: 1, ..Plan::default() }, done..self.list.len(), failed))
    }

    /// Rule 2: what was executed since the base is there, and what is missing can still be run.
    fn fill_holes(&self) -> Option<Plan> {
        let since = match self.base.and_then(|b| self.list.get(b)) {
            Some(base) => self.done.iter().rposition(|d| d.id == base)?,
            None => 0,
        };
        let before: BTreeSet<&OperationId> = self.done.get(..since)?.iter().map(|d| d.id).collect();
        let needed = self.list.get(self.start()..)?;
        let places: BTreeMap<&OperationId, usize> = needed.iter().enumerate().map(|(place, id)| (id, place)).collect();
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
        let failed = self.first_failed(self.start(), self.list.len());
        let plan = Plan { rule: 2, skipped: self.not_needed(), ..Plan::default() };
        Some(self.run(plan, missing.into_iter().map(|place| self.start() + place), failed))
    }

    /// Whether any two that `order` (places in `needed`) turns round commute.
    fn same_contents(&self, needed: &[OperationId], order: &[usize]) -> bool {
        let (matrix, classes) = Matrix::new(self.policy, needed.iter().map(|id| self.op_type(id).unwrap_or_default()));
        // Of each class, the last place of the list that came so far; 0 is none.
        let mut last = vec![0; matrix.classes()];
        for place in order {
            let (Some(id), Some(class)) = (needed.get(*place), classes.get(*place)) else { return false };
            // An absolute operation that failed has no effect anywhere.
            if self.was_without_effect(id) && self.is_absolute(id) {
                continue;
            }
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
            let steps = vec![Step::Rebase(id.clone())];
            let plan = Plan { rule: 3, rebuild: true, steps, skipped: self.not_needed(), ..Plan::default() };
            return self.run(plan, place + 1..self.list.len(), None);
        }
        let common = self.done.iter().zip(self.list).take_while(|(d, id)| d.id == *id).count();
        let back: Option<Vec<Step>> = self.done.iter().skip(common).rev().map(|d| self.take_back(*d)).collect();
        if let Some(steps) = back {
            let plan = Plan { rule: 4, rebuild: true, steps, ..Plan::default() };
            return self.run(plan, common..self.list.len(), self.first_failed(0, common));
        }
        if self.capabilities.reset && !self.applied.is_refused(&Step::Reset) {
            let plan = Plan { rule: 5, rebuild: true, steps: vec![Step::Reset], ..Plan::default() };
            return self.run(plan, 0..self.list.len(), None);
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
