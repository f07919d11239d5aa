//! What a node makes of what its driver sees on the platform, or cannot see.

use std::collections::BTreeMap;
use std::time::Duration;

use khufu_crdt::{Condition, Health, Observation, Status};
use khufu_engine::harness::World;
use khufu_engine::{DriverCall, DriverDone, DriverFailure, Input, Liveness, Request};
use serde_json::{Value, json};

use crate::alone::{Node, id};
use crate::view;

pub(crate) fn well() -> DriverDone {
    let health = Some(Health { condition: Condition::Current, message: String::new() });
    DriverDone { digest: Some("00".into()), health, ..DriverDone::default() }
}

pub(crate) fn changed() -> DriverDone {
    DriverDone { digest: Some("11".into()), drift: Some("it is another".into()), ..well() }
}

pub(crate) fn failure() -> DriverFailure {
    DriverFailure {
        message: "nobody there".into(),
        permanent: false,
        retry_after_ms: None,
        unknown: false,
        lost: false,
    }
}

/// A node that has made a replica, which is well.
pub(crate) fn made(desired: Value, policy: Value) -> Node {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["text"]);
    paris.put_as("web", "text", desired, policy);
    paris.answer(Ok(well()));
    assert_eq!(paris.said(), Status::Applied);
    paris
}

pub(crate) fn called(paris: &Node) -> Vec<&DriverCall> {
    paris.calls.iter().map(|(_, _, work)| work).collect()
}

fn observed(paris: &mut Node) -> Observation {
    paris.view().sites["paris"].report.clone().unwrap().observed.unwrap()
}

#[test]
fn a_look_that_fails_is_repeated_and_meanwhile_nobody_says_that_all_is_well() {
    let mut paris = made(json!({"a": 1}), json!({}));
    paris.hand(Input::Drifted { replicant: id() });
    let mut at = 0;
    for time in 1..=12 {
        assert_eq!(called(&paris), [&DriverCall::Observe], "{time}");
        paris.answer(Err(failure()));
        let seen = observed(&mut paris);
        let health = seen.health.unwrap();
        assert_eq!(health.condition, Condition::Unknown);
        assert!(health.message.contains("nobody there"), "{}", health.message);
        // It is unknown since it was first so.
        if time == 1 {
            at = seen.at;
        }
        assert_eq!(seen.at, at);
        let before = called(&paris).len();
        assert_eq!(before, 0);
        // The pause grows, up to some minutes.
        paris.wait_ms(if time == 1 { 900 } else { 1900 });
        assert!(called(&paris).is_empty(), "{time}");
        paris.wait_ms(400_000);
    }
    paris.answer(Ok(well()));
    assert_eq!(observed(&mut paris).health.unwrap().condition, Condition::Current);
    paris.wait_ms(1_000_000);
    assert!(called(&paris).is_empty());
}

#[test]
fn whoever_changes_a_replica_ever_again_is_not_fought_every_second() {
    let mut paris = made(json!({"a": 1}), json!({"drift": "correct"}));
    let written = DriverCall::Desired(json!({"a": 1}));
    let mut times = 0;
    // For an hour somebody changes it as soon as it is put back.
    for _ in 0..3_600 {
        paris.hand(Input::Drifted { replicant: id() });
        while let Some(work) = called(&paris).first() {
            let done = if **work == written { well() } else { changed() };
            times += u32::from(**work == written);
            paris.answer(Ok(done));
        }
        paris.wait_ms(1_000);
    }
    assert!((12..40).contains(&times), "{times}");
    // After a while of peace the next change is put back at once.
    paris.wait_ms(1_000_000);
    while !called(&paris).is_empty() {
        paris.answer(Ok(well()));
    }
    paris.wait_ms(1_000_000);
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert_eq!(called(&paris), [&written]);
}

#[test]
fn a_desired_state_is_written_over_what_is_there_and_nothing_is_taken_away_first() {
    let mut paris = made(json!({"a": 1}), json!({"drift": "correct"}));
    paris.operate("add", "x");
    assert!(matches!(called(&paris)[..], [DriverCall::Operation(_)]), "{:?}", called(&paris));
    paris.answer(Ok(well()));
    // Another desired state below an operation: it is written anew, and the operation is run on it.
    paris.put_as("web", "text", json!({"a": 2}), json!({"drift": "correct"}));
    assert_eq!(called(&paris), [&DriverCall::Desired(json!({"a": 2}))]);
    // As long as that fails it is tried again, and nothing else.
    let permanent = DriverFailure { permanent: true, ..failure() };
    for failure in [failure(), permanent, DriverFailure { unknown: true, ..failure() }] {
        paris.answer(Err(failure));
        paris.wait_ms(100_000);
        assert_eq!(called(&paris), [&DriverCall::Desired(json!({"a": 2}))]);
        assert_ne!(paris.said(), Status::Applied);
    }
    paris.answer(Ok(well()));
    assert!(matches!(called(&paris)[..], [DriverCall::Operation(_)]), "{:?}", called(&paris));
    paris.answer(Ok(well()));
    assert_eq!(paris.said(), Status::Applied);
    assert!(called(&paris).is_empty());
    // The same where somebody has changed it by hand.
    paris.hand(Input::Drifted { replicant: id() });
    paris.answer(Ok(changed()));
    assert_eq!(called(&paris), [&DriverCall::Desired(json!({"a": 2}))]);
    paris.answer(Ok(well()));
    assert!(matches!(called(&paris)[..], [DriverCall::Operation(_)]), "{:?}", called(&paris));
    paris.answer(Ok(well()));
    // And where nothing is wanted any more, all goes.
    let mut paris = made(json!({"a": 1}), json!({}));
    paris.put_as("web", "text", json!({}), json!({}));
    assert_eq!(called(&paris), [&DriverCall::Reset]);
}

#[test]
fn what_is_on_a_platform_that_is_away_is_unknown_at_all_sites_until_it_is_back() {
    let mut world = World::new(7);
    world.sites(&["paris", "rennes"]);
    world.until("they have met", Duration::from_secs(60), |world| world.have_met());
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    let kind = view(&mut world, "paris", "web").kind;
    let seen_at = |world: &mut World, site: &str| {
        let view = view(world, site, "web");
        let status = &view.sites["rennes"];
        assert_eq!(status.state, Liveness::Alive);
        status.report.as_ref().unwrap().observed.as_ref().unwrap().at
    };
    let away = |world: &mut World| {
        let mut all = Vec::new();
        for site in ["paris", "rennes"] {
            let Ok(khufu_engine::Response::Sites(sites)) = world.request(site, Request::Sites) else {
                panic!("no sites")
            };
            all.extend(sites.into_iter().find(|other| other.site.as_str() == "rennes").unwrap().away);
        }
        all
    };
    assert_eq!(away(&mut world), []);
    let at = seen_at(&mut world, "paris") + 500;
    world.hand("rennes", Input::Platform { kind: kind.clone(), away_since: Some(at) });
    world.run_for(Duration::from_secs(1));
    assert_eq!(away(&mut world), [(kind.clone(), at), (kind.clone(), at)]);
    // It is away since it was first said.
    world.hand("rennes", Input::Platform { kind: kind.clone(), away_since: Some(at + 1000) });
    // Of a kind that nobody drives there, nothing is said.
    world.hand("rennes", Input::Platform { kind: "unheard".into(), away_since: Some(at) });
    world.run_for(Duration::from_secs(1));
    assert_eq!(away(&mut world), [(kind.clone(), at), (kind.clone(), at)]);
    world.hand("rennes", Input::Platform { kind, away_since: None });
    world.run_for(Duration::from_secs(1));
    assert_eq!(away(&mut world), []);
}

#[test]
fn a_site_of_which_nobody_knows_keeps_the_whole_from_being_called_well() {
    let mut world = World::new(97);
    world.sites(&["paris", "rennes"]);
    world.settle();
    world.sites.get_mut("paris").unwrap().platform.health = well().health;
    world.isolate("rennes");
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.until("paris is well", Duration::from_secs(60), |world| {
        let health = view(world, "paris", "web").sites["paris"].health.clone();
        health.is_some_and(|health| health.condition == Condition::Current)
    });
    let health = view(&mut world, "paris", "web").health.unwrap();
    assert_eq!(health.condition, Condition::Unknown);
    assert!(health.message.starts_with("rennes: "), "{}", health.message);
    // Its driver fails, and so never says how it is doing there.
    world.sites.get_mut("rennes").unwrap().platform.health = well().health;
    world.weather.driver_failure = 100;
    world.heal();
    world.until("rennes is said to fail", Duration::from_secs(120), |world| {
        let health = view(world, "paris", "web").health.unwrap();
        health.condition == Condition::Failed && health.message.starts_with("rennes: ")
    });
    world.weather.driver_failure = 0;
    world.until("all is well", Duration::from_secs(120), |world| {
        view(world, "paris", "web").health.unwrap().condition == Condition::Current
    });
}

#[test]
fn after_a_start_nothing_is_called_well_before_the_platform_has_answered() {
    let health = |paris: &mut Node| {
        let view = paris.view();
        (view.sites["paris"].health.clone().unwrap(), view.health.unwrap().condition)
    };
    let disk = made(json!({"a": 1}), json!({})).disk;
    let began = 1_790_000_100_000;
    for answers in [true, false] {
        let mut paris = Node::start_unsure(disk.clone(), began, &["text"], &["text"]);
        let (unknown, rolled_up) = health(&mut paris);
        assert_eq!((unknown.condition, unknown.at, rolled_up), (Condition::Unknown, began, Condition::Unknown));
        if answers {
            paris.hand(Input::Platform { kind: "text".into(), away_since: None });
            assert_eq!(health(&mut paris).0.condition, Condition::Current);
            continue;
        }
        // It stays so since the start, until it answers.
        paris.hand(Input::Platform { kind: "text".into(), away_since: Some(began + 5_000) });
        assert_eq!(health(&mut paris).0.at, began);
        paris.hand(Input::Platform { kind: "text".into(), away_since: None });
        assert_eq!(health(&mut paris).0.condition, Condition::Current);
        paris.hand(Input::Platform { kind: "text".into(), away_since: Some(began + 9_000) });
        assert_eq!(health(&mut paris).0.at, began + 9_000);
    }
}
