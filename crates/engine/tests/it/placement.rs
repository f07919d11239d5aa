//! Where things live while sites come and go.

use std::time::Duration;

use khufu_crdt::{ReplicantId, Status};
use khufu_engine::harness::World;
use khufu_engine::{Operate, Request, Response};
use serde_json::json;

use crate::foreign::{Frame, hand, record};
use crate::{file_policy, rescope, view};

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

/// The sites that have a replica of `web`.
fn replicas(world: &World) -> Vec<&str> {
    let sites = ["lyon", "nantes", "paris", "rennes"];
    sites.into_iter().filter(|site| world.text(site, "web").is_some()).collect()
}

#[test]
fn what_spans_sites_is_one_resource_that_the_prime_holds() {
    for (scope, prime) in [("paris % rennes, prime: rennes", "rennes"), ("rennes % paris", "rennes")] {
        let mut world = World::new(303);
        world.sites(&["nantes", "paris", "rennes"]);
        world.put("paris", "web", scope, json!({"a": 1}));
        world.settle();
        assert_eq!(replicas(&world), [prime], "{scope}");
        // All hold the document, so any of them can be asked and written to.
        world.isolate("rennes");
        world.patch("paris", "web", json!({"a": 2})).unwrap();
        world.heal();
        world.settle();
        assert_eq!(world.text(prime, "web").as_deref(), Some("{\"a\":2}\n"));
        assert!(world.stores("paris", "web") && !world.stores("nantes", "web"));
        world.until("paris has heard that it is done", Duration::from_secs(10), |world| {
            view(world, "paris", "web").status == Status::Applied
        });
        let Ok(Response::Verify(report)) = world.request("paris", Request::Verify { id: None }) else { panic!() };
        assert!(report.same, "{report:?}");
    }
}

#[test]
fn an_operation_on_what_spans_sites_waits_for_the_prime_only() {
    let mut world = World::new(304);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris % rennes, prime: rennes", &file_policy());
    world.settle();
    let ask = Request::Operate(Operate {
        id: ReplicantId::new("log").unwrap(),
        operation: None,
        op_type: "add".into(),
        payload: json!("once"),
        wait_ms: 30_000,
    });
    let Ok(Response::Operation(answer)) = world.request("paris", ask) else { panic!("no answer") };
    let sites: Vec<_> = answer.sites.iter().map(|(site, report)| (site.as_str(), report.status)).collect();
    assert_eq!((sites, answer.complete), (vec![("rennes", Status::Applied)], true));
    assert_eq!((world.text("paris", "log"), world.text("rennes", "log").as_deref()), (None, Some("once")));
}

#[test]
fn another_prime_takes_the_resource_over_before_the_last_gives_it_up() {
    let mut world = World::new(305);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put("paris", "web", "paris % rennes, prime: paris", json!({"a": 1}));
    world.settle();
    assert_eq!(replicas(&world), ["paris"]);
    world.isolate("rennes");
    rescope(&mut world, "paris", "web", "paris % rennes, prime: rennes").unwrap();
    world.run_for(Duration::from_secs(10));
    assert_eq!(replicas(&world), ["paris"], "rennes knows nothing of it yet");
    world.heal();
    world.settle();
    assert_eq!(replicas(&world), ["rennes"]);
    // From one resource to one replica each, and back.
    rescope(&mut world, "rennes", "web", "paris & nantes").unwrap();
    world.settle();
    assert_eq!(replicas(&world), ["nantes", "paris"]);
    rescope(&mut world, "paris", "web", "nantes % paris").unwrap();
    world.settle();
    assert_eq!(replicas(&world), ["nantes"]);
}

#[test]
fn what_spans_sites_fails_over_as_a_whole_and_comes_back() {
    let mut world = World::new(306);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put("paris", "web", "paris % rennes | nantes", json!({"a": 1}));
    world.settle();
    world.run_for(Duration::from_secs(5));
    assert_eq!(replicas(&world), ["paris"]);
    world.isolate("paris");
    // The silent site keeps what it has; rennes still has none.
    world.until("nantes takes over", Duration::from_secs(60), |world| replicas(world) == ["nantes", "paris"]);
    world.run_for(Duration::from_secs(20));
    assert_eq!(replicas(&world), ["nantes", "paris"]);
    world.heal();
    world.until("paris has it again, alone", Duration::from_secs(60), |world| {
        world.disagreement().is_none() && replicas(world) == ["paris"]
    });
    world.run_for(Duration::from_secs(20));
    assert_eq!(replicas(&world), ["paris"]);
}

#[test]
fn where_it_lives_is_what_its_document_says_also_if_the_index_went_back() {
    let mut world = World::new(307);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    let old = world.sites["paris"].disk.clone();
    rescope(&mut world, "paris", "web", "paris & rennes & nantes").unwrap();
    world.settle();
    world.crash("paris");
    world.sites.get_mut("paris").unwrap().disk.roll_back(&old, b"i/web");
    world.start("paris");
    // Whoever asks has it read.
    view(&mut world, "paris", "web");
    world.settle();
    let Ok(Response::List(page)) = world.request("paris", Request::List(Default::default())) else { panic!() };
    assert_eq!(page.items[0].scope, "paris & rennes & nantes");
    assert_eq!(page.items[0].sites.len(), 3);
}
