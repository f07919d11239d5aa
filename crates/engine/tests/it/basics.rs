use std::time::Duration;

use khufu_crdt::{ReplicantId, Status};
use khufu_engine::harness::World;
use khufu_engine::{Happening, Operate, Request, RequestError, Response};
use serde_json::{Value, json};

use crate::file_policy;

const THREE: [&str; 3] = ["nantes", "paris", "rennes"];

fn operate(name: &str, op_type: &str, payload: &str, wait_ms: u64) -> Request {
    Request::Operate(Operate {
        id: ReplicantId::new(name).unwrap(),
        operation: None,
        op_type: op_type.into(),
        payload: Value::String(payload.into()),
        wait_ms,
    })
}

#[test]
fn three_sites_hold_the_same() {
    let mut world = World::new(1);
    world.sites(&THREE);
    world.put("paris", "web", "paris & rennes & nantes", json!({"replicas": 1}));
    world.settle();
    for site in THREE {
        assert_eq!(world.text(site, "web").unwrap(), "{\"replicas\":1}\n", "{site}");
    }
}

#[test]
fn different_fields_edited_apart_both_win_and_the_same_field_is_a_conflict() {
    let mut world = World::new(2);
    world.sites(&THREE);
    world.put("paris", "web", "paris & rennes & nantes", json!({"a": 1, "b": 1, "c": 1}));
    world.settle();
    world.isolate("nantes");
    world.patch("paris", "web", json!({"a": 2, "c": "paris"})).unwrap();
    world.patch("nantes", "web", json!({"b": 3, "c": "nantes"})).unwrap();
    world.run_for(Duration::from_secs(10));
    world.heal();
    world.settle();
    let Ok(Response::Replicant(view)) = world.request("rennes", Request::Get { id: ReplicantId::new("web").unwrap() })
    else {
        panic!("no answer");
    };
    assert_eq!((&view.desired["a"], &view.desired["b"]), (&json!(2), &json!(3)));
    assert_eq!(view.conflicts, 1);
    let Ok(Response::Conflicts(conflicts)) =
        world.request("paris", Request::Conflicts { id: ReplicantId::new("web").unwrap() })
    else {
        panic!("no answer");
    };
    let loser = conflicts[0].values.iter().find(|value| !value.winner).unwrap();
    let pick = Request::Pick { id: ReplicantId::new("web").unwrap(), path: "/desired/c".into(), change: loser.change };
    let Ok(Response::Replicant(view)) = world.request("nantes", pick) else { panic!("not picked") };
    assert_eq!(view.desired["c"], loser.value);
    world.settle();
    for site in THREE {
        let Ok(Response::Replicant(view)) = world.request(site, Request::Get { id: ReplicantId::new("web").unwrap() })
        else {
            panic!("no answer");
        };
        assert_eq!(view.conflicts, 0, "{site}");
        assert_eq!(view.desired["c"], loser.value, "{site}");
    }
}

#[test]
fn an_operation_is_answered_with_every_sites_report() {
    let mut world = World::new(3);
    world.sites(&THREE);
    world.put_with("paris", "log", "all", &file_policy());
    world.settle();
    let Ok(Response::Operation(answer)) = world.request("rennes", operate("log", "add", "x", 30_000)) else {
        panic!("no answer");
    };
    assert!(answer.complete, "{answer:?}");
    assert_eq!(answer.sites.len(), 3);
    assert!(answer.sites.values().all(|report| report.status == Status::Applied), "{answer:?}");
    // One that cannot be reached is said to be pending, after the time given and not later.
    world.isolate("nantes");
    let before = world.now();
    let Ok(Response::Operation(answer)) = world.request("rennes", operate("log", "add", "y", 3_000)) else {
        panic!("no answer");
    };
    assert!(world.now() - before < Duration::from_millis(3_500));
    assert!(!answer.complete);
    let nantes = answer.sites.iter().find(|(site, _)| site.as_str() == "nantes").unwrap().1;
    assert_eq!(nantes.status, Status::Pending);
}

#[test]
fn the_scenario_known_to_break_others_ends_the_same_in_every_order_of_healing() {
    let pairs = [("nantes", "paris"), ("nantes", "rennes"), ("paris", "rennes")];
    let mut orders = Vec::new();
    for first in 0..3 {
        for second in 0..3 {
            if first != second {
                orders.push((first, second));
            }
        }
    }
    let mut seen = Vec::new();
    for (number, (first, second)) in orders.into_iter().enumerate() {
        let mut world = World::new(100 + u64::try_from(number).unwrap());
        world.sites(&THREE);
        world.put_with("paris", "file", "paris & rennes & nantes", &file_policy());
        world.operate("paris", "file", "set", "init").unwrap();
        world.settle();
        world.partition(&[&["nantes"], &["paris"], &["rennes"]]);
        world.run_for(Duration::from_secs(2));
        world.operate("nantes", "file", "add", "left").unwrap();
        world.run_for(Duration::from_secs(1));
        world.operate("paris", "file", "set", "middle").unwrap();
        world.run_for(Duration::from_secs(1));
        world.operate("rennes", "file", "add", "right").unwrap();
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.text("nantes", "file").unwrap(), "initleft");
        for pair in [first, second] {
            let (a, b) = pairs[pair];
            world.mend(a, b);
            world.run_for(Duration::from_secs(5));
        }
        world.heal();
        world.settle();
        let texts: Vec<_> = THREE.iter().map(|site| world.text(site, "file").unwrap()).collect();
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        seen.push(texts[0].clone());
        let Ok(Response::Replicant(view)) =
            world.request("nantes", Request::Get { id: ReplicantId::new("file").unwrap() })
        else {
            panic!("no answer");
        };
        assert_eq!(view.operations.len(), 4);
    }
    assert!(seen.iter().all(|text| *text == seen[0]), "{seen:?}");
    assert!(seen[0].starts_with("middle"), "{seen:?}");
}

#[test]
fn a_request_for_what_lives_elsewhere_is_passed_on() {
    let mut world = World::new(4);
    world.sites(&["lyon", "paris", "rennes"]);
    world.put("lyon", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    assert_eq!(world.text("lyon", "web"), None);
    assert!(world.text("paris", "web").is_some());
    world.patch("lyon", "web", json!({"a": 2})).unwrap();
    let Ok(Response::Replicant(view)) = world.request("lyon", Request::Get { id: ReplicantId::new("web").unwrap() })
    else {
        panic!("no answer");
    };
    assert_eq!(view.desired, json!({"a": 2}));
    let unknown = world.request("lyon", Request::Get { id: ReplicantId::new("other").unwrap() });
    assert!(matches!(unknown, Err(RequestError::NotFound { .. })), "{unknown:?}");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut world = World::new(5);
    world.sites(&["paris", "rennes"]);
    world.run_for(Duration::from_secs(1));
    let refused = world.try_put("paris", "web", "paris & renes", Some(json!({})), None);
    let Err(RequestError::Invalid { message }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("rennes"), "no nearest name in {message}");
    assert!(world.try_put("paris", "web", "paris &", Some(json!({})), None).is_err());
    world.put("paris", "web", "paris", json!({"a": 1}));
    let other = Request::Put(khufu_engine::Put {
        id: ReplicantId::new("web").unwrap(),
        kind: Some("shell".into()),
        scope: None,
        policy: None,
        desired: None,
        overrides: None,
        base: None,
    });
    assert!(matches!(world.request("paris", other), Err(RequestError::Conflict { .. })));
    let big = "x".repeat(6 << 20);
    let refused = world.patch("paris", "web", json!({"big": big}));
    assert!(matches!(refused, Err(RequestError::TooLarge { .. })), "{refused:?}");
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":1}\n");
}

#[test]
fn asking_for_an_operation_twice_is_asking_once() {
    let mut world = World::new(6);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "all", &file_policy());
    let ask = Request::Operate(Operate {
        id: ReplicantId::new("log").unwrap(),
        operation: Some(khufu_crdt::OperationId::new("mine").unwrap()),
        op_type: "add".into(),
        payload: json!("x"),
        wait_ms: 0,
    });
    world.request("paris", ask.clone()).unwrap();
    world.settle();
    world.request("rennes", ask).unwrap();
    world.settle();
    assert_eq!(world.text("paris", "log").unwrap(), "x");
    assert_eq!(world.text("rennes", "log").unwrap(), "x");
}

#[test]
fn verify_and_plan_ask_every_site() {
    let mut world = World::new(7);
    world.sites(&THREE);
    world.put("paris", "web", "paris & rennes & nantes", json!({"a": 1}));
    world.settle();
    let Ok(Response::Verify(report)) = world.request("paris", Request::Verify { id: None }) else {
        panic!("no answer")
    };
    assert!(report.same && report.checked == 1, "{report:?}");
    world.sites.get_mut("rennes").unwrap().platform.tamper(&ReplicantId::new("web").unwrap(), "by hand");
    let Ok(Response::Verify(report)) = world.request("paris", Request::Verify { id: None }) else {
        panic!("no answer")
    };
    assert!(!report.same);
    assert!(report.replicants[0].differences.iter().any(|line| line.contains("rennes")), "{report:?}");
    world.isolate("nantes");
    let Ok(Response::Verify(report)) = world.request("paris", Request::Verify { id: None }) else {
        panic!("no answer")
    };
    assert_eq!(report.unknown.iter().map(|site| site.as_str()).collect::<Vec<_>>(), ["nantes"]);
    let Ok(Response::Plan(plans)) = world.request("paris", Request::Plan { id: ReplicantId::new("web").unwrap() })
    else {
        panic!("no answer");
    };
    assert_eq!(plans.len(), 3);
    assert!(plans.iter().any(|plan| plan.site.as_str() == "nantes" && plan.unknown.is_some()), "{plans:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.weather.gossip_loss = 20;
        world.weather.gossip_twice = 10;
        world.sites(&THREE);
        world.put("paris", "web", "all", json!({"a": 1}));
        world.restart("rennes");
        world.settle();
        world.trace()
    };
    assert_eq!(run(9), run(9));
    assert_ne!(run(9), run(10));
}

#[test]
fn a_put_is_taken_whole_or_not_at_all() {
    let mut world = World::new(12);
    world.sites(&["paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let paris = khufu_crdt::SiteName::new("paris").unwrap();
    let mut put = khufu_engine::Put {
        id: khufu_crdt::ReplicantId::new("web").unwrap(),
        kind: None,
        scope: None,
        policy: None,
        desired: Some(json!({"a": 2})),
        overrides: Some([(paris.clone(), deep)].into()),
        base: None,
    };
    assert!(matches!(world.request("paris", Request::Put(put.clone())), Err(RequestError::Invalid { .. })));
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":1}\n");
    // And goes on as if nothing had been asked, also after a restart.
    put.overrides = Some([(paris, json!({"b": 3}))].into());
    world.request("paris", Request::Put(put)).unwrap();
    world.restart("paris");
    world.patch("paris", "web", json!({"c": 4})).unwrap();
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":2,\"b\":3,\"c\":4}\n");
}

#[test]
fn what_is_new_at_a_site_is_told_as_a_change_there() {
    let mut world = World::new(40);
    world.sites(&THREE);
    world.put("paris", "web", "paris & rennes", json!({"replicas": 1}));
    world.settle();
    let told = |world: &World, site: &str, wanted: bool| {
        let events = &world.sites[site].events;
        events
            .iter()
            .filter(|event| matches!(&event.what, Happening::Changed { local, .. } if *local == wanted))
            .count()
    };
    assert_eq!((told(&world, "paris", true), told(&world, "rennes", false), told(&world, "nantes", false)), (1, 1, 0));
}

#[test]
fn a_comparison_tells_what_was_seen_although_one_driver_hangs() {
    let mut world = World::new(312);
    world.sites(&["paris", "rennes"]);
    for name in ["one", "two"] {
        world.put("paris", name, "all", json!({"a": 1}));
    }
    world.settle();
    world.sites.get_mut("rennes").unwrap().hang_next_call = true;
    world.patch("rennes", "one", json!({"a": 2})).unwrap();
    world.run_for(std::time::Duration::from_secs(3));
    for asked in ["paris", "rennes"] {
        let Ok(Response::Verify(report)) = world.request(asked, Request::Verify { id: None }) else {
            panic!("no answer");
        };
        assert!(report.unknown.is_empty(), "{asked}: {:?}", report.unknown);
        let of = |name: &str| report.replicants.iter().find(|entry| entry.id.as_str() == name).unwrap();
        assert!(of("two").same, "{asked}: {:?}", of("two").differences);
        let unseen = |said: &String| said.starts_with("the platform of rennes could not be looked at");
        assert!(of("one").differences.iter().any(unseen), "{asked}: {:?}", of("one").differences);
    }
}
