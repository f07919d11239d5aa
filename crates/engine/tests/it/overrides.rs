//! What is laid over the desired state at single sites.

use khufu_crdt::{SiteName, Status};
use serde_json::Value;

use super::*;

fn lay(world: &mut World, over: Value) -> Result<Response, RequestError> {
    let (kind, scope, policy, desired, base) = (None, None, None, None, None);
    let overrides = Some([(SiteName::new("rennes").unwrap(), over)].into());
    world.request("paris", Request::Put(Put { id: id("web"), kind, scope, policy, desired, overrides, base }))
}

#[test]
fn a_patch_that_does_not_fit_fails_at_its_site_alone_until_something_changes() {
    let mut world = World::new(81);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"replicas": 3}));
    lay(&mut world, json!([{"op": "replace", "path": "/replicas", "value": 1}])).unwrap();
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"replicas\":3}\n");
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"replicas\":1}\n");

    // It does not fit any more: rennes says why, keeps what it has, and the others go on.
    world.request("paris", Request::Patch { id: id("web"), patch: json!({"replicas": null, "size": 5}) }).unwrap();
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"size\":5}\n");
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"replicas\":1}\n");
    let seen = view(&mut world, "paris", "web");
    assert_eq!(seen.status, Status::Failed);
    let report = seen.sites["rennes"].report.as_ref().unwrap();
    let desired = report.desired.as_ref().unwrap();
    assert_eq!((report.status, desired.status), (Status::Failed, Status::Failed));
    assert!(desired.output.contains("/replicas"), "{}", desired.output);
    assert_eq!(seen.sites["paris"].report.as_ref().unwrap().status, Status::Applied);
    let Ok(Response::Plan(plans)) = world.request("paris", Request::Plan { id: id("web") }) else { panic!() };
    for plan in plans {
        let said = plan.needs_attention.unwrap_or_default();
        assert_eq!(said.contains("/replicas"), plan.site.as_str() == "rennes", "{said}");
    }
    // It stays so over a restart, without a call of the driver.
    world.restart("rennes");
    world.settle();
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"replicas\":1}\n");
    assert_eq!(view(&mut world, "rennes", "web").status, Status::Failed);

    // Nothing like a patch is taken, and with another it is well.
    let refused = lay(&mut world, json!([{"op": "replace"}])).unwrap_err();
    assert!(refused.to_string().contains("overrides.rennes: [0].path"), "{refused}");
    lay(&mut world, json!([{"op": "add", "path": "/size", "value": 6}])).unwrap();
    world.settle();
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"size\":6}\n");
    assert_eq!(view(&mut world, "paris", "web").status, Status::Applied);
}

#[test]
fn a_replica_whose_patch_does_not_fit_is_removed_like_any_other() {
    let mut world = World::new(82);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"replicas": 3}));
    world.settle();
    lay(&mut world, json!([{"op": "remove", "path": "/nothing"}])).unwrap();
    world.settle();
    assert_eq!(view(&mut world, "paris", "web").status, Status::Failed);
    world.request("paris", Request::Delete { id: id("web"), keep: false, base: None }).unwrap();
    world.settle();
    assert_eq!((world.text("paris", "web"), world.text("rennes", "web")), (None, None));
}
