//! A member of the network that breaks the rules. It has the network's key and a site record of its own, and none of what
//! the others hold is meant for it.
//!
//! What a member may do is not tried here: whoever has the network's key may write to all replicants that it can name, and
//! what holders of a replicant say of it is not signed (see `SECURITY.md`).

mod frames;
mod mutated;
mod stage;

use std::collections::BTreeMap;
use std::time::Duration;

use ciborium::{Value, cbor};
use khufu_crdt::{Actor, Author, DocumentId, Hlc, Mode, Payload, Placement, Replicant, SiteName, Spec};
use khufu_engine::{Input, Keys as _, NodeId, Put, Request, RequestError, Response};
use serde_json::json;

use self::frames::{
    Step, all_is_different, ask, ask_as, at, field, frame, gossip, members, prefix, push, push_content, read,
    reconcile, record, report, request, signed, unknown_head, versioned,
};
use self::stage::{HONEST, KEPT, SECRET, Stage, WOLF, cbor_of, id, node, sign};

/// A document as somebody makes it who knows its name.
fn forged(name: &str, epoch: u64) -> Replicant {
    Replicant::genesis(DocumentId { replicant: id(name), epoch }, &Actor::new([0xff; 16])).unwrap()
}

fn author(ms: u64) -> Author {
    Author { site: SiteName::new(WOLF).unwrap(), at: Hlc::from_ms(ms), who: WOLF.into(), why: String::new() }
}

fn spec(sites: &[&str]) -> Spec {
    let sites: std::collections::BTreeSet<_> = sites.iter().map(|site| SiteName::new(*site).unwrap()).collect();
    let placement = Placement {
        expression: sites.iter().map(SiteName::as_str).collect::<Vec<_>>().join(" & "),
        sites,
        leaving: [].into(),
        mode: Mode::Replicate,
        prime: None,
        decided_at: Hlc::from_ms(1),
        decided_by: SiteName::new(WOLF).unwrap(),
    };
    let scope = placement.expression.clone();
    Spec { kind: "text".into(), scope, placement, policy: Default::default(), desired: json!({}), overrides: [].into() }
}

#[test]
fn bytes_that_are_no_frame_are_refused() {
    let mut stage = Stage::new(100);
    let real: Vec<_> = stage.said().filter(|bytes| read(bytes).is_some()).step_by(7).cloned().collect();
    let mut bad = vec![Vec::new(), vec![frames::VERSION]];
    for length in 1..200 {
        bad.push((0..length).map(|_| stage.world.below(256) as u8).collect());
        // With the right version, so that the rest is looked at.
        bad.push(std::iter::once(frames::VERSION).chain((1..length).map(|_| stage.world.below(256) as u8)).collect());
    }
    for whole in &real {
        for _ in 0..4 {
            let end = stage.world.below(whole.len() as u64) as usize;
            bad.push(whole[..end].to_vec());
        }
        bad.push([whole.as_slice(), &[0]].concat());
        for version in [0, 2, 255] {
            bad.push([&[version], &whole[1..]].concat());
        }
    }
    assert!(bad.len() > 500, "{}", bad.len());
    // What is right for one of two ways to come is wrong for the other.
    for bytes in
        bad.into_iter().chain(real.iter().filter(|bytes| field(&read(bytes).unwrap(), "body").is_some()).cloned())
    {
        let refused = stage.refused("paris", |stage| stage.throw("paris", bytes.clone()));
        assert_eq!(refused, 1, "{bytes:?}");
        let refused = stage.refused("rennes", |stage| {
            let bytes = if read(&bytes).is_some() { vec![frames::VERSION] } else { bytes.clone() };
            stage.whisper("rennes", bytes);
        });
        assert_eq!(refused, 1, "{bytes:?}");
    }
    stage.all_is_well();
}

#[test]
fn counts_and_lengths_that_nothing_stands_behind_are_refused() {
    let mut stage = Stage::new(101);
    let header = |major: u8, count: u64| [&[frames::VERSION, major << 5 | 27], count.to_be_bytes().as_slice()].concat();
    let mut bad: Vec<Vec<u8>> = Vec::new();
    for major in 2..6 {
        for count in [1 << 20, 1 << 40, u64::MAX / 16, u64::MAX] {
            bad.push(header(major, count));
            // As the list of what is wanted.
            let mut want = versioned(frames::VERSION, &cbor!({"Want" => {"items" => 0}}).unwrap());
            want.pop();
            want.extend(&header(major, count)[1..]);
            bad.push(want);
        }
    }
    // Nested without end, in three ways; and many times nothing, which is small as a frame and large when read.
    bad.push([vec![frames::VERSION], vec![0x81; 1 << 20]].concat());
    bad.push([vec![frames::VERSION], vec![0xc1; 1 << 20]].concat());
    bad.push([vec![frames::VERSION], vec![0x9f; 1 << 20]].concat());
    bad.push([vec![frames::VERSION], [0xa1, 0x61, b'a'].repeat(1 << 18)].concat());
    for nothing in [0x40, 0x60, 0x80, 0xa0, 0xf6] {
        let mut want = versioned(frames::VERSION, &cbor!({"Want" => {"items" => 0}}).unwrap());
        want.pop();
        want.extend([0x9f].into_iter().chain(std::iter::repeat_n(nothing, 8_300_000)).chain([0xff]));
        bad.push(want);
    }
    let mut deep = ask(1, request(cbor!({"patch" => {"id" => "log", "patch" => 0}}).unwrap()));
    deep.pop();
    bad.push([deep, vec![0x81; 100_000]].concat());
    bad.push([vec![frames::VERSION], vec![0; 8 << 20]].concat());
    for bytes in bad {
        let begin = bytes[..bytes.len().min(20)].to_vec();
        let refused = stage.refused("paris", |stage| stage.throw("paris", bytes));
        assert_eq!(refused, 1, "{begin:?}");
    }
    // More than anybody needs of what is right in itself.
    let too_many = [
        frame(&cbor!({"Want" => {"items" => vec![prefix("log"); 5000]}}).unwrap()),
        members(vec![signed(record(WOLF, "node-wolf", 1, Value::Map(Vec::new())), Vec::new()); 4098]),
    ];
    for bytes in too_many {
        assert_eq!(stage.refused("paris", |stage| stage.throw("paris", bytes)), 1);
    }
    stage.all_is_well();
}

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
    stage.world.request("rennes", Request::Delete { id: id("guest"), keep: false }).unwrap();
    stage.world.request("rennes", put("nantes & rennes")).unwrap();
    // As from a site that has heard of the deletion, and not of all that followed.
    let document = frames::document("guest", 1);
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
fn changes_of_another_document_are_refused_and_what_lacks_others_waits_within_bounds() {
    let mut stage = Stage::new(106);
    let before = stage.heads("paris", "log");
    let rejected = stage.metrics("paris").changes_rejected;
    // Of another id, and of another epoch, under the name of this one.
    let mut other = forged("other", 0);
    let mut later = forged("log", 1);
    let mut bad = vec![b"no change".to_vec(), Vec::new()];
    for doc in [&mut other, &mut later] {
        let genesis = doc.changes_since(&[]).remove(0).bytes;
        let create = doc.create(&author(1), spec(&["paris", WOLF])).unwrap().unwrap();
        bad.extend([genesis, create.bytes]);
    }
    for change in &bad {
        stage.throw("paris", push("log", 0, vec![change.clone()], Vec::new(), Vec::new()));
    }
    stage.throw("paris", push("log", 0, bad, Vec::new(), Vec::new()));
    stage.world.run_for(Duration::from_millis(50));
    assert_eq!(stage.heads("paris", "log"), before);
    let now = stage.metrics("paris").changes_rejected - rejected;
    // The two that follow another first change wait for it; the others can never be right.
    assert!(now >= 4, "{now} refused");
    // Chains that hang in the air: each change lacks the one before it.
    let mut chain = forged("log", 7);
    chain.create(&author(1), spec(&["paris"])).unwrap();
    chain = chain.with_limits(khufu_crdt::Limits { max_bytes: usize::MAX, ..Default::default() });
    for _ in 0..100 {
        // Nothing that can be compressed.
        let text: String = (0..80_000).map(|_| char::from(33 + stage.world.below(90) as u8)).collect();
        let change = chain.patch_desired(&author(2), &json!({ "text": text })).unwrap().unwrap();
        stage.throw("paris", push("log", 0, vec![change.bytes], Vec::new(), Vec::new()));
        stage.world.run_for(Duration::from_millis(11));
    }
    assert!(stage.metrics("paris").changes_rejected - rejected > now, "the queue has an end");
    assert_eq!(stage.heads("paris", "log"), before);
    stage.all_is_well();
    // Nor does it grow over a restart.
    stage.world.restart("paris");
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
fn a_question_about_very_many_is_answered() {
    let mut stage = Stage::new(108);
    let many = |count: usize| -> Vec<String> { (0..count).map(|number| format!("unknown{number}")).collect() };
    stage.throw("paris", ask(1, cbor!({"Holdings" => many(10_000)}).unwrap()));
    stage.throw("paris", ask(2, cbor!({"Holdings" => many(200_000)}).unwrap()));
    stage.throw("paris", ask(3, cbor!({"Holdings" => vec!["log"; 10_000]}).unwrap()));
    for nonce in 10..5_000 {
        stage.throw("paris", ask(nonce, cbor!({"Locate" => format!("unknown{nonce}")}).unwrap()));
        stage.throw("paris", ask(10_000 + nonce, cbor!({"Plan" => format!("unknown{nonce}")}).unwrap()));
    }
    stage.world.run_for(Duration::from_secs(2));
    let answers = stage.answers("paris");
    for (nonce, count) in [(1, 10_000), (2, 10_000), (3, 1)] {
        let held = field(&answers[&nonce], "Holdings").and_then(|held| held.as_map()).map(Vec::len);
        assert_eq!(held, Some(count), "{nonce}");
    }
    assert_eq!(field(&answers[&10], "Located").and_then(Value::as_bool), Some(false));
    stage.all_is_well();
}

#[test]
fn looks_at_replicas_for_another_site_leave_room_for_others() {
    let mut stage = Stage::new(109);
    for nonce in 0..20_000 {
        let kind = if nonce % 2 == 0 { "Plan" } else { "Holdings" };
        let about = if kind == "Plan" { Value::from("log") } else { vec![Value::from("log"); 3].into() };
        stage.throw("paris", ask(nonce, cbor!({ kind => about }).unwrap()));
    }
    stage.bounded();
    let Ok(Response::Verify(report)) = stage.world.request("rennes", Request::Verify { id: Some(id("web")) }) else {
        panic!("no answer");
    };
    assert!(report.same, "{report:?}");
    stage.all_is_well();
}

#[test]
fn a_comparison_without_end_ends() {
    let mut stage = Stage::new(110);
    // So that there is something to go on about.
    for number in 0..100 {
        stage.world.put("paris", &format!("shared{number}"), "paris & wolf", json!({"n": number}));
    }
    stage.world.settle();
    let begun = |said: &Value| {
        let reply = at(said, &["Reconcile", "reply"])?.as_bool()?;
        let round: u64 = at(said, &["Reconcile", "round"])?.as_integer()?.try_into().ok()?;
        (!reply).then_some(round)
    };
    let (mut steps, mut salt) = (0, 0);
    let so_far = stage.so_far();
    stage.world.until("paris begins", Duration::from_secs(10), |world| {
        let mut said = world.recorded.as_ref().unwrap()[so_far..].iter().filter(|said| said.from == "paris");
        said.any(|said| said.to == WOLF && read(&said.bytes).as_ref().and_then(begun).is_some())
    });
    let round = stage.told_since(so_far, "paris").find_map(|said| begun(&said)).unwrap();
    // Before the node of the wolf can answer as it should.
    loop {
        let so_far = stage.so_far();
        salt += 1;
        stage.throw("paris", reconcile(round, true, all_is_different(salt)));
        if stage.told_since(so_far, "paris").all(|said| begun(&said) != Some(round)) {
            break;
        }
        steps += 1;
        assert!(steps < 20_000, "it goes on for ever");
    }
    assert!(steps > 100, "only {steps} steps were made: nothing was tried");
    // What is no comparison at all, in both directions.
    for message in
        [Vec::new(), vec![0x61; 50_000], vec![0xff; 9], vec![0x61, 0, 0, 1], vec![0x61, 0, 0, 2, 0xff, 0xff, 0x7f]]
    {
        let refused = stage.refused("paris", |stage| stage.throw("paris", reconcile(1, false, message.clone())));
        assert_eq!(refused, 1, "{message:?}");
        stage.throw("paris", reconcile(u64::MAX, true, message));
    }
    for salt in 0..200 {
        stage.throw("paris", reconcile(salt, false, all_is_different(salt)));
    }
    for number in 0..100 {
        let name = format!("shared{number}");
        stage.world.patch("paris", &name, json!({"n": "again"})).unwrap();
    }
    stage.world.settle();
    stage.all_is_well();
}

#[test]
fn requests_in_the_name_of_others_are_bounded_and_go_no_further() {
    let mut stage = Stage::new(111);
    let put = |id: &str, scope: &str, desired: Value| {
        cbor!({"put" => {
            "id" => id, "kind" => "text", "scope" => scope, "policy" => null, "desired" => desired,
            "overrides" => null, "base" => null,
        }})
        .unwrap()
    };
    let large: Value = "x".repeat(7_000_000).into();
    let many = Value::Array(vec![Value::from(1); 1_500_000]);
    let deep = (0..150).fold(cbor_of(&json!(1)), |inner, _| Value::Array(vec![inner]));
    let cases = [
        (put("large", "paris", large), "too-large"),
        (put("many", "paris", many), "too-large"),
        (put("deep", "paris", deep), "invalid"),
        (put("lost", "atlantis", Value::Null), "invalid"),
        (put("lost", &format!("paris{}", " & paris".repeat(2_000)), Value::Null), "invalid"),
        (put("lost", &"(".repeat(4_000), Value::Null), "invalid"),
        // It would have to be passed on, and an answer to it again.
        (put("ring", "rennes", Value::Null), "conflict"),
        (cbor!({"get" => {"id" => "pair"}}).unwrap(), "not-found"),
        (cbor!({"plan" => {"id" => "nothing"}}).unwrap(), "not-found"),
        (cbor!({"operate" => {"id" => "log", "operation" => Value::Null, "op_type" => "", "payload" => 1, "wait_ms" => 0}}).unwrap(), "invalid"),
    ];
    let asked_others = |stage: &Stage| {
        stage
            .world
            .recorded
            .iter()
            .flatten()
            .filter(|said| said.from == "nantes")
            .filter(|said| read(&said.bytes).is_some_and(|said| field(&said, "Ask").is_some()))
            .count()
    };
    let before = asked_others(&stage);
    for (nonce, (what, expected)) in cases.into_iter().enumerate() {
        let nonce = nonce as u64;
        let to = if matches!(expected, "conflict" | "not-found") { "nantes" } else { "paris" };
        stage.throw(to, ask(nonce, request(what)));
        stage.world.run_for(Duration::from_millis(200));
        let answer = stage.answers(to).remove(&nonce).unwrap_or_else(|| panic!("no answer to {nonce}"));
        let error = at(&answer, &["Answer", "Err", "error"]).and_then(|error| error.as_text());
        assert_eq!(error, Some(expected), "{nonce}: {answer:?}");
    }
    assert_eq!(asked_others(&stage), before, "nantes passed something on");
    // A name that is too long to be written down.
    let operate = |wait_ms: u64| {
        cbor!({"operate" => {
            "id" => "web", "operation" => Value::Null, "op_type" => "note", "payload" => 1, "wait_ms" => wait_ms,
        }})
    };
    stage.throw("paris", ask_as(50, &"x".repeat(1_000_000), request(operate(0).unwrap())));
    stage.world.run_for(Duration::from_millis(200));
    let answer = stage.answers("paris").remove(&50).expect("an answer");
    assert!(at(&answer, &["Answer", "Err"]).is_some(), "{answer:?}");
    stage.all_is_well();
}

#[test]
fn those_who_wait_for_a_stranger_leave_room_for_the_users_of_others() {
    let mut stage = Stage::new(112);
    stage.world.isolate("rennes");
    for nonce in 0..3_000 {
        let operation = format!("wait{nonce}");
        let operate = cbor!({"operate" => {
            "id" => "log", "operation" => operation, "op_type" => "note", "payload" => "", "wait_ms" => 600_000,
        }});
        stage.throw("paris", ask(nonce, request(operate.unwrap())));
        if nonce % 100 == 0 {
            stage.world.run_for(Duration::from_millis(5));
        }
    }
    stage.world.run_for(Duration::from_secs(1));
    let answers = stage.answers("paris");
    let error = |answer| at(answer, &["Answer", "Err", "error"]).and_then(|error| error.as_text());
    let busy = answers.values().filter(|answer| error(answer) == Some("busy"));
    assert!(busy.count() > 2_000);
    stage.bounded();
    // A user of paris, and one of nantes that paris must be asked for.
    stage.write("paris", "pair");
    stage.write("nantes", "pair");
    stage.world.heal();
    // Who has gone is not waited for.
    stage.world.crash(WOLF);
    stage.world.start(WOLF);
    stage.all_is_well();
}

#[test]
fn sessions_that_nobody_began_and_sessions_without_number_change_nothing() {
    let mut stage = Stage::new(113);
    let before = stage.metrics("paris");
    for (number, (name, _)) in KEPT.into_iter().enumerate() {
        for initiator in [false, true] {
            for seq in [0, 1, 255, 256, u64::from(u32::MAX)] {
                let session = 1000 + number as u64;
                let step = Step { session, seq, initiator, ..Step::first(name, 0) };
                stage.throw("paris", step.frame());
                let step =
                    Step { session, seq, initiator, message: Some(b"nonsense".to_vec()), ..Step::first(name, 0) };
                stage.throw("paris", step.frame());
            }
        }
    }
    let sessions = stage.metrics("paris").sessions - before.sessions;
    assert_eq!(sessions, 0, "no session with one that holds nothing");
    assert!(stage.metrics("paris").ignored > before.ignored);
    // One who may hold something begins one session after another for it, and never goes on.
    stage.world.put("paris", "shared", "paris & wolf", json!({"a": 1}));
    stage.world.settle();
    for session in 0..10_000 {
        stage.throw("paris", Step { session, ..Step::first("shared", 0) }.frame());
        stage.throw("paris", Step { session, ..Step::first(&format!("nothing{session}"), 0) }.frame());
    }
    stage.bounded();
    assert!(stage.metrics("paris").sessions <= 64, "{:?}", stage.metrics("paris"));
    let refused = stage.refused("paris", |stage| {
        stage.throw(
            "paris",
            Step { session: 77_777, message: Some(b"nonsense".to_vec()), ..Step::first("shared", 0) }.frame(),
        );
    });
    assert_eq!(refused, 1);
    stage.all_is_well();
}

#[test]
fn one_who_may_not_hold_a_replicant_is_not_given_it() {
    let mut stage = Stage::new(114);
    let said: Vec<Vec<u8>> = stage.said().cloned().collect();
    for (name, sites) in KEPT {
        for to in sites {
            let heads: Vec<Value> = stage.heads(to, name).into_iter().map(Value::from).collect();
            let not_holder = |epoch: u64, heads: &[Value], knows: &[Value]| {
                let document = frames::document(name, epoch);
                frame(&cbor!({"NotHolder" => {"document" => document, "heads" => heads, "knows" => knows}}).unwrap())
            };
            let items = vec![prefix(name)];
            let body = cbor!({"Push" => push_content(name, 0, Vec::new(), heads.clone(), Vec::new())}).unwrap();
            let attacks = [
                Step::first(name, 0).frame(),
                Step::first(name, 1).frame(),
                Step::first(name, 2).frame(),
                frame(&cbor!({"Want" => {"items" => items}}).unwrap()),
                push(name, 0, Vec::new(), vec![unknown_head(1)], Vec::new()),
                push(name, 0, Vec::new(), heads.clone(), Vec::new()),
                push(name, 3, Vec::new(), vec![unknown_head(1)], Vec::new()),
                not_holder(0, &[], &[]),
                not_holder(0, &heads, &heads),
                not_holder(5, &[unknown_head(1)], &heads),
                reconcile(1, false, all_is_different(1)),
                gossip("node-wolf", &body, |body| sign(WOLF, body)),
            ];
            for (number, bytes) in attacks.into_iter().enumerate() {
                if number == 11 {
                    stage.whisper(to, bytes)
                } else {
                    stage.throw(to, bytes)
                }
                stage.world.run_for(Duration::from_millis(50));
            }
        }
    }
    stage.nothing_leaked();
    // All that the honest sites ever said, said again.
    for bytes in said {
        for to in HONEST {
            stage.throw(to, bytes.clone());
            stage.whisper(to, bytes.clone());
        }
        stage.world.run_for(Duration::from_millis(1));
    }
    stage.all_is_well();
}

#[test]
fn a_claim_that_there_is_a_later_document_holds_nothing_up() {
    let mut stage = Stage::new(115);
    // Epochs that could follow, and what could be made anew after a deletion.
    let life = 1 << 20;
    let epochs = [1, 2, life - 1, life, life + 1, 2 * life, 1 << 31, 1 << 40, (1 << 40) + 1, u64::MAX];
    for (round, epoch) in epochs.into_iter().enumerate() {
        for (name, sites) in KEPT {
            for to in sites {
                stage.throw(to, push(name, epoch, Vec::new(), vec![unknown_head(1)], Vec::new()));
                stage.throw(to, Step::first(name, epoch).frame());
                // As if it had been closed at what there is.
                for head in stage.heads(to, name) {
                    stage.throw(to, frames::with_cut(&push(name, epoch, Vec::new(), Vec::new(), Vec::new()), &head));
                }
            }
        }
        // In the middle of it, users write, and the driver answers.
        stage.write(HONEST[round % 3], "log");
        stage.write("paris", "pair");
        for (name, sites) in KEPT {
            assert_eq!(stage.view(sites[0], name).epoch, 0, "{name} after a claim of {epoch}");
        }
    }
    stage.all_is_well();
}

#[test]
fn news_of_very_many_replicants_leaves_room_for_those_there_are() {
    let mut stage = Stage::new(116);
    let before = stage.metrics("rennes").resident;
    for number in 0..5_000 {
        stage.throw("rennes", push(&format!("nothing{number}"), 0, Vec::new(), vec![unknown_head(number)], Vec::new()));
    }
    let metrics = stage.metrics("rennes");
    assert!(metrics.resident - before <= 1024 && metrics.refused >= 3_900, "{metrics:?}");
    // Large enough to be announced only, and fetched.
    let text = "x".repeat(20_000);
    stage.world.put("paris", "large", "paris & rennes", json!({ "text": text }));
    stage.world.until("rennes has it", Duration::from_secs(1), |world| world.text("rennes", "large").is_some());
    stage.all_is_well();
}

#[test]
fn documents_that_nobody_has_placed_anywhere_have_little_room_together() {
    let mut stage = Stage::configured(122, |config| {
        config.limits.max_bytes = 100_000;
        config.limits.remote_factor = 1;
    });
    // Each is within all limits, and waits for what never comes.
    let mut taken = 0;
    for number in 0..100 {
        let name = format!("nothing{number}");
        let mut doc = forged(&name, 0);
        doc.create(&author(1), spec(&["rennes"])).unwrap();
        let text: String = (0..90_000).map(|_| char::from(33 + stage.world.below(90) as u8)).collect();
        let change = doc.patch_desired(&author(2), &json!({ "text": text })).unwrap().unwrap();
        let bytes = push(&name, 0, vec![change.bytes], Vec::new(), Vec::new());
        taken += 1 - stage.refused("rennes", |stage| stage.throw("rennes", bytes));
    }
    assert!((16..25).contains(&taken), "{taken} were taken");
    stage.all_is_well();
}

#[test]
fn what_is_asked_for_by_a_stranger_is_not_read_from_disk() {
    let mut stage = Stage::configured(117, |config| config.resident = 20);
    let names: Vec<String> = (0..300).map(|number| format!("r{number}")).collect();
    for name in &names {
        stage.world.put("paris", name, "paris & rennes", json!({ "word": SECRET }));
    }
    stage.world.settle();
    stage.world.run_for(Duration::from_secs(30));
    assert!(stage.metrics("paris").resident <= 20);
    let items: Vec<_> = names.iter().map(|name| prefix(name)).collect();
    stage.throw("paris", frame(&cbor!({"Want" => {"items" => items}}).unwrap()));
    stage.world.run_for(Duration::from_millis(100));
    assert!(stage.metrics("paris").resident <= 20, "{:?}", stage.metrics("paris"));
    // What each of many frames names is read, but does not stay.
    for name in &names {
        stage.throw("paris", push(name, 0, Vec::new(), vec![unknown_head(1)], Vec::new()));
    }
    stage.world.run_for(Duration::from_millis(100));
    assert!(stage.metrics("paris").resident <= 120, "{:?}", stage.metrics("paris"));
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
            assert!(!stage::holds(&said.bytes, SECRET), "{:?}", read(&said.bytes));
        }
    }
    stage.world.hand("paris", Input::PeerDown { node: stranger });
    stage.all_is_well();
}

#[test]
fn answers_to_what_was_not_asked_are_nothing() {
    let mut stage = Stage::new(119);
    for nonce in 0..100 {
        let reply = cbor!({"Located" => true}).unwrap();
        stage.throw("paris", frame(&cbor!({"Reply" => {"nonce" => nonce, "reply" => reply}}).unwrap()));
    }
    // One that was asked answers something else: it is refused, and the user is answered by others.
    let asked = stage.world.ask("nantes", Request::Get { id: id("pair") });
    let nonce = stage
        .told(Some("nantes"))
        .filter_map(|bytes| read(bytes))
        .filter_map(|said| at(&said, &["Ask", "nonce"])?.as_integer());
    let nonce = nonce.last().expect("it looks for the holder everywhere");
    let reply = cbor!({"Holdings" => BTreeMap::<String, u8>::new()}).unwrap();
    let bytes = frame(&cbor!({"Reply" => {"nonce" => Value::Integer(nonce), "reply" => reply}}).unwrap());
    assert_eq!(stage.refused("nantes", |stage| stage.throw("nantes", bytes)), 1);
    let mut answer = None;
    stage.world.until("an answer", Duration::from_secs(10), |world| {
        answer = world.answer("nantes", asked);
        answer.is_some()
    });
    assert!(matches!(answer, Some(Ok(Response::Replicant(_)))), "{answer:?}");
    // One that claims to hold it and says that it does not.
    let asked = stage.world.ask("nantes", Request::Get { id: id("pair") });
    let nonces = |stage: &Stage| -> Vec<_> {
        let said = stage.told(Some("nantes")).filter_map(|bytes| read(bytes));
        said.filter_map(|said| at(&said, &["Ask", "nonce"])?.as_integer()).collect()
    };
    let nonce = *nonces(&stage).last().unwrap();
    let reply = cbor!({"Located" => true}).unwrap();
    stage.throw("nantes", frame(&cbor!({"Reply" => {"nonce" => Value::Integer(nonce), "reply" => reply}}).unwrap()));
    let mut answer = None;
    stage.world.until("an answer", Duration::from_secs(10), |world| {
        answer = world.answer("nantes", asked);
        answer.is_some()
    });
    assert!(matches!(answer, Some(Err(RequestError::NotFound { .. }))), "{answer:?}");
    stage.all_is_well();
}
