//! Resolution: one list for one set of operations, in whatever order and grouping it arrived.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Matrix;
use crate::{OperationId, Operations, Policy};

mod base;
mod fate;
mod graph;
mod group;
mod history;
mod order;
#[cfg(test)]
mod work;

pub use base::{Base, cut_after, resolve_after};
use fate::{Decision, Decisions};
use history::History;

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "fate", rename_all = "kebab-case")]
pub enum Fate {
    /// It is in the list.
    Live,
    /// An operation that came after it replaced it.
    Dead {
        /// The replacing operation of the highest rank.
        by: OperationId,
    },
    /// Operations that knew nothing of it, and it nothing of them, won over it.
    Dropped {
        /// All that won over it, the highest rank first.
        by: Vec<OperationId>,
    },
}

/// What a set of operations comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resolved {
    /// The operations that count, in the order in which they are to be run.
    pub list: Vec<OperationId>,
    /// What became of each operation of the set.
    pub fates: BTreeMap<OperationId, Fate>,
}

/// Works out the list of a set of operations: a pure function of the set and the policy.
///
/// Ids of parents that are not in the set (yet) are ignored. Parents that form a cycle, which no honest node makes, are
/// taken in the order of ids (of the child, then of the parent) and one that closes a cycle is left out. The key of the
/// map counts as the operation's id.
///
/// Time and memory grow with the number of operations times how many of them are concurrent at once.
#[must_use]
pub fn resolve(operations: &Operations, policy: &Policy) -> Resolved {
    resolve_after(&Base::default(), operations, policy)
}

/// A result by the ids of operations.
fn named(history: &History<'_>, decisions: &Decisions, list: &[usize]) -> Resolved {
    let id = |op: usize| history.id(op).cloned();
    let fates = decisions
        .iter()
        .enumerate()
        .filter_map(|(op, decision)| {
            let fate = match decision {
                Decision::Undecided | Decision::Live => Fate::Live,
                Decision::Dead { by } => Fate::Dead { by: id(*by)? },
                Decision::Dropped { by } => Fate::Dropped { by: by.iter().copied().filter_map(id).collect() },
            };
            Some((id(op)?, fate))
        })
        .collect();
    Resolved { list: list.iter().copied().filter_map(id).collect(), fates }
}

/// The operations that nothing follows yet: the parents of the next one. Sorted by id.
#[must_use]
pub fn frontier(operations: &Operations) -> Vec<OperationId> {
    let mut ids: Vec<_> = History::new(operations.iter(), 0).ends().cloned().collect();
    ids.sort();
    ids
}

/// Whether a new operation of type `op_type` that comes after `parents` replaces what it has seen: the value of its
/// `cut`, decided once by the node of its author.
///
/// Parents that are not in the set are ignored.
#[must_use]
pub fn cut_for(operations: &Operations, parents: &[OperationId], op_type: &str, policy: &Policy) -> bool {
    cut_after(&Base::default(), operations, parents, op_type, policy)
}

fn decide(history: &History<'_>, policy: &Policy) -> (Decisions, Vec<usize>) {
    let (matrix, classes) = Matrix::new(policy, history.types());
    let decisions = fate::decide(history, &matrix, &classes);
    let list = order::order(history, &matrix, &classes, &decisions);
    (decisions, list)
}
