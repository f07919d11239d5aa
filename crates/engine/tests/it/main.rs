//! Scenarios over several engines in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod again;
mod alone;
mod basics;
mod cost;
mod damaged;
mod deleted;
mod disks;
mod epochs;
mod evidence;
mod faults;
mod foreign;
mod full;
mod given_away;
mod hostile;
mod interrupted;
mod kinds;
mod large;
mod limits;
mod looks;
mod members;
mod overrides;
mod placement;
mod raced;
mod reports;
mod same;
mod scope;
mod unread;
mod unsettled;

use std::time::Duration;

use khufu_crdt::{Policy, ReplicantId};
use khufu_engine::harness::World;
use khufu_engine::{Put, ReplicantView, Request, RequestError, Response};
use serde_json::json;

/// The matrix that the known breaking scenario uses.
pub fn file_policy() -> Policy {
    serde_json::from_value(json!({
        "resolutions": [
            {"before": "set", "after": "set", "result": "take-one"},
            {"before": "set", "after": "add", "result": "take-both-keep-order"},
            {"before": "add", "after": "set", "result": "take-both-reverse-order"}
        ],
        "types": {"set": {"absolute": true, "idempotent": true}}
    }))
    .unwrap()
}

pub fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

/// What a site says of a replicant.
pub fn view(world: &mut World, site: &str, name: &str) -> ReplicantView {
    match world.request(site, Request::Get { id: id(name) }) {
        Ok(Response::Replicant(view)) => *view,
        other => panic!("{other:?}"),
    }
}

/// Has a user write another scope, and nothing else.
pub fn rescope(world: &mut World, site: &str, name: &str, scope: &str) -> Result<Response, RequestError> {
    let (id, scope) = (ReplicantId::new(name).unwrap(), Some(scope.to_owned()));
    let (kind, policy, desired, overrides, base) = (None, None, None, None, None);
    world.request(site, Request::Put(Put { id, kind, scope, policy, desired, overrides, base }))
}

/// Rennes is cut off, down, and has lost of `web` all but what was accepted there last: `{"b": 1}`, and as many more.
pub fn loses_what_was_before(world: &mut World, more: usize) {
    world.compact("rennes", &id("web"));
    world.settle();
    world.isolate("rennes");
    world.patch("rennes", "web", json!({"b": 1})).unwrap();
    for number in 0..more {
        world.patch("rennes", "web", json!({ format!("b{number}"): "x".repeat(200) })).unwrap();
    }
    world.run_for(Duration::from_secs(1));
    world.crash("rennes");
    let disk = &mut world.sites.get_mut("rennes").unwrap().disk;
    assert_eq!(disk.spoil(|key| key.starts_with(b"d/web/") && key.ends_with(b"/s")), 1);
}
