//! Operations of epochs that are closed: what they come to stands before all operations that came after.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::{Fate, Resolved, decide};
use crate::policy::Rule;
use crate::{Hlc, Operation, OperationId, Operations, Policy};

/// What the operations of closed epochs come to. All that is not in it comes after all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Base {
    /// The operations that still count, in the order in which they are run: the list of all that were closed, from its
    /// last absolute operation on, or the whole list if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    /// The clock of the highest rank among all that were closed: what comes after counts as at least one tick later.
    /// None if no operation was ever closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Hlc>,
}

impl Base {
    /// Whether nothing was ever closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.clock.is_none()
    }

    /// The clock that operations which come after have at least.
    pub(super) fn floor(&self) -> u128 {
        self.clock.map_or(0, |clock| u128::from(clock.0) + 1)
    }

    /// One of its operations.
    #[must_use]
    pub fn get(&self, id: &OperationId) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == *id)
    }

    /// Closes over `operations` too: what the next epoch begins with, and the ids of those that are left out of it since
    /// they no longer show in any contents.
    #[must_use]
    pub fn close(&self, operations: &Operations, policy: &Policy) -> (Self, BTreeSet<OperationId>) {
        let mut list = resolve_after(self, operations, policy).list;
        let find = |id: &OperationId| operations.get(id).or_else(|| self.get(id)).cloned();
        let absolute = |id: &OperationId| find(id).is_some_and(|operation| policy.is_absolute(&operation.op_type));
        let kept = list.split_off(list.iter().rposition(absolute).unwrap_or(0));
        let mut left_out: BTreeSet<OperationId> = operations.keys().cloned().collect();
        left_out.extend(self.operations.iter().map(|operation| operation.id.clone()));
        for id in &kept {
            left_out.remove(id);
        }
        let top = History::new(operations.iter(), self.floor()).top_clock();
        let clock = match top {
            // Beyond what can be written, ranks are decided by causality alone.
            Some(top) => Some(Hlc(u64::try_from(top).unwrap_or(u64::MAX))),
            None => self.clock,
        };
        (Self { operations: kept.iter().filter_map(find).collect(), clock }, left_out)
    }
}

/// Works out the list of a set of operations that all come after those of closed epochs; see [`resolve`](super::resolve).
///
/// The base comes before everything. One live operation that replaces what it has seen empties it: all that was closed
/// had been seen.
#[must_use]
pub fn resolve_after(base: &Base, operations: &Operations, policy: &Policy) -> Resolved {
    let history = History::new(operations.iter(), base.floor());
    let (decisions, list) = decide(&history, policy);
    let mut resolved = super::named(&history, &decisions, &list);
    // From the highest rank down.
    let replaces = |op: &usize| history.is_cut(*op) && matches!(decisions.get(*op), Some(super::Decision::Live));
    let cut = (0..history.len()).rev().find(replaces).and_then(|op| history.id(op));
    for operation in &base.operations {
        let fate = cut.map_or(Fate::Live, |cut| Fate::Dead { by: cut.clone() });
        resolved.fates.insert(operation.id.clone(), fate);
    }
    if cut.is_none() && !base.operations.is_empty() {
        let mut whole: Vec<OperationId> = base.operations.iter().map(|operation| operation.id.clone()).collect();
        whole.append(&mut resolved.list);
        resolved.list = whole;
    }
    resolved
}

/// [`cut_for`](super::cut_for) where epochs were closed: if the list of all that the new operation has seen is otherwise
/// empty, the last operation of the base is the one that it may replace.
#[must_use]
pub fn cut_after(
    base: &Base,
    operations: &Operations,
    parents: &[OperationId],
    op_type: &str,
    policy: &Policy,
) -> bool {
    let history = History::new(operations.iter(), base.floor());
    let seen = history.with_past(parents);
    let history = if seen.len() == operations.len() {
        history
    } else {
        History::new(operations.iter().filter(|(id, _)| seen.contains(id)), base.floor())
    };
    let (_, list) = decide(&history, policy);
    let last = match list.last() {
        Some(last) => history.op_type(*last),
        None => base.operations.last().map(|operation| operation.op_type.as_str()),
    };
    last.is_some_and(|last| matches!(policy.rule(last, op_type), Rule::TakeOne | Rule::Reverse))
}
