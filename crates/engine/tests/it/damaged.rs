//! Damaged records: what they said comes back, and they are found once.

use std::time::Duration;

use khufu_crdt::DocumentId;
use khufu_engine::harness::{CallFault, World};
use khufu_engine::{Happening, Request};
use serde_json::json;

use crate::foreign::{Frame, Push, hand};
use crate::{file_policy, id, loses_what_was_before, rescope};

#[test]
fn damaged_records_are_named_and_come_back_from_others() {
    let mut world = World::new(25);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    for number in 2..6 {
        world.patch("rennes", "web", json!({"a": number})).unwrap();
    }
    world.settle();
    world.crash("paris");
    assert!(world.sites.get_mut("paris").unwrap().disk.damage(b"/c/") > 0);
    world.start("paris");
    let _ = world.request("paris", Request::Get { id: id("web") });
    let warned = world.sites["paris"]
        .events
        .iter()
        .any(|event| matches!(&event.what, Happening::Warning { message, .. } if message.contains("damaged")));
    assert!(warned);
    world.settle();
    let Ok(khufu_engine::Response::Replicant(view)) = world.request("paris", Request::Get { id: id("web") }) else {
        panic!("no answer");
    };
    assert_eq!(view.desired, json!({"a": 5}));
}

#[test]
fn records_that_could_not_be_read_are_not_left_behind() {
    let mut world = World::new(72);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    for word in ["one;", "two;", "three;"] {
        world.operate("paris", "log", "add", word).unwrap();
    }
    world.settle();
    world.crash("rennes");
    for part in [&b"i/log"[..], b"d/log/"] {
        assert!(world.sites.get_mut("rennes").unwrap().disk.damage(part) > 0);
    }
    world.start("rennes");
    world.settle();
    assert_eq!(world.text("rennes", "log").as_deref(), Some("one;two;three;"));
    rescope(&mut world, "paris", "log", "paris").unwrap();
    world.settle();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.text("rennes", "log"), None);
    assert!(!world.stores("rennes", "log"));
}

#[test]
fn what_follows_from_a_damaged_record_is_not_forgotten_in_a_crash() {
    let mut world = World::new(76);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.crash("rennes");
    let here = world.sites.get_mut("rennes").unwrap();
    assert_eq!(here.disk.spoil(|key| key.ends_with(b"/w")), 1);
    here.platform.tamper(&id("web"), "what it was before");
    world.start("rennes");
    world.sites.get_mut("rennes").unwrap().next_call = Some(CallFault::DiesBefore);
    // Somebody looks at it, so that it is read; and the process dies before anything is done about it.
    world.ask("rennes", Request::Get { id: id("web") });
    let dead = |world: &mut World| world.sites["rennes"].engine().is_none();
    world.until("rennes dies", Duration::from_secs(10), dead);
    world.start("rennes");
    let mended = |world: &mut World| world.text("rennes", "web").as_deref() == Some("{\"a\":1}\n");
    world.until("it is written again, though nobody asks", Duration::from_secs(30), mended);
}

#[test]
fn changes_that_wait_for_a_lost_snapshot_are_kept_until_others_bring_it() {
    let mut world = World::new(79);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 0}));
    world.settle();
    loses_what_was_before(&mut world, 0);
    for again in [false, true] {
        if again {
            world.crash("rennes");
        }
        world.start_doubtful("rennes");
        // Longer than what nobody needs stays in memory.
        world.run_for(Duration::from_secs(60));
    }
    world.heal();
    world.settle();
    for site in ["paris", "rennes"] {
        assert_eq!(world.text(site, "web").as_deref(), Some("{\"a\":0,\"b\":1}\n"), "{site}");
    }
}

#[test]
fn damage_that_was_mended_is_not_found_again() {
    // A change, all of what is compacted, what paris has said, what was done here.
    // Also what is said of a site that has left, and all that is left of what was given away.
    let parts = [&b"/c/"[..], b"/s", b"/r/paris", b"/w", b"/r/lyon", b"/r/rennes"];
    for (seed, part) in (110..).zip(parts) {
        let mut world = World::configured(seed, |config| config.compact_after = 4);
        world.sites(&["lyon", "paris", "rennes"]);
        world.put_with("paris", "log", "paris & rennes & lyon", &file_policy());
        for word in ["one;", "two;", "three;", "four;", "five;", "six;", "seven;"] {
            world.operate("paris", "log", "add", word).unwrap();
            world.settle();
        }
        rescope(&mut world, "paris", "log", "paris & rennes").unwrap();
        world.until("lyon forgets it", Duration::from_secs(30), |world| !world.stores("lyon", "log"));
        if part == b"/r/rennes" {
            rescope(&mut world, "paris", "log", "paris").unwrap();
            world.until("rennes forgets it", Duration::from_secs(30), |world| !world.stores("rennes", "log"));
        }
        world.settle();
        world.run_for(Duration::from_secs(10));
        if part == b"/c/" {
            world.operate("paris", "log", "add", "eight;").unwrap();
            world.settle();
        }
        let restart = |world: &mut World| {
            world.restart("rennes");
            world.sites.get_mut("rennes").unwrap().events.clear();
            let _ = world.request("rennes", Request::Get { id: id("log") });
            // What was given away is read when somebody speaks of it.
            let document = DocumentId { replicant: id("log"), epoch: 0 };
            let push = Push { document, changes: vec![], heads: vec![], reports: vec![] };
            hand(world, "rennes", "paris", &Frame::Push(push));
            world.run_for(Duration::from_secs(1));
            let damaged =
                |what: &Happening| matches!(what, Happening::Warning { message, .. } if message.contains("damaged"));
            world.sites["rennes"].events.iter().any(|event| damaged(&event.what))
        };
        let of_log = |key: &[u8]| key.starts_with(b"d/log/") && key.windows(part.len()).any(|window| window == part);
        assert!(world.sites.get_mut("rennes").unwrap().disk.spoil(of_log) > 0, "seed {seed}");
        assert!(restart(&mut world), "seed {seed}");
        assert!(!restart(&mut world), "seed {seed}");
        if part != b"/r/rennes" {
            assert_eq!(world.text("rennes", "log"), world.text("paris", "log"), "seed {seed}");
        }
    }
}
