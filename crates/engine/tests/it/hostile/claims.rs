//! Who somebody is, where something lives, what time it is: what is claimed, and what of it is believed.

use std::time::Duration;

use ciborium::{Value, cbor};
use khufu_crdt::Payload;
use khufu_engine::{Input, Keys as _, NodeId, Put, Request, Response};
use serde_json::json;

use super::frames::{
    Step, at, field, frame, gossip, members, push, push_content, read, record, report, signed, unknown_head, versioned,
};
use super::stage::{KEPT, SECRET, Stage, WOLF, id, node, sign};
use super::{author, forged};

#[test]
fn a_site_record_is_believed_only_from_its_node() {
    let mut stage = Stage::new(102);
    let none = || Value::Map(Vec::new());
    let far = u64::MAX;
    let paris = || record("paris", "node-paris", far, cbor!({"stolen" => "yes"}).unwrap());
    let good = record(WOLF, "node-wolf", 7, none());
    let many = Value::Map((0..100).map(|n| (format!("l{n}").into(), "x".into())).collect());
    let long = Value::Map(vec![("l".into(), "x".repeat(20_000).into())]);
    let mine = |body: Vec<u8>| signed(body.clone(), sign(WOLF, &body));
    let forged = [
        mine(paris()),
        signed(paris(), Vec::new()),
        signed(paris(), vec![0; 64]),
        // The signature of something else that paris said.
        signed(paris(), sign("paris", &record("paris", "node-paris", 1, none()))),
        signed(good.clone(), sign(WOLF, b"other")),
        mine(record(WOLF, "node-wolf", far, many)),
        mine(record(WOLF, "node-wolf", far, long)),
        mine(record("not a site", "node-wolf", far, none())),
        mine(versioned(9, &none())),
    ];
    for forged in &forged {
        // By itself, behind a good one, and gossiped.
        for records in [vec![forged.clone()], vec![mine(good.clone()), forged.clone()]] {
            assert_eq!(stage.refused("rennes", |stage| stage.throw("rennes", members(records))), 1, "{forged:?}");
        }
        let body = cbor!({"Member" => forged}).unwrap();
        let bytes = gossip("node-wolf", &body, |body| sign(WOLF, body));
        assert_eq!(stage.refused("rennes", |stage| stage.whisper("rennes", bytes)), 1, "{forged:?}");
    }
    let stolen = |view: &khufu_engine::SiteView| view.labels.contains_key("stolen");
    let Ok(Response::Sites(sites)) = stage.world.request("rennes", Request::Sites) else { panic!("no answer") };
    assert!(sites.iter().any(|site| site.site.as_str() == "paris") && !sites.iter().any(stolen), "{sites:?}");
    // A clock that is far ahead harms its own node only: it can never say anything newer.
    let last = mine(record(WOLF, "node-wolf", far, none()));
    assert_eq!(stage.refused("rennes", |stage| stage.throw("rennes", members(vec![last]))), 0);
    // What paris really said before is older than what it says now.
    let old: Vec<_> = stage
        .said()
        .filter(|bytes| read(bytes).is_some_and(|said| field(&said, "Members").is_some()))
        .cloned()
        .collect();
    assert!(!old.is_empty());
    for bytes in old {
        stage.throw("rennes", bytes);
    }
    stage.all_is_well();
}

#[test]
fn gossip_is_believed_only_from_its_author() {
    let mut stage = Stage::new(103);
    let body = cbor!({"Push" => push_content("log", 0, Vec::new(), vec![unknown_head(1)], Vec::new())}).unwrap();
    let forged = [
        gossip("node-paris", &body, |body| sign(WOLF, body)),
        gossip("node-paris", &body, |_| Vec::new()),
        gossip("nobody", &body, |body| sign(WOLF, body)),
        gossip("node-wolf", &body, |_| sign(WOLF, b"another body")),
        gossip("node-wolf", &cbor!({"Nonsense" => 1}).unwrap(), |body| sign(WOLF, body)),
    ];
    for bytes in forged {
        assert_eq!(stage.refused("rennes", |stage| stage.whisper("rennes", bytes.clone())), 1);
        // Passed on by one who has not read it, and is not to blame.
        let connected = stage.metrics("nantes").connected;
        let disconnected = stage.world.disconnected;
        let input = Input::Gossip { source: node("paris"), bytes };
        assert_eq!(stage.refused("nantes", |stage| stage.world.hand("nantes", input)), 1);
        assert_eq!((stage.metrics("nantes").connected, stage.world.disconnected), (connected, disconnected));
    }
    stage.all_is_well();
}

#[test]
fn news_of_a_report_that_nobody_has_made_is_not_made_up() {
    let mut stage = Stage::new(123);
    let seq = |stage: &Stage| stage.world.reported("paris", &id("web"), "rennes").unwrap();
    let known = seq(&stage);
    let told = |news: Value| cbor!({"i" => "web", "e" => 0, "r" => {"n" => news}}).unwrap();
    let reports = |told: Vec<Value>| frame(&cbor!({"Reports" => {"told" => Value::Array(told)}}).unwrap());
    let say = |stage: &mut Stage, from: &str, bytes: Vec<u8>| {
        stage.world.hand("paris", Input::Frame { from: node(from), bytes });
    };
    // What it speaks of is not in the one before, or there is too much of it.
    for tail in [cbor!([0, u64::MAX, []]), cbor!([u64::MAX, 1, []]), cbor!([0, 1, []]), cbor!([1, 0, []])] {
        let bytes = reports(vec![told(cbor!({"b" => known, "n" => 1, "a" => tail.unwrap()}).unwrap())]);
        assert_eq!(stage.refused("paris", |stage| say(stage, "rennes", bytes)), 1);
        stage.world.run_for(Duration::from_secs(5));
    }
    let known = seq(&stage);
    let many = reports(vec![told(cbor!({"b" => known, "n" => 0}).unwrap()); 257]);
    assert_eq!(stage.refused("paris", |stage| say(stage, "rennes", many)), 1);
    stage.world.run_for(Duration::from_secs(5));
    // There is no such number, or it is no news; and what starts from one that is not known is fetched.
    let (known, syncs) = (seq(&stage), stage.metrics("paris").syncs);
    for (base, higher) in [(known, u64::MAX), (u64::MAX, 1), (known, 0), (0, 1), (known - 1, 1)] {
        let bytes = reports(vec![told(cbor!({"b" => base, "n" => higher, "s" => "failed"}).unwrap())]);
        say(&mut stage, "rennes", bytes);
        assert_eq!(seq(&stage), known, "{base} and {higher}");
    }
    assert_eq!(stage.metrics("paris").syncs, syncs);
    say(&mut stage, "rennes", reports(vec![told(cbor!({"b" => known + 1, "n" => 1}).unwrap())]));
    stage.world.run_for(Duration::from_secs(5));
    assert_eq!((seq(&stage), stage.metrics("paris").syncs), (known, syncs + 1));
    // A stranger has nothing to say of itself, nor of others.
    say(&mut stage, WOLF, reports(vec![told(cbor!({"b" => known, "n" => 1, "s" => "failed"}).unwrap())]));
    stage.world.run_for(Duration::from_secs(5));
    assert_eq!(seq(&stage), known);
    stage.all_is_well();
}

#[test]
fn made_up_nodes_neither_stop_a_site_nor_keep_a_real_one_out() {
    let mut stage = Stage::new(120);
    for batch in 0..9 {
        let made_up = (0..500).map(|number| {
            let node = format!("node-nobody{batch}x{number}");
            let body = record(&format!("nobody{batch}x{number}"), &node, 1, Value::Map(Vec::new()));
            let signature = khufu_engine::harness::SimulatedKeys(NodeId(node)).sign(&body);
            signed(body, signature)
        });
        stage.throw("paris", members(made_up.collect()));
        stage.world.run_for(Duration::from_millis(50));
    }
    stage.world.sites(&["tours"]);
    stage.world.put("tours", "new", "paris & tours", json!({"a": 1}));
    stage.world.settle();
    stage.world.restart("paris");
    stage.all_is_well();
}

#[test]
fn a_site_that_was_told_wrongly_that_it_is_out_comes_back() {
    let mut stage = Stage::new(121);
    let put = |scope: &str| {
        let (kind, scope, desired) = (Some("text".into()), Some(scope.into()), Some(json!({"a": 1})));
        Request::Put(Put { id: id("guest"), kind, scope, policy: None, desired, overrides: None, base: None })
    };
    stage.world.request("rennes", put("nantes & rennes")).unwrap();
    stage.world.settle();
    stage.world.isolate("nantes");
    stage.world.request("rennes", Request::Delete { id: id("guest"), keep: false, base: None }).unwrap();
    stage.world.request("rennes", put("nantes & rennes")).unwrap();
    // As from a site that has closed the epoch, and took this one out.
    let document = super::frames::document("guest", 1);
    let (heads, knows) = (vec![unknown_head(1)], Value::Array(Vec::new()));
    let out = cbor!({"NotHolder" => {"document" => document, "heads" => heads, "knows" => knows}}).unwrap();
    stage.world.hand("nantes", Input::Frame { from: node("rennes"), bytes: frame(&out) });
    stage.world.until("nantes cleans up", Duration::from_secs(10), |world| world.text("nantes", "guest").is_none());
    stage.world.run_for(Duration::from_secs(5));
    stage.world.heal();
    stage.world.settle();
    assert!(stage.world.text("nantes", "guest").is_some());
    stage.all_is_well();
}

#[test]
fn what_a_stranger_reports_is_not_believed() {
    let mut stage = Stage::new(104);
    let heads = stage.heads("paris", "log");
    let mut reports = Vec::new();
    for about in ["paris", "nantes", "rennes", WOLF, "nobody"] {
        for seq in [0, 1, 1 << 52, (1 << 60) - 1, 1 << 60, u64::MAX] {
            for status in ["applied", "removed", "needs-attention"] {
                reports.push(report("log", about, seq, status, &heads));
            }
        }
    }
    // Of another replicant than the frame.
    reports.push(report("web", "rennes", 1 << 52, "removed", &heads));
    let before = stage.view("paris", "log").sites;
    for report in &reports {
        let frames = [
            push("log", 0, Vec::new(), Vec::new(), vec![report.clone()]),
            Step { reports: vec![report.clone()], ..Step::first("log", 0) }.frame(),
        ];
        for bytes in frames {
            stage.throw("paris", bytes);
        }
        let body = cbor!({"Push" => push_content("log", 0, Vec::new(), Vec::new(), vec![report.clone()])}).unwrap();
        stage.whisper("paris", gossip("node-wolf", &body, |body| sign(WOLF, body)));
    }
    assert_eq!(stage.view("paris", "log").sites, before);
    // A session with one that holds nothing does not begin, so what comes with it is not even looked at.
    let ignored = stage.metrics("paris").ignored;
    assert!(ignored >= 2 * reports.len() as u64, "{ignored} of {}", 2 * reports.len());
    stage.all_is_well();
}

#[test]
fn a_holder_that_lies_about_others_is_outdone_by_what_they_say_themselves() {
    // Reports are not signed yet: one of the replica set can say anything of another, until that one is heard again.
    let mut stage = Stage::new(105);
    stage.world.put("paris", "shared", "all", json!({"a": 1}));
    stage.world.settle();
    let heads = stage.heads("paris", "shared");
    let now = 1_790_000_000_000 + stage.world.now().as_millis() as u64;
    let ahead = |years: u64| (now + years * 365 * 24 * 3_600_000) * 1024;
    for seq in [ahead(0), ahead(1), ahead(99), ahead(101), (1 << 60) - 1, 1 << 60, u64::MAX] {
        for about in ["paris", "rennes"] {
            for status in ["removed", "failed", "applied"] {
                let lie = report("shared", about, seq, status, &heads);
                stage.throw("paris", push("shared", 0, Vec::new(), Vec::new(), vec![lie]));
                stage.world.run_for(Duration::from_millis(3));
            }
        }
    }
    stage.world.settle();
    for number in 0..3 {
        stage.world.patch("rennes", "shared", json!({"a": number})).unwrap();
        stage.world.settle();
    }
    stage.all_is_well();
}

#[test]
fn a_clock_a_day_ahead_is_not_followed() {
    let mut stage = Stage::new(107);
    stage.world.put_with("paris", "shared", "paris & wolf", &crate::file_policy());
    stage.world.settle();
    let said: Vec<_> = stage.told(Some("paris")).filter_map(|bytes| read(bytes)).collect();
    let changes = said.iter().filter_map(|said| {
        let about = at(said, &["Push", "document", "replicant"])?.as_text()? == "shared";
        about.then(|| at(said, &["Push", "changes"])?.as_array()).flatten()
    });
    let changes: Vec<Vec<u8>> = changes.flatten().filter_map(|change| change.as_bytes().cloned()).collect();
    let mut doc = forged("shared", 0);
    assert_eq!(doc.apply(&changes).unwrap().rejected, Vec::<String>::new());
    assert!(doc.is_created());
    let ahead = stage.metrics("paris").clocks_ahead;
    let now = 1_790_000_000_000 + stage.world.now().as_millis() as u64;
    for (number, at) in [now + 86_400_000, u64::MAX / 1024, u64::MAX].into_iter().enumerate() {
        let operation = khufu_crdt::OperationId::new(format!("ahead{number}")).unwrap();
        let payload = Payload::Value(json!(format!("ahead{number};")));
        let parents = khufu_crdt::frontier(&doc.state().operations);
        let change = doc.operate(&author(at), operation, "add", payload, parents, false).unwrap().unwrap();
        stage.throw("paris", push("shared", 0, vec![change.bytes], Vec::new(), Vec::new()));
        stage.world.run_for(Duration::from_millis(50));
    }
    assert!(stage.metrics("paris").clocks_ahead - ahead >= 3);
    stage.world.operate("paris", "shared", "add", "mine").unwrap();
    stage.world.settle();
    // What follows comes after, whatever the clocks say; and the clock of paris is not that of the wolf.
    assert_eq!(stage.world.text("paris", "shared").as_deref(), Some("ahead0;ahead1;ahead2;mine"));
    let view = stage.view("paris", "shared");
    let mine = view.operations.iter().map(|view| &view.operation).find(|op| op.by.as_str() == "paris").unwrap();
    assert!(mine.at.ms() < now + 3_600_000, "{} is far from {now}", mine.at.ms());
    stage.all_is_well();
}

#[test]
fn one_who_never_says_who_it_is_gets_nothing() {
    let mut stage = Stage::new(118);
    let stranger = NodeId("stranger".into());
    let input = |bytes: Vec<u8>| Input::Frame { from: NodeId("stranger".into()), bytes };
    let mut bytes: Vec<Vec<u8>> = stage.said().cloned().collect();
    for (name, _) in KEPT {
        bytes.extend([Step::first(name, 0).frame(), Step::first(name, 1).frame()]);
        bytes.push(push(name, 0, Vec::new(), vec![unknown_head(1)], Vec::new()));
    }
    // Without a connection, and with one.
    for connected in [false, true] {
        if connected {
            stage.world.hand("paris", Input::PeerUp { node: stranger.clone() });
        }
        let from = stage.world.recorded.as_ref().map_or(0, Vec::len);
        for bytes in &bytes {
            let about = read(bytes);
            // What a member may ask is another matter.
            if about.is_some_and(|said| field(&said, "Ask").is_some()) {
                continue;
            }
            stage.world.hand("paris", input(bytes.clone()));
        }
        let recorded = stage.world.recorded.as_ref().unwrap();
        for said in recorded[from..].iter().filter(|said| said.to == "stranger") {
            assert!(!super::stage::holds(&said.bytes, SECRET), "{:?}", read(&said.bytes));
        }
    }
    stage.world.hand("paris", Input::PeerDown { node: stranger });
    stage.all_is_well();
}
