//! One id that two operations were given while sites were apart.

use std::time::Duration;

use khufu_crdt::{OperationId, ReplicantId, Status};
use khufu_engine::harness::World;
use khufu_engine::{Happening, Operate, Request, Response};
use serde_json::json;

use crate::file_policy;

/// Paris and rennes, apart, each give the id `mine` to an operation; then they meet.
fn meet_with_one_id(seed: u64, at_paris: (&str, &str), at_rennes: (&str, &str)) -> World {
    let mut world = World::new(seed);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    world.operate("paris", "log", "add", "first;").unwrap();
    world.settle();
    world.isolate("rennes");
    for (site, (op_type, payload)) in [("paris", at_paris), ("rennes", at_rennes)] {
        let ask = Request::Operate(Operate {
            id: ReplicantId::new("log").unwrap(),
            operation: Some(OperationId::new("mine").unwrap()),
            op_type: op_type.into(),
            payload: json!(payload),
            wait_ms: 0,
        });
        world.request(site, ask).unwrap();
        world.operate(site, "log", "add", &format!("after at {site};")).unwrap();
    }
    world.run_for(Duration::from_secs(5));
    world.heal();
    world.settle();
    world
}

#[test]
fn one_id_for_two_operations_still_ends_with_the_same_contents_and_is_said() {
    let variants = [("add", "rennes;"), ("set", "paris;"), ("set", "rennes;")];
    for (seed, at_rennes) in (90..).zip(variants) {
        let mut world = meet_with_one_id(seed, ("add", "paris;"), at_rennes);
        assert_eq!(world.text("paris", "log"), world.text("rennes", "log"), "{at_rennes:?}");
        let ask = Request::Get { id: ReplicantId::new("log").unwrap() };
        world.until("all is applied", Duration::from_secs(30), |world| {
            matches!(world.request("paris", ask.clone()), Ok(Response::Replicant(view)) if view.status == Status::Applied)
        });
        let says =
            |what: &Happening| matches!(what, Happening::Warning { message, .. } if message.contains("given to two"));
        let told = world.sites.values().filter(|site| site.events.iter().any(|event| says(&event.what))).count();
        assert_eq!(told, 1, "the site whose operation lost says so: {at_rennes:?}");
    }
}

#[test]
fn one_id_for_one_operation_asked_at_two_sites_runs_once_and_nothing_is_built_anew() {
    let world = meet_with_one_id(95, ("add", "same;"), ("add", "same;"));
    for site in ["paris", "rennes"] {
        assert_eq!(world.text(site, "log").unwrap().matches("same;").count(), 1, "{site}");
    }
    let rebuilds: u64 = world.sites.values().map(|site| site.engine().unwrap().metrics().rebuilds).sum();
    assert!(rebuilds <= 1, "the order of what followed is all that can differ: {rebuilds}");
}
