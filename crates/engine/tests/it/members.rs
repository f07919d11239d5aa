//! What members of the network can make others do, and cannot.

use std::time::Duration;

use khufu_crdt::{DocumentId, ReplicantId, Report, SiteName};
use khufu_engine::harness::{World, deployed};
use khufu_engine::{Liveness, Put, Request, Response};
use serde_json::json;

use crate::foreign::{Ask, Frame, Push, Said, hand};

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

/// Has a site hear what another says that a third has done.
fn says(world: &mut World, to: &str, from: &str, report: serde_json::Value) {
    let report: Report = serde_json::from_value(report).unwrap();
    let document = DocumentId { replicant: report.replicant.clone(), epoch: 0 };
    let push = Push { document, changes: vec![], heads: vec![], reports: vec![Said::Whole(report)] };
    hand(world, to, from, &Frame::Push(push));
}

#[test]
fn a_site_that_is_no_holder_cannot_have_the_last_copy_given_away() {
    let mut world = World::new(320);
    world.sites(&["lyon", "paris", "rennes"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    world.cut("paris", "rennes");
    world.cut("lyon", "rennes");
    world.run_for(Duration::from_secs(5));
    let put = Put {
        id: id("web"),
        kind: None,
        scope: Some("rennes".into()),
        policy: None,
        desired: None,
        overrides: None,
        base: None,
    };
    world.request("paris", Request::Put(put)).unwrap();
    world.run_for(Duration::from_secs(5));
    let Ok(Response::Replicant(seen)) = world.request("paris", Request::Get { id: id("web") }) else { panic!() };
    let heads: Vec<_> = seen.heads.iter().map(ToString::to_string).collect();
    let seq = 1_800_000_000_000_u64 << 10;
    let report =
        json!({"replicant": "web", "epoch": 0, "site": "rennes", "seq": seq, "status": "applied", "heads": heads});
    says(&mut world, "paris", "lyon", report);
    world.run_for(Duration::from_secs(10));
    assert!(world.stores("paris", "web") && world.text("paris", "web").is_some());
    world.heal();
    world.settle();
    assert!(world.text("rennes", "web").is_some());
}

#[test]
fn no_number_that_others_make_up_silences_a_site() {
    // The highest that was once believed, and one that still is, from one who may say so.
    let century = 100 * 365 * 24 * 3600 * 1000;
    for seq in [1 << 60, (1_790_000_000_000_u64 + century) << 10, u64::MAX] {
        let mut world = World::new(321);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", "paris & rennes", json!({"a": 1}));
        world.settle();
        for to in ["paris", "rennes"] {
            let report = json!({"replicant": "web", "epoch": 0, "site": "paris", "seq": seq, "status": "pending"});
            let from = if to == "paris" { "rennes" } else { "paris" };
            says(&mut world, to, from, report);
        }
        world.run_for(Duration::from_secs(2));
        world.patch("paris", "web", json!({"a": 2})).unwrap();
        world.settle();
        world.restart("paris");
        world.patch("paris", "web", json!({"a": 3})).unwrap();
        world.settle();
    }
}

#[test]
fn what_another_node_wants_looked_at_leaves_places_for_all_who_ask_here() {
    let mut world = World::new(322);
    world.sites(&["paris", "rennes"]);
    let names: Vec<_> = (0..60).map(|number| format!("r{number}")).collect();
    for name in &names {
        world.put("paris", name, "paris & rennes", json!({"a": 1}));
    }
    world.settle();
    for nonce in 0..1100 {
        let ids = (0..60).map(|number| id(&names[(number + nonce * 16) % 60])).collect();
        let ask = Ask::Holdings(ids);
        let frame = Frame::Ask { nonce: nonce as u64, who: String::new(), here: "rennes".into(), ask };
        hand(&mut world, "paris", "rennes", &frame);
    }
    let waiting = |world: &World| world.sites["paris"].engine().unwrap().metrics().waiting;
    assert!((1..=16).contains(&waiting(&world)), "{} wait", waiting(&world));
    assert!(world.request("paris", Request::Get { id: id("r1") }).is_ok());
    // Nobody waits for what a node asked that is gone.
    world.isolate("paris");
    world.run_for(Duration::from_millis(1));
    assert_eq!(waiting(&world), 0);
}

#[test]
fn what_a_driver_does_not_answer_keeps_no_place_for_ever() {
    let mut world = World::new(323);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &crate::file_policy());
    world.settle();
    world.sites.get_mut("paris").unwrap().hang_next_call = true;
    world.operate("paris", "log", "add", "x").unwrap();
    world.run_for(Duration::from_secs(1));
    let ask = Ask::Holdings(vec![id("log")]);
    hand(&mut world, "paris", "rennes", &Frame::Ask { nonce: 1, who: String::new(), here: "rennes".into(), ask });
    let waiting = |world: &World| world.sites["paris"].engine().unwrap().metrics().waiting;
    assert_eq!(waiting(&world), 1);
    world.until("time is up", Duration::from_secs(10), |world| waiting(world) == 0);
}

#[test]
fn a_site_that_falls_silent_is_noticed_in_ten_seconds_and_a_lost_heartbeat_is_not_taken_for_that() {
    let mut world = World::configured(324, deployed);
    world.sites(&["paris", "rennes"]);
    world.run_for(Duration::from_secs(60));
    let paris: SiteName = "paris".parse().unwrap();
    world.weather.frame_loss = 5;
    for _ in 0..1200 {
        world.run_for(Duration::from_secs(1));
        assert_ne!(world.liveness("rennes", &paris), Liveness::Down, "at {:?}", world.now());
    }
    assert!(world.tally.frames_lost > 10);
    world.weather.frame_loss = 0;
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.liveness("rennes", &paris), Liveness::Alive);
    // The connection is still there, and nothing comes from paris any more.
    world.cut_one_way("paris", "rennes");
    world.until("it is noticed", Duration::from_secs(11), |world| world.liveness("rennes", &paris) == Liveness::Down);
}
