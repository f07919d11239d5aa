//! Operations that a crash has interrupted, or that were not answered, and a platform that does not let itself be looked at.

use std::collections::BTreeMap;

use khufu_crdt::{OperationReport, Status};
use khufu_engine::{DriverCall, DriverDone, DriverFailure, Input, Request};
use serde_json::{Value, json};

use crate::alone::{Node, id};
use crate::looks::{called, failure};

const BEGAN: u64 = 1_790_000_000_000;

/// A node that was told to run an operation, under this policy.
fn running(policy: Value) -> Node {
    let mut paris = Node::start(BTreeMap::new(), BEGAN, &["text"]);
    paris.put_as("web", "text", json!({}), policy);
    paris.operate("add", "one");
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Ok(DriverDone::default()));
    assert!(runs(&paris));
    paris
}

fn runs(paris: &Node) -> bool {
    matches!(called(paris)[..], [DriverCall::Operation(_)])
}

/// The node crashes, and starts again.
fn crashed(paris: &Node) -> Node {
    Node::start(paris.disk.clone(), paris.now.wall_ms + 1_000, &["text"])
}

fn said_of_it(paris: &mut Node) -> OperationReport {
    let view = paris.view();
    view.sites["paris"].report.as_ref().unwrap().operations.values().next().unwrap().clone()
}

/// The platform does not answer for so many looks.
fn looked_at_in_vain(paris: &mut Node, times: u32) {
    let mut at = 0;
    for time in 1..=times {
        assert_eq!(called(paris), [&DriverCall::Observe], "{time}");
        paris.answer(Err(failure()));
        assert!(called(paris).is_empty(), "{time}");
        // The pause grows, up to the longest of the policy.
        let pause = (200_u64 << (time - 1).min(20)).min(30_000);
        paris.wait_ms(pause - 1);
        assert!(called(paris).is_empty(), "{time}");
        let said = said_of_it(paris);
        assert_eq!(said.status, Status::Pending, "{time}");
        assert!(said.output.contains("interrupted") && said.output.contains("nobody there"), "{}", said.output);
        // Nothing new is said while it is so.
        at = if time == 1 { said.at } else { at };
        assert_eq!(said.at, at, "{time}");
        paris.wait_ms(pause / 4 + 2);
    }
}

#[test]
fn looks_that_fail_after_a_crash_are_no_attempts_at_the_operation() {
    for times in [1, 4, 5, 40] {
        let mut paris = crashed(&running(json!({})));
        looked_at_in_vain(&mut paris, times);
        // A person is called only when it takes long, and not where it is known that the platform is away.
        let expected = if times < 5 { Status::Pending } else { Status::NeedsAttention };
        assert_eq!(paris.said(), expected, "{times}");
        // Nothing is there of it: it is run, as often as any other.
        paris.answer(Ok(DriverDone::default()));
        for attempt in 1..=5 {
            assert!(runs(&paris), "{times}, {attempt}: {:?}", called(&paris));
            // What has begun is said a moment later.
            paris.wait_ms(200);
            assert_eq!(paris.said(), Status::Pending);
            assert!(!said_of_it(&mut paris).output.contains("interrupted"), "{times}, {attempt}");
            paris.answer(Err(failure()));
            paris.wait();
        }
        assert_eq!(paris.said(), Status::Failed);
        assert_eq!(said_of_it(&mut paris).attempt, 5);
    }
    // Or it was done.
    let mut paris = crashed(&running(json!({})));
    looked_at_in_vain(&mut paris, 12);
    let marker = match &called(&running(json!({})))[..] {
        [DriverCall::Operation(operation)] => Some(operation.id.to_string()),
        other => panic!("{other:?}"),
    };
    paris.answer(Ok(DriverDone { marker, ..DriverDone::default() }));
    assert_eq!((paris.said(), called(&paris)), (Status::Applied, vec![]));
}

#[test]
fn attempts_before_a_crash_count_as_they_did() {
    let mut paris = running(json!({}));
    for _ in 0..3 {
        paris.answer(Err(failure()));
        paris.wait();
    }
    let mut paris = crashed(&paris);
    looked_at_in_vain(&mut paris, 9);
    paris.answer(Ok(DriverDone::default()));
    for _ in 0..2 {
        assert!(runs(&paris), "{:?}", called(&paris));
        paris.answer(Err(failure()));
        paris.wait();
    }
    assert_eq!(paris.said(), Status::Failed);
}

#[test]
fn nobody_is_called_while_it_is_known_that_the_platform_is_away() {
    let mut paris = crashed(&running(json!({})));
    paris.hand(Input::Platform { kind: "text".into(), away_since: Some(BEGAN) });
    looked_at_in_vain(&mut paris, 12);
    assert_eq!(paris.said(), Status::Pending);
    paris.hand(Input::Platform { kind: "text".into(), away_since: None });
    paris.answer(Ok(DriverDone::default()));
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Applied);
}

#[test]
fn what_an_attempt_has_failed_with_is_told_though_nobody_could_look_afterwards() {
    let mut paris = running(json!({"types": {"add": {"idempotent": true}}}));
    paris.answer(Err(DriverFailure { unknown: true, ..failure() }));
    paris.wait();
    // It is tried again, and fails; which says nothing of the first attempt.
    assert!(runs(&paris), "{:?}", called(&paris));
    let refused = DriverFailure { message: "it is full".into(), ..failure() };
    paris.answer(Err(refused.clone()));
    paris.wait();
    for _ in 0..9 {
        assert_eq!(called(&paris), [&DriverCall::Observe]);
        paris.answer(Err(failure()));
        paris.wait();
        assert_eq!(said_of_it(&mut paris).output, "it is full");
    }
    paris.answer(Ok(DriverDone::default()));
    for _ in 0..3 {
        assert!(runs(&paris), "{:?}", called(&paris));
        paris.answer(Err(refused.clone()));
        paris.wait();
    }
    assert_eq!(paris.said(), Status::Failed);
    assert_eq!(said_of_it(&mut paris).output, "it is full");
}

#[test]
fn what_is_to_go_goes_though_nobody_can_tell_how_far_an_operation_came() {
    for policy in [json!({}), json!({"types": {"add": {"idempotent": true}}})] {
        let mut paris = crashed(&running(policy));
        if called(&paris) == [&DriverCall::Observe] {
            paris.answer(Err(failure()));
            paris.ask(Request::Delete { id: id(), keep: false, base: None });
        } else {
            // What may be done twice is done again, and has failed when it is not wanted any more.
            paris.ask(Request::Delete { id: id(), keep: false, base: None });
            paris.answer(Err(DriverFailure { unknown: true, ..failure() }));
        }
        paris.wait();
        assert_eq!(called(&paris), [&DriverCall::Delete]);
        paris.answer(Ok(DriverDone::default()));
        assert!(called(&paris).is_empty(), "{:?}", called(&paris));
    }
}

#[test]
fn looks_for_changes_by_hand_and_those_of_an_earlier_life_call_nobody() {
    let mut paris = running(json!({}));
    paris.answer(Ok(DriverDone::default()));
    for _ in 0..9 {
        paris.hand(Input::Drifted { replicant: id() });
        while called(&paris) == [&DriverCall::Observe] {
            paris.answer(Err(failure()));
        }
        paris.wait_ms(120_000);
    }
    paris.hand(Input::Drifted { replicant: id() });
    while called(&paris) == [&DriverCall::Observe] {
        paris.answer(Err(failure()));
    }
    paris.operate("add", "two");
    assert!(runs(&paris), "{:?}", called(&paris));
    paris.answer(Err(DriverFailure { unknown: true, ..failure() }));
    paris.wait();
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Err(failure()));
    assert_eq!(paris.said(), Status::Pending);
    for _ in 0..9 {
        paris.wait();
        paris.answer(Err(failure()));
    }
    assert_eq!(paris.said(), Status::NeedsAttention);
    // Whoever starts again has not looked yet.
    let mut paris = crashed(&paris);
    assert_eq!(called(&paris), [&DriverCall::Observe]);
    paris.answer(Err(failure()));
    paris.wait_ms(300);
    assert_eq!(called(&paris), [&DriverCall::Observe]);
}
