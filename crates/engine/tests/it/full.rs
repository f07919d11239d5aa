//! A disk without space.

use std::time::Duration;

use khufu_crdt::{EpochRule, OperationId, ReplicantId};
use khufu_engine::harness::{CallFault, World};
use khufu_engine::{Operate, Put, Request, RequestError, Response};
use serde_json::{Value, json};

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

fn fill(world: &mut World, site: &str, full: bool) {
    world.sites.get_mut(site).unwrap().disk.full = full;
}

fn is_full(world: &World, site: &str) -> bool {
    world.sites[site].engine().unwrap().full().is_some()
}

fn desired(world: &mut World, site: &str, name: &str) -> Value {
    match world.request(site, Request::Get { id: id(name) }) {
        Ok(Response::Replicant(view)) => view.desired,
        other => panic!("{other:?}"),
    }
}

fn is_refused<T: std::fmt::Debug>(answer: &Result<T, RequestError>) -> bool {
    matches!(answer, Err(RequestError::Full { message }) if message.contains("paris"))
}

#[test]
fn changes_are_refused_reading_goes_on_and_it_goes_on_when_there_is_room() {
    let mut world = World::new(40);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.put("rennes", "far", "rennes", json!({"far": 1}));
    world.settle();
    fill(&mut world, "paris", true);

    // The first is found out by trying, and forgotten; the others are refused at once.
    let first = world.patch("paris", "web", json!({"a": 2}));
    assert!(is_refused(&first), "{first:?}");
    assert!(is_full(&world, "paris"));
    let put = |name: &str| Put {
        id: id(name),
        kind: Some("text".into()),
        scope: Some("paris".into()),
        policy: None,
        desired: Some(json!({"n": 1})),
        overrides: None,
        base: None,
    };
    let operate = Operate {
        id: id("web"),
        operation: Some(OperationId::new("op-1").unwrap()),
        op_type: "add".into(),
        payload: json!("x"),
        wait_ms: 0,
    };
    let changes = [
        Request::Patch { id: id("web"), patch: json!({"a": 3}) },
        Request::Put(put("new")),
        Request::Put(put("web")),
        Request::Operate(operate),
        Request::Delete { id: id("web"), keep: false, base: None },
    ];
    for change in &changes {
        let before = world.now();
        let refused = world.request("paris", change.clone());
        assert!(is_refused(&refused), "{change:?}: {refused:?}");
        assert!(world.now() - before < Duration::from_millis(100), "at once");
    }

    // Reading goes on, and shows what is stored: also of what others hold.
    assert_eq!(desired(&mut world, "paris", "web"), json!({"a": 1}));
    assert_eq!(desired(&mut world, "paris", "far"), json!({"far": 1}));
    assert!(matches!(world.request("paris", Request::Plan { id: id("web") }), Ok(Response::Plan(_))));
    let verified = world.request("paris", Request::Verify { id: None });
    assert!(matches!(verified, Ok(Response::Verify(ref report)) if report.same), "{verified:?}");

    // Others go on, and are not listened to here until there is room.
    world.patch("rennes", "web", json!({"a": 4})).unwrap();
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"a\":4}\n");
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":1}\n");
    assert_eq!(desired(&mut world, "paris", "web"), json!({"a": 1}));

    fill(&mut world, "paris", false);
    world.settle();
    assert!(!is_full(&world, "paris"));
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":4}\n");
    world.patch("paris", "web", json!({"a": 5})).unwrap();
    world.settle();
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"a\":5}\n");
    // All of it is on disk.
    world.restart("paris");
    world.settle();
    assert_eq!(desired(&mut world, "paris", "web"), json!({"a": 5}));
}

#[test]
fn what_was_under_way_when_the_disk_filled_up_ends_well() {
    for seed in 100..160 {
        let mut world = World::new(seed);
        world.sites(&["paris", "rennes"]);
        let policy = serde_json::from_value(
            json!({"resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}]}),
        )
        .unwrap();
        world.put_with("paris", "log", "all", &policy);
        world.settle();
        let mut taken = Vec::new();
        let mut asked = Vec::new();
        for round in 0..6 {
            for number in 0..3 {
                let name = format!("{round}-{number}");
                let site = if number == 2 { "rennes" } else { "paris" };
                let operate = Operate {
                    id: id("log"),
                    operation: Some(OperationId::new(&name).unwrap()),
                    op_type: "add".into(),
                    payload: json!(format!("{name}\n")),
                    wait_ms: if number == 1 { 5_000 } else { 0 },
                };
                asked.push((site, name, world.ask(site, Request::Operate(operate))));
                let pause = world.below(3_000);
                world.run_for(Duration::from_micros(pause));
            }
            // Driver calls, pushes and answers are on their way at some of these moments.
            let pause = world.below(4_000);
            world.run_for(Duration::from_micros(pause));
            fill(&mut world, "paris", true);
            let pause = world.below(1_500_000);
            world.run_for(Duration::from_micros(pause));
            fill(&mut world, "paris", false);
            let pause = world.below(1_000_000);
            world.run_for(Duration::from_micros(pause));
        }
        world.settle();
        world.run_for(Duration::from_secs(10));
        for (site, name, number) in asked {
            match world.answer(site, number) {
                Some(Ok(_)) => taken.push(name),
                Some(Err(RequestError::Full { .. })) => {}
                other => panic!("seed {seed}: {name} at {site}: {other:?}"),
            }
        }
        assert!(!taken.is_empty() && taken.len() < 18, "seed {seed}: {taken:?}");
        let text = world.text("paris", "log").unwrap();
        assert_eq!(world.text("rennes", "log").unwrap(), text, "seed {seed}");
        for name in taken {
            let times = text.lines().filter(|line| **line == name).count();
            assert_eq!(times, 1, "seed {seed}: {name} in\n{text}");
        }
        let lines: std::collections::BTreeSet<_> = text.lines().collect();
        assert_eq!(lines.len(), text.lines().count(), "seed {seed}: something ran twice:\n{text}");
    }
}

#[test]
fn nobody_is_told_what_is_under_way_where_the_disk_is_full() {
    for seed in 42..52 {
        let mut world = World::new(seed);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", "all", json!({"a": 1}));
        world.settle();
        world.sites.get_mut("paris").unwrap().next_call = Some(CallFault::HangsAfter);
        world.patch("rennes", "web", json!({"a": 2})).unwrap();
        world.until("the driver is at it", Duration::from_secs(5), |world| {
            world.text("paris", "web").as_deref() == Some("{\"a\":2}\n")
        });
        fill(&mut world, "paris", true);
        world.ask("paris", Request::Patch { id: id("web"), patch: json!({"a": 3}) });
        world.until("the disk is found full", Duration::from_secs(5), |world| is_full(world, "paris"));
        // It would be said by now that it has begun.
        world.run_for(Duration::from_secs(2));
        let told = world.reported("rennes", &id("web"), "paris").unwrap();
        let stored = world.stored_report("paris", &id("web")).unwrap();
        assert!(told <= stored, "seed {seed}: rennes knows report {told}, and the disk {stored}");
        fill(&mut world, "paris", false);
        world.settle();
        assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":2}\n", "seed {seed}");
    }
}

#[test]
fn whoever_waits_for_archived_history_when_the_disk_fills_up_is_answered() {
    let mut world = World::configured(41, |config| {
        config.epochs = EpochRule { changes: 5, age_ms: u64::MAX, aged_changes: usize::MAX };
        config.archives = 3;
    });
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "all", &crate::file_policy());
    for number in 0..10 {
        world.operate("paris", "log", "add", &format!("{number};")).unwrap();
        world.settle();
    }
    assert!(world.sites["paris"].engine().unwrap().metrics().epochs > 0, "there is something to read");
    let history = || Request::History { id: id("log"), limit: 1000 };
    fill(&mut world, "paris", true);
    // What the archives are read for stands behind this change, which is never stored.
    world.ask("paris", Request::Patch { id: id("log"), patch: json!({"a": 1}) });
    let waiting = [world.ask("paris", history()), world.ask("paris", history())];
    world.until("the disk is found full", Duration::from_secs(5), |world| is_full(world, "paris"));
    for request in waiting {
        let answer = world.answer("paris", request);
        assert!(matches!(answer, Some(Err(RequestError::Busy { .. }))), "{answer:?}");
    }
    let again = world.request("paris", history());
    let Ok(Response::History(entries)) = again else { panic!("{again:?}") };
    assert_eq!(entries.iter().filter(|entry| entry.what == "operation").count(), 10);
}

/// What was to be sent when the disk turned out to be full was forgotten, the distances with it, and others must not go
/// without them until the next time that all are told.
#[test]
fn distances_are_told_again_when_there_is_room() {
    let mut world = World::new(49);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.run_for(Duration::from_secs(30));
    // The first heartbeat from paris, and whether it has distances.
    let beat = |world: &mut World| {
        world.recorded = Some(Vec::new());
        let mut found = None;
        world.until("a heartbeat", Duration::from_secs(60), |world| {
            let frames = world.recorded.iter().flatten().filter(|frame| frame.from == "paris");
            let mut beats = frames.filter_map(|frame| {
                let value: ciborium::Value = ciborium::from_reader(&frame.bytes[1..]).ok()?;
                let (name, fields) = value.as_map()?.first()?.clone();
                let fields = fields.as_map().filter(|_| name.as_text() == Some("Ping"))?.clone();
                Some(fields.iter().any(|(name, _)| name.as_text() == Some("d")))
            });
            found = beats.next();
            found.is_some()
        });
        found.unwrap()
    };
    // Just told, so that it would take a minute until the next time.
    while !beat(&mut world) {}
    fill(&mut world, "paris", true);
    let _ = world.patch("paris", "web", json!({"a": 2}));
    assert!(is_full(&world, "paris"));
    fill(&mut world, "paris", false);
    world.until("there is room", Duration::from_secs(10), |world| !is_full(world, "paris"));
    assert!(beat(&mut world));
}
