//! Where things live while sites come and go.

use std::time::Duration;

use khufu_engine::harness::World;
use serde_json::json;

use crate::foreign::{Frame, hand, record};

/// Paris and one of nantes and rennes; nantes has just been lost.
fn nantes_is_lost(seed: u64, scope: &str) -> World {
    let mut world = World::new(seed);
    world.sites(&["lyon", "nantes", "paris", "rennes"]);
    world.put("paris", "web", scope, json!({"a": 1}));
    world.settle();
    world.run_for(Duration::from_secs(5));
    assert!(world.text("nantes", "web").is_some() && world.text("rennes", "web").is_none());
    world.crash("nantes");
    world
}

#[test]
fn records_of_sites_that_nobody_has_heard_of_do_not_hold_up_a_failover() {
    let mut world = nantes_is_lost(300, "paris & (nantes | rennes)");
    for number in 0..20 {
        let frame =
            Frame::Members { records: vec![record(&format!("ghost{number}"), (1_790_000_000_000 + number) << 10)] };
        hand(&mut world, "paris", "lyon", &frame);
        world.run_for(Duration::from_millis(1_500));
    }
    assert!(world.text("rennes", "web").is_some(), "no failover within 30 s, where one takes some 5 s");
}

#[test]
fn a_site_that_restarts_again_and_again_does_not_hold_up_a_failover() {
    // Lyon would also be the one to decide, if it were there.
    for scope in ["paris & (nantes | rennes)", "lyon & paris & (nantes | rennes)"] {
        let mut world = nantes_is_lost(301, scope);
        for _ in 0..15 {
            world.crash("lyon");
            world.run_for(Duration::from_millis(2_100));
            world.start("lyon");
            world.run_for(Duration::from_millis(600));
        }
        assert!(world.text("rennes", "web").is_some(), "no failover within 40 s: {scope}");
    }
}

#[test]
fn a_site_that_was_away_for_a_moment_causes_no_failover_although_another_comes_and_goes() {
    let mut world = World::new(302);
    world.sites(&["lyon", "nantes", "paris", "rennes"]);
    world.put("paris", "web", "paris & (nantes | rennes)", json!({"a": 1}));
    world.settle();
    world.run_for(Duration::from_secs(5));
    let watch = |world: &mut World, ms: u64| {
        for _ in 0..ms / 50 {
            world.run_for(Duration::from_millis(50));
            assert_eq!(world.text("rennes", "web"), None, "nantes was never away for long");
        }
    };
    for turn in 0..20 {
        // That nantes is down is seen after one second, and that is not so for two.
        world.crash("lyon");
        watch(&mut world, turn * 150);
        world.crash("nantes");
        watch(&mut world, 2_400);
        world.start("nantes");
        world.start("lyon");
        watch(&mut world, 3_000);
    }
}
