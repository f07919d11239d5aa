//! Directed graphs over the numbers 0..n, as lists of successors. Nothing here recurses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Counts steps of the work, for tests of how much there is of it.
#[cfg(test)]
pub(super) fn count(steps: usize) {
    super::work::STEPS.set(super::work::STEPS.get() + steps);
}

#[cfg(not(test))]
pub(super) fn count(_steps: usize) {}

/// The value at `index`, or the default where there is none.
pub(super) fn at<T: Copy + Default>(values: &[T], index: usize) -> T {
    count(1);
    values.get(index).copied().unwrap_or_default()
}

/// Puts `value` at `index`; does nothing where there is no such place.
pub(super) fn put<T>(values: &mut [T], index: usize, value: T) {
    count(1);
    if let Some(slot) = values.get_mut(index) {
        *slot = value;
    }
}

/// Adds `value` to the list at `index`.
pub(super) fn add(lists: &mut [Vec<usize>], index: usize, value: usize) {
    count(1);
    if let Some(list) = lists.get_mut(index) {
        list.push(value);
    }
}

/// The lowest number with nothing left to wait for goes next. What waits for itself is left out of the result.
pub(super) fn lowest_first(successors: &[Vec<usize>]) -> Vec<usize> {
    let mut waits: Vec<usize> = vec![0; successors.len()];
    for to in successors.iter().flatten() {
        let more = at(&waits, *to) + 1;
        put(&mut waits, *to, more);
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        waits.iter().enumerate().filter(|(_, waits)| **waits == 0).map(|(node, _)| Reverse(node)).collect();
    let mut order = Vec::with_capacity(successors.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for to in successors.get(node).into_iter().flatten() {
            let left = at(&waits, *to).saturating_sub(1);
            put(&mut waits, *to, left);
            if left == 0 {
                ready.push(Reverse(*to));
            }
        }
    }
    order
}

/// Which strongly connected component each node is in (Tarjan, "Depth-first search and linear graph algorithms", 1972).
pub(super) fn components(successors: &[Vec<usize>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let n = successors.len();
    let (mut found, mut low, mut component) = (vec![NONE; n], vec![0; n], vec![NONE; n]);
    let (mut open, mut calls): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    let (mut time, mut components) = (0, 0);
    for root in 0..n {
        if at(&found, root) != NONE {
            continue;
        }
        calls.push((root, 0));
        while let Some((node, next)) = calls.pop() {
            if next == 0 {
                put(&mut found, node, time);
                put(&mut low, node, time);
                time += 1;
                open.push(node);
            }
            if let Some(&to) = successors.get(node).and_then(|s| s.get(next)) {
                calls.push((node, next + 1));
                if at(&found, to) == NONE {
                    calls.push((to, 0));
                } else if at(&component, to) == NONE {
                    let reached = at(&low, node).min(at(&found, to));
                    put(&mut low, node, reached);
                }
                continue;
            }
            if at(&low, node) == at(&found, node) {
                while let Some(member) = open.pop() {
                    put(&mut component, member, components);
                    if member == node {
                        break;
                    }
                }
                components += 1;
            }
            if let Some((caller, _)) = calls.last() {
                let reached = at(&low, *caller).min(at(&low, node));
                put(&mut low, *caller, reached);
            }
        }
    }
    component
}
