//! Documents and what is said of them: changes, sessions, news.

use std::time::Duration;

use ciborium::{Value, cbor};
use serde_json::json;

use super::frames::{Step, all_is_different, frame, gossip, prefix, push, push_content, reconcile, unknown_head};
use super::stage::{HONEST, KEPT, SECRET, Stage, WOLF, sign};
use super::{author, forged, spec};

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
                let document = super::frames::document(name, epoch);
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
    // Epochs that could follow, one or more closings on, and such as cannot.
    let next = |changes| {
        let id = khufu_crdt::ReplicantId::new("log").unwrap();
        khufu_crdt::DocumentId { replicant: id, epoch: 0 }.next(changes).epoch
    };
    let epochs = [1, 2, next(0), next(1), next(2), next(3), 2 * next(1), 1 << 50, (1 << 50) + 1, u64::MAX];
    for (round, epoch) in epochs.into_iter().enumerate() {
        for (name, sites) in KEPT {
            for to in sites {
                stage.throw(to, push(name, epoch, Vec::new(), vec![unknown_head(1)], Vec::new()));
                stage.throw(to, Step::first(name, epoch).frame());
                // As if it had been closed at what there is.
                for head in stage.heads(to, name) {
                    stage.throw(
                        to,
                        super::frames::with_cut(&push(name, epoch, Vec::new(), Vec::new(), Vec::new()), &head),
                    );
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
