//! The order of the live operations.

use super::fate::Decision;
use super::graph::{add, at, components, lowest_first};
use super::group;
use super::history::History;
use crate::policy::{Matrix, Rule};

/// What the preferences among live operations are worked out from.
pub(super) struct Live<'a> {
    pub(super) history: &'a History<'a>,
    matrix: &'a Matrix,
    classes: &'a [usize],
    live: Vec<bool>,
}

impl Live<'_> {
    /// Which of two concurrent operations wants to be first, as (first, second).
    pub(super) fn preference(&self, a: usize, b: usize) -> Option<(usize, usize)> {
        let (lower, higher) = (a.min(b), a.max(b));
        match self.matrix.rule(at(self.classes, lower), at(self.classes, higher)) {
            Rule::Keep => Some((lower, higher)),
            Rule::Reverse => Some((higher, lower)),
            // Of a live pair the first cannot be: the lower one would have been dropped.
            Rule::TakeOne | Rule::AnyOrder => None,
        }
    }

    pub(super) fn is_live(&self, op: usize) -> bool {
        at(&self.live, op)
    }

    /// Causality among the live operations, as few edges as lead from each to all that come after it.
    fn causes(&self) -> Vec<Vec<usize>> {
        let history = self.history;
        let mut edges = vec![Vec::new(); history.len()];
        // For each position of each chain, the last live operation before it.
        let last_live: Vec<Vec<Option<usize>>> = history
            .chains()
            .iter()
            .map(|chain| {
                let mut last = None;
                let mut row = vec![None];
                row.extend(chain.iter().map(|op| {
                    last = if self.is_live(*op) { Some(*op) } else { last };
                    last
                }));
                row
            })
            .collect();
        for op in (0..history.len()).filter(|op| self.is_live(*op)) {
            for (chain, last_live) in last_live.iter().enumerate() {
                if let Some(cause) = at(last_live, history.seen(op, chain)) {
                    add(&mut edges, cause, op);
                }
            }
        }
        edges
    }

    /// Adds the preferences of all pairs that `counts` says count. Of those that lead from one operation into one chain
    /// (or back) only the one that implies the others.
    fn add_preferences(&self, edges: &mut [Vec<usize>], counts: impl Fn(usize, usize) -> bool) {
        let history = self.history;
        let wanted = |op: usize| self.is_live(op) && self.matrix.has_preferences(at(self.classes, op));
        for op in (0..history.len()).filter(|op| wanted(*op)) {
            for (number, chain) in history.chains().iter().enumerate().skip(history.chain_of(op) + 1) {
                let concurrent = chain.get(history.concurrent(op, number)).unwrap_or_default();
                let counts = |x: &&usize| wanted(**x) && counts(op, **x);
                let first = |x: usize| self.preference(op, x).map(|(first, _)| first);
                if let Some(x) = concurrent.iter().filter(counts).find(|x| first(**x) == Some(op)) {
                    add(edges, op, *x);
                }
                if let Some(x) = concurrent.iter().rev().filter(counts).find(|x| first(**x) == Some(**x)) {
                    add(edges, *x, op);
                }
            }
        }
    }
}

/// The live operations in the order in which they are to be run.
pub(super) fn order(history: &History<'_>, matrix: &Matrix, classes: &[usize], decisions: &[Decision]) -> Vec<usize> {
    let live: Vec<bool> = decisions.iter().map(|d| matches!(d, Decision::Live)).collect();
    let live = Live { history, matrix, classes, live };
    let mut edges = live.causes();
    live.add_preferences(&mut edges, |_, _| true);
    let mut order = lowest_first(&edges);
    if order.len() < history.len() {
        // Some preferences contradict each other. Only those within one component can: all others are taken.
        let component = components(&edges);
        edges = live.causes();
        live.add_preferences(&mut edges, |a, b| component.get(a) != component.get(b));
        for members in groups(&component) {
            group::add_taken(&live, &members, &mut edges);
        }
        order = lowest_first(&edges);
    }
    order.retain(|op| live.is_live(*op));
    order
}

/// The components of more than one node, each with its members by rank.
fn groups(component: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); component.len()];
    for (op, component) in component.iter().enumerate() {
        add(&mut groups, *component, op);
    }
    groups.retain(|members| members.len() > 1);
    groups
}
