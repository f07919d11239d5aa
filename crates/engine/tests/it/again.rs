//! What is done again: what failed half-way, what somebody has changed, what operations have made.

use std::collections::BTreeMap;

use khufu_crdt::Status;
use khufu_engine::{DriverCall, DriverDone, DriverFailure, Input, Put, Request};
use serde_json::{Value, json};

use crate::alone::{Node, id};
use crate::looks::{called, changed, failure, made, well};

/// A replica that an absolute operation has made, of a driver that must not take away what it makes again.
fn made_by_operations() -> Node {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["lasting"]);
    let policy = json!({"drift": "correct", "types": {"set": {"absolute": true, "idempotent": true}}});
    paris.put_as("web", "lasting", json!({}), policy);
    for (op_type, payload) in [("set", "a"), ("add", "b")] {
        paris.operate(op_type, payload);
        while !called(&paris).is_empty() {
            paris.answer(Ok(well()));
        }
    }
    assert_eq!(paris.said(), Status::Applied);
    paris
}

fn ran(paris: &Node) -> Option<&str> {
    match called(paris)[..] {
        [DriverCall::Operation(operation)] => Some(operation.op_type.as_str()),
        _ => None,
    }
}

#[test]
fn what_cannot_be_made_again_as_it_was_is_not_taken_away_to_be_put_back() {
    let mut paris = made_by_operations();
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert_eq!(ran(&paris), Some("set"), "{:?}", called(&paris));
    paris.answer(Ok(well()));
    assert_eq!(ran(&paris), Some("add"), "{:?}", called(&paris));
    paris.answer(Ok(well()));
    assert!(called(&paris).is_empty());
    assert_eq!(paris.said(), Status::Applied);
    // Where it cannot be put back it stays as it is.
    paris.wait_ms(1_000_000);
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert_eq!(ran(&paris), Some("set"));
    paris.answer(Err(DriverFailure { permanent: true, ..failure() }));
    assert!(called(&paris).is_empty(), "{:?}", called(&paris));
    assert_eq!(paris.said(), Status::Applied);
    // And what is wanted no more goes.
    paris.ask(Request::Delete { id: id(), keep: false, base: None });
    assert_eq!(called(&paris), [&DriverCall::Delete]);
}

#[test]
fn what_was_to_begin_anew_and_is_to_be_kept_stays() {
    for keep in [true, false] {
        let mut paris = made(json!({"a": 1}), json!({"drift": "correct"}));
        paris.hand(Input::Drifted { replicant: id() });
        paris.answer(Ok(changed()));
        assert_eq!(called(&paris), [&DriverCall::Desired(json!({"a": 1}))]);
        // Nobody knows what became of it, and it is deleted.
        paris.ask(Request::Delete { id: id(), keep, base: None });
        paris.answer(Err(DriverFailure { unknown: true, ..failure() }));
        paris.wait_ms(100_000);
        let wanted: &[&DriverCall] = if keep { &[] } else { &[&DriverCall::Delete] };
        assert_eq!(called(&paris), wanted);
    }
}

#[test]
fn what_is_asked_for_while_the_platform_is_away_is_done_when_it_is_back() {
    let mut paris = made_by_operations();
    paris.hand(Input::Platform { kind: "lasting".into(), away_since: Some(1_790_000_000_000) });
    paris.operate("add", "c");
    for _ in 0..20 {
        assert_eq!(ran(&paris), Some("add"));
        paris.answer(Err(failure()));
        paris.wait_ms(100_000);
    }
    paris.hand(Input::Platform { kind: "lasting".into(), away_since: None });
    paris.answer(Ok(well()));
    assert_eq!(paris.said(), Status::Applied);
}

/// The same, with a desired state below the operations.
fn made_on(desired: Value) -> Node {
    let mut paris = made_by_operations();
    put(&mut paris, desired);
    done(&mut paris);
    paris
}

fn put(paris: &mut Node, desired: Value) {
    let (kind, scope, policy, overrides, base) = (None, None, None, None, None);
    paris.ask(Request::Put(Put { id: id(), kind, scope, policy, desired: Some(desired), overrides, base }));
}

/// Everything is done that is to be, and nobody is at odds with anybody; the types of the operations that this took.
fn done(paris: &mut Node) -> Vec<String> {
    let mut types = Vec::new();
    while let Some(call) = called(paris).first() {
        types.push(match call {
            DriverCall::Operation(operation) => operation.op_type.clone(),
            other => format!("{other:?}"),
        });
        assert!(types.len() < 20, "there is no end to it: {types:?}");
        paris.answer(Ok(well()));
    }
    assert_eq!(paris.said(), Status::Applied);
    types
}

#[test]
fn what_operations_have_made_is_not_taken_away_for_a_desired_state_that_they_replace() {
    let mut paris = made_on(json!({"a": 1}));
    paris.wait_ms(1_000_000);
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert_eq!(done(&mut paris), ["set", "add"]);
    for desired in [json!({"a": 2}), json!({})] {
        put(&mut paris, desired.clone());
        assert_eq!(done(&mut paris), ["set", "add"], "{desired}");
    }
    // A last one that does not succeed any more is tried only as long as it may.
    put(&mut paris, json!({"a": 3}));
    assert_eq!(ran(&paris), Some("set"));
    paris.answer(Err(DriverFailure { permanent: true, ..failure() }));
    assert!(called(&paris).is_empty(), "{:?}", called(&paris));
}

#[test]
fn what_cannot_be_put_back_stays_as_it_is_and_goes_on() {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["lasting"]);
    paris.put_as("web", "lasting", json!({}), json!({"drift": "correct"}));
    paris.operate("add", "a");
    done(&mut paris);
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert!(called(&paris).is_empty(), "{:?}", called(&paris));
    assert_eq!(paris.said(), Status::Applied);
    assert!(paris.view().sites["paris"].report.as_ref().unwrap().observed.as_ref().unwrap().drift.is_some());
    paris.operate("add", "b");
    assert_eq!(done(&mut paris)[0], "add");
}

#[test]
fn what_was_there_before_a_write_that_failed_is_written_again() {
    let mut paris = made(json!({"a": 1}), json!({}));
    put(&mut paris, json!({"a": 2}));
    // Some of it may be there.
    paris.answer(Err(DriverFailure { permanent: true, ..failure() }));
    put(&mut paris, json!({"a": 1}));
    assert_eq!(called(&paris), [&DriverCall::Desired(json!({"a": 1}))]);
    paris.answer(Ok(well()));
    assert_eq!(paris.said(), Status::Applied);
    // Also where nothing is wanted any more.
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["text"]);
    paris.put_as("web", "text", json!({"a": 2}), json!({}));
    paris.answer(Err(DriverFailure { permanent: true, ..failure() }));
    put(&mut paris, json!({}));
    assert_eq!(called(&paris), [&DriverCall::Reset]);
}

#[test]
fn a_desired_state_that_was_tried_in_vain_does_not_hold_up_operations_for_ever() {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["grown"]);
    paris.put_as("web", "grown", json!({}), json!({}));
    paris.operate("add", "a");
    done(&mut paris);
    put(&mut paris, json!({"a": 1}));
    while !called(&paris).is_empty() {
        paris.answer(Err(DriverFailure { permanent: true, ..failure() }));
    }
    put(&mut paris, json!({}));
    paris.wait_ms(100_000);
    assert_eq!(paris.said(), Status::Applied);
    paris.operate("add", "b");
    assert_eq!(done(&mut paris), ["add"]);
}

#[test]
fn a_desired_state_that_may_be_there_is_not_forgotten() {
    for unknown in [false, true] {
        let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["grown"]);
        paris.put_as("web", "grown", json!({}), json!({}));
        paris.operate("add", "a");
        done(&mut paris);
        put(&mut paris, json!({"a": 1}));
        if !unknown {
            // It is there, and the next is refused.
            paris.answer(Ok(well()));
            put(&mut paris, json!({"a": 2}));
        }
        while !called(&paris).is_empty() {
            paris.answer(Err(DriverFailure { permanent: !unknown, unknown, ..failure() }));
        }
        put(&mut paris, json!({}));
        paris.wait_ms(100_000);
        assert_eq!(paris.said(), Status::NeedsAttention, "{unknown}");
    }
}

#[test]
fn whoever_changes_something_all_the_time_keeps_nothing_from_being_done() {
    let mut paris = made(json!({"a": 1}), json!({}));
    paris.hand(Input::Drifted { replicant: id() });
    put(&mut paris, json!({"a": 2}));
    paris.hand(Input::Drifted { replicant: id() });
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(well()));
    assert_eq!(called(&paris), [&DriverCall::Desired(json!({"a": 2}))]);
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(well()));
    // And nothing keeps from being looked.
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(well()));
    assert!(called(&paris).is_empty());
    // The same where it is to go.
    paris.hand(Input::Drifted { replicant: id() });
    paris.ask(Request::Delete { id: id(), keep: false, base: None });
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(well()));
    assert_eq!(called(&paris), [&DriverCall::Delete]);
}

fn drift(paris: &mut Node) -> Option<String> {
    paris.view().sites["paris"].report.clone().unwrap().observed.unwrap().drift
}

#[test]
fn what_is_known_to_be_changed_by_hand_is_so_until_somebody_has_looked_again() {
    let mut paris = made(json!({"a": 1}), json!({}));
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert_eq!(drift(&mut paris).as_deref(), Some("it is another"));
    paris.operate("add", "b");
    assert_eq!(ran(&paris), Some("add"));
    paris.answer(Ok(well()));
    assert_eq!(drift(&mut paris).as_deref(), Some("it is another"));
    paris.wait_ms(1_000);
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(well()));
    assert_eq!(drift(&mut paris), None);

    // What is seen while it is not known what was done here is looked at again when it is.
    paris.operate("add", "c");
    paris.answer(Err(DriverFailure { unknown: true, ..failure() }));
    paris.hand(Input::Drifted { replicant: id() });
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(changed()));
    assert_eq!(drift(&mut paris), None);
    paris.wait_ms(100_000);
    let marker = paris.view().resolved.last().map(ToString::to_string);
    paris.answer(Ok(DriverDone { marker, ..well() }));
    paris.wait_ms(1_000);
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(well()));
    assert_eq!(drift(&mut paris), None);

    // The same where that look is the one that finds it out.
    paris.operate("add", "d");
    paris.answer(Err(DriverFailure { unknown: true, ..failure() }));
    paris.wait_ms(100_000);
    let marker = paris.view().resolved.last().map(ToString::to_string);
    paris.answer(Ok(DriverDone { marker, ..changed() }));
    paris.wait_ms(1_000);
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(changed()));
    assert_eq!(drift(&mut paris).as_deref(), Some("it is another"));
}

#[test]
fn why_a_replica_cannot_be_removed_is_said_until_it_can() {
    let mut paris = made(json!({"a": 1}), json!({}));
    paris.ask(Request::Delete { id: id(), keep: false, base: None });
    let held = DriverFailure { permanent: true, message: "a finalizer holds it".into(), ..failure() };
    for _ in 0..3 {
        assert_eq!(called(&paris), [&DriverCall::Delete]);
        paris.answer(Err(held.clone()));
        assert_eq!(paris.said(), Status::NeedsAttention);
        paris.wait_ms(100_000);
    }
    assert_eq!(paris.said(), Status::NeedsAttention);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Removed);
}

#[test]
fn what_an_operation_does_not_find_any_more_is_made_anew_with_all_that_came_before() {
    let lost = || DriverFailure { lost: true, ..failure() };
    // From the desired state, or else from the last absolute operation on.
    let described = {
        let mut paris = made(json!({"a": 1}), json!({}));
        paris.operate("add", "b");
        paris.answer(Ok(well()));
        paris
    };
    for (mut paris, desired) in [(described, true), (made_by_operations(), false)] {
        paris.operate("more", "c");
        assert_eq!(ran(&paris), Some("more"));
        let put_back = |paris: &mut Node| {
            paris.answer(Err(lost()));
            if desired {
                assert_eq!(called(paris), [&DriverCall::Desired(json!({"a": 1}))]);
            } else {
                assert_eq!(ran(paris), Some("set"), "{:?}", called(paris));
            }
        };
        put_back(&mut paris);
        paris.wait_ms(500);
        assert_eq!(paris.said(), Status::Pending);
        for next in ["add", "more"] {
            paris.answer(Ok(well()));
            assert_eq!(ran(&paris), Some(next), "{:?}", called(&paris));
        }
        // Gone again: whoever takes it away each time is not raced against.
        paris.answer(Err(lost()));
        assert!(called(&paris).is_empty(), "{:?}", called(&paris));
        paris.wait_ms(10_000);
        assert_eq!(ran(&paris), Some("more"));
        put_back(&mut paris);
        for _ in 0..3 {
            paris.answer(Ok(well()));
        }
        assert!(called(&paris).is_empty(), "{:?}", called(&paris));
        assert_eq!(paris.said(), Status::Applied);
    }
}
