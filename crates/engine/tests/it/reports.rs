//! What a site says of its replica is so.

use std::time::Duration;

use khufu_crdt::{AfterFailure, OperationId, ReplicantId, Report, SiteName, Status};
use khufu_engine::harness::World;
use khufu_engine::{Operate, Request, Response};
use serde_json::json;

use crate::file_policy;

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

fn view(world: &mut World, site: &str, name: &str) -> khufu_engine::ReplicantView {
    match world.request(site, Request::Get { id: id(name) }) {
        Ok(Response::Replicant(view)) => *view,
        other => panic!("{other:?}"),
    }
}

/// What a site says of its own replica.
fn report(world: &mut World, site: &str, name: &str) -> Report {
    view(world, site, name).sites[&SiteName::new(site).unwrap()].report.clone().unwrap()
}

#[test]
fn a_write_that_failed_and_is_wanted_no_more_is_not_reported_failed() {
    let mut world = World::new(80);
    world.sites(&["paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    world.weather.driver_failure = 100;
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    world.until("it is said to fail", Duration::from_secs(120), |world| {
        view(world, "paris", "web").status == Status::Failed
    });
    world.patch("paris", "web", json!({"a": 1})).unwrap();
    // The driver is not needed: the replica is as it was.
    world.settle();
    assert_eq!(view(&mut world, "paris", "web").status, Status::Applied);
    assert_eq!(report(&mut world, "paris", "web").desired.unwrap().output, "");
    assert_eq!(world.text("paris", "web").as_deref(), Some("{\"a\":1}\n"));
}
