use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::harness::{CallFault, World};
use khufu_engine::{Happening, Request, RequestError};
use proptest::prelude::*;
use serde_json::json;

use crate::{file_policy, rescope};

const THREE: [&str; 3] = ["nantes", "paris", "rennes"];

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

#[test]
fn what_gossip_loses_reconciliation_finds() {
    let mut world = World::new(20);
    world.weather.gossip_loss = 100;
    world.sites(&THREE);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.settle();
    assert_eq!(world.text("nantes", "web").unwrap(), "{\"a\":2}\n");
}

#[test]
fn a_third_site_relays_between_two_that_cannot_see_each_other() {
    let mut world = World::new(21);
    world.sites(&THREE);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.cut("paris", "nantes");
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.until("nantes has it", Duration::from_secs(30), |world| {
        world.text("nantes", "web").as_deref() == Some("{\"a\":2}\n")
    });
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.sites(&["paris", "rennes"]);
        world.run_for(Duration::from_secs(1));
        world.put_with("paris", "log", "paris & rennes", &file_policy());
        world.isolate("paris");
        let mut acknowledged = Vec::new();
        for number in 0..5 {
            let word = format!("w{number};");
            if world.operate("paris", "log", "add", &word).is_ok() {
                acknowledged.push(word);
            }
        }
        world.crash("paris");
        world.start("paris");
        world.heal();
        world.settle();
        let text = world.text("rennes", "log").unwrap();
        for word in &acknowledged {
            assert_eq!(text.matches(word.as_str()).count(), 1, "{word} in {text} (seed {seed})");
        }
        assert_eq!(world.text("paris", "log").unwrap(), text);
    }
}

#[test]
fn a_desired_state_that_is_not_wanted_any_more_goes_also_where_nobody_knows_whether_it_was_written() {
    for crash in [false, true] {
        let mut world = World::new(23);
        world.sites(&["paris"]);
        world.sites.get_mut("paris").unwrap().next_call = Some(CallFault::HangsAfter);
        world.put("paris", "web", "paris", json!({"a": 1}));
        world.until("it is written", Duration::from_secs(5), |world| world.text("paris", "web").is_some());
        world.patch("paris", "web", json!({"a": null})).unwrap();
        if crash {
            world.restart("paris");
        }
        world.settle();
        assert_eq!(world.text("paris", "web"), None, "after a crash: {crash}");
    }
}

#[test]
fn an_operation_whose_answer_was_lost_in_a_crash_is_looked_up_and_not_run_twice() {
    let mut world = World::new(22);
    world.sites(&["paris"]);
    world.put_with("paris", "log", "paris", &file_policy());
    world.operate("paris", "log", "add", "first,").unwrap();
    world.settle();
    world.sites.get_mut("paris").unwrap().hang_next_call = true;
    world.operate("paris", "log", "add", "once").unwrap();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.text("paris", "log").unwrap(), "first,once");
    world.restart("paris");
    world.settle();
    assert_eq!(world.text("paris", "log").unwrap(), "first,once");
    assert_eq!(world.sites["paris"].platform.replica(&id("log")).unwrap().ran.len(), 2);
}

#[test]
fn a_site_that_is_silent_never_causes_a_deletion() {
    let mut world = World::new(23);
    world.sites(&THREE);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.isolate("nantes");
    world.run_for(Duration::from_secs(600));
    for site in THREE {
        assert!(world.text(site, "web").is_some(), "{site}");
    }
    world.heal();
    world.settle();
    for site in THREE {
        assert!(world.text(site, "web").is_some(), "{site}");
    }
}

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

#[test]
fn documents_that_nobody_uses_leave_memory_and_come_back() {
    let mut world = World::configured(27, |config| config.resident = 5);
    world.sites(&["paris", "rennes"]);
    world.run_for(Duration::from_secs(1));
    for number in 0..40 {
        world.put("paris", &format!("r{number}"), "all", json!({"n": number}));
    }
    world.settle();
    world.run_for(Duration::from_secs(10));
    let resident = world.sites["paris"].engine().unwrap().metrics().resident;
    assert!(resident <= 5, "{resident} documents in memory");
    world.patch("rennes", "r7", json!({"n": "seven"})).unwrap();
    world.settle();
    assert_eq!(world.text("paris", "r7").unwrap(), "{\"n\":\"seven\"}\n");
}

#[test]
fn a_driver_that_fails_is_tried_again() {
    let mut world = World::new(28);
    world.weather.driver_failure = 60;
    world.sites(&["paris", "rennes"]);
    world.run_for(Duration::from_secs(1));
    let mut policy = file_policy();
    policy.retry.attempts = 1000;
    world.put_with("paris", "log", "all", &policy);
    for word in ["a", "b", "c"] {
        world.operate("paris", "log", "add", word).unwrap();
    }
    world.settle();
    assert_eq!(world.text("paris", "log").unwrap(), "abc");
    assert_eq!(world.text("rennes", "log").unwrap(), "abc");
}

#[derive(Debug, Clone)]
enum Act {
    Patch { site: usize, field: u8, value: u8 },
    Add { site: usize },
    Set { site: usize },
    Partition { site: usize },
    Heal,
    Restart { site: usize },
    Wait { ms: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3usize, 0..4u8, any::<u8>()).prop_map(|(site, field, value)| Act::Patch { site, field, value }),
        4 => (0..3usize).prop_map(|site| Act::Add { site }),
        2 => (0..3usize).prop_map(|site| Act::Set { site }),
        2 => (0..3usize).prop_map(|site| Act::Partition { site }),
        1 => Just(Act::Heal),
        1 => (0..3usize).prop_map(|site| Act::Restart { site }),
        2 => (1..5_000u64).prop_map(|ms| Act::Wait { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Users write anywhere while the network and the machines fail; once that is over, all sites hold the same, and
    /// every acknowledged word that no other operation replaced is there once.
    #[test]
    fn sites_converge_after_any_faults(seed in any::<u64>(), acts in proptest::collection::vec(act(), 1..30)) {
        let mut world = World::new(seed);
        world.weather.gossip_loss = 10;
        world.weather.gossip_twice = 10;
        world.weather.frame_loss = 2;
        world.weather.driver_failure = 10;
        world.sites(&THREE);
        world.put("paris", "web", "all", json!({"f0": 0}));
        let mut policy = file_policy();
        policy.retry.attempts = 1_000;
        world.put_with("paris", "log", "paris & rennes & nantes", &policy);
        let mut words = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Patch { site, field, value } => {
                    let _ = world.patch(THREE[site], "web", json!({ format!("f{field}"): value }));
                }
                Act::Add { site } => {
                    let word = format!("<{number}>");
                    if world.operate(THREE[site], "log", "add", &word).is_ok() {
                        words.push((word, false));
                    }
                }
                Act::Set { site } => {
                    let word = format!("[{number}]");
                    if world.operate(THREE[site], "log", "set", &word).is_ok() {
                        words.push((word, true));
                    }
                }
                Act::Partition { site } => world.isolate(THREE[site]),
                Act::Heal => world.heal(),
                Act::Restart { site } => world.restart(THREE[site]),
                Act::Wait { ms } => world.run_for(Duration::from_millis(ms)),
            }
        }
        world.heal();
        world.weather.driver_failure = 0;
        world.weather.frame_loss = 0;
        world.settle();
        for name in ["web", "log"] {
            let texts: Vec<_> = THREE.iter().map(|site| world.text(site, name)).collect();
            prop_assert!(texts.iter().all(|text| *text == texts[0]), "{name}: {texts:?} (seed {seed})");
        }
        let Ok(khufu_engine::Response::Replicant(view)) = world.request("paris", Request::Get { id: id("log") }) else {
            return Err(TestCaseError::fail("no answer"));
        };
        let text = world.text("paris", "log").unwrap_or_default();
        for (word, _) in &words {
            prop_assert!(text.matches(word.as_str()).count() <= 1, "{word} twice in {text} (seed {seed})");
        }
        // What was acknowledged is in the document for ever.
        prop_assert!(view.operations.len() >= words.len(), "{} < {} (seed {seed})", view.operations.len(), words.len());
        // What the list says is what the contents are.
        let mut expected = String::new();
        for op in &view.resolved {
            let operation = &view.operations.iter().find(|view| view.operation.id == *op).unwrap().operation;
            let khufu_crdt::Payload::Value(value) = &operation.payload else { unreachable!() };
            if operation.op_type == "set" { expected = value.as_str().unwrap().into() } else { expected += value.as_str().unwrap() }
        }
        prop_assert_eq!(text, expected);
    }
}

#[test]
fn an_operation_whose_driver_gave_no_answer_is_looked_up_before_it_is_tried_again() {
    let mut world = World::new(29);
    world.sites(&["paris"]);
    world.put_with("paris", "log", "paris", &file_policy());
    world.weather.driver_silence = 100;
    world.operate("paris", "log", "add", "once").unwrap();
    world.run_for(Duration::from_secs(2));
    world.weather.driver_silence = 0;
    world.settle();
    assert_eq!(world.text("paris", "log").unwrap(), "once");
    assert_eq!(world.sites["paris"].platform.replica(&id("log")).unwrap().ran.len(), 1);
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
fn so_it_is_also_where_they_have_given_it_away_again() {
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

const THREE_HEIRS: [&str; 3] = ["lille", "nantes", "paris"];

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
fn a_removal_without_an_answer_is_not_forgotten_when_the_site_is_wanted_again() {
    let mut world = World::new(61);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    world.operate("paris", "log", "add", "one;").unwrap();
    world.settle();
    world.weather.driver_silence = 100;
    rescope(&mut world, "paris", "log", "paris").unwrap();
    world.until("the replica is gone", Duration::from_secs(10), |world| world.text("rennes", "log").is_none());
    rescope(&mut world, "paris", "log", "paris & rennes").unwrap();
    world.weather.driver_silence = 0;
    world.settle();
    world.operate("rennes", "log", "add", "two;").unwrap();
    world.settle();
    assert_eq!(world.text("rennes", "log").as_deref(), Some("one;two;"));
}

#[test]
fn a_write_without_an_answer_does_not_count_when_it_is_taken_back() {
    let mut world = World::new(62);
    world.sites(&["paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    world.weather.driver_silence = 100;
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.until("it is written", Duration::from_secs(5), |world| {
        world.text("paris", "web").as_deref() == Some("{\"a\":2}\n")
    });
    world.patch("paris", "web", json!({"a": 1})).unwrap();
    world.weather.driver_silence = 0;
    world.settle();
    assert_eq!(world.text("paris", "web").as_deref(), Some("{\"a\":1}\n"));
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
fn what_two_halves_moved_to_different_sites_comes_together() {
    let mut world = World::new(73);
    world.sites(&["lyon", "nantes", "paris", "rennes"]);
    world.put_with("lyon", "log", "lyon & nantes", &file_policy());
    world.settle();
    world.partition(&[&["nantes", "paris"], &["lyon", "rennes"]]);
    world.operate("nantes", "log", "add", "one;").unwrap();
    world.operate("lyon", "log", "add", "two;").unwrap();
    rescope(&mut world, "nantes", "log", "paris").unwrap();
    rescope(&mut world, "lyon", "log", "rennes").unwrap();
    world.until("both have given it away", Duration::from_secs(30), |world| {
        !world.stores("nantes", "log") && !world.stores("lyon", "log")
    });
    world.heal();
    world.settle();
    world.run_for(Duration::from_secs(10));
    world.settle();
    let texts: Vec<_> = ["paris", "rennes"].iter().filter_map(|site| world.text(site, "log")).collect();
    assert!(matches!(texts.as_slice(), [text] if text.contains("one;") && text.contains("two;")), "{texts:?}");
    for site in ["lyon", "nantes"] {
        assert!(!world.stores(site, "log"), "{site}");
    }
}
