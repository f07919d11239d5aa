//! Many requests in one.

use serde_json::{Value, json};

use crate::client::node;

fn patch(id: &str, body: &Value) -> Value {
    json!({"method": "PATCH", "path": format!("/v1/replicants/{id}/desired"), "body": body})
}

fn put(id: &str, desired: &Value) -> Value {
    let body = json!({"kind": "files", "scope": "paris", "desired": desired});
    json!({"method": "PUT", "path": format!("/v1/replicants/{id}"), "body": body})
}

#[tokio::test]
async fn each_is_carried_out_as_it_would_be_alone() {
    let fixture = node().await;
    let api = fixture.api();
    let requests = json!({"requests": [
        put("web", &json!({"a": 1})),
        patch("web", &json!({"b": 2})),
        put("db", &json!({"size": 5})),
        patch("nobody", &json!({"b": 2})),
        {"method": "POST", "path": "/v1/replicants/db/operations", "body": {"type": "add", "payload": {"append": "x"}}},
        {"method": "POST", "path": "/v1/replicants/db/operations", "body": {"type": "add", "payload": {"append": "x"}, "wait": "1h"}},
        {"method": "PUT", "path": "/v1/replicants/web", "if_none_match": "*", "body": {"kind": "files"}},
        {"method": "DELETE", "path": "/v1/replicants/db?keep=true"},
        {"method": "PATCH", "path": "/v1/replicants/db/desired", "body": {"size": 6}},
    ]});
    let answer = api.post("/v1/bulk", requests).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let responses = answer.json["responses"].as_array().unwrap();
    let statuses: Vec<_> = responses.iter().map(|response| response["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 200, 201, 404, 202, 400, 412, 200, 409], "{}", answer.text);
    assert_eq!(answer.json["ok"], false);
    assert!(responses[4]["operation"].as_str().unwrap().starts_with("paris-"), "{}", answer.text);
    for (response, status) in responses.iter().zip(statuses) {
        assert_eq!(response["problem"].is_object(), status >= 400, "{response}");
        assert_eq!(response["etag"].is_string(), status < 400 && status != 202, "{response}");
    }
    assert_eq!(responses[3]["problem"]["instance"], "/v1/replicants/nobody/desired");
    let web = api.get("/v1/replicants/web").await;
    assert_eq!(web.json["desired"], json!({"a": 1, "b": 2}));
    assert_eq!(web.headers["etag"], responses[1]["etag"].as_str().unwrap());
}

#[tokio::test]
async fn those_about_one_replicant_keep_their_order() {
    let fixture = node().await;
    let api = fixture.api();
    let mut requests: Vec<Value> = (0..20).map(|n| put(&format!("r{n}"), &json!({"n": 0}))).collect();
    for n in 1..=45 {
        requests.extend((0..20).map(|id| patch(&format!("r{id}"), &json!({"n": n, "last": format!("{id}/{n}")}))));
    }
    let answer = api.post("/v1/bulk", json!({"requests": requests})).await;
    assert_eq!((answer.status, &answer.json["ok"]), (200, &json!(true)), "{}", answer.text);
    for id in 0..20 {
        let view = api.get(&format!("/v1/replicants/r{id}")).await;
        assert_eq!(view.json["desired"], json!({"n": 45, "last": format!("{id}/45")}));
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nothing_is_carried_out() {
    let fixture = node().await;
    let api = fixture.api();
    let good = put("web", &json!({}));
    for (bad, told) in [
        (json!({"method": "GET", "path": "/v1/replicants/web"}), "GET"),
        (json!({"method": "PUT", "path": "/v1/faults", "body": {}}), "/v1/faults"),
        (json!({"method": "PUT", "path": "/v1/replicants/", "body": {}}), "path"),
        (json!({"method": "PUT", "path": "/v1/replicants/w%65b", "body": {}}), "path"),
        // A way out of the paths below replicants there is none.
        (json!({"method": "PUT", "path": "/v1/replicants/../faults", "body": {}}), "path"),
        (json!({"method": "PUT", "path": "/v1/replicants/%2e%2e/faults", "body": {}}), "path"),
        (json!({"method": "PUT", "path": "/v1/replicants", "body": {}}), "not below"),
        (json!({"method": "POST", "path": "/v1/bulk", "body": {}}), "not below"),
        (json!({"method": "PUT", "path": "/v1/replicants/a b", "body": {}}), "path"),
        (json!({"method": "DELETE", "path": "/v1/replicants/web", "body": {}}), "no body"),
        (json!({"method": "PUT", "path": "/v1/replicants/web", "body": {}, "if_match": "a\nb"}), "if-match"),
    ] {
        let answer = api.post("/v1/bulk", json!({"requests": [good, bad]})).await;
        let detail = answer.problem(400).to_owned();
        assert!(detail.contains("requests[1]") && detail.contains(told), "{detail}");
    }
    let many: Vec<_> = (0..1001).map(|_| good.clone()).collect();
    api.post("/v1/bulk", json!({"requests": many})).await.problem(413);
    api.post("/v1/bulk", json!({"requests": [{"method": "PUT", "path": "/x", "header": 1}]})).await.problem(400);
    api.post("/v1/bulk?x=1", json!({"requests": []})).await.problem(400);
    api.get("/v1/replicants/web").await.problem(404);
    assert_eq!(api.post("/v1/bulk", json!({"requests": []})).await.json, json!({"ok": true, "responses": []}));
}

#[tokio::test]
async fn whoever_prefers_no_contents_gets_the_tag_alone() {
    let fixture = node().await;
    let api = fixture.api();
    let minimal = |method, path: &str, body: Value| {
        api.request(method, path).header("prefer", "respond-async, return=minimal").json(&body)
    };
    let path = "/v1/replicants/web";
    let made = api.send(minimal(reqwest::Method::PUT, path, json!({"kind": "files", "desired": {"a": 1}}))).await;
    assert_eq!((made.status, made.text.as_str()), (201, ""));
    assert_eq!(made.headers["preference-applied"], "return=minimal");
    let edited = api.send(minimal(reqwest::Method::PATCH, &format!("{path}/desired"), json!({"a": 2}))).await;
    assert_eq!((edited.status, edited.text.as_str()), (200, ""));
    assert_eq!(api.get(path).await.headers["etag"], edited.headers["etag"]);
    assert_eq!(api.send(minimal(reqwest::Method::DELETE, path, json!({}))).await.text, "");
}
