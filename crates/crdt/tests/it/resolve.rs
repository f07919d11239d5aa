//! The rules of resolution, one by one.

use khufu_crdt::{Fate, Operations, Policy, cut_for, frontier, resolve};

use crate::history::{id, insert, issue, list, policy};

fn counter() -> Policy {
    policy(
        &[
            ("set", "inc", "take-both-keep-order"),
            ("inc", "set", "take-both-reverse-order"),
            ("set", "set", "take-one"),
            ("inc", "inc", "take-both-any-order"),
        ],
        &["set"],
    )
}

#[test]
fn a_write_that_won_is_named() {
    let (policy, mut ops) = (counter(), Operations::new());
    issue(&mut ops, &policy, "init", "set", &[], 1, "paris");
    issue(&mut ops, &policy, "left", "inc", &["init"], 2, "paris");
    issue(&mut ops, &policy, "middle", "set", &["init"], 3, "rennes");
    issue(&mut ops, &policy, "right", "inc", &["init"], 4, "nantes");
    let resolved = resolve(&ops, &policy);
    assert_eq!(crate::history::names(&resolved), "middle left right");
    assert_eq!(resolved.fates[&id("init")], Fate::Dead { by: id("middle") });
    assert_eq!(resolved.fates[&id("left")], Fate::Live);
}

#[test]
fn a_clock_that_is_behind_does_not_put_an_operation_before_its_ancestors() {
    let (policy, mut ops) = (policy(&[], &[]), Operations::new());
    issue(&mut ops, &policy, "a", "x", &[], u64::MAX, "paris");
    issue(&mut ops, &policy, "b", "x", &["a"], u64::MAX, "nantes");
    issue(&mut ops, &policy, "c", "x", &["b"], 0, "aix");
    issue(&mut ops, &policy, "d", "x", &[], u64::MAX, "zurich");
    assert_eq!(list(&ops, &policy), "a d b c");
}

#[test]
fn parents_that_are_not_there_are_ignored() {
    let (policy, mut ops) = (counter(), Operations::new());
    issue(&mut ops, &policy, "a", "set", &["unknown"], 1, "paris");
    issue(&mut ops, &policy, "b", "inc", &["a", "never"], 2, "paris");
    assert_eq!(list(&ops, &policy), "a b");
    assert_eq!(frontier(&ops), [id("b")]);
    assert!(!cut_for(&ops, &[id("unknown")], "set", &policy));
}

#[test]
fn parents_in_a_cycle_lose_nothing_and_end() {
    let (policy, mut ops) = (policy(&[], &[]), Operations::new());
    insert(&mut ops, "a", "x", vec![id("c")], false, 1, "paris");
    insert(&mut ops, "b", "x", vec![id("a")], false, 2, "paris");
    insert(&mut ops, "c", "x", vec![id("b")], false, 3, "paris");
    insert(&mut ops, "d", "x", vec![id("d"), id("a")], false, 0, "paris");
    // a after c and b after a are taken; c after b would close the cycle.
    assert_eq!(list(&ops, &policy), "c a b d");
    assert_eq!(frontier(&ops), [id("b"), id("d")]);
}

#[test]
fn a_dropped_cut_still_replaces_what_its_winner_did_not_see() {
    // x drops the cut c; both come after "seen", only c comes after "alone".
    let (policy, mut ops) = (policy(&[("w", "w", "take-one")], &[]), Operations::new());
    insert(&mut ops, "seen", "a", vec![], false, 1, "paris");
    insert(&mut ops, "alone", "a", vec![], false, 2, "paris");
    insert(&mut ops, "c", "w", vec![id("alone"), id("seen")], true, 3, "paris");
    insert(&mut ops, "x", "w", vec![id("seen")], false, 4, "rennes");
    let resolved = resolve(&ops, &policy);
    assert_eq!(crate::history::names(&resolved), "seen x");
    assert_eq!(resolved.fates[&id("alone")], Fate::Dead { by: id("c") });
    assert_eq!(resolved.fates[&id("c")], Fate::Dropped { by: vec![id("x")] });
}

#[test]
fn a_late_operation_that_drops_a_cut_brings_back_what_both_come_after() {
    let (policy, mut ops) = (counter(), Operations::new());
    issue(&mut ops, &policy, "i", "inc", &[], 1, "paris");
    issue(&mut ops, &policy, "s", "set", &["i"], 2, "paris");
    assert_eq!(list(&ops, &policy), "s");
    // Whoever issued it decided that it does not replace what it has seen.
    insert(&mut ops, "late", "set", vec![id("i")], false, 3, "rennes");
    assert_eq!(list(&ops, &policy), "i late");
}

#[test]
fn what_is_dropped_or_dead_drops_nothing_and_what_followed_it_stays() {
    let policy = policy(&[("a", "b", "take-one"), ("b", "c", "take-one")], &[]);
    let mut ops = Operations::new();
    insert(&mut ops, "a", "a", vec![], false, 1, "paris");
    insert(&mut ops, "b", "b", vec![], false, 2, "rennes");
    insert(&mut ops, "c", "c", vec![], false, 3, "nantes");
    insert(&mut ops, "b2", "x", vec![id("b")], false, 4, "rennes");
    assert_eq!(list(&ops, &policy), "a c b2");
}

#[test]
fn a_matrix_given_in_one_orientation_means_the_same_as_one_given_in_both() {
    let both = policy(&[("a", "b", "take-both-keep-order"), ("b", "a", "take-both-reverse-order")], &[]);
    let one = policy(&[("a", "b", "take-both-keep-order")], &[]);
    let other = policy(&[("b", "a", "take-both-reverse-order")], &[]);
    let mut ops = Operations::new();
    insert(&mut ops, "b", "b", vec![], false, 1, "paris");
    insert(&mut ops, "a", "a", vec![], false, 2, "rennes");
    for policy in [both, one, other] {
        assert_eq!(list(&ops, &policy), "a b");
        assert!(cut_for(&ops, &[id("b")], "a", &policy));
        assert!(!cut_for(&ops, &[id("a")], "b", &policy));
    }
}

#[test]
fn preferences_that_contradict_each_other_yield_to_the_highest_rank() {
    let cycle =
        [("a", "b", "take-both-keep-order"), ("b", "c", "take-both-keep-order"), ("c", "a", "take-both-keep-order")];
    let (policy, mut ops) = (policy(&cycle, &[]), Operations::new());
    insert(&mut ops, "a", "a", vec![], false, 1, "paris");
    insert(&mut ops, "b", "b", vec![], false, 2, "rennes");
    insert(&mut ops, "c", "c", vec![], false, 3, "nantes");
    // Taken in this order: (c, b): b first; (c, a): c first; (b, a): a first would close the cycle.
    assert_eq!(list(&ops, &policy), "b c a");
}

#[test]
fn causality_through_what_is_dead_or_dropped_counts() {
    let (policy, mut ops) =
        (policy(&[("w", "w", "take-one"), ("a", "a", "take-both-reverse-order")], &[]), Operations::new());
    insert(&mut ops, "a1", "a", vec![], false, 1, "paris");
    insert(&mut ops, "w1", "w", vec![id("a1")], false, 2, "paris");
    insert(&mut ops, "a2", "a", vec![id("w1")], false, 3, "paris");
    insert(&mut ops, "w2", "w", vec![], false, 9, "rennes");
    assert_eq!(list(&ops, &policy), "a1 a2 w2");
}

#[test]
fn trap_branches_merged_in_any_order_and_grouping_give_one_list() {
    let (policy, mut base) = (counter(), Operations::new());
    issue(&mut base, &policy, "s", "set", &[], 1, "paris");
    let branches: Vec<Operations> = [("left", "inc", 4), ("middle", "set", 3), ("right", "inc", 2), ("late", "set", 5)]
        .into_iter()
        .map(|(name, op_type, at)| {
            let mut branch = base.clone();
            issue(&mut branch, &policy, name, op_type, &["s"], at, name);
            issue(&mut branch, &policy, &format!("{name}-2"), "inc", &[name], at + 4, name);
            branch
        })
        .collect();
    let mut orders = vec![vec![]];
    for n in 0..branches.len() {
        orders = orders
            .into_iter()
            .flat_map(|o: Vec<usize>| (0..=n).map(move |at| [&o[..at], &[n], &o[at..]].concat()))
            .collect();
    }
    let wanted = "late right left right-2 middle-2 left-2 late-2";
    for order in orders {
        let one_by_one = order.iter().fold(Operations::new(), |mut all, b| {
            all.extend(branches[*b].clone());
            assert_eq!(resolve(&all, &policy), resolve(&all.clone(), &policy));
            all
        });
        let mut pairs = branches[order[3]].clone();
        pairs.extend(branches[order[2]].clone());
        let mut grouped = branches[order[1]].clone();
        grouped.extend(branches[order[0]].clone());
        grouped.extend(pairs);
        assert_eq!(list(&one_by_one, &policy), wanted);
        assert_eq!(resolve(&grouped, &policy), resolve(&one_by_one, &policy));
    }
}
