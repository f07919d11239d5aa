use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::Request;
use khufu_engine::harness::{CallFault, World};
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

#[test]
fn what_may_have_been_done_is_not_taken_for_undone_because_the_next_attempt_failed() {
    for observe in [true, false] {
        for attempts in [2, 1000] {
            let mut world = match observe {
                true => World::new(30),
                false => World::configured(30, |config| {
                    config.kinds.values_mut().for_each(|capabilities| capabilities.observe = false);
                }),
            };
            world.sites(&["paris"]);
            world.put("paris", "log", "paris", json!({"a": 0}));
            let mut policy = file_policy();
            policy.retry.attempts = attempts;
            policy.resolutions = vec![
                serde_json::from_value(json!(
                    {"before": "set", "after": "add", "result": "take-one"}
                ))
                .unwrap(),
            ];
            world.put_with("paris", "log", "paris", &policy);
            world.settle();
            assert_eq!(world.text("paris", "log").unwrap(), "{\"a\":0}\n");
            world.sites.get_mut("paris").unwrap().next_call = Some(CallFault::HangsAfter);
            world.operate("paris", "log", "set", "lost").unwrap();
            let hangs = |world: &mut World| world.text("paris", "log").is_some_and(|text| text == "lost");
            world.until("it is done", Duration::from_secs(5), hangs);
            world.weather.driver_failure = 100;
            world.operate("paris", "log", "add", "won").unwrap();
            world.run_for(Duration::from_secs(30));
            world.weather.driver_failure = 0;
            world.settle();
            let text = world.text("paris", "log").unwrap();
            assert_eq!(text, "{\"a\":0}\nwon", "looked at: {observe}, attempts: {attempts}");
        }
    }
}

#[test]
fn a_reset_without_an_answer_is_not_taken_for_undone_because_the_next_attempt_failed() {
    for crash in [false, true] {
        let mut world = World::new(31);
        world.sites(&THREE);
        let mut policy = file_policy();
        policy.retry.attempts = 1000;
        let one = json!({"before": "add", "after": "append", "result": "take-one"});
        policy.resolutions = vec![serde_json::from_value(one).unwrap()];
        world.put_with("paris", "log", "paris & rennes & nantes", &policy);
        world.settle();
        let apart: [&[&str]; 3] = [&["paris"], &["rennes"], &["nantes"]];
        world.partition(&apart);
        for (site, op_type, word) in [("paris", "add", "5"), ("rennes", "inc", "1")] {
            world.operate(site, "log", op_type, word).unwrap();
            world.run_for(Duration::from_secs(2));
        }
        // What nantes asks for replaces what paris did; rennes does not hear of it yet.
        world.mend("paris", "nantes");
        let heard = |world: &mut World| world.text("nantes", "log").is_some_and(|text| text == "5");
        world.until("nantes has it", Duration::from_secs(60), heard);
        world.partition(&apart);
        world.operate("nantes", "log", "append", "x").unwrap();
        // For what paris did rennes has to start over, and nobody hears that it did.
        let fault = if crash { CallFault::DiesAfter } else { CallFault::HangsAfter };
        world.sites.get_mut("rennes").unwrap().next_call = Some(fault);
        world.mend("paris", "rennes");
        let wiped = |world: &mut World| world.text("rennes", "log").is_none();
        world.until("it is as new", Duration::from_secs(60), wiped);
        world.weather.driver_failure = 100;
        if crash {
            world.start("rennes");
        }
        world.run_for(Duration::from_secs(30));
        // Now what rennes ran first is the begin of what is wanted once more.
        world.heal();
        world.run_for(Duration::from_secs(30));
        world.weather.driver_failure = 0;
        world.settle();
        for site in THREE {
            assert_eq!(world.text(site, "log").unwrap(), "1x", "{site}, after a crash: {crash}");
        }
    }
}

#[test]
fn a_platform_that_never_answers_is_said_to_need_attention_and_is_not_made_anew_without_end() {
    let mut world = World::configured(32, |config| {
        config.kinds.values_mut().for_each(|capabilities| capabilities.observe = false);
    });
    world.sites(&["paris"]);
    let mut policy = file_policy();
    policy.retry.attempts = 2;
    world.put_with("paris", "log", "paris", &policy);
    world.settle();
    world.operate("paris", "log", "set", "x").unwrap();
    let resets = |world: &World| world.sites["paris"].engine().unwrap().metrics().rebuilds;
    let before = resets(&world);
    for _ in 0..12 {
        // The first attempt at the operation gives no answer, and the second fails.
        let (hangs, failures) = (world.tally.driver_hangs, world.tally.driver_failures);
        world.sites.get_mut("paris").unwrap().next_call = Some(CallFault::HangsBefore);
        let hung = |world: &mut World| world.tally.driver_hangs > hangs;
        world.until("it hangs", Duration::from_secs(60), hung);
        world.weather.driver_failure = 100;
        world.until("it fails", Duration::from_secs(60), |world| world.tally.driver_failures > failures);
        world.weather.driver_failure = 0;
        // Should the replica be started over, that goes well.
        let rebuilds = resets(&world);
        for _ in 0..100 {
            world.run_for(Duration::from_millis(1));
            if resets(&world) > rebuilds {
                world.run_for(Duration::from_millis(2));
                break;
            }
        }
    }
    world.sites.get_mut("paris").unwrap().next_call = None;
    assert!(resets(&world) - before <= 4, "{} rebuilds", resets(&world) - before);
    world.settle();
    assert_eq!(world.text("paris", "log").unwrap(), "x");
}
