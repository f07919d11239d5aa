//! What a site says of its replica is so.

use std::time::Duration;

use khufu_crdt::{AfterFailure, OperationId, Report, SiteName, Status};
use khufu_engine::harness::World;
use khufu_engine::{Operate, Request, Response};
use serde_json::json;

use crate::{file_policy, id, rescope, view};

/// What a site says of its own replica.
fn report(world: &mut World, site: &str, name: &str) -> Report {
    view(world, site, name).sites[&SiteName::new(site).unwrap()].report.clone().unwrap()
}

#[test]
fn what_was_there_before_a_write_that_failed_is_written_again_and_then_said_to_be_there() {
    let mut world = World::new(80);
    world.sites(&["paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    world.weather.driver_failure = 100;
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.until("it is said to fail", Duration::from_secs(120), |world| {
        view(world, "paris", "web").status == Status::Failed
    });
    world.patch("paris", "web", json!({"a": 1})).unwrap();
    // Of the one that failed something may be there.
    world.sites.get_mut("paris").unwrap().platform.tamper(&id("web"), "half of it\n");
    world.weather.driver_failure = 0;
    world.settle();
    assert_eq!(view(&mut world, "paris", "web").status, Status::Applied);
    assert_eq!(report(&mut world, "paris", "web").desired.unwrap().output, "");
    assert_eq!(world.text("paris", "web").as_deref(), Some("{\"a\":1}\n"));
}

#[test]
fn a_failure_is_still_reported_after_very_many_operations_and_until_it_is_replaced() {
    let mut world = World::configured(81, |config| config.reported = 10);
    world.sites(&["paris", "rennes"]);
    let mut policy = file_policy();
    policy.after_failure = AfterFailure::Continue;
    world.put_with("paris", "log", "paris & rennes", &policy);
    let ask = |name: &str, op_type: &str| {
        Request::Operate(Operate {
            id: id("log"),
            operation: Some(OperationId::new(name).unwrap()),
            op_type: op_type.into(),
            payload: json!("x"),
            wait_ms: 0,
        })
    };
    world.request("paris", ask("wrong", "no-such-type")).unwrap();
    for number in 0..15 {
        world.request("paris", ask(&format!("right-{number}"), "add")).unwrap();
    }
    world.settle();
    let wrong = OperationId::new("wrong").unwrap();
    for site in ["paris", "rennes"] {
        let said = report(&mut world, site, "log");
        assert_eq!(said.status, Status::Failed, "{site}");
        assert_eq!(said.operations[&wrong].status, Status::Failed, "{site}");
        assert!(said.operations.len() <= 10, "{site} speaks of {}", said.operations.len());
        assert!(said.operations.contains_key(&OperationId::new("right-14").unwrap()), "{site} leaves the newest out");
    }
    // What is written over everything stands for what failed before it, too.
    world.request("paris", ask("over", "set")).unwrap();
    world.settle();
    world.until("nothing is said to fail", Duration::from_secs(30), |world| {
        view(world, "paris", "log").status == Status::Applied
    });
}

#[test]
fn an_operation_that_gets_no_answer_is_run_as_often_as_the_policy_says_and_then_needs_attention() {
    let mut world = World::new(83);
    world.sites(&["paris"]);
    world.put_with("paris", "log", "paris", &file_policy());
    world.settle();
    world.weather.driver_silence = 100;
    world.operate("paris", "log", "set", "x").unwrap();
    world.operate("paris", "log", "add", "y").unwrap();
    world.until("that is said", Duration::from_secs(3600), |world| {
        view(world, "paris", "log").status == Status::NeedsAttention
    });
    world.run_for(Duration::from_secs(3600));
    let attempts = view(&mut world, "paris", "log").policy.retry.attempts;
    let said = report(&mut world, "paris", "log");
    assert!(said.operations.values().all(|operation| operation.attempt <= attempts), "{:?}", said.operations);
    let ran = world.sites["paris"].platform.replica(&id("log")).unwrap().ran.len();
    assert_eq!(ran, usize::try_from(attempts).unwrap(), "how often the platform saw it");
    // The platform shows what was done once it answers again.
    world.weather.driver_silence = 0;
    world.settle();
    assert_eq!(view(&mut world, "paris", "log").status, Status::Applied);
    assert_eq!(world.text("paris", "log").as_deref(), Some("xy"));
    let ran = world.sites["paris"].platform.replica(&id("log")).unwrap().ran.len();
    assert_eq!(ran, usize::try_from(attempts).unwrap() + 1);
}

#[test]
fn what_may_still_be_run_is_not_reported_skipped() {
    let mut world = World::new(82);
    world.sites(&["paris", "rennes"]);
    let mut policy = file_policy();
    let absolute = serde_json::from_value(json!({"absolute": true, "idempotent": true})).unwrap();
    policy.types.insert("bad".into(), absolute);
    world.put_with("paris", "log", "paris & rennes", &policy);
    world.settle();
    world.isolate("paris");
    let ask = |op_type: &str, wait_ms: u64| {
        Request::Operate(Operate {
            id: id("log"),
            operation: Some(OperationId::new(format!("the-{op_type}")).unwrap()),
            op_type: op_type.into(),
            payload: json!(op_type),
            wait_ms,
        })
    };
    world.run_for(Duration::from_secs(1));
    let asked = world.ask("rennes", ask("add", 600_000));
    world.run_for(Duration::from_secs(1));
    // It is absolute, so that what is before it is not needed where it works; it works nowhere.
    world.request("rennes", ask("bad", 0)).unwrap();
    world.run_for(Duration::from_secs(1));
    world.operate("paris", "log", "add", "later").unwrap();
    world.run_for(Duration::from_secs(2));
    world.heal();
    let mut told = None;
    world.until("an answer", Duration::from_secs(300), |world| {
        told = world.answer("rennes", asked);
        told.is_some()
    });
    let Some(Ok(Response::Operation(answer))) = told else { panic!("{told:?}") };
    world.settle();
    let add = OperationId::new("the-add").unwrap();
    assert_eq!(report(&mut world, "paris", "log").operations[&add].status, Status::Applied);
    let said = answer.sites[&SiteName::new("paris").unwrap()].status;
    assert_eq!(said, Status::Applied, "it was said to be over before it ran");
    assert_eq!(world.text("paris", "log"), world.text("rennes", "log"));
}

#[test]
fn an_operation_that_ran_and_that_a_rebuild_leaves_out_is_reported_skipped() {
    let mut world = World::new(84);
    world.sites(&["paris", "rennes"]);
    // Nothing replaces anything: what is before an absolute operation just does not show any more.
    let policy = serde_json::from_value(json!({"types": {"set": {"absolute": true, "idempotent": true}}})).unwrap();
    world.put_with("paris", "log", "paris & rennes", &policy);
    world.settle();
    world.isolate("rennes");
    let ask = |name: &str, op_type: &str| {
        Request::Operate(Operate {
            id: id("log"),
            operation: Some(OperationId::new(name).unwrap()),
            op_type: op_type.into(),
            payload: json!(format!("{name};")),
            wait_ms: 0,
        })
    };
    for (site, name, op_type) in [("paris", "before", "add"), ("rennes", "over", "set"), ("paris", "after", "add")] {
        world.request(site, ask(name, op_type)).unwrap();
        world.run_for(Duration::from_secs(1));
    }
    assert_eq!(world.text("paris", "log").as_deref(), Some("before;after;"));
    world.heal();
    world.settle();
    for site in ["paris", "rennes"] {
        assert_eq!(world.text(site, "log").as_deref(), Some("over;after;"), "{site}");
        let said = report(&mut world, site, "log");
        assert_eq!(said.operations[&OperationId::new("before").unwrap()].status, Status::Skipped, "{site}");
        assert_eq!(said.status, Status::Applied, "{site}");
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_said_to_be_the_same() {
    for sites in [&["paris"][..], &["paris", "rennes"]] {
        let mut world = World::new(85);
        world.sites(sites);
        world.put("paris", "web", "all", json!({"a": 1}));
        world.settle();
        let verify = |world: &mut World| match world.request("paris", Request::Verify { id: Some(id("web")) }) {
            Ok(Response::Verify(report)) => report,
            other => panic!("{other:?}"),
        };
        assert!(verify(&mut world).same);
        world.weather.driver_failure = 100;
        let report = verify(&mut world);
        assert!(!report.same);
        let said = &report.replicants[0].differences;
        let told = |site: &&str| format!("the platform of {site} could not be looked at: the platform is busy");
        assert_eq!(*said, sites.iter().map(told).collect::<Vec<_>>());
        world.weather.driver_failure = 0;
        assert!(verify(&mut world).same, "it can be looked at again");
    }
}

#[test]
fn a_report_of_which_the_one_before_was_lost_is_fetched_whole() {
    for crash in [false, true] {
        let mut world = World::new(86);
        world.sites(&["paris", "rennes"]);
        world.put_with("paris", "log", "all", &file_policy());
        let operate = |world: &mut World, word: &str| {
            world.operate("paris", "log", "add", word).unwrap();
            world.run_for(Duration::from_millis(200));
        };
        operate(&mut world, "a");
        world.settle();
        world.recorded = Some(Vec::new());
        operate(&mut world, "b");
        let parts = |world: &World| world.recorded.iter().flatten().filter(|said| said.kind() == "reports").count();
        assert!(parts(&world) > 0, "it is told in parts");
        if crash {
            world.crash("rennes");
            operate(&mut world, "c");
            world.start("rennes");
        } else {
            world.weather.frame_loss = 100;
            operate(&mut world, "c");
            world.weather.frame_loss = 0;
        }
        for word in ["d", "e", "f"] {
            operate(&mut world, word);
        }
        world.settle();
        let told = view(&mut world, "rennes", "log").sites[&SiteName::new("paris").unwrap()].report.clone();
        assert_eq!(told, Some(report(&mut world, "paris", "log")), "after a crash: {crash}");
        assert_eq!(told.unwrap().operations.len(), 6);
    }
}

#[test]
fn sites_that_are_still_at_work_are_not_called_the_same() {
    // That they have begun is not said before they have ended.
    let mut world = World::configured(57, |config| config.report_begun = Duration::from_secs(60));
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &crate::file_policy());
    world.operate("paris", "log", "set", "0").unwrap();
    world.settle();
    // All stand at the same step on the way.
    world.weather.driver_us = 300_000;
    let (mut same, mut pending) = (0, 0);
    for round in 1..=10 {
        for word in ["a", "b", "c"] {
            world.operate("paris", "log", "add", word).unwrap();
        }
        for _ in 0..8 {
            let Ok(Response::Verify(report)) = world.request("paris", Request::Verify { id: Some(id("log")) }) else {
                panic!("no answer");
            };
            let expected = format!("0{}", "abc".repeat(round));
            let done = ["paris", "rennes"].iter().all(|site| world.text(site, "log").as_ref() == Some(&expected));
            assert!(done || !report.same, "round {round}: {report:?}");
            same += usize::from(report.same);
            pending += usize::from(!report.same);
            world.run_for(Duration::from_millis(150));
        }
        world.settle();
    }
    assert!(same > 0 && pending > 0, "{same} and {pending}");
}

#[test]
fn who_is_in_the_scope_again_does_not_forget_a_site_that_has_said_more_meanwhile() {
    let mut world = World::new(311);
    world.sites(&["brest", "lille", "paris", "rennes"]);
    world.put("lille", "web", "brest & lille & paris & rennes", json!({"a": 1}));
    world.settle();
    rescope(&mut world, "lille", "web", "lille & paris & rennes").unwrap();
    let minute = Duration::from_secs(60);
    world.until("brest has given it away", minute, |world| !world.stores("brest", "web"));
    let knew = world.reported("brest", &id("web"), "brest").unwrap();
    for site in ["lille", "paris", "rennes"] {
        world.until("all know", minute, |world| world.reported(site, &id("web"), "brest") == Some(knew));
    }
    // Rennes leaves, too, and brest comes and goes where nobody has heard of that.
    world.partition(&[&["brest", "lille"], &["paris", "rennes"]]);
    rescope(&mut world, "paris", "web", "paris").unwrap();
    world.until("rennes has given it away", minute, |world| !world.stores("rennes", "web"));
    rescope(&mut world, "lille", "web", "brest & lille").unwrap();
    world.until("brest has it", minute, |world| world.text("brest", "web").is_some());
    rescope(&mut world, "lille", "web", "lille").unwrap();
    world.until("brest has given it away", minute, |world| !world.stores("brest", "web"));
    let said = world.reported("brest", &id("web"), "brest").unwrap();
    world.until("lille knows", minute, |world| world.reported("lille", &id("web"), "brest") == Some(said));
    assert!(said > knew);
    rescope(&mut world, "lille", "web", "lille & rennes").unwrap();
    // Rennes hears all of that from one who lacks what it gave away, and only then from both.
    world.partition(&[&["brest", "lille", "rennes"], &["paris"]]);
    world.run_for(Duration::from_secs(10));
    assert!(!world.stores("rennes", "web"));
    world.heal();
    world.settle();
    let knows = world.reported("rennes", &id("web"), "brest");
    assert!(knows.is_some_and(|seq| seq >= knew), "{knew}, and now {knows:?}");
}
