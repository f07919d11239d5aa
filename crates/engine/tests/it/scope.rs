use std::time::Duration;

use khufu_crdt::{ReplicantId, SiteName, Status};
use khufu_engine::harness::World;
use khufu_engine::{Request, RequestError, Response};
use serde_bytes::ByteBuf;
use serde_json::json;

use crate::foreign::{Frame, Push, hand};
use crate::{file_policy, rescope};

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

#[test]
fn a_site_that_is_added_gets_everything_and_one_that_is_removed_cleans_up() {
    let mut world = World::new(40);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes", &file_policy());
    world.operate("paris", "log", "add", "x").unwrap();
    world.settle();
    assert_eq!(world.text("nantes", "log"), None);
    rescope(&mut world, "paris", "log", "paris & nantes").unwrap();
    world.settle();
    assert_eq!(world.text("nantes", "log").unwrap(), "x");
    assert_eq!(world.text("rennes", "log"), None);
    world.run_for(Duration::from_secs(10));
    let rennes = world.sites["rennes"].engine().unwrap().metrics();
    assert_eq!(rennes.replicants, 0, "a site out of the scope keeps nothing");
    // And back again.
    rescope(&mut world, "nantes", "log", "paris & nantes & rennes").unwrap();
    world.settle();
    assert_eq!(world.text("rennes", "log").unwrap(), "x");
}

#[test]
fn a_site_that_was_removed_while_it_was_cut_off_cleans_up_when_it_is_back() {
    let mut world = World::new(41);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put("paris", "web", "paris & rennes & nantes", json!({"a": 1}));
    world.settle();
    world.isolate("nantes");
    rescope(&mut world, "paris", "web", "paris & rennes").unwrap();
    world.run_for(Duration::from_secs(60));
    assert!(world.text("nantes", "web").is_some());
    world.heal();
    world.until("nantes cleans up", Duration::from_secs(60), |world| world.text("nantes", "web").is_none());
    world.settle();
    assert!(world.text("paris", "web").is_some() && world.text("rennes", "web").is_some());
}

#[test]
fn a_site_that_leaves_again_is_not_taken_for_clean_because_it_was_once() {
    let mut world = World::new(49);
    world.sites(&["lyon", "nantes", "paris", "rennes"]);
    world.put_with("paris", "log", "all", &file_policy());
    world.operate("paris", "log", "add", "x").unwrap();
    world.settle();
    // Nantes alone sees rennes clean up when it leaves for the first time.
    world.isolate("rennes");
    world.isolate("nantes");
    world.mend("nantes", "rennes");
    rescope(&mut world, "nantes", "log", "all & !rennes").unwrap();
    world.until("rennes forgets it", Duration::from_secs(30), |world| !world.stores("rennes", "log"));
    world.run_for(Duration::from_secs(5));
    world.isolate("nantes");
    // Lyon alone sees rennes make it anew when it is back.
    world.mend("nantes", "lyon");
    world.run_for(Duration::from_secs(20));
    world.isolate("nantes");
    rescope(&mut world, "lyon", "log", "all").unwrap();
    world.run_for(Duration::from_secs(5));
    world.isolate("lyon");
    world.mend("lyon", "rennes");
    world.until("rennes has it again", Duration::from_secs(30), |world| world.text("rennes", "log").is_some());
    world.run_for(Duration::from_secs(5));
    world.crash("lyon");
    // Paris knows both decisions, and hears from nantes that rennes has cleaned up.
    world.mend("nantes", "paris");
    rescope(&mut world, "paris", "log", "all & !rennes").unwrap();
    world.run_for(Duration::from_secs(20));
    let says = |world: &mut World| {
        let Ok(Response::Replicant(view)) = world.request("paris", Request::Get { id: id("log") }) else { panic!() };
        view.sites[&SiteName::new("rennes").unwrap()].report.clone().unwrap().status
    };
    assert_eq!(says(&mut world), Status::Removed, "what it said when it left for the first time");
    world.weather.driver_failure = 100;
    world.mend("paris", "rennes");
    // What it said then is not what it says of this decision: it is told of that, and waited for.
    world.until("rennes is asked", Duration::from_secs(30), |world| says(world) == Status::Pending);
    world.run_for(Duration::from_secs(30));
    assert!(world.text("rennes", "log").is_some() && world.stores("rennes", "log"), "it cannot clean up yet");
    world.weather.driver_failure = 0;
    world.until("rennes cleans up again", Duration::from_secs(120), |world| world.text("rennes", "log").is_none());
    world.until("rennes forgets it again", Duration::from_secs(30), |world| !world.stores("rennes", "log"));
    world.until("paris hears of it", Duration::from_secs(30), |world| says(world) == Status::Removed);
    world.start("lyon");
    world.heal();
    world.settle();
    assert_eq!(world.text("rennes", "log"), None);
}

#[test]
fn an_old_document_that_somebody_tells_of_keeps_no_site_from_the_one_that_lives_there() {
    let mut world = World::new(53);
    world.sites(&["lyon", "nice", "paris"]);
    world.put("paris", "web", "paris", json!({"a": 1}));
    world.settle();
    let old = world.stored_document("paris", &id("web")).unwrap();
    world.isolate("nice");
    rescope(&mut world, "paris", "web", "lyon & nice").unwrap();
    world.run_for(Duration::from_secs(10));
    world.patch("lyon", "web", json!({"a": 2})).unwrap();
    // None of those who hold it now lives where it did then.
    let changes: Vec<_> = old.changes_since(&[]).into_iter().map(|change| ByteBuf::from(change.bytes)).collect();
    let push = || Push { document: old.id().clone(), changes: changes.clone(), heads: old.heads(), reports: vec![] };
    world.heal();
    for _ in 0..40 {
        hand(&mut world, "nice", "paris", &Frame::Push(push()));
        world.run_for(Duration::from_millis(250));
    }
    assert!(world.stores("nice", "web"), "{}", world.describe("web"));
    world.settle();
    assert_eq!(world.text("nice", "web"), world.text("lyon", "web"));
    assert!(world.text("nice", "web").is_some_and(|text| text.contains("\"a\":2")), "{}", world.describe("web"));
}

#[test]
fn two_scopes_written_apart_end_as_one_and_nobody_keeps_what_is_not_theirs() {
    for seed in 50..56 {
        let mut world = World::new(seed);
        world.sites(&["lyon", "nantes", "paris", "rennes"]);
        world.run_for(Duration::from_secs(1));
        world.put("paris", "web", "paris & rennes", json!({"a": 1}));
        world.settle();
        world.partition(&[&["lyon", "paris"], &["nantes", "rennes"]]);
        rescope(&mut world, "paris", "web", "paris & rennes & lyon").unwrap();
        rescope(&mut world, "rennes", "web", "rennes & nantes").unwrap();
        world.run_for(Duration::from_secs(5));
        world.heal();
        world.settle();
        world.run_for(Duration::from_secs(20));
        world.settle();
        let Ok(Response::Replicant(view)) = world.request("rennes", Request::Get { id: id("web") }) else {
            panic!("no answer (seed {seed})");
        };
        let placement = view.placement.unwrap();
        for site in ["lyon", "nantes", "paris", "rennes"] {
            let placed = placement.sites.iter().any(|at| at.as_str() == site);
            assert_eq!(world.text(site, "web").is_some(), placed, "{site}, {placement:?} (seed {seed})");
        }
    }
}

#[test]
fn deleting_removes_the_replicas_everywhere_and_for_good() {
    let mut world = World::new(42);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put("paris", "web", "paris & rennes & nantes", json!({"a": 1}));
    world.settle();
    world.isolate("nantes");
    world.request("paris", Request::Delete { id: id("web"), keep: false, base: None }).unwrap();
    world.patch("nantes", "web", json!({"a": 2})).unwrap();
    world.run_for(Duration::from_secs(5));
    world.heal();
    world.settle();
    for site in ["nantes", "paris", "rennes"] {
        assert_eq!(world.text(site, "web"), None, "{site}");
    }
    assert!(matches!(world.patch("paris", "web", json!({"a": 3})), Err(RequestError::Conflict { .. })));
    let Ok(Response::List(page)) = world.request("paris", Request::List(Default::default())) else { panic!() };
    assert!(page.items.is_empty());
}

#[test]
fn what_was_deleted_can_be_made_anew_also_while_a_site_sleeps() {
    let mut world = World::new(43);
    world.sites(&["nantes", "paris", "rennes"]);
    world.put_with("paris", "log", "paris & rennes & nantes", &file_policy());
    world.operate("paris", "log", "add", "old").unwrap();
    world.settle();
    world.isolate("nantes");
    world.request("paris", Request::Delete { id: id("log"), keep: false, base: None }).unwrap();
    world.run_for(Duration::from_secs(3));
    world.put_with("paris", "log", "paris & rennes & nantes", &file_policy());
    world.until("rennes has the new one", Duration::from_secs(10), |world| {
        world.operate("rennes", "log", "add", "new").is_ok()
    });
    world.run_for(Duration::from_secs(5));
    world.heal();
    world.settle();
    for site in ["nantes", "paris", "rennes"] {
        assert_eq!(world.text(site, "log").unwrap(), "new", "{site}");
    }
}

#[test]
fn deleting_with_keep_leaves_the_replicas() {
    let mut world = World::new(44);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.request("rennes", Request::Delete { id: id("web"), keep: true, base: None }).unwrap();
    world.run_for(Duration::from_secs(10));
    assert!(world.text("paris", "web").is_some() && world.text("rennes", "web").is_some());
    let Ok(Response::List(page)) = world.request("paris", Request::List(Default::default())) else { panic!() };
    assert!(page.items.is_empty());
}

#[test]
fn a_fallback_takes_over_and_gives_back() {
    let mut world = World::new(45);
    world.sites(&["lyon", "paris", "rennes"]);
    world.put("lyon", "web", "lyon & (paris | rennes)", json!({"a": 1}));
    world.settle();
    assert!(world.text("paris", "web").is_some() && world.text("rennes", "web").is_none());
    world.isolate("paris");
    world.until("rennes takes over", Duration::from_secs(60), |world| world.text("rennes", "web").is_some());
    assert!(world.text("paris", "web").is_some(), "the silent site keeps its replica");
    world.heal();
    world.until("rennes gives back", Duration::from_secs(120), |world| world.text("rennes", "web").is_none());
    world.settle();
    assert!(world.text("paris", "web").is_some() && world.text("lyon", "web").is_some());
}

#[test]
fn a_site_that_joins_later_gets_what_lives_everywhere() {
    let mut world = World::new(46);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.sites(&["nantes"]);
    world.until("nantes gets it", Duration::from_secs(60), |world| world.text("nantes", "web").is_some());
}

#[test]
fn the_last_copy_stays_until_a_site_that_follows_has_it() {
    let mut world = World::new(47);
    world.sites(&["paris", "rennes"]);
    world.run_for(Duration::from_secs(1));
    world.put_with("paris", "log", "paris", &file_policy());
    world.operate("paris", "log", "add", "x").unwrap();
    world.settle();
    world.isolate("rennes");
    rescope(&mut world, "paris", "log", "rennes").unwrap();
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.text("paris", "log").unwrap(), "x");
    world.restart("paris");
    world.heal();
    world.settle();
    assert_eq!(world.text("rennes", "log").unwrap(), "x");
    world.until("paris forgets it", Duration::from_secs(30), |world| !world.stores("paris", "log"));
    assert_eq!(world.text("paris", "log"), None);
}

#[test]
fn a_site_takes_back_what_it_wrote_itself_before_it_gave_the_document_away() {
    let mut world = World::new(48);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.patch("paris", "web", json!({"a": 2})).unwrap();
    rescope(&mut world, "paris", "web", "rennes").unwrap();
    world.until("paris forgets it", Duration::from_secs(30), |world| !world.stores("paris", "web"));
    rescope(&mut world, "rennes", "web", "paris & rennes").unwrap();
    world.settle();
    assert_eq!(world.text("paris", "web").unwrap(), "{\"a\":2}\n");
    world.patch("paris", "web", json!({"a": 3})).unwrap();
    world.settle();
    assert_eq!(world.text("rennes", "web").unwrap(), "{\"a\":3}\n");
}

#[test]
fn what_was_chosen_stays_although_measured_times_change() {
    let sites = ["brest", "lyon", "nantes", "paris", "quimper", "rennes", "tours"];
    let mut world = World::new(48);
    world.weather.jitter_us = 50_000;
    world.sites(&sites);
    world.put("paris", "web", "3 of (all)", json!({"a": 1}));
    world.settle();
    let chosen = |world: &World| sites.into_iter().filter(|site| world.text(site, "web").is_some()).collect::<Vec<_>>();
    let before = chosen(&world);
    assert_eq!(before.len(), 3);
    let other = sites.into_iter().find(|site| !before.contains(site)).unwrap();
    for _ in 0..3 {
        world.crash(other);
        world.run_for(Duration::from_secs(10));
        world.start(other);
        world.run_for(Duration::from_secs(10));
        assert_eq!(chosen(&world), before);
    }
}
