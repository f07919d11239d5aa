//! A disk that cannot be read for a while, and has everything.

use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::harness::World;
use khufu_engine::{Request, RequestError, Response};
use serde_json::json;

fn get(world: &mut World, site: &str) -> Result<Response, RequestError> {
    world.request(site, Request::Get { id: ReplicantId::new("web").unwrap() })
}

#[test]
fn what_was_acknowledged_is_not_overwritten_while_it_cannot_be_read() {
    let mut world = World::new(70);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    world.isolate("paris");
    // More than goes into one snapshot, so that some of it is in changes beside it.
    for number in 0..80 {
        world.patch("paris", "web", json!({"mine": number})).unwrap();
    }
    world.run_for(Duration::from_secs(20));
    world.crash("paris");
    world.sites.get_mut("paris").unwrap().disk.unreadable = true;
    world.start("paris");
    match get(&mut world, "paris") {
        Err(RequestError::Storage { message }) => assert!(message.contains("could not be read"), "{message}"),
        other => panic!("{other:?}"),
    }
    // Rennes has an older copy, and more to say.
    world.heal();
    world.patch("rennes", "web", json!({"theirs": 1})).unwrap();
    world.run_for(Duration::from_secs(60));
    assert!(matches!(get(&mut world, "paris"), Err(RequestError::Storage { .. })), "there is nothing to answer from");
    world.sites.get_mut("paris").unwrap().disk.unreadable = false;
    world.settle();
    for site in ["paris", "rennes"] {
        let Ok(Response::Replicant(view)) = get(&mut world, site) else { panic!("{site} has no view") };
        assert_eq!(view.desired, json!({"a": 1, "mine": 79, "theirs": 1}), "{site}");
    }
    assert_eq!(world.text("paris", "web"), world.text("rennes", "web"));
}

#[test]
fn what_was_to_be_done_is_done_once_it_can_be_read() {
    let mut world = World::new(71);
    world.sites(&["paris"]);
    world.weather.driver_failure = 100;
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.run_for(Duration::from_secs(5));
    world.crash("paris");
    world.weather.driver_failure = 0;
    world.sites.get_mut("paris").unwrap().disk.unreadable = true;
    world.start("paris");
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.text("paris", "web"), None);
    world.sites.get_mut("paris").unwrap().disk.unreadable = false;
    world.settle();
    assert_eq!(world.text("paris", "web").as_deref(), Some("{\"a\":1}\n"));
}
