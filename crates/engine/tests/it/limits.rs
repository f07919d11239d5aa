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

#[test]
fn a_node_that_starts_with_much_to_do_reads_it_a_little_at_a_time_and_does_all_of_it() {
    let mut world = World::configured(311, |config| config.resident = 10);
    world.sites(&["paris"]);
    world.weather.driver_failure = 100;
    let names: Vec<_> = (0..200).map(|number| format!("r{number}")).collect();
    for name in &names {
        world.put("paris", name, "paris", json!({"a": 1}));
    }
    world.run_for(Duration::from_secs(30));
    world.restart("paris");
    let mut most = 0;
    for _ in 0..1000 {
        world.run_for(Duration::from_millis(5));
        most = most.max(world.sites["paris"].engine().unwrap().metrics().resident);
    }
    // Those that nobody uses, twice, and those that a driver is at work for.
    assert!(most <= 100, "{most} documents in memory, 10 are to be");
    world.weather.driver_failure = 0;
    world.settle();
    assert!(names.iter().all(|name| world.text("paris", name).is_some()));
}

#[test]
fn what_is_tried_again_later_is_not_tried_sooner_because_it_was_out_of_memory() {
    let mut world = World::configured(312, |config| config.resident = 0);
    world.sites(&["paris"]);
    let policy =
        serde_json::from_value(json!({"retry": {"attempts": 1000, "backoff_ms": 20_000, "backoff_max_ms": 20_000}}));
    world.put_with("paris", "log", "paris", &policy.unwrap());
    world.settle();
    world.weather.driver_failure = 100;
    world.operate("paris", "log", "add", "x").unwrap();
    world.run_for(Duration::from_secs(10));
    let calls = |world: &World| world.sites["paris"].engine().unwrap().metrics().driver_failures;
    let before = calls(&world);
    let mut gone = 0;
    for _ in 0..4 {
        world.run_for(Duration::from_millis(2_100));
        gone += usize::from(world.sites["paris"].engine().unwrap().metrics().resident == 0);
        world.request("paris", Request::Get { id: ReplicantId::new("log").unwrap() }).unwrap();
    }
    assert!(gone > 0, "it never left memory");
    assert!(
        calls(&world) - before <= 1,
        "{} tries within nine seconds, twenty are to be between two",
        calls(&world) - before
    );
    world.weather.driver_failure = 0;
    world.settle();
    assert_eq!(world.text("paris", "log").as_deref(), Some("x"));
}
