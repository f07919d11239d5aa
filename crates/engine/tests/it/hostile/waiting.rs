//! What was accepted at a site that has lost what it was made from, while others make things up about it.

use std::time::Duration;

use khufu_crdt::DocumentId;
use khufu_engine::harness::World;
use khufu_engine::{Config, Happening, Put, Request};
use serde_bytes::ByteBuf;

use super::*;
use crate::foreign::{Frame, Push, hand};
use crate::loses_what_was_before;

/// Rennes has a change on its disk that waits for what is lost, and is cut off.
fn waiting(seed: u64, doubtful: bool) -> World {
    waiting_with(seed, doubtful, |_| {}, 0)
}

/// The same, with so many changes more, which come to more than may wait.
fn waiting_with(seed: u64, doubtful: bool, config: fn(&mut Config), more: usize) -> World {
    let mut world = World::configured(seed, config);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 0}));
    world.settle();
    loses_what_was_before(&mut world, more);
    if doubtful {
        world.start_doubtful("rennes");
    } else {
        world.start("rennes");
    }
    world.run_for(Duration::from_secs(1));
    world
}

/// Has rennes get a document of `web` that lives at some sites, as a stranger makes it.
fn tell(world: &mut World, epoch: u64, sites: &[&str]) {
    let mut doc = forged("web", epoch);
    doc.create(&author(5), spec(sites)).unwrap();
    let changes = doc.changes_since(&[]).into_iter().map(|change| ByteBuf::from(change.bytes)).collect();
    let document = DocumentId { replicant: id("web"), epoch };
    let push = Push { document, changes, heads: doc.heads(), reports: vec![] };
    hand(world, "rennes", WOLF, &Frame::Push(push));
    world.run_for(Duration::from_millis(5));
}

#[test]
fn it_waits_on_while_a_document_of_its_name_comes_and_goes() {
    for doubtful in [true, false] {
        let mut world = waiting(95, doubtful);
        tell(&mut world, 0, &[WOLF]);
        world.heal();
        world.settle();
        for site in ["paris", "rennes"] {
            let text = world.text(site, "web").unwrap_or_default();
            assert!(text.contains("\"b\":1"), "{site} has {text:?}, doubtful: {doubtful}");
        }
    }
}

#[test]
fn it_waits_on_in_a_document_of_its_name_that_lives_here_whatever_its_size() {
    for doubtful in [true, false] {
        let mut world = waiting_with(98, doubtful, |config| config.limits.max_bytes = 2_000, 6);
        tell(&mut world, 0, &["rennes"]);
        world.run_for(Duration::from_secs(5));
        world.heal();
        world.settle();
        // Where it lives is what the two have decided of whom the later counts.
        let text = world.text("rennes", "web").unwrap_or_default();
        for number in 0..6 {
            assert!(text.contains(&format!("\"b{number}\"")), "rennes has {text:?}, doubtful: {doubtful}");
        }
    }
}

#[test]
fn it_waits_on_where_the_name_is_put_again() {
    let mut world = waiting(96, true);
    let scope = Some("paris & rennes".to_owned());
    let (policy, overrides, base) = (None, None, None);
    let kind = Some("text".to_owned());
    let put = Put { id: id("web"), kind, scope, policy, desired: Some(json!({"c": 2})), overrides, base };
    world.request("rennes", Request::Put(put)).unwrap();
    world.heal();
    world.settle();
    for site in ["paris", "rennes"] {
        let text = world.text(site, "web").unwrap_or_default();
        assert!(text.contains("\"b\":1") && text.contains("\"c\":2"), "{site} has {text:?}");
    }
}

#[test]
fn a_later_document_that_no_epoch_led_to_deletes_nothing() {
    for doubtful in [true, false] {
        let mut world = waiting(97, doubtful);
        let of_first = [b"d/web/".as_slice(), &[0; 8], b"/c/"].concat();
        let before = world.sites["rennes"].disk.scan(&of_first);
        assert!(!before.is_empty());
        tell(&mut world, 7_000_700, &["rennes"]);
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.sites["rennes"].disk.scan(&of_first), before, "doubtful: {doubtful}");
        let named =
            |what: &Happening| matches!(what, Happening::Warning { message, .. } if message.contains("accepted here"));
        assert!(world.sites["rennes"].events.iter().any(|event| named(&event.what)), "doubtful: {doubtful}");
    }
}
