//! A node whose drivers are of several kinds.

use std::collections::BTreeMap;

use khufu_crdt::Status;
use khufu_engine::{DriverCall, DriverDone, DriverFailure, Request};
use serde_json::json;

use crate::alone::{Node, id};

/// A node whose driver of texts has made a replica.
fn made_by_text() -> Node {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["text", "other"]);
    paris.put("text");
    assert_eq!(paris.told(), [("text", false)]);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Applied);
    paris
}

#[test]
fn what_is_made_anew_under_another_kind_is_first_removed_by_the_driver_that_made_it() {
    let mut paris = made_by_text();
    paris.ask(Request::Delete { id: id(), keep: false, base: None });
    assert_eq!(paris.told(), [("text", true)]);
    // Before the old one is gone, the name is used again.
    paris.put("other");
    let failure =
        DriverFailure { message: "busy".into(), permanent: false, retry_after_ms: None, unknown: false, lost: false };
    paris.answer(Err(failure));
    paris.wait();
    assert_eq!(paris.told(), [("text", true)], "the driver of the new kind knows nothing of it");
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.told(), [("other", false)]);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Applied);
    // And that one is removed by the driver that made it.
    paris.ask(Request::Delete { id: id(), keep: false, base: None });
    assert_eq!(paris.told(), [("other", true)]);
}

#[test]
fn a_site_without_the_driver_that_made_a_replica_does_not_say_that_it_is_gone() {
    let before = made_by_text();
    let mut paris = Node::start(before.disk, before.now.wall_ms, &["other"]);
    paris.ask(Request::Delete { id: id(), keep: false, base: None });
    paris.wait();
    assert_eq!(paris.told(), []);
    assert_eq!(paris.said(), Status::NeedsAttention);
    // It is removed once there is such a driver again.
    let mut paris = Node::start(paris.disk, paris.now.wall_ms, &["other", "text", "third"]);
    paris.wait();
    assert_eq!(paris.told(), [("text", true)]);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Removed);
}

#[test]
fn a_platform_that_does_not_answer_holds_up_no_other() {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["text", "other"]);
    for number in 0..40 {
        paris.put_as(&format!("t{number:02}"), "text", json!(number), json!({}));
    }
    let silent = paris.told().len();
    assert!((4..16).contains(&silent), "{silent}");
    for number in 0..40 {
        paris.put_as(&format!("o{number:02}"), "other", json!(number), json!({}));
    }
    // All of the other kind are done, one after the other, while none of the first answers.
    for _ in 0..40 {
        let nth = paris.told().iter().position(|(kind, _)| *kind == "other").unwrap();
        let call = paris.calls.remove(nth);
        paris.calls.insert(0, call);
        paris.answer(Ok(DriverDone::default()));
    }
    assert!(paris.told().iter().all(|(kind, _)| *kind == "text"));
    assert_eq!(paris.told().len(), silent);
    // And then the first, in the order in which they came.
    let mut done = Vec::new();
    while let Some((_, _, DriverCall::Desired(value))) = paris.calls.first() {
        done.push(value.as_u64().unwrap());
        paris.answer(Ok(DriverDone::default()));
    }
    assert_eq!(done, (0..40).collect::<Vec<_>>());
}

#[test]
fn however_many_platforms_do_not_answer_every_other_kind_has_a_place() {
    // More than there are places, too.
    for silent in [2, 3, 15, 30] {
        let names: Vec<_> = (0..silent).map(|number| format!("silent{number:02}")).collect();
        let kinds: Vec<&str> = names.iter().map(String::as_str).chain(["one", "two"]).collect();
        let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &kinds);
        for name in &names {
            for number in 0..20 {
                paris.put_as(&format!("{name}-{number}"), name, json!(number), json!({}));
            }
        }
        for name in &names {
            assert!(paris.told().iter().any(|(kind, _)| kind == name), "{name} of {silent}");
        }
        let held = paris.calls.len();
        assert!(held <= 14.max(names.len()), "{held} of {silent}");
        for kind in ["one", "two"] {
            paris.put_as(kind, kind, json!(1), json!({}));
            assert!(paris.told().iter().any(|(told, _)| *told == kind), "{kind} beside {silent}");
        }
        // They keep it.
        for number in 0..5 {
            paris.put_as(&format!("more-{number}"), "one", json!(number), json!({}));
        }
        for _ in 0..6 {
            let nth = paris.told().iter().position(|(kind, _)| *kind == "one").unwrap();
            let call = paris.calls.remove(nth);
            paris.calls.insert(0, call);
            paris.answer(Ok(DriverDone::default()));
        }
        assert_eq!(paris.calls.len(), held + 1);
    }
}
