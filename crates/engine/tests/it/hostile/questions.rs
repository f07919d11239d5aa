//! Questions, and requests in the name of users.

use std::collections::BTreeMap;
use std::time::Duration;

use ciborium::{Value, cbor};
use khufu_engine::{Request, RequestError, Response};
use serde_json::json;

use super::frames::{all_is_different, ask, ask_as, at, field, frame, read, reconcile, request};
use super::stage::{Stage, WOLF, cbor_of, id};

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
    let other = cbor!({"Shared" => {"digest" => Value::Bytes(vec![0; 16])}}).unwrap();
    stage.throw("paris", frame(&other));
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
