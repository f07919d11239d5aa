//! The shortest way from one list to another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One step from an old list to a new one; indices into the old list first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The element stays.
    Same(usize),
    /// The element becomes that one of the new list.
    Change(usize, usize),
    /// The element goes.
    Remove(usize),
    /// That element of the new list is added.
    Add(usize),
}

/// Beyond so many comparisons the middle of two lists is not compared, but replaced place by place.
const MAX_COMPARISONS: usize = 1 << 20;

/// The steps from `old` to `new`, in the order of both. What is replaced by as much again is changed in place.
pub(crate) fn align(old: &[Value], new: &[Value]) -> Vec<Step> {
    // Texts are numbered once, so that the table below compares numbers.
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut number = |value: &Value| {
        let next = numbers.len();
        *numbers.entry(value.to_string()).or_insert(next)
    };
    let a: Vec<usize> = old.iter().map(&mut number).collect();
    let b: Vec<usize> = new.iter().map(&mut number).collect();
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = a.len().min(b.len()) - head;
    let tail = a.iter().rev().zip(b.iter().rev()).take(rest).take_while(|(x, y)| x == y).count();
    let mid_a = a.get(head..a.len() - tail).unwrap_or_default();
    let mid_b = b.get(head..b.len() - tail).unwrap_or_default();

    let mut steps: Vec<Step> = (0..head).map(Step::Same).collect();
    let (mut i, mut j) = (0, 0);
    for (x, y) in common(mid_a, mid_b).into_iter().chain([(mid_a.len(), mid_b.len())]) {
        let changed = (x - i).min(y - j);
        steps.extend((0..changed).map(|k| Step::Change(head + i + k, head + j + k)));
        steps.extend((i + changed..x).map(|k| Step::Remove(head + k)));
        steps.extend((j + changed..y).map(|k| Step::Add(head + k)));
        if x < mid_a.len() {
            steps.push(Step::Same(head + x));
        }
        (i, j) = (x + 1, y + 1);
    }
    steps.extend((a.len() - tail..a.len()).map(Step::Same));
    steps
}

/// The longest common subsequence as pairs of places.
fn common(a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    if a.is_empty() || b.is_empty() || a.len().saturating_mul(b.len()) > MAX_COMPARISONS {
        return Vec::new();
    }
    // rows[i][j]: how much a[i..] and b[j..] have in common.
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    let at = |rows: &[Vec<usize>], i: usize, j: usize| rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            let best = if x == y { at(&rows, i + 1, j + 1) + 1 } else { at(&rows, i + 1, j).max(at(&rows, i, j + 1)) };
            if let Some(cell) = rows.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if at(&rows, i + 1, j) >= at(&rows, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// The places of a longest increasing subsequence.
pub(crate) fn longest_increasing(values: &[usize]) -> BTreeSet<usize> {
    // ends[k]: the place of the smallest value that ends an increasing subsequence of length k + 1.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let length = ends.partition_point(|end| values.get(*end).is_some_and(|smaller| smaller < value));
        before.push(length.checked_sub(1).and_then(|k| ends.get(k)).copied());
        match ends.get_mut(length) {
            Some(end) => *end = i,
            None => ends.push(i),
        }
    }
    let mut at = ends.last().copied();
    let mut places = BTreeSet::new();
    while let Some(i) = at {
        places.insert(i);
        at = before.get(i).copied().flatten();
    }
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn values(numbers: &[u8]) -> Vec<Value> {
        numbers.iter().map(|n| Value::from(*n)).collect()
    }

    #[test]
    fn an_insertion_in_the_middle_is_one_step() {
        let steps = align(&values(&[1, 2, 3]), &values(&[1, 9, 2, 3]));
        assert_eq!(steps, [Step::Same(0), Step::Add(1), Step::Same(1), Step::Same(2)]);
    }

    #[test]
    fn a_replaced_element_is_changed_in_place() {
        let steps = align(&values(&[1, 2, 3]), &values(&[1, 9, 3]));
        assert_eq!(steps, [Step::Same(0), Step::Change(1, 1), Step::Same(2)]);
    }

    proptest! {
        #[test]
        fn the_steps_lead_from_the_old_list_to_the_new(
            old in prop::collection::vec(0_u8..5, 0..12), new in prop::collection::vec(0_u8..5, 0..12),
        ) {
            let (old, new) = (values(&old), values(&new));
            let mut seen = Vec::new();
            let mut built = Vec::new();
            for step in align(&old, &new) {
                match step {
                    Step::Same(i) => { seen.push(i); built.push(old[i].clone()); }
                    Step::Change(i, j) => { seen.push(i); built.push(new[j].clone()); }
                    Step::Remove(i) => seen.push(i),
                    Step::Add(j) => built.push(new[j].clone()),
                }
            }
            prop_assert_eq!(built, new);
            prop_assert_eq!(seen, (0..old.len()).collect::<Vec<_>>());
        }

        #[test]
        fn what_stays_is_increasing_and_no_single_element_can_be_added(values in prop::collection::vec(0_usize..9, 0..9)) {
            let places: Vec<usize> = longest_increasing(&values).into_iter().collect();
            let picked: Vec<usize> = places.iter().map(|i| values[*i]).collect();
            prop_assert!(picked.windows(2).all(|pair| pair[0] < pair[1]));
            let best = (0_u32..1 << values.len()).filter_map(|mask| {
                let some: Vec<usize> = (0..values.len()).filter(|i| mask & (1 << i) != 0).map(|i| values[i]).collect();
                some.windows(2).all(|pair| pair[0] < pair[1]).then_some(some.len())
            }).max().unwrap();
            prop_assert_eq!(picked.len(), best);
        }
    }
}
