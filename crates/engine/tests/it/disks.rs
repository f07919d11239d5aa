//! Disks that are lost, damaged, or go back to what they were.

use std::time::Duration;

use khufu_engine::harness::World;
use khufu_engine::{Happening, Request, RequestError};
use serde_json::json;

use crate::{file_policy, id, rescope};

const THREE: [&str; 3] = ["nantes", "paris", "rennes"];

#[test]
fn a_site_that_lost_its_disk_gets_everything_back() {
    let mut world = World::new(24);
    world.sites(&THREE);
    for number in 0..20 {
        world.put("paris", &format!("r{number}"), "all", json!({"n": number}));
    }
    world.settle();
    world.crash("nantes");
    world.sites.get_mut("nantes").unwrap().disk.wipe();
    world.start("nantes");
    world.settle();
    for number in 0..20 {
        assert_eq!(world.text("nantes", &format!("r{number}")).unwrap(), format!("{{\"n\":{number}}}\n"));
    }
}

#[test]
fn operations_do_not_run_again_on_a_replica_that_a_lost_disk_left_behind() {
    let mut world = World::new(27);
    world.sites(&THREE);
    world.put_with("paris", "log", "all", &file_policy());
    for word in ["one;", "two;"] {
        world.operate("nantes", "log", "add", word).unwrap();
    }
    world.settle();
    world.crash("nantes");
    world.sites.get_mut("nantes").unwrap().disk.wipe();
    world.start("nantes");
    world.settle();
    for site in THREE {
        assert_eq!(world.text(site, "log").unwrap(), "one;two;", "{site}");
    }
}

#[test]
fn a_broken_disk_stops_the_node_and_nothing_is_acknowledged() {
    let mut world = World::new(26);
    world.sites(&["paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    world.sites.get_mut("paris").unwrap().disk.broken = true;
    let refused = world.patch("paris", "web", json!({"a": 2}));
    assert!(matches!(refused, Err(RequestError::Storage { .. })), "{refused:?}");
    assert!(world.sites["paris"].stopped.is_some());
    world.sites.get_mut("paris").unwrap().disk.broken = false;
    world.start("paris");
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":1}\n");
}

/// Paris has run operations alone and with rennes; then its disk is not what it was.
fn a_world_with_a_log(seed: u64) -> World {
    let mut world = World::new(seed);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.operate("paris", "log", "add", "one;").unwrap();
    world.settle();
    world
}

fn is_whole_again(world: &mut World) {
    world.operate("paris", "log", "add", "four;").unwrap();
    world.settle();
    for site in ["paris", "rennes"] {
        assert_eq!(world.text(site, "log").as_deref(), Some("one;two;three;four;"), "{site}");
        assert_eq!(world.text(site, "web").as_deref(), Some("{\"a\":2}\n"), "{site}");
    }
    assert_eq!(world.disagreement(), None);
    // Nor is anything of it gone that was stored since.
    world.restart("paris");
    world.settle();
    assert_eq!(world.text("paris", "log").as_deref(), Some("one;two;three;four;"));
    assert_eq!(world.disagreement(), None);
}

#[test]
fn what_was_applied_is_not_applied_again_although_the_note_of_it_is_lost() {
    let mut world = a_world_with_a_log(30);
    world.operate("paris", "log", "add", "two;").unwrap();
    world.operate("rennes", "log", "add", "three;").unwrap();
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.settle();
    world.crash("paris");
    world.sites.get_mut("paris").unwrap().disk.lose(b"d/log/w");
    world.start("paris");
    is_whole_again(&mut world);
}

/// The disk of paris goes back to what it was, in the records whose keys hold `part`; rennes has seen more.
fn goes_back(part: &[u8], seed: u64) {
    let mut world = a_world_with_a_log(seed);
    let old = world.sites["paris"].disk.clone();
    world.operate("paris", "log", "add", "two;").unwrap();
    world.settle();
    world.operate("rennes", "log", "add", "three;").unwrap();
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.settle();
    world.crash("paris");
    world.sites.get_mut("paris").unwrap().disk.roll_back(&old, part);
    world.start_doubtful("paris");
    world.settle();
    is_whole_again(&mut world);
}

#[test]
fn a_disk_that_went_back_runs_nothing_twice_and_overwrites_nothing() {
    for (seed, part) in [(31, &b""[..]), (32, b"i/"), (33, b"d/log/w"), (34, b"/r/"), (35, b"/w"), (36, b"m/")] {
        goes_back(part, seed);
    }
}

#[test]
fn what_the_index_has_lost_is_found_by_its_records() {
    let mut world = a_world_with_a_log(37);
    world.operate("paris", "log", "add", "two;").unwrap();
    world.settle();
    world.operate("rennes", "log", "add", "three;").unwrap();
    world.settle();
    world.isolate("paris");
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.crash("paris");
    world.sites.get_mut("paris").unwrap().disk.lose(b"i/");
    world.start_doubtful("paris");
    world.heal();
    world.settle();
    is_whole_again(&mut world);
}

#[test]
fn what_the_index_has_lost_is_found_also_if_the_process_ends_at_once() {
    for seed in 80..86 {
        let mut world = a_world_with_a_log(seed);
        world.isolate("paris");
        world.patch("paris", "web", json!({"a": 2})).unwrap();
        world.operate("paris", "log", "add", "two;").unwrap();
        world.crash("paris");
        world.sites.get_mut("paris").unwrap().disk.lose(b"i/");
        world.start_doubtful("paris");
        world.crash("paris");
        world.start("paris");
        // Of what was written apart, what is older by the clocks comes first.
        world.run_for(Duration::from_millis(100));
        world.heal();
        world.operate("rennes", "log", "add", "three;").unwrap();
        world.settle();
        is_whole_again(&mut world);
    }
}

#[test]
fn operations_do_not_run_again_on_what_a_lost_disk_had_built() {
    for seed in 60..66 {
        let mut world = World::new(seed);
        world.sites(&["paris", "rennes"]);
        world.put_with("paris", "log", "paris & rennes", &file_policy());
        world.operate("paris", "log", "add", "one;").unwrap();
        world.settle();
        world.crash("rennes");
        world.sites.get_mut("rennes").unwrap().disk.wipe();
        world.start("rennes");
        world.operate("paris", "log", "add", "two;").unwrap();
        world.settle();
        assert_eq!(world.text("rennes", "log").as_deref(), Some("one;two;"), "seed {seed}");
    }
}

#[test]
fn a_site_that_lost_its_disk_while_it_was_taken_out_removes_the_replica_it_left_behind() {
    // All of it is lost, or only the note of what was made of it.
    for (seed, wiped) in [(70, true), (71, false)] {
        let mut world = World::configured(seed, |config| config.topics = 0);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", "paris & rennes", json!({"a": 1}));
        world.put_with("paris", "log", "paris & rennes", &file_policy());
        world.operate("paris", "log", "add", "one;").unwrap();
        world.settle();
        world.isolate("rennes");
        for name in ["log", "web"] {
            rescope(&mut world, "paris", name, "paris").unwrap();
        }
        world.crash("rennes");
        let disk = &mut world.sites.get_mut("rennes").unwrap().disk;
        if wiped {
            disk.wipe();
        } else {
            disk.lose(b"d/log/w");
            disk.lose(b"d/web/w");
        }
        world.start("rennes");
        world.heal();
        // Rennes hears that paris has everything, so that it may go, before it has the documents.
        world.patch("paris", "web", json!({"a": 2})).unwrap();
        world.operate("paris", "log", "add", "two;").unwrap();
        world.settle();
        world.run_for(Duration::from_secs(5));
        for name in ["log", "web"] {
            assert_eq!(world.text("rennes", name), None, "{name} (seed {seed})");
            assert!(!world.stores("rennes", name), "{name} (seed {seed})");
        }
    }
}

#[test]
fn a_platform_that_cannot_be_looked_at_is_made_as_new_by_a_site_that_lost_its_disk() {
    let mut world = World::configured(73, |config| {
        config.kinds.values_mut().for_each(|capabilities| capabilities.observe = false);
    });
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    world.settle();
    // What rennes says of the operation reaches nobody before its disk is lost.
    world.cut_one_way("rennes", "paris");
    world.operate("paris", "log", "add", "one;").unwrap();
    let ran = |world: &mut World| world.text("rennes", "log").as_deref() == Some("one;");
    world.until("rennes runs it", Duration::from_secs(30), ran);
    world.crash("rennes");
    world.sites.get_mut("rennes").unwrap().disk.wipe();
    world.heal();
    world.start("rennes");
    world.settle();
    assert_eq!(world.text("rennes", "log").unwrap(), "one;");
}

#[test]
fn a_replica_from_before_a_lost_disk_goes_where_only_the_document_is_to_be() {
    for mine in [true, false] {
        let mut world = World::new(74);
        world.sites(&["lille", "paris", "rennes"]);
        world.put_with("rennes", "log", "paris & rennes", &file_policy());
        world.settle();
        world.cut_one_way("rennes", "paris");
        world.cut_one_way("rennes", "lille");
        if mine {
            world.operate("paris", "log", "add", "one;").unwrap();
            let ran = |world: &mut World| world.text("rennes", "log").as_deref() == Some("one;");
            world.until("rennes runs it", Duration::from_secs(30), ran);
        }
        world.crash("rennes");
        let here = world.sites.get_mut("rennes").unwrap();
        here.disk.wipe();
        if !mine {
            here.platform.tamper(&id("log"), "somebody's");
        }
        world.heal();
        rescope(&mut world, "paris", "log", "lille % rennes").unwrap();
        if !mine {
            world.operate("paris", "log", "add", "one;").unwrap();
        }
        world.start("rennes");
        let ran = |world: &mut World| world.text("lille", "log").as_deref() == Some("one;");
        world.until("lille runs it", Duration::from_secs(60), ran);
        world.run_for(Duration::from_secs(20));
        assert_eq!(world.text("lille", "log").as_deref(), Some("one;"));
        // What is not of the replicant is left alone.
        assert_eq!(world.text("rennes", "log").as_deref(), (!mine).then_some("somebody's"));
    }
}

#[test]
fn changes_that_a_recovered_disk_has_of_what_was_given_away_go() {
    let mut world = World::new(75);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    world.operate("paris", "log", "add", "one;").unwrap();
    world.settle();
    let old = world.sites["rennes"].disk.clone();
    rescope(&mut world, "paris", "log", "paris").unwrap();
    world.settle();
    world.run_for(Duration::from_secs(5));
    assert!(!world.stores("rennes", "log"));
    // All of it is back, and then only part.
    for part in [&b"d/log/"[..], b"/c/"] {
        world.crash("rennes");
        world.sites.get_mut("rennes").unwrap().disk.roll_back(&old, part);
        assert!(world.stores("rennes", "log"));
        world.start_doubtful("rennes");
        world.settle();
        world.run_for(Duration::from_secs(20));
        assert!(!world.stores("rennes", "log"), "{}", String::from_utf8_lossy(part));
        assert_eq!(world.text("paris", "log").as_deref(), Some("one;"));
    }
}

#[test]
fn what_was_run_before_a_lost_disk_and_deleted_since_does_not_stay_in_a_replica_that_is_to_be_empty() {
    for observe in [true, false] {
        let mut world = if observe {
            World::new(78)
        } else {
            World::configured(78, |config| {
                config.kinds.values_mut().for_each(|capabilities| capabilities.observe = false);
            })
        };
        world.sites(&["paris", "rennes"]);
        // Nobody hears anything of what rennes does.
        world.cut_one_way("rennes", "paris");
        world.put_with("paris", "log", "paris & rennes", &file_policy());
        world.operate("paris", "log", "add", "one;").unwrap();
        let ran = |world: &mut World| world.text("rennes", "log").as_deref() == Some("one;");
        world.until("rennes runs it", Duration::from_secs(30), ran);
        world.crash("rennes");
        world.sites.get_mut("rennes").unwrap().disk.wipe();
        world.request("paris", Request::Delete { id: id("log"), keep: false, base: None }).unwrap();
        world.put_with("paris", "log", "paris & rennes", &file_policy());
        world.heal();
        world.start("rennes");
        world.settle();
        let empty = |world: &mut World| world.text("rennes", "log").is_none_or(|text| text.is_empty());
        world.until("nothing is left of it", Duration::from_secs(30), empty);
        world.settle();
        world.operate("paris", "log", "add", "two;").unwrap();
        world.settle();
        assert_eq!(world.text("rennes", "log").as_deref(), Some("two;"), "{observe}");
    }
}

#[test]
fn a_site_that_lost_the_note_of_what_it_did_does_not_say_that_somebody_did_it() {
    // The note is lost, or as it was before the last change.
    for lost in [true, false] {
        let mut world = World::new(77);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", "all", json!({"a": 1}));
        world.settle();
        let old = world.sites["rennes"].disk.clone();
        world.patch("paris", "web", json!({"a": 2})).unwrap();
        world.settle();
        world.crash("rennes");
        let here = world.sites.get_mut("rennes").unwrap();
        here.events.clear();
        if lost {
            assert_eq!(here.disk.spoil(|key| key.ends_with(b"/w")), 1);
            world.start("rennes");
        } else {
            here.disk.roll_back(&old, b"/w");
            world.start_doubtful("rennes");
        }
        // It is read to be compared, which comes before it is mended.
        let by_hand = |said: &str| said.contains("by hand");
        let said = differences(&mut world, "rennes", "web");
        assert!(!said.iter().any(|said| by_hand(said)), "{lost}: {said:?}");
        let warned =
            |event: &khufu_engine::Event| matches!(&event.what, Happening::Warning { message, .. } if by_hand(message));
        assert!(!world.sites["rennes"].events.iter().any(warned), "{lost}");
        world.settle();
        // What somebody really does is still seen.
        assert_eq!(differences(&mut world, "rennes", "web"), Vec::<String>::new(), "{lost}");
        world.sites.get_mut("rennes").unwrap().platform.tamper(&id("web"), "by somebody");
        let said = differences(&mut world, "rennes", "web");
        assert!(said.iter().any(|said| by_hand(said)), "{lost}: {said:?}");
    }
}

/// What a comparison that is asked for at a site says of a replicant.
fn differences(world: &mut World, site: &str, name: &str) -> Vec<String> {
    match world.request(site, Request::Verify { id: Some(id(name)) }) {
        Ok(khufu_engine::Response::Verify(report)) => report.replicants[0].differences.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_somebody_has_put_where_nothing_is_to_be_is_left_alone() {
    for observe in [true, false] {
        let mut world = World::configured(
            80,
            if observe {
                |_| {}
            } else {
                |config| config.kinds.values_mut().for_each(|capabilities| capabilities.observe = false)
            },
        );
        world.sites(&["paris", "rennes"]);
        for site in ["paris", "rennes"] {
            world.sites.get_mut(site).unwrap().platform.tamper(&id("log"), "somebody's");
        }
        world.put_with("paris", "log", "paris", &file_policy());
        world.settle();
        // One site joins, and the document has more than its first change.
        rescope(&mut world, "paris", "log", "paris & rennes").unwrap();
        world.run_for(Duration::from_secs(30));
        for site in ["paris", "rennes"] {
            assert_eq!(world.text(site, "log").as_deref(), Some("somebody's"), "{site}, {observe}");
        }
    }
}
