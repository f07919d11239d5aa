//! Causality in a set of operations, by rank.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use super::graph::{add, at, components, lowest_first, put};
use crate::{Operation, OperationId};

/// Operations numbered by rank (0 is the lowest; an operation ranks above all it comes after), with what comes after
/// what.
///
/// The operations are split into chains, each of them in causal order from end to end, and each operation knows how many
/// of each chain it comes after (a vector clock). There are about as many chains as operations were ever concurrent at
/// once. An operation with one parent in its own chain shares the parent's vector.
pub(super) struct History<'a> {
    ids: Vec<&'a OperationId>,
    operations: Vec<&'a Operation>,
    parents: Vec<Vec<usize>>,
    places: Vec<Place>,
    pasts: Vec<Rc<Vec<usize>>>,
    chains: Vec<Vec<usize>>,
    top_clock: Option<u128>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    chain: usize,
    position: usize,
}

impl<'a> History<'a> {
    /// `floor` is the clock that each has at least.
    pub(super) fn new(operations: impl Iterator<Item = (&'a OperationId, &'a Operation)>, floor: u128) -> Self {
        let by_id: Vec<_> = operations.collect();
        let parents = known_parents(&by_id);

        let mut children: Vec<Vec<usize>> = vec![Vec::new(); by_id.len()];
        for (child, parents) in parents.iter().enumerate() {
            parents.iter().for_each(|p| add(&mut children, *p, child));
        }
        // At least one tick after the parents, whatever is written; wider than what is written, so that it never ends.
        let mut clocks: Vec<u128> = vec![0; by_id.len()];
        for op in lowest_first(&children) {
            let written = by_id.get(op).map_or(0, |(_, o)| u128::from(o.at.0));
            let after = parents.get(op).into_iter().flatten().map(|p| at(&clocks, *p) + 1).max().unwrap_or(floor);
            put(&mut clocks, op, written.max(after));
        }
        let mut ranked: Vec<_> = by_id.iter().enumerate().map(|(i, (id, o))| (at(&clocks, i), &o.by, *id, i)).collect();
        ranked.sort_unstable();
        let mut rank_of = vec![0; by_id.len()];
        for (rank, (.., i)) in ranked.iter().enumerate() {
            put(&mut rank_of, *i, rank);
        }
        let mut history = Self {
            ids: ranked.iter().map(|(_, _, id, _)| *id).collect(),
            operations: ranked.iter().filter_map(|(.., i)| by_id.get(*i).map(|(_, o)| *o)).collect(),
            parents: ranked
                .iter()
                .map(|(.., i)| parents.get(*i).into_iter().flatten().map(|p| at(&rank_of, *p)).collect())
                .collect(),
            places: Vec::with_capacity(by_id.len()),
            pasts: Vec::with_capacity(by_id.len()),
            chains: Vec::new(),
            top_clock: clocks.iter().copied().max(),
        };
        history.link();
        history
    }

    /// Finds the chains. An operation goes on with a chain if it comes after all of it.
    fn link(&mut self) {
        let nothing = Rc::new(Vec::new());
        for (op, parents) in self.parents.iter().enumerate() {
            let (chain, past) = match parents.as_slice() {
                [] => (None, nothing.clone()),
                [parent] if self.chains.get(at(&self.places, *parent).chain).and_then(|c| c.last()) == Some(parent) => {
                    (
                        Some(at(&self.places, *parent).chain),
                        self.pasts.get(*parent).map_or_else(|| nothing.clone(), Rc::clone),
                    )
                }
                _ => {
                    let mut counts: Vec<usize> = Vec::new();
                    let mut raise = |chain: usize, count: usize| {
                        if counts.len() <= chain {
                            counts.resize(chain + 1, 0);
                        }
                        let count = count.max(at(&counts, chain));
                        put(&mut counts, chain, count);
                    };
                    for parent in parents {
                        let place = at(&self.places, *parent);
                        raise(place.chain, place.position + 1);
                        for (chain, count) in self.pasts.get(*parent).into_iter().flat_map(|p| p.iter().enumerate()) {
                            raise(chain, *count);
                        }
                    }
                    let whole = |chain: &usize| self.chains.get(*chain).map(Vec::len) == Some(at(&counts, *chain));
                    ((0..counts.len()).find(whole), Rc::new(counts))
                }
            };
            let chain = chain.unwrap_or_else(|| {
                self.chains.push(Vec::new());
                self.chains.len() - 1
            });
            self.places.push(Place { chain, position: self.chains.get(chain).map_or(0, Vec::len) });
            self.pasts.push(past);
            add(&mut self.chains, chain, op);
        }
    }

    /// The highest clock; none if there are no operations.
    pub(super) fn top_clock(&self) -> Option<u128> {
        self.top_clock
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn id(&self, op: usize) -> Option<&'a OperationId> {
        self.ids.get(op).copied()
    }

    pub(super) fn op_type(&self, op: usize) -> Option<&'a str> {
        self.operations.get(op).map(|o| o.op_type.as_str())
    }

    /// The types of all operations, by rank.
    pub(super) fn types(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.operations.iter().map(|o| o.op_type.as_str())
    }

    pub(super) fn is_cut(&self, op: usize) -> bool {
        self.operations.get(op).is_some_and(|o| o.cut)
    }

    pub(super) fn chain_of(&self, op: usize) -> usize {
        at(&self.places, op).chain
    }

    pub(super) fn position_of(&self, op: usize) -> usize {
        at(&self.places, op).position
    }

    /// The chains, each in causal order.
    pub(super) fn chains(&self) -> &[Vec<usize>] {
        &self.chains
    }

    pub(super) fn chain(&self, chain: usize) -> &[usize] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    /// How many of a chain's operations `op` comes after.
    pub(super) fn seen(&self, op: usize, chain: usize) -> usize {
        let place = at(&self.places, op);
        if place.chain == chain { place.position } else { self.pasts.get(op).map_or(0, |past| at(past, chain)) }
    }

    /// Whether `a` comes before `b`.
    pub(super) fn before(&self, a: usize, b: usize) -> bool {
        let place = at(&self.places, a);
        place.position < self.seen(b, place.chain)
    }

    /// The positions in another chain than its own whose operations are concurrent with `op`.
    pub(super) fn concurrent(&self, op: usize, chain: usize) -> Range<usize> {
        let start = self.seen(op, chain);
        let rest = self.chain(chain).get(start..).unwrap_or_default();
        start..start + rest.partition_point(|other| !self.before(op, *other))
    }

    /// The operations that nothing follows.
    pub(super) fn ends(&self) -> impl Iterator<Item = &'a OperationId> + '_ {
        let followed: BTreeSet<usize> = self.parents.iter().flatten().copied().collect();
        self.ids.iter().enumerate().filter(move |(op, _)| !followed.contains(op)).map(|(_, id)| *id)
    }

    /// The given operations and all that they come after.
    pub(super) fn with_past(&self, of: &[OperationId]) -> BTreeSet<&'a OperationId> {
        let of: BTreeSet<&OperationId> = of.iter().collect();
        let mut wanted: Vec<bool> = self.ids.iter().map(|id| of.contains(id)).collect();
        for (op, parents) in self.parents.iter().enumerate().rev() {
            if at(&wanted, op) {
                parents.iter().for_each(|p| put(&mut wanted, *p, true));
            }
        }
        self.ids.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(id, _)| *id).collect()
    }
}

/// The parents of each operation that are in the set, without those that close a cycle.
fn known_parents(by_id: &[(&OperationId, &Operation)]) -> Vec<Vec<usize>> {
    let numbers: BTreeMap<&OperationId, usize> = by_id.iter().enumerate().map(|(i, (id, _))| (*id, i)).collect();
    let parents: Vec<Vec<usize>> = by_id
        .iter()
        .enumerate()
        .map(|(child, (_, operation))| {
            let known: BTreeSet<usize> = operation.parents.iter().filter_map(|p| numbers.get(p).copied()).collect();
            known.into_iter().filter(|p| *p != child).collect()
        })
        .collect();
    let component = components(&parents);
    let inside = |a: usize, b: usize| component.get(a) == component.get(b);
    if !parents.iter().enumerate().any(|(child, parents)| parents.iter().any(|p| inside(child, *p))) {
        return parents;
    }
    let mut accepted: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    for (child, parents) in parents.iter().enumerate() {
        for parent in parents {
            if !inside(child, *parent) || !reaches(&accepted, *parent, child, &inside) {
                add(&mut accepted, child, *parent);
            }
        }
    }
    accepted
}

/// Whether a path leads from one node to another of its component.
fn reaches(edges: &[Vec<usize>], from: usize, to: usize, inside: &impl Fn(usize, usize) -> bool) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(node) = open.pop() {
        if node == to {
            return true;
        }
        open.extend(edges.get(node).into_iter().flatten().filter(|n| inside(**n, to) && seen.insert(**n)));
    }
    false
}
