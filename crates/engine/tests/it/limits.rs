//! What is bounded, and what must not grow.

use std::time::{Duration, Instant};

use khufu_crdt::ReplicantId;
use khufu_engine::harness::World;
use khufu_engine::{Put, Request};
use serde_json::json;

fn scoped(name: &str, scope: &str) -> Request {
    Request::Put(Put {
        id: ReplicantId::new(name).unwrap(),
        kind: None,
        scope: Some(scope.into()),
        policy: None,
        desired: None,
        overrides: None,
        base: None,
    })
}

/// The least time that ten changes take, of the last hundred of so many.
fn time_of_changes(world: &mut World, number: usize) -> Duration {
    let mut least = Duration::MAX;
    for ten in 0..number / 10 {
        let begun = Instant::now();
        for one in 0..10 {
            world.patch("paris", "web", json!({"a": ten * 10 + one})).unwrap();
        }
        if ten >= number / 10 - 10 {
            least = least.min(begun.elapsed());
        }
    }
    least
}

#[test]
fn a_site_that_has_left_does_not_make_changes_dearer() {
    let times = [false, true].map(|left| {
        let mut world = World::new(310);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", if left { "paris & rennes" } else { "paris" }, json!({"a": 1}));
        world.settle();
        if left {
            // What rennes says last is not of the change that has it leave, but of a later one.
            world.isolate("rennes");
            world.request("paris", scoped("web", "paris")).unwrap();
            world.patch("paris", "web", json!({"a": "one more"})).unwrap();
            world.heal();
            world.settle();
        }
        time_of_changes(&mut world, 600)
    });
    let [alone, left] = times;
    assert!(left < alone * 3, "ten changes after 600 took {left:?}, and {alone:?} where nobody has left");
}
