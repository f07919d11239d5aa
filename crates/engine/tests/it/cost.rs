//! What nodes say to each other for one edit, and when nothing happens: bytes by kind of frame.
//!
//! `cargo test -p khufu-engine --test it cost -- --nocapture` prints the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::harness::{World, deployed};
use khufu_engine::{Operate, Request};
use serde_json::json;

/// What is said while something happens: how many frames and bytes of each kind, and bytes of all together.
#[allow(clippy::print_stderr, reason = "whoever wants to know what costs what sees it")]
fn said(
    world: &mut World,
    what: &str,
    times: u64,
    mut act: impl FnMut(&mut World),
) -> (f64, BTreeMap<&'static str, usize>) {
    world.recorded = Some(Vec::new());
    act(world);
    let mut kinds = BTreeMap::<_, (usize, usize)>::new();
    for message in world.recorded.take().unwrap_or_default() {
        let (count, bytes) = kinds.entry(message.kind()).or_default();
        *count += 1;
        *bytes += message.bytes.len();
    }
    let each = |sum: usize| sum as f64 / times as f64;
    for (kind, (count, bytes)) in &kinds {
        eprintln!("{what}: {kind:20} {:6.1} frames {:8.0} B", each(*count), each(*bytes));
    }
    let sum = each(kinds.values().map(|(_, bytes)| bytes).sum());
    eprintln!("{what}: {:20} {:6.1} frames {sum:8.0} B", "all", each(kinds.values().map(|(count, _)| count).sum()));
    (sum, kinds.into_iter().map(|(kind, (count, _))| (kind, count)).collect())
}

fn three() -> World {
    let mut world = World::configured(950, deployed);
    world.weather.delay_us = 100;
    world.weather.jitter_us = 100;
    world.sites(&["nantes", "paris", "rennes"]);
    world
}

#[test]
fn an_edit_costs_a_few_hundred_bytes() {
    let mut world = three();
    for number in 0..100 {
        world.put("paris", &format!("web{number}"), "all", json!({"n": 0, "text": "a small desired state"}));
    }
    world.settle();
    world.run_for(Duration::from_secs(60));
    let (_, idle) = said(&mut world, "5 idle seconds", 1, |world| world.run_for(Duration::from_secs(5)));
    assert!(!idle.contains_key("report"), "{idle:?}");
    let (bytes, _) = said(&mut world, "edit", 250, |world| {
        for number in 0..250 {
            let id = ReplicantId::new(format!("web{}", number % 100)).unwrap();
            world.ask("paris", Request::Patch { id, patch: json!({"n": number + 1}) });
            world.run_for(Duration::from_millis(20));
        }
        world.settle();
    });
    assert!(bytes < 1_700.0, "{bytes} bytes");
}

#[test]
fn what_is_said_of_an_operation_does_not_grow_with_the_operations_before_it() {
    let mut world = three();
    world.put_with("paris", "log", "all", &crate::file_policy());
    let operate = |world: &mut World, count: u64| {
        for number in 0..count {
            let operate = Operate {
                id: ReplicantId::new("log").unwrap(),
                operation: None,
                op_type: "add".into(),
                payload: json!(format!("{number};")),
                wait_ms: 0,
            };
            world.request("paris", Request::Operate(operate)).unwrap();
            world.run_for(Duration::from_millis(200));
        }
        world.settle();
    };
    operate(&mut world, 5);
    let (few, _) = said(&mut world, "operation after 5", 20, |world| operate(world, 20));
    operate(&mut world, 100);
    let (many, _) = said(&mut world, "operation after 125", 20, |world| operate(world, 20));
    assert!(many < few * 1.05, "{few} bytes, and then {many}");
    assert!(many < 2_600.0, "{many} bytes");
}

#[test]
fn an_idle_minute_costs_little() {
    let mut world = three();
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.run_for(Duration::from_secs(120));
    // For one node.
    let (bytes, _) = said(&mut world, "idle minute", 3, |world| world.run_for(Duration::from_secs(60)));
    assert!(bytes < 60.0 * 35.0, "{bytes} bytes");
}

#[test]
fn what_a_site_has_missed_comes_once() {
    for away in ["nantes", "rennes"] {
        let mut world = three();
        for number in 0..100 {
            world.put("paris", &format!("web{number}"), "all", json!({"n": 0, "text": "a small desired state"}));
        }
        world.settle();
        world.run_for(Duration::from_secs(60));
        world.isolate(away);
        for number in 0..1000 {
            let id = ReplicantId::new(format!("web{}", number % 100)).unwrap();
            world.ask("paris", Request::Patch { id, patch: json!({"n": number + 1}) });
            world.run_for(Duration::from_millis(20));
        }
        world.run_for(Duration::from_secs(30));
        let (bytes, _) = said(&mut world, &format!("missed by {away}, each"), 100, |world| {
            world.heal();
            world.settle();
        });
        assert!(bytes < 2_700.0, "{bytes} bytes");
    }
}

#[test]
fn an_edit_at_ten_sites_costs_each_some_two_kilobytes() {
    let mut world = World::configured(951, deployed);
    world.weather.delay_us = 100;
    world.weather.jitter_us = 100;
    world.sites(&["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"]);
    for number in 0..100 {
        world.put("a3", &format!("web{number}"), "all", json!({"n": 0, "text": "a small desired state"}));
    }
    world.settle();
    world.run_for(Duration::from_secs(60));
    let (bytes, _) = said(&mut world, "edit at ten sites, each receiver", 250 * 9, |world| {
        for number in 0..250 {
            let id = ReplicantId::new(format!("web{}", number % 100)).unwrap();
            world.ask("a3", Request::Patch { id, patch: json!({"n": number + 1}) });
            world.run_for(Duration::from_millis(20));
        }
        world.settle();
    });
    assert!(bytes < 2_000.0, "{bytes} bytes");
}
