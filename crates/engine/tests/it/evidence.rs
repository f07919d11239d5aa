//! Nothing is deleted, forgotten or waited for without saying why.

use std::time::Duration;

use khufu_crdt::{DocumentId, EpochRule, Policy, Status};
use khufu_engine::harness::World;
use khufu_engine::{Config, Happening, Input, Put, Request, Response};
use serde_json::json;

use crate::foreign::{Frame, Push, hand};
use crate::{file_policy, id, loses_what_was_before, rescope, view};

fn often(config: &mut Config) {
    config.epochs = EpochRule { changes: 5, age_ms: u64::MAX, aged_changes: usize::MAX };
}

fn closings(world: &World, site: &str) -> u64 {
    world.stored_document(site, &id("web")).unwrap().id().closings()
}

#[test]
fn who_has_cleaned_up_is_not_waited_for_again_after_a_pick() {
    for winner in [true, false] {
        let mut world = World::configured(90, often);
        world.sites(&["nantes", "paris", "rennes"]);
        world.put("paris", "web", "paris & rennes & nantes", json!({"a": 0}));
        world.settle();
        world.partition(&[&["paris", "nantes"], &["rennes"]]);
        world.run_for(Duration::from_secs(2));
        rescope(&mut world, "paris", "web", "paris & rennes").unwrap();
        world.until("nantes forgets it", Duration::from_secs(30), |world| !world.stores("nantes", "web"));
        rescope(&mut world, "rennes", "web", "rennes").unwrap();
        world.heal();
        world.settle();
        world.crash("nantes");
        let Ok(Response::Conflicts(conflicts)) = world.request("rennes", Request::Conflicts { id: id("web") }) else {
            panic!("no answer")
        };
        let conflict = conflicts.iter().find(|conflict| conflict.pointer() == "/placement").unwrap();
        let change = conflict.values.iter().find(|value| value.winner == winner).unwrap().change;
        world.request("rennes", Request::Pick { id: id("web"), path: conflict.pointer(), change }).unwrap();
        world.run_for(Duration::from_secs(5));
        let before = closings(&world, "rennes");
        for number in 0..20 {
            world.patch("rennes", "web", json!({ "a": number })).unwrap();
            world.run_for(Duration::from_secs(1));
        }
        world.run_for(Duration::from_secs(60));
        assert!(closings(&world, "rennes") > before, "winner {winner}: {}", world.describe("web"));
    }
}

#[test]
fn a_platform_that_cannot_be_looked_at_is_said_to_be_so() {
    // A site that is to have only the document, and one that is to run an operation first of all.
    for scope in ["paris % rennes, prime: paris", "paris & rennes"] {
        let mut world = World::new(91);
        world.sites(&["paris", "rennes"]);
        world.weather.driver_failure = 100;
        world.put_with("paris", "log", scope, &file_policy());
        world.operate("paris", "log", "add", "one;").unwrap();
        world.run_for(Duration::from_secs(180));
        let sites = view(&mut world, "paris", "log").sites;
        for (site, status) in &sites {
            let report = status.report.as_ref().unwrap();
            assert_eq!(report.status, Status::NeedsAttention, "{scope}: {site}");
        }
        world.weather.driver_failure = 0;
        world.settle();
        assert_eq!(view(&mut world, "paris", "log").status, Status::Applied, "{scope}");
        assert_eq!(world.text("paris", "log").as_deref(), Some("one;"));
    }
}

#[test]
fn what_waits_for_a_lost_snapshot_of_a_closed_epoch_is_named() {
    for doubtful in [true, false] {
        what_waits_is_named(doubtful);
    }
}

fn what_waits_is_named(doubtful: bool) {
    let mut found = 0;
    for ms in 2..130 {
        let mut world = World::silent(79, often);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", "paris & rennes", json!({"a": 0}));
        for number in 1..4 {
            world.patch("paris", "web", json!({ "a": number })).unwrap();
        }
        world.settle();
        world.patch("paris", "web", json!({"a": 77})).unwrap();
        world.patch("paris", "web", json!({"a": 78})).unwrap();
        world.run_for(Duration::from_millis(ms));
        if closings(&world, "paris") > 0 {
            continue;
        }
        // The other site alone closes the epoch, and this one goes on in it.
        world.cut("paris", "rennes");
        world.compact("paris", &id("web"));
        world.patch("paris", "web", json!({"b": 1})).unwrap();
        world.run_for(Duration::from_secs(1));
        if (closings(&world, "paris"), closings(&world, "rennes")) != (0, 1) {
            continue;
        }
        found += 1;
        world.crash("paris");
        let disk = &mut world.sites.get_mut("paris").unwrap().disk;
        assert_eq!(disk.spoil(|key| key.starts_with(b"d/web/") && key.ends_with(b"/s")), 1);
        if doubtful {
            world.start_doubtful("paris");
        } else {
            world.start("paris");
        }
        world.run_for(Duration::from_secs(10));
        world.heal();
        world.settle();
        assert_eq!(world.text("paris", "web"), world.text("rennes", "web"));
        let here = &world.sites["paris"];
        let named = here.events.iter().any(|event| match &event.what {
            Happening::Warning { message, .. } => message.contains("are lost with what they were made from"),
            _ => false,
        });
        assert!(named, "after {ms} ms");
        let first_epoch = [b"d/web/".as_slice(), &[0; 8]].concat();
        assert_eq!(here.disk.scan(&first_epoch).len(), 0, "after {ms} ms: what nobody can use is left over");
        break;
    }
    assert!(found > 0, "no moment at which one site alone closes the epoch");
}

#[test]
fn an_old_index_does_not_delete_what_was_accepted_since() {
    let mut world = World::new(92);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 0}));
    world.settle();
    rescope(&mut world, "paris", "web", "paris").unwrap();
    world.settle();
    world.until("rennes forgets it", Duration::from_secs(30), |world| !world.stores("rennes", "web"));
    let old = world.sites["rennes"].disk.clone();
    rescope(&mut world, "paris", "web", "paris & rennes").unwrap();
    world.settle();
    loses_what_was_before(&mut world, 0);
    world.sites.get_mut("rennes").unwrap().disk.roll_back(&old, b"i/web");
    world.start_doubtful("rennes");
    world.run_for(Duration::from_secs(20));
    world.heal();
    world.settle();
    for site in ["paris", "rennes"] {
        assert_eq!(world.text(site, "web").as_deref(), Some("{\"a\":0,\"b\":1}\n"), "{site}");
    }
}

#[test]
fn what_deleted_operations_left_goes_where_only_the_document_is_to_be() {
    let mut world = World::new(93);
    world.sites(&["lille", "paris", "rennes"]);
    world.put_with("rennes", "log", "paris & rennes", &file_policy());
    world.settle();
    world.cut_one_way("rennes", "paris");
    world.cut_one_way("rennes", "lille");
    world.operate("paris", "log", "add", "one;").unwrap();
    let ran = |world: &mut World| world.text("rennes", "log").as_deref() == Some("one;");
    world.until("rennes runs it", Duration::from_secs(30), ran);
    world.crash("rennes");
    world.sites.get_mut("rennes").unwrap().disk.wipe();
    world.heal();
    world.request("paris", Request::Delete { id: id("log"), keep: false, base: None }).unwrap();
    world.run_for(Duration::from_secs(2));
    world.put_with("paris", "log", "lille % rennes, prime: lille", &file_policy());
    world.start("rennes");
    world.settle();
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.text("rennes", "log"), None);
}

/// That there is a later epoch is easily said, and no reason to give up what was accepted here.
#[test]
fn a_claim_of_a_later_epoch_deletes_nothing() {
    let mut world = World::new(94);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 0}));
    world.settle();
    loses_what_was_before(&mut world, 0);
    world.start_doubtful("rennes");
    world.run_for(Duration::from_secs(1));
    world.heal();
    let document = DocumentId { replicant: id("web"), epoch: 5_000_500 };
    for _ in 0..50 {
        let push = Push { document: document.clone(), changes: vec![], heads: vec![], reports: vec![] };
        hand(&mut world, "rennes", "paris", &Frame::Push(push));
        world.run_for(Duration::from_millis(2));
    }
    world.run_for(Duration::from_secs(5));
    // What was claimed is forgotten with the process.
    world.crash("rennes");
    world.start("rennes");
    world.settle();
    for site in ["paris", "rennes"] {
        assert_eq!(world.text(site, "web").as_deref(), Some("{\"a\":0,\"b\":1}\n"), "{site}");
    }
}

#[test]
fn a_change_by_hand_that_is_told_of_during_a_call_is_looked_at_afterwards() {
    let mut world = World::new(140);
    world.sites(&["paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    world.weather.driver_us = 1_000_000;
    let calls = |world: &World| world.sites["paris"].engine().unwrap().metrics().driver_calls;
    let before = calls(&world);
    for _ in 0..5 {
        world.hand("paris", Input::Drifted { replicant: id("web") });
        world.run_for(Duration::from_millis(10));
    }
    world.run_for(Duration::from_secs(10));
    // One at once, and one for all that was told of meanwhile.
    assert_eq!(calls(&world) - before, 2);
}

#[test]
fn what_the_policy_says_to_the_driver_is_applied_without_another_desired_state() {
    let mut world = World::new(141);
    world.sites(&["paris"]);
    let mut policy = Policy::default();
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    let calls = |world: &World| world.sites["paris"].engine().unwrap().metrics().driver_calls;
    let before = calls(&world);
    policy.options.insert("force".into(), json!(true));
    let (kind, scope, desired, overrides, base) = (None, None, None, None, None);
    let put = Put { id: id("web"), kind, scope, policy: Some(policy), desired, overrides, base };
    world.request("paris", Request::Put(put)).unwrap();
    world.settle();
    assert!(calls(&world) > before);
}
