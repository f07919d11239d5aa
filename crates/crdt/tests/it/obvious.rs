//! The rules of convergence again: slow, obvious, from the text of the design, with nothing taken from the crate's own
//! way of working.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{Combine, Fate, OperationId, Operations, Policy, Resolved};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    TakeOne,
    Any,
    Keep,
    Reverse,
}

fn entry(policy: &Policy, a: &str, b: &str) -> Option<Says> {
    for r in &policy.resolutions {
        if r.before == a && r.after == b {
            match r.result {
                Combine::TakeOne => return Some(Says::TakeOne),
                Combine::TakeBothAnyOrder => return Some(Says::Any),
                Combine::TakeBothKeepOrder => return Some(Says::Keep),
                Combine::TakeBothReverseOrder => return Some(Says::Reverse),
                Combine::Unknown(_) => {}
            }
        }
    }
    None
}

fn written(policy: &Policy, a: &str, b: &str) -> Option<Says> {
    if let Some(says) = entry(policy, a, b) {
        return Some(says);
    }
    match entry(policy, b, a) {
        Some(Says::Keep) => Some(Says::Reverse),
        Some(Says::Reverse) => Some(Says::Keep),
        other => other,
    }
}

fn rule(policy: &Policy, a: &str, b: &str) -> Says {
    written(policy, a, b).unwrap_or(Says::Any)
}

pub(crate) type Pairs = BTreeSet<(OperationId, OperationId)>;

/// Causality and ranks of a set of operations.
pub(crate) struct Oracle<'a> {
    operations: &'a Operations,
    policy: &'a Policy,
    /// (a, b): a is before b.
    pub(crate) before: Pairs,
    /// From the lowest rank up.
    ranked: Vec<OperationId>,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(operations: &'a Operations, policy: &'a Policy) -> Self {
        // Edges in the order of ids; one that closes a cycle is left out.
        let mut before = Pairs::new();
        for (child, operation) in operations {
            let parents: BTreeSet<_> = operation.parents.iter().filter(|p| operations.contains_key(*p)).collect();
            for parent in parents {
                if parent == child || before.contains(&(child.clone(), parent.clone())) {
                    continue;
                }
                let above: Vec<_> = before.iter().filter(|(_, x)| x == parent).map(|(a, _)| a.clone()).collect();
                let below: Vec<_> = before.iter().filter(|(x, _)| x == child).map(|(_, b)| b.clone()).collect();
                for a in above.iter().chain([parent]) {
                    for b in below.iter().chain([child]) {
                        before.insert((a.clone(), b.clone()));
                    }
                }
            }
        }
        let mut clock: BTreeMap<_, u128> = operations.iter().map(|(id, o)| (id.clone(), o.at.0.into())).collect();
        loop {
            let mut changed = false;
            for (a, b) in &before {
                if clock[b] <= clock[a] {
                    clock.insert(b.clone(), clock[a] + 1);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let mut ranked: Vec<_> = operations.keys().cloned().collect();
        ranked.sort_by_key(|id| (clock[id], operations[id].by.to_string().into_bytes(), id.to_string().into_bytes()));
        Self { operations, policy, before, ranked }
    }

    pub(crate) fn is_before(&self, a: &OperationId, b: &OperationId) -> bool {
        self.before.contains(&(a.clone(), b.clone()))
    }

    fn concurrent(&self, a: &OperationId, b: &OperationId) -> bool {
        a != b && !self.is_before(a, b) && !self.is_before(b, a)
    }

    fn rule(&self, earlier: &OperationId, later: &OperationId) -> Says {
        rule(self.policy, &self.operations[earlier].op_type, &self.operations[later].op_type)
    }

    fn fates(&self) -> BTreeMap<OperationId, Fate> {
        let mut fates: BTreeMap<OperationId, Fate> = BTreeMap::new();
        for o in self.ranked.iter().rev() {
            let higher: Vec<_> = self.ranked.iter().rev().take_while(|x| *x != o).collect();
            let kills = |c: &&&OperationId| {
                self.operations[**c].cut
                    && self.is_before(o, c)
                    && match &fates[**c] {
                        Fate::Dead { .. } => false,
                        Fate::Live => true,
                        Fate::Dropped { by } => !by.iter().any(|x| self.is_before(o, x)),
                    }
            };
            if let Some(c) = higher.iter().find(kills) {
                fates.insert(o.clone(), Fate::Dead { by: (*c).clone() });
                continue;
            }
            let by: Vec<_> = higher
                .iter()
                .filter(|x| fates[**x] == Fate::Live && self.concurrent(o, x) && self.rule(o, x) == Says::TakeOne)
                .map(|x| (*x).clone())
                .collect();
            fates.insert(o.clone(), if by.is_empty() { Fate::Live } else { Fate::Dropped { by } });
        }
        fates
    }

    pub(crate) fn resolve(&self) -> Resolved {
        let fates = self.fates();
        let live: Vec<_> = self.ranked.iter().filter(|o| fates[*o] == Fate::Live).cloned().collect();
        let mut first = self.before.clone();
        for x in live.iter().rev() {
            for y in live.iter().rev().skip_while(|y| *y != x).skip(1) {
                let (a, b) = match (self.concurrent(x, y), self.rule(y, x)) {
                    (true, Says::Keep) => (y, x),
                    (true, Says::Reverse) => (x, y),
                    _ => continue,
                };
                if first.contains(&(b.clone(), a.clone())) {
                    continue;
                }
                let above: Vec<_> = first.iter().filter(|(_, z)| z == a).map(|(z, _)| z.clone()).collect();
                let below: Vec<_> = first.iter().filter(|(z, _)| z == b).map(|(_, z)| z.clone()).collect();
                for above in above.iter().chain([a]) {
                    for below in below.iter().chain([b]) {
                        first.insert((above.clone(), below.clone()));
                    }
                }
            }
        }
        let mut list: Vec<OperationId> = Vec::new();
        while list.len() < live.len() {
            let waits =
                |o: &OperationId| live.iter().any(|w| !list.contains(w) && first.contains(&(w.clone(), o.clone())));
            let next = live.iter().find(|o| !list.contains(o) && !waits(o)).expect("no cycle");
            list.push(next.clone());
        }
        Resolved { list, fates }
    }
}

/// Whether a new operation replaces what it has seen.
pub(crate) fn cut(operations: &Operations, parents: &[OperationId], op_type: &str, policy: &Policy) -> bool {
    let whole = Oracle::new(operations, policy);
    let seen: Operations = operations
        .iter()
        .filter(|(id, _)| parents.iter().any(|p| p == *id || whole.is_before(id, p)))
        .map(|(id, o)| (id.clone(), o.clone()))
        .collect();
    let resolved = Oracle::new(&seen, policy).resolve();
    resolved
        .list
        .last()
        .is_some_and(|last| matches!(rule(policy, &seen[last].op_type, op_type), Says::TakeOne | Says::Reverse))
}
