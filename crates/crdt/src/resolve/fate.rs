//! Which operations of a set are live.

use super::graph::{at, put};
use super::history::History;
use crate::policy::{Matrix, Rule};

pub(super) enum Decision {
    Undecided,
    Live,
    Dead { by: usize },
    Dropped { by: Vec<usize> },
}

pub(super) type Decisions = Vec<Decision>;

/// An operation that replaces what it comes after and is not dead itself.
struct Cut {
    op: usize,
    /// How many of each chain it must spare: what the operations that dropped it come after.
    spared: Vec<usize>,
}

/// Decides each operation once, from the highest rank down: all that can drop or kill it is decided before it.
pub(super) fn decide(history: &History<'_>, matrix: &Matrix, classes: &[usize]) -> Decisions {
    let mut decisions: Decisions = (0..history.len()).map(|_| Decision::Undecided).collect();
    let mut cuts: Vec<Cut> = Vec::new();
    for op in (0..history.len()).rev() {
        let (chain, position) = (history.chain_of(op), history.position_of(op));
        let kills = |cut: &&Cut| history.before(op, cut.op) && position >= at(&cut.spared, chain);
        if let Some(cut) = cuts.iter().find(kills) {
            put(&mut decisions, op, Decision::Dead { by: cut.op });
            continue;
        }
        let by = winners(history, matrix, classes, &decisions, op);
        if history.is_cut(op) {
            cuts.push(Cut { op, spared: seen_by_any(history, &by) });
        }
        put(&mut decisions, op, if by.is_empty() { Decision::Live } else { Decision::Dropped { by } });
    }
    decisions
}

/// The live concurrent operations of higher rank that stay in the place of `op`, the highest first.
fn winners(history: &History<'_>, matrix: &Matrix, classes: &[usize], decisions: &[Decision], op: usize) -> Vec<usize> {
    let class = at(classes, op);
    if !matrix.can_be_dropped(class) {
        return Vec::new();
    }
    let mut winners = Vec::new();
    for (number, chain) in history.chains().iter().enumerate().filter(|(number, _)| *number != history.chain_of(op)) {
        let concurrent = chain.get(history.concurrent(op, number)).unwrap_or_default();
        let higher = concurrent.get(concurrent.partition_point(|x| *x < op)..).unwrap_or_default();
        winners.extend(higher.iter().copied().filter(|x| {
            matches!(decisions.get(*x), Some(Decision::Live)) && matrix.rule(class, at(classes, *x)) == Rule::TakeOne
        }));
    }
    winners.sort_unstable_by(|a, b| b.cmp(a));
    winners
}

/// How many of each chain at least one of the given operations comes after.
fn seen_by_any(history: &History<'_>, ops: &[usize]) -> Vec<usize> {
    if ops.is_empty() {
        return Vec::new();
    }
    let seen = |chain| ops.iter().map(|x| history.seen(*x, chain)).max().unwrap_or(0);
    (0..history.chains().len()).map(seen).collect()
}
