//! Operations in closed epochs: what is resolved after a closing is what would have been without it.

use khufu_crdt::{Base, OperationId, Operations, Policy, cut_after, resolve, resolve_after};
use proptest::prelude::*;

use crate::histories::{Event, any_policy, cases, events, play_on};
use crate::history::{id, insert, issue, list, names, policy};
use crate::obvious::Oracle;

/// Phases between which all sites meet; what each of them added.
fn phases(phases: &[Vec<Event>], policy: &Policy) -> Vec<Operations> {
    let mut all = Operations::new();
    let mut added = Vec::new();
    for (phase, events) in phases.iter().enumerate() {
        let sites = play_on(&all, &format!("{phase}-"), events, policy);
        let next: Operations = sites.into_iter().flatten().collect();
        added.push(next.iter().filter(|(id, _)| !all.contains_key(*id)).map(|(i, o)| (i.clone(), o.clone())).collect());
        all = next;
    }
    added
}

/// The part of a list that shows in the contents.
fn since_absolute<'l>(list: &'l [OperationId], all: &Operations, policy: &Policy) -> &'l [OperationId] {
    let last = list.iter().rposition(|id| policy.is_absolute(&all[id].op_type));
    &list[last.unwrap_or(0)..]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), ..ProptestConfig::default() })]

    #[test]
    fn a_closing_changes_nothing_that_shows(
        story in prop::collection::vec(events(14), 2..5), policy in any_policy(), closings in 0..16_u32,
    ) {
        let phases = phases(&story, &policy);
        let (mut base, mut open, mut all) = (Base::default(), Operations::new(), Operations::new());
        for (number, phase) in phases.iter().enumerate() {
            for operation in phase.values() {
                // What its author's node decided, from all that it came after, is what it decides after a closing.
                let known: Vec<_> = operation.parents.iter().filter(|p| open.contains_key(*p) || phase.contains_key(*p)).cloned().collect();
                let seen: Operations = open.iter().chain(phase).map(|(i, o)| (i.clone(), o.clone())).collect();
                prop_assert_eq!(operation.cut, cut_after(&base, &seen, &known, &operation.op_type, &policy), "{:?}", operation);
            }
            open.extend(phase.clone());
            all.extend(phase.clone());
            let whole = Oracle::new(&all, &policy).resolve();
            let after = resolve_after(&base, &open, &policy);
            prop_assert_eq!(
                since_absolute(&after.list, &all, &policy), since_absolute(&whole.list, &all, &policy), "{:?}", base
            );
            prop_assert!(whole.list.ends_with(&after.list), "{:?} of {:?}", after.list, whole.list);
            for (id, fate) in &after.fates {
                prop_assert_eq!(whole.list.contains(id), *fate == khufu_crdt::Fate::Live, "{}", id);
            }
            if closings >> number & 1 == 1 {
                let (next, left_out) = base.close(&open, &policy);
                let kept: Vec<_> = next.operations.iter().map(|o| o.id.clone()).collect();
                prop_assert_eq!(&kept[..], since_absolute(&after.list, &all, &policy));
                let before = base.operations.iter().map(|o| &o.id).chain(open.keys());
                prop_assert!(before.into_iter().all(|id| left_out.contains(id) != kept.contains(id)));
                (base, open) = (next, Operations::new());
            }
        }
    }
}

#[test]
fn a_live_cut_empties_the_base_and_a_dropped_one_does_not() {
    let policy = policy(&[("w", "w", "take-one")], &["w"]);
    let mut closed = Operations::new();
    issue(&mut closed, &policy, "w0", "w", &[], 1, "paris");
    issue(&mut closed, &policy, "a0", "a", &["w0"], 2, "paris");
    let (base, left_out) = Base::default().close(&closed, &policy);
    assert_eq!(base.operations.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(), ["w0", "a0"]);
    assert!(left_out.is_empty());
    assert!(
        !cut_after(&base, &Operations::new(), &[], "w", &policy),
        "the last one is an append, of which nothing is said"
    );
    let mut open = Operations::new();
    insert(&mut open, "w1", "w", vec![id("a0")], true, 3, "paris");
    assert_eq!(names(&resolve_after(&base, &open, &policy)), "w1");
    insert(&mut open, "w2", "w", vec![id("a0")], false, 4, "rennes");
    let resolved = resolve_after(&base, &open, &policy);
    assert_eq!(names(&resolved), "w0 a0 w2", "the cut was dropped by one that has seen the same and replaced nothing");
    let mut all = closed.clone();
    all.extend(open);
    assert_eq!(list(&all, &policy), "w0 a0 w2");
}

#[test]
fn ranks_are_above_those_of_what_was_closed() {
    // Without a floor the slow clock of one site would put its operation below that of the other.
    let policy = policy(&[("w", "w", "take-one")], &[]);
    let mut all = Operations::new();
    issue(&mut all, &policy, "first", "a", &[], 100, "paris");
    let (base, _) = Base::default().close(&all, &policy);
    let mut open = Operations::new();
    insert(&mut open, "x", "w", vec![id("first")], false, 5, "paris");
    insert(&mut open, "y", "w", vec![id("first")], false, 50, "nantes");
    all.extend(open.clone());
    assert_eq!(resolve(&all, &policy).list, resolve_after(&base, &open, &policy).list);
    assert_eq!(list(&all, &policy), "first x");
}
