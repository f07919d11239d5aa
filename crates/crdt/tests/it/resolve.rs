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
