//! One replicant at one node, through the API.

use reqwest::Method;
use serde_json::json;

use crate::client::node;

#[tokio::test]
async fn a_replicant_from_creation_to_deletion() {
    let fixture = node().await;
    let api = fixture.api();
    let path = "/v1/replicants/web";
    api.get(path).await.problem(404);

    let created = api.put(path, json!({"kind": "files", "scope": "paris", "desired": {"a": 1, "b": 2}})).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let tag = created.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", created.json["heads"][0].as_str().unwrap()));
    assert_eq!(created.json["kind"], "files");
    let again = api.put(path, json!({"desired": {"a": 1, "b": 2}})).await;
    assert_eq!(again.status, 200, "{}", again.text);

    // Two edits from the same place: the second keeps what the first did.
    let first = api.put(path, json!({"desired": {"a": 5, "b": 2}})).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let request = api.request(Method::PUT, path).header("if-match", &tag).json(&json!({"desired": {"a": 1, "b": 7}}));
    let second = api.send(request).await;
    assert_eq!((second.status, &second.json["desired"]), (200, &json!({"a": 5, "b": 7})), "{}", second.text);
    let base = [tag.trim_matches('"')];
    let third = api.put(path, json!({"desired": {"a": 1, "b": 2, "c": 3}, "base": base})).await;
    assert_eq!(third.json["desired"], json!({"a": 5, "b": 7, "c": 3}), "{}", third.text);

    let patched = api
        .send(
            api.request(Method::PATCH, &format!("{path}/desired"))
                .header("content-type", "application/merge-patch+json")
                .body("{\"a\": null}"),
        )
        .await;
    assert_eq!(patched.json["desired"], json!({"b": 7, "c": 3}), "{}", patched.text);

    let applied = api.until(path, |answer| answer.json["status"] == "applied").await;
    assert_eq!(applied.json["sites"]["paris"]["report"]["status"], "applied");
    let file = std::fs::read_to_string(fixture.dir.path().join("web")).unwrap();
    assert!(file.contains("b: 7") && file.contains("c: 3") && !file.contains("a:"), "{file}");

    let list = api.get("/v1/replicants?kind=files&site=paris&status=applied").await;
    assert_eq!(list.json["items"][0]["id"], "web", "{}", list.text);
    assert_eq!(api.get("/v1/replicants?kind=shell").await.json["items"], json!([]));
    let history = api.get(&format!("{path}/history")).await;
    assert!(history.json.as_array().unwrap().len() >= 4, "{}", history.text);
    assert_eq!(api.get(&format!("{path}/history?limit=2")).await.json.as_array().unwrap().len(), 2);
    assert_eq!(api.get(&format!("{path}/conflicts")).await.json, json!([]));
    let plan = api.get(&format!("{path}/plan")).await;
    assert_eq!(plan.json[0]["site"], "paris", "{}", plan.text);
    let verify = api.get("/v1/verify?id=web").await;
    assert_eq!((&verify.json["same"], &verify.json["checked"]), (&json!(true), &json!(1)), "{}", verify.text);

    let deleted = api.delete(path).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert!(deleted.json["deleted"].is_object());
    crate::client::eventually("the file is gone", || async { !fixture.dir.path().join("web").exists() }).await;
}

#[tokio::test]
async fn operations_are_waited_for() {
    let fixture = node().await;
    let api = fixture.api();
    let path = "/v1/replicants/log";
    api.put(path, json!({"kind": "files"})).await;
    let operations = format!("{path}/operations");
    let answer = api.post(&operations, json!({"type": "write", "payload": {"write": "one"}, "wait": "10s"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["complete"], true);
    assert_eq!(answer.json["sites"]["paris"]["status"], "applied", "{}", answer.text);
    let own = json!({"id": "mine-1", "type": "append", "payload": {"append": " two"}, "wait": 10_000});
    assert_eq!(api.post(&operations, own.clone()).await.status, 200);
    let again = api.post(&operations, own).await;
    assert_eq!((again.status, &again.json["operation"]["id"]), (200, &json!("mine-1")), "{}", again.text);
    let file = std::fs::read_to_string(fixture.dir.path().join("log")).unwrap();
    assert_eq!(file, "one two");

    let answer = api.post(&operations, json!({"type": "append", "wait": "soon"})).await;
    assert!(answer.problem(400).contains("30s"), "{}", answer.text);
    let answer = api.post(&operations, json!({"type": "append", "wait": "11m"})).await;
    assert!(answer.problem(400).contains("600 s"), "{}", answer.text);
    let answer = api.post(&operations, json!({"payload": {}})).await;
    assert!(answer.problem(400).contains("missing field `type`"), "{}", answer.text);
    api.post("/v1/replicants/nobody/operations", json!({"type": "append"})).await.problem(404);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let fixture = node().await;
    let api = fixture.api();
    let path = "/v1/replicants/web";
    let answer = api.put(path, json!({"kind": "files", "scope": "paris &"})).await;
    assert!(answer.problem(400).contains("column"), "{}", answer.text);
    let answer = api.put(path, json!({"kind": "nonsense"})).await;
    assert!(answer.problem(400).contains("nonsense"), "{}", answer.text);
    let answer = api.put(path, json!({"desired": {}})).await;
    assert!(answer.problem(400).contains("kind"), "{}", answer.text);
    let answer = api.put(path, json!({"kind": "files", "policy": {"resolution": []}})).await;
    assert!(answer.problem(400).contains("resolution"), "{}", answer.text);
    api.get(path).await.problem(404);

    let only_if = |name: &'static str, value: &'static str| {
        api.request(Method::PUT, path).header(name, value).json(&json!({"kind": "files"}))
    };
    api.send(only_if("if-match", "*")).await.problem(412);
    assert!(api.send(only_if("if-match", "\"xyz\"")).await.problem(400).contains("ETag"));
    assert_eq!(api.send(only_if("if-none-match", "*")).await.status, 201);
    api.send(only_if("if-none-match", "*")).await.problem(412);
    assert_eq!(api.send(only_if("if-match", "*")).await.status, 200);
    let answer = api.put(path, json!({"kind": "shell"})).await;
    answer.problem(409);
    let answer = api.post(&format!("{path}/conflicts"), json!({"path": "/desired/a", "change": "00"})).await;
    assert!(answer.problem(400).contains("64 hexadecimal"), "{}", answer.text);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let fixture = node().await;
    let api = fixture.api();
    for n in 0..5 {
        assert_eq!(api.put(&format!("/v1/replicants/r{n}"), json!({"kind": "files"})).await.status, 201);
    }
    let mut path = "/v1/replicants?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = api.get(&path).await;
        let items = page.json["items"].as_array().unwrap();
        assert!(!items.is_empty() && items.len() <= 2, "{}", page.text);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.json["next"].as_str() else { break };
        path = format!("/v1/replicants?limit=2&after={next}");
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
}

#[tokio::test]
async fn what_was_changed_by_hand_is_seen_and_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let files = khufu_drivers::FilesDriver::new(dir.path()).unwrap().look_every(std::time::Duration::from_millis(20));
    let builder = khufu_node::Node::builder("paris").store(std::sync::Arc::new(khufu_store::MemoryStore::new()));
    let builder = builder.preset(khufu_node::Preset::Fast).driver(std::sync::Arc::new(files));
    let node = builder.api("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    let api = crate::client::Api::of(&node);
    for (id, drift) in [("seen", "report"), ("mended", "correct")] {
        let body = json!({"kind": "files", "desired": {"size": 1}, "policy": {"drift": drift}});
        api.put(&format!("/v1/replicants/{id}"), body).await;
        api.until(&format!("/v1/replicants/{id}"), |answer| answer.json["status"] == "applied").await;
    }
    for id in ["seen", "mended"] {
        std::fs::write(dir.path().join(id), "by hand").unwrap();
    }
    crate::client::eventually("the file is put back", || async {
        // For a moment there is none: it is made anew.
        std::fs::read_to_string(dir.path().join("mended")).unwrap_or_default() == "size: 1\n"
    })
    .await;
    let seen = api
        .until("/v1/replicants/seen", |answer| answer.json["sites"]["paris"]["report"]["observed"]["drift"].is_string())
        .await;
    assert_eq!(seen.json["sites"]["paris"]["report"]["status"], "applied", "{}", seen.text);
    assert_eq!(std::fs::read_to_string(dir.path().join("seen")).unwrap(), "by hand");
}
