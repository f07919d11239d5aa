//! What was given away, and those who took it over or do not know that.

use std::time::Duration;

use khufu_crdt::{ChangeHash, DocumentId};
use khufu_engine::harness::World;
use serde_json::json;

use crate::foreign::{Frame, hand};
use crate::{id, rescope};

const THREE_HEIRS: [&str; 3] = ["lille", "nantes", "paris"];

/// Nantes has given away to lille (and paris) what lives at `scope`, and then the disk of lille goes back.
fn the_heir_goes_back(seed: u64, scope: &str) -> World {
    let mut world = World::new(seed);
    world.sites(&THREE_HEIRS);
    world.put("lille", "web", &format!("nantes & {scope}"), json!({"a": 1}));
    world.settle();
    let old = world.sites["lille"].disk.clone();
    rescope(&mut world, "lille", "web", scope).unwrap();
    world.until("nantes forgets it", Duration::from_secs(10), |world| !world.stores("nantes", "web"));
    world.settle();
    world.crash("lille");
    world.sites.get_mut("lille").unwrap().disk.roll_back(&old, b"");
    world.start_doubtful("lille");
    world
}

#[test]
fn what_was_given_away_is_taken_again_if_the_disks_of_all_who_took_it_over_went_back() {
    for seed in 90..93 {
        let mut world = the_heir_goes_back(seed, "lille");
        world.settle();
        assert_eq!(world.text("nantes", "web").as_deref(), Some("{\"a\":1}\n"), "seed {seed}");
        world.patch("nantes", "web", json!({"a": 2})).unwrap();
        world.settle();
        assert_eq!(world.text("lille", "web").as_deref(), Some("{\"a\":2}\n"), "seed {seed}");
    }
}

#[test]
fn what_was_given_away_is_not_taken_again_while_somebody_may_know_why() {
    for seed in 93..96 {
        let mut world = the_heir_goes_back(seed, "lille & paris");
        world.isolate("paris");
        for _ in 0..100 {
            world.run_for(Duration::from_millis(100));
            assert!(!world.stores("nantes", "web"), "seed {seed}");
        }
        world.heal();
        world.settle();
        assert!(!world.stores("nantes", "web"), "seed {seed}");
    }
}

#[test]
fn what_was_given_away_is_taken_again_also_if_they_have_given_it_away_since() {
    for seed in 96..99 {
        let mut world = the_heir_goes_back(seed, "lille");
        world.isolate("nantes");
        rescope(&mut world, "lille", "web", "nantes & paris").unwrap();
        world.until("lille forgets it", Duration::from_secs(30), |world| !world.stores("lille", "web"));
        world.heal();
        world.settle();
        assert_eq!(world.text("nantes", "web").as_deref(), Some("{\"a\":1}\n"), "seed {seed}");
    }
}

#[test]
fn a_site_that_got_what_was_given_away_a_moment_later_hears_that_it_was_taken_out() {
    for seed in 100..104 {
        let mut world = World::new(seed);
        world.sites(&["brest", "lille", "nantes", "rennes"]);
        world.put("brest", "web", "brest & nantes", json!({"a": 1}));
        world.settle();
        // Brest hears that rennes takes over from it, but not that lille takes over from rennes.
        world.weather.driver_failure = 100;
        rescope(&mut world, "nantes", "web", "nantes & rennes").unwrap();
        world.run_for(Duration::from_secs(5));
        world.crash("brest");
        world.weather.driver_failure = 0;
        rescope(&mut world, "nantes", "web", "lille").unwrap();
        let gone = |world: &mut World| !world.stores("rennes", "web");
        world.until("rennes has cleaned up", Duration::from_secs(60), gone);
        // With its disk rennes loses what it knew of that. Brest gives it what brest has, and only then hears of lille.
        world.weather.driver_failure = 100;
        world.crash("rennes");
        world.sites.get_mut("rennes").unwrap().disk.wipe();
        for site in ["brest", "rennes"] {
            world.start(site);
            world.isolate(site);
        }
        world.mend("brest", "rennes");
        world.until("rennes has it again", Duration::from_secs(60), |world| world.stores("rennes", "web"));
        assert!(world.stores("brest", "web"), "seed {seed}");
        world.isolate("rennes");
        world.weather.driver_failure = 0;
        for site in ["lille", "nantes"] {
            world.mend("brest", site);
        }
        let gone = |world: &mut World| !world.stores("brest", "web");
        world.until("brest has cleaned up", Duration::from_secs(60), gone);
        world.heal();
        let gone = |world: &mut World| !world.stores("rennes", "web");
        world.until("rennes has cleaned up again", Duration::from_secs(60), gone);
        world.settle();
        for site in ["brest", "nantes", "rennes"] {
            assert_eq!(world.text(site, "web"), None, "{site} (seed {seed})");
        }
        assert!(world.text("lille", "web").is_some(), "seed {seed}");
    }
}

#[test]
fn who_is_behind_is_not_taken_for_out_because_the_one_that_passes_it_on_is() {
    for seed in 120..124 {
        let mut world = World::new(seed);
        world.sites(&["brest", "lille", "rennes"]);
        world.put("brest", "web", "brest & rennes", json!({"a": 1}));
        world.settle();
        // Lille takes over from brest. Rennes stays, and does not hear of it.
        world.isolate("rennes");
        rescope(&mut world, "brest", "web", "lille & rennes").unwrap();
        world.until("brest has cleaned up", Duration::from_secs(60), |world| !world.stores("brest", "web"));
        // It can ask only brest, which has given away what it had.
        world.mend("brest", "rennes");
        for _ in 0..300 {
            world.run_for(Duration::from_millis(100));
            assert!(world.text("rennes", "web").is_some() && world.stores("rennes", "web"), "seed {seed}");
        }
        world.heal();
        world.settle();
        assert_eq!(world.text("rennes", "web"), world.text("lille", "web"), "seed {seed}");
    }
}

#[test]
fn who_does_not_take_a_document_is_given_it_less_and_less_often() {
    let mut world = World::new(130);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    let frames_out = |world: &World| world.sites["rennes"].engine().unwrap().metrics().frames_out;
    let before = frames_out(&world);
    let document = DocumentId { replicant: id("web"), epoch: 0 };
    for _ in 0..200 {
        // As one says it who has given it away, and knows a change that rennes does not.
        let heads = vec![ChangeHash([7; 32])];
        let frame = Frame::NotHolder { document: document.clone(), heads, knows: vec![] };
        hand(&mut world, "rennes", "paris", &frame);
        world.run_for(Duration::from_millis(5));
    }
    let sent = frames_out(&world) - before;
    assert!(sent < 20, "{sent} frames for 200");
}

#[test]
fn more_heads_than_anybody_has_are_refused() {
    let mut world = World::new(131);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    let document = DocumentId { replicant: id("web"), epoch: 0 };
    let frame = Frame::NotHolder { document, heads: vec![], knows: vec![ChangeHash([7; 32]); 1025] };
    hand(&mut world, "rennes", "paris", &frame);
    assert_eq!(world.sites["rennes"].engine().unwrap().metrics().refused, 1);
}
