//! How much work there is in resolving: steps are counted, since a busy machine makes any clock lie.

use std::cell::Cell;

use super::resolve;
use crate::{Combine, Hlc, Operation, OperationId, Operations, Payload, Policy, Resolution, SiteName};

thread_local! {
    /// The steps that this thread has taken.
    pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
}

fn insert(operations: &mut Operations, name: &str, parent: Option<&str>, op_type: &str, cut: bool, at: u64, by: &str) {
    let id = |name: &str| OperationId::new(name).unwrap();
    let operation = Operation {
        id: id(name),
        op_type: op_type.to_owned(),
        parents: parent.into_iter().map(id).collect(),
        cut,
        at: Hlc(at),
        by: SiteName::new(by).unwrap(),
        payload: Payload::default(),
    };
    operations.insert(id(name), operation);
}

fn policy(entries: impl IntoIterator<Item = (&'static str, &'static str, &'static str)>) -> Policy {
    let entry = |(before, after, result): (&str, &str, &str)| Resolution {
        before: before.into(),
        after: after.into(),
        result: Combine::from(result.to_owned()),
    };
    Policy { resolutions: entries.into_iter().map(entry).collect(), ..Policy::default() }
}

/// The steps that it takes, and how many operations are in the list.
fn steps(operations: &Operations, policy: &Policy) -> (usize, usize) {
    STEPS.set(0);
    let resolved = resolve(operations, policy);
    assert_eq!(resolved.fates.len(), operations.len());
    (STEPS.get(), resolved.list.len())
}

/// One operation after the other.
fn chain(length: u64) -> Operations {
    let mut operations = Operations::new();
    let name = |n: u64| format!("o{n:06}");
    for n in 0..length {
        let parent = n.checked_sub(1).map(name);
        let cut = n % 5000 == 7;
        insert(&mut operations, &name(n), parent.as_deref(), if cut { "set" } else { "inc" }, cut, n, "paris");
    }
    operations
}

const TYPES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// As many branches that know nothing of each other, each so long.
fn branches(branches: usize, length: usize) -> Operations {
    let mut operations = Operations::new();
    for branch in 0..branches {
        let name = |n: usize| format!("b{branch}-{n}");
        for n in 0..length {
            let parent = n.checked_sub(1).map(name);
            let op_type = TYPES[(branch * 3 + n * 2 + branch / 7) % TYPES.len()];
            let at = n as u64 * 3 % 17;
            insert(&mut operations, &name(n), parent.as_deref(), op_type, false, at, &format!("s{branch}"));
        }
    }
    operations
}

#[test]
fn the_work_for_one_long_chain_grows_as_it_does() {
    let policy = policy([
        ("set", "inc", "take-both-keep-order"),
        ("inc", "set", "take-both-reverse-order"),
        ("set", "set", "take-one"),
        ("inc", "inc", "take-both-any-order"),
    ]);
    let (short, _) = steps(&chain(2_000), &policy);
    let (long, listed) = steps(&chain(20_000), &policy);
    assert_eq!(listed, 5_000 - 7, "what came before the last that replaced everything is dead");
    assert!(long < short * 11, "{short} steps for 2,000 operations, {long} for 20,000");
    assert!(long < 20_000 * 50, "{long} steps for 20,000 operations");
    let (plain, _) = steps(&chain(20_000), &Policy::default());
    assert!(plain < 20_000 * 50, "{plain} steps for 20,000 operations");
}

#[test]
fn the_work_for_many_branches_at_once_is_that_of_comparing_each_with_each() {
    // Every word, and preferences that contradict each other.
    let words = ["take-both-keep-order", "take-both-reverse-order", "take-both-any-order", "take-one"];
    let entries = || (0..25).map(|n| (TYPES[n / 5], TYPES[n % 5], words[n * 7 % 11 % 4]));
    let orders = entries().map(|(a, b, word)| (a, b, if word == words[3] { words[1] } else { word }));
    for policy in [policy(entries()), policy(orders)] {
        let (width, length) = (48, 15);
        let (steps, _) = steps(&branches(width, length), &policy);
        let all = width * length;
        // What a pair comes to is noted for all that is before and after it, in every branch.
        assert!(steps < all * all * width, "{steps} steps for {width} branches of {length}");
    }
}
