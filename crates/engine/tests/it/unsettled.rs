//! Operations of which nobody can say how far they came.

use std::collections::BTreeMap;

use khufu_crdt::Status;
use khufu_engine::{DriverCall, DriverDone, DriverFailure};
use serde_json::json;

use crate::alone::Node;

/// A node that was asked for an operation, and whose driver of this kind has been told to run it.
fn asked(kind: &str) -> (Node, String) {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &[kind]);
    paris.put_as("web", kind, json!({}), json!({}));
    paris.operate("add", "one");
    let operation = until_told_to_run(&mut paris, None);
    (paris, operation)
}

/// Answers looks and resets until the driver is to run an operation.
fn until_told_to_run(paris: &mut Node, unsettled: Option<&str>) -> String {
    for _ in 0..10 {
        match paris.calls.first() {
            Some((_, _, DriverCall::Operation(operation))) => return operation.id.to_string(),
            Some((_, _, DriverCall::Observe)) => {
                let unsettled = unsettled.map(str::to_owned);
                paris.answer(Ok(DriverDone { unsettled, ..DriverDone::default() }));
            }
            Some((_, _, DriverCall::Reset)) => paris.answer(Ok(DriverDone::default())),
            Some(other) => panic!("{other:?}"),
            None => paris.wait(),
        }
    }
    panic!("it is not told to run anything, and says {:?}", paris.said());
}

fn broken_off() -> Result<DriverDone, DriverFailure> {
    Err(DriverFailure {
        message: "broken off".into(),
        permanent: false,
        retry_after_ms: None,
        unknown: true,
        lost: false,
    })
}

fn resets(paris: &Node) -> bool {
    matches!(paris.calls.first(), Some((_, _, DriverCall::Reset)))
}

/// What is said of these operations.
fn outcomes(paris: &mut Node, operations: &[&String]) -> Vec<Status> {
    let view = paris.view();
    let report = view.sites["paris"].report.as_ref().unwrap();
    let noted = |id: &str| report.operations.iter().find(|(op, _)| op.as_str() == id);
    let of = |id: &&String| noted(id).map_or(Status::Pending, |(_, said)| said.status);
    operations.iter().map(of).collect()
}

#[test]
fn it_is_run_again_only_on_a_replica_that_was_made_anew() {
    let (mut paris, operation) = asked("text");
    paris.answer(broken_off());
    paris.wait();
    assert!(matches!(paris.calls.first(), Some((_, _, DriverCall::Observe))));
    paris.answer(Ok(DriverDone { unsettled: Some(operation.clone()), ..DriverDone::default() }));
    assert!(resets(&paris), "{:?}", paris.calls);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(until_told_to_run(&mut paris, None), operation);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Applied);
}

#[test]
fn one_that_is_broken_off_each_time_has_failed_in_the_end() {
    for kind in ["text", "blind"] {
        let (mut paris, operation) = asked(kind);
        for attempt in 1..=5 {
            if attempt > 1 {
                assert_eq!(until_told_to_run(&mut paris, Some(&operation)), operation, "{kind}");
            }
            paris.answer(broken_off());
            // What is to be seen of it.
            paris.wait();
            if let Some((_, _, DriverCall::Observe)) = paris.calls.first() {
                paris.answer(Ok(DriverDone { unsettled: Some(operation.clone()), ..DriverDone::default() }));
            }
        }
        // What it has done until then goes, and that is the end of it.
        assert!(resets(&paris), "{kind}: {:?}", paris.calls);
        paris.answer(Ok(DriverDone::default()));
        paris.wait();
        assert!(paris.calls.is_empty(), "{kind}: {:?}", paris.calls);
        assert_eq!(paris.said(), Status::Failed, "{kind}");
        let view = paris.view();
        let report = view.sites["paris"].report.as_ref().unwrap();
        let output = &report.operations.values().next().unwrap().output;
        assert!(output.contains("each time") && output.ends_with("broken off"), "{kind}: {output}");
        // Others run as if it had never been asked for.
        paris.operate("add", "two");
        let other = until_told_to_run(&mut paris, None);
        assert_ne!(other, operation, "{kind}");
        paris.answer(Ok(DriverDone::default()));
        assert_eq!(outcomes(&mut paris, &[&operation, &other]), [Status::Failed, Status::Applied], "{kind}");
        assert!(paris.calls.is_empty(), "{kind}: {:?}", paris.calls);
    }
}

#[test]
fn where_nothing_can_be_made_anew_it_is_not_run_again() {
    let (mut paris, operation) = asked("grown");
    paris.answer(broken_off());
    paris.wait();
    paris.answer(Ok(DriverDone { unsettled: Some(operation), ..DriverDone::default() }));
    for _ in 0..10 {
        paris.wait();
        assert!(paris.calls.is_empty(), "{:?}", paris.calls);
    }
    assert_eq!(paris.said(), Status::NeedsAttention);
}

#[test]
fn an_absolute_one_that_is_broken_off_each_time_leaves_what_was_before_it() {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["grown"]);
    paris.put_as("web", "grown", json!({}), json!({"types": {"set": {"absolute": true}}}));
    paris.operate("set", "one");
    let one = until_told_to_run(&mut paris, None);
    paris.answer(Ok(DriverDone::default()));
    paris.operate("set", "two");
    let two = until_told_to_run(&mut paris, None);
    let mut last = two.clone();
    for _ in 0..20 {
        paris.answer(broken_off());
        last = until_told_to_run(&mut paris, Some(&two));
        if last != two {
            break;
        }
    }
    // There is nothing to reset: what was before it is run again in its place.
    assert_eq!(last, one);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(outcomes(&mut paris, &[&one, &two]), [Status::Applied, Status::Failed]);
    paris.wait();
    assert!(paris.calls.is_empty(), "{:?}", paris.calls);
}

#[test]
fn nothing_is_called_well_that_could_not_be_made_anew() {
    for last in [false, true] {
        let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["grown"]);
        paris.put_as("web", "grown", json!({}), json!({"types": {"set": {"absolute": true}}}));
        paris.operate("set", "one");
        let one = until_told_to_run(&mut paris, None);
        paris.answer(Ok(DriverDone::default()));
        paris.operate("add", "two");
        let two = until_told_to_run(&mut paris, None);
        // Broken off once, or as often as anything is tried.
        let times = if last { 5 } else { 1 };
        let mut told = two.clone();
        for time in 1..=times {
            while told != two {
                paris.answer(Ok(DriverDone::default()));
                told = until_told_to_run(&mut paris, None);
            }
            while told == two {
                paris.answer(broken_off());
                told = until_told_to_run(&mut paris, Some(&two));
            }
            assert_eq!(told, one, "{time}");
        }
        for _ in 0..20 {
            let refused = DriverFailure {
                message: "not any more".into(),
                permanent: true,
                retry_after_ms: None,
                unknown: false,
                lost: false,
            };
            paris.answer(Err(refused));
            assert_eq!(paris.said(), Status::NeedsAttention, "{last}");
            assert_ne!(outcomes(&mut paris, &[&two]), [Status::Applied], "{last}");
            // It is tried on.
            paris.wait_ms(40_000);
            assert_eq!(until_told_to_run(&mut paris, Some(&two)), one);
        }
        paris.answer(Ok(DriverDone::default()));
        if !last {
            assert_eq!(until_told_to_run(&mut paris, None), two);
            paris.answer(Ok(DriverDone::default()));
        }
        let of_two = if last { Status::Failed } else { Status::Applied };
        assert_eq!(outcomes(&mut paris, &[&one, &two]), [Status::Applied, of_two], "{last}");
    }
}
