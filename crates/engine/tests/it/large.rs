//! What is larger than a frame arrives all the same.

use std::time::Duration;

use khufu_crdt::{AfterFailure, DocumentId, OperationId, ReplicantId, SiteName};
use khufu_engine::harness::World;
use khufu_engine::{Happening, Operate, Put, Request, Response};
use serde_json::json;

use crate::file_policy;
use crate::foreign::{Frame, Push, Said, hand};

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

/// A disk is lost, and all that was on it comes back from the others.
fn loses_its_disk_and_gets_all_back(world: &mut World, site: &str) {
    world.crash(site);
    world.sites.get_mut(site).unwrap().disk.wipe();
    world.start(site);
    world.settle();
    let too_large = |what: &Happening| matches!(what, Happening::Warning { message, .. } if message.contains("larger than the limit"));
    for (name, site) in &world.sites {
        assert!(!site.events.iter().any(|event| too_large(&event.what)), "{name} had a frame that was too large");
    }
}

/// Text that no compression makes smaller.
fn noise(seed: &mut u64, length: usize) -> String {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from((*seed >> 40) % 94).unwrap())
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn reports_that_are_larger_together_than_a_frame_reach_a_site_that_lost_its_disk() {
    let mut world = World::configured(60, |config| config.frame_bytes = 1 << 16);
    world.sites(&["brest", "lyon", "metz", "nantes", "paris", "rennes"]);
    let mut policy = file_policy();
    policy.after_failure = AfterFailure::Continue;
    world.put_with("paris", "log", "all", &policy);
    world.settle();
    // Every one of them fails, with an answer that repeats the name of its type.
    for number in 0..60 {
        let ask = Request::Operate(Operate {
            id: id("log"),
            operation: Some(OperationId::new(format!("{}-{number}", "o".repeat(90))).unwrap()),
            op_type: "x".repeat(100),
            payload: json!(1),
            wait_ms: 0,
        });
        world.request("paris", ask).unwrap();
    }
    world.settle();
    let reports: Vec<usize> = world.sites["paris"].disk.scan(b"d/log/r/").iter().map(|r| r.value.len()).collect();
    assert!(reports.iter().sum::<usize>() > 1 << 16, "{reports:?} would fit into a frame");
    assert!(reports.iter().all(|size| *size <= 1 << 14), "{reports:?}: a report is to have a quarter of a frame");
    loses_its_disk_and_gets_all_back(&mut world, "lyon");
}

#[test]
fn a_document_that_is_larger_than_a_frame_reaches_a_site_that_lost_its_disk() {
    // All limits are a 128th of what they are.
    let mut world = World::configured(61, |config| {
        config.frame_bytes = (8 << 20) / 128;
        config.limits.max_bytes = (5 << 20) / 128;
    });
    world.sites(&["lyon", "metz", "paris"]);
    world.put("paris", "web", "all", json!({"a": 1}));
    world.settle();
    world.partition(&[&["lyon"], &["metz"], &["paris"]]);
    let mut seed = 7;
    for site in ["lyon", "metz", "paris"] {
        let mut number = 0;
        while world.patch(site, "web", json!({ format!("{site}{number}"): noise(&mut seed, 2000) })).is_ok() {
            number += 1;
        }
        assert!(number > 10, "{site} wrote {number}");
    }
    world.heal();
    world.settle();
    let stored: usize = world.sites["paris"].disk.scan(b"d/web/").iter().map(|r| r.value.len()).sum();
    assert!(stored > (8 << 20) / 128, "{stored} bytes would fit into a frame");
    loses_its_disk_and_gets_all_back(&mut world, "metz");
    assert_eq!(world.text("metz", "web"), world.text("paris", "web"));
}

#[test]
fn a_site_that_does_not_know_another_as_a_holder_yet_is_told_in_as_many_frames_as_it_takes() {
    let mut world = World::configured(62, |config| {
        config.frame_bytes = 1 << 16;
        config.limits.max_bytes = 60_000;
        config.limits.remote_factor = 16;
    });
    world.sites(&["lyon", "metz", "paris"]);
    world.put("paris", "web", "metz & paris", json!({"a": 1}));
    world.settle();
    world.isolate("metz");
    let put = Put {
        id: id("web"),
        kind: Some("text".into()),
        scope: Some("lyon & metz & paris".into()),
        policy: None,
        desired: Some(json!({"a": 1})),
        overrides: None,
        base: None,
    };
    world.request("paris", Request::Put(put)).unwrap();
    world.until("lyon has it", Duration::from_secs(30), |world| world.text("lyon", "web").is_some());
    world.cut("lyon", "paris");
    let mut seed = 9;
    for site in ["lyon", "paris"] {
        let mut number = 0;
        while world.patch(site, "web", json!({ format!("{site}{number}"): noise(&mut seed, 4000) })).is_ok() {
            number += 1;
        }
        assert!(number > 5, "{site} wrote {number}");
    }
    world.mend("lyon", "paris");
    world.until("they have met", Duration::from_secs(30), |world| {
        let Ok(Response::Replicant(view)) = world.request("lyon", Request::Get { id: id("web") }) else { return false };
        let reported = view.sites.values().filter(|site| site.current).count() == 2;
        reported && world.text("lyon", "web") == world.text("paris", "web")
    });
    // What metz knows is that lyon is none of the holders; only lyon can tell it otherwise.
    world.crash("paris");
    world.mend("lyon", "metz");
    world.settle();
    assert_eq!(world.text("metz", "web"), world.text("lyon", "web"));
}

#[test]
fn a_report_that_no_other_site_could_be_told_is_not_taken() {
    let mut world = World::configured(63, |config| config.frame_bytes = 1 << 16);
    world.sites(&["paris", "rennes"]);
    world.put("paris", "web", "paris & rennes", json!({"a": 1}));
    world.settle();
    let rennes = SiteName::new("rennes").unwrap();
    let Ok(Response::Replicant(view)) = world.request("paris", Request::Get { id: id("web") }) else {
        panic!("no view")
    };
    let mut report = view.sites[&rennes].report.clone().unwrap();
    for (name, taken) in [("x".repeat(1 << 15), false), ("short".to_owned(), true)] {
        report.seq += 1;
        report.local_id = Some(name.clone());
        let document = DocumentId { replicant: id("web"), epoch: 0 };
        let reports = vec![Said::Whole(report.clone())];
        let push = Frame::Push(Push { document, changes: vec![], heads: vec![], reports });
        hand(&mut world, "paris", "rennes", &push);
        // Longer than reports wait for other things to be written.
        world.run_for(Duration::from_millis(300));
        let stored = &world.sites["paris"].disk.scan(b"d/web/r/rennes")[0].value;
        assert_eq!(stored.windows(name.len()).any(|part| part == name.as_bytes()), taken);
    }
}
