//! What is bounded, and what must not grow.

use std::time::Duration;

use khufu_crdt::{ChangeHash, DocumentId, ReplicantId};
use khufu_engine::harness::{SimulatedKeys, World};
use khufu_engine::{Config, Engine, Input, Output, Request, Response, Time};
use serde_json::json;

use crate::foreign::{Frame, Push, hand, node, record};

#[test]
fn a_node_that_starts_with_much_to_do_reads_it_a_little_at_a_time_and_does_all_of_it() {
    let mut world = World::configured(311, |config| config.resident = 10);
    world.sites(&["paris"]);
    world.weather.driver_failure = 100;
    let names: Vec<_> = (0..200).map(|number| format!("r{number}")).collect();
    for name in &names {
        world.put("paris", name, "paris", json!({"a": 1}));
    }
    world.run_for(Duration::from_secs(30));
    // No more is read than a driver may be at work for.
    let records =
        Engine::RESTORE_PREFIXES.into_iter().flat_map(|prefix| world.sites["paris"].disk.scan(prefix)).collect();
    let now = Time { monotonic_us: 0, wall_ms: 1_790_000_000_000 + world.now().as_millis() as u64 };
    let config = Config::fast("paris".parse().unwrap(), node("paris"));
    let calls = config.calls;
    let (mut engine, outputs) =
        Engine::new(config, Box::new(SimulatedKeys(node("paris"))), [1; 16], records, now).unwrap();
    let stored = outputs.iter().find_map(|output| match output {
        Output::Persist { token, .. } => Some(*token),
        _ => None,
    });
    let then = engine.handle(now, Input::Stored { token: stored.unwrap() });
    let reads = outputs.iter().chain(&then).filter(|output| matches!(output, Output::Load { .. })).count();
    assert_eq!(reads, calls);
    world.restart("paris");
    let mut most = 0;
    for _ in 0..1000 {
        world.run_for(Duration::from_millis(5));
        most = most.max(world.sites["paris"].engine().unwrap().metrics().resident);
    }
    // Those that nobody uses, twice, and those that a driver is at work for.
    assert!(most <= 100, "{most} documents in memory, 10 are to be");
    world.weather.driver_failure = 0;
    world.settle();
    assert!(names.iter().all(|name| world.text("paris", name).is_some()));
}

#[test]
fn what_is_made_and_received_leaves_memory_before_it_is_swept() {
    let mut world = World::configured(313, |config| {
        (config.resident, config.session_timeout) = (10, Duration::from_secs(3600));
    });
    world.sites(&["paris", "rennes"]);
    world.run_for(Duration::from_secs(1));
    let mut most = 0;
    for number in 0..400 {
        world.put("paris", &format!("r{number}"), "all", json!({"n": number}));
        world.run_for(Duration::from_millis(20));
        for site in ["paris", "rennes"] {
            most = most.max(world.sites[site].engine().unwrap().metrics().resident);
        }
    }
    assert!(most <= 130, "{most} documents in memory, 10 are to be");
    world.settle();
    assert!((0..400).all(|number| world.text("rennes", &format!("r{number}")).is_some()));
}

#[test]
fn what_is_tried_again_later_is_not_tried_sooner_because_it_was_out_of_memory() {
    let mut world = World::configured(312, |config| config.resident = 0);
    world.sites(&["paris"]);
    let policy =
        serde_json::from_value(json!({"retry": {"attempts": 1000, "backoff_ms": 20_000, "backoff_max_ms": 20_000}}));
    world.put_with("paris", "log", "paris", &policy.unwrap());
    world.settle();
    world.weather.driver_failure = 100;
    world.operate("paris", "log", "add", "x").unwrap();
    world.run_for(Duration::from_secs(10));
    let calls = |world: &World| world.sites["paris"].engine().unwrap().metrics().driver_failures;
    let before = calls(&world);
    let mut gone = 0;
    for _ in 0..4 {
        world.run_for(Duration::from_millis(2_100));
        gone += usize::from(world.sites["paris"].engine().unwrap().metrics().resident == 0);
        world.request("paris", Request::Get { id: ReplicantId::new("log").unwrap() }).unwrap();
    }
    assert!(gone > 0, "it never left memory");
    assert!(
        calls(&world) - before <= 1,
        "{} tries within nine seconds, twenty are to be between two",
        calls(&world) - before
    );
    world.weather.driver_failure = 0;
    world.settle();
    assert_eq!(world.text("paris", "log").as_deref(), Some("x"));
}

#[test]
fn a_node_that_knows_many_large_records_tells_them_in_frames_of_bounded_size() {
    // Frames of 128 KiB, of which a part of a message takes a quarter.
    let mut world = World::configured(313, |config| config.frame_bytes = 1 << 17);
    world.sites(&["paris", "rennes"]);
    let names: Vec<_> = (0..800).map(|number| format!("{}{number}", "site-of-a-long-name-".repeat(4))).collect();
    for name in &names {
        let now = (1_790_000_000_000 + world.now().as_millis() as u64) << 10;
        hand(&mut world, "paris", "rennes", &Frame::Members { records: vec![record(name, now)] });
    }
    world.sites(&["nantes"]);
    let Ok(Response::Sites(sites)) = world.request("nantes", Request::Sites) else { panic!("no answer") };
    let known: std::collections::BTreeSet<_> = sites.iter().map(|site| site.site.as_str()).collect();
    assert!(names.iter().all(|name| known.contains(name.as_str())), "{} sites are known", known.len());
    assert_eq!(world.sites["nantes"].engine().unwrap().metrics().refused, 0);
}

#[test]
fn more_heads_than_there_can_be_are_refused() {
    let mut world = World::new(315);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    let heads: Vec<_> = (0..2000_u32)
        .map(|number| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            ChangeHash(bytes)
        })
        .collect();
    let refused = |world: &World| world.sites["paris"].engine().unwrap().metrics().refused;
    for (number, expected) in [(1000, 0), (2000, 1)] {
        let heads = heads[..number].to_vec();
        let document = DocumentId { replicant: ReplicantId::new("web").unwrap(), epoch: 0 };
        hand(&mut world, "paris", "rennes", &Frame::Push(Push { document, changes: vec![], heads, reports: vec![] }));
        assert_eq!(refused(&world), expected, "{number} heads");
    }
}
