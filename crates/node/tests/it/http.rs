//! Bad requests of all kinds, and what is served beside replicants.

use reqwest::Method;
use serde_json::json;

use crate::client::node;

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let fixture = node().await;
    let api = fixture.api();
    assert!(api.get("/v2/nothing").await.problem(404).contains("/openapi.json"));
    assert!(api.get("/").await.problem(404).contains("/openapi.json"));
    let answer = api.post("/v1/sites", json!({})).await;
    assert!(answer.problem(405).contains("method"));
    assert!(answer.headers.get("allow").unwrap().to_str().unwrap().contains("GET"));
    assert_eq!(answer.json["instance"], "/v1/sites");
    api.delete("/v1/replicants").await.problem(405);
    let answer = api.send(api.request(Method::from_bytes(b"BREW").unwrap(), "/v1/sites")).await;
    answer.problem(405);
}

#[tokio::test]
async fn bad_bodies_are_refused_by_line_and_column() {
    let fixture = node().await;
    let api = fixture.api();
    let path = "/v1/replicants/web";
    let answer = api.put_text(path, "application/json", "{\n  \"kind\": \"files\",\n  oops\n}").await;
    assert!(answer.problem(400).contains("not valid JSON"));
    assert_eq!((&answer.json["line"], &answer.json["column"]), (&json!(3), &json!(3)));
    let answer = api.put_text(path, "application/json", "").await;
    assert!(answer.problem(400).contains("empty"));
    let answer = api.put(path, json!({"kind": "files", "scop": "paris"})).await;
    assert!(answer.problem(400).contains("unknown field `scop`"), "{}", answer.text);
    assert!(answer.problem(400).contains("line 1"), "{}", answer.text);
    let answer = api.put(path, json!({"kind": 7})).await;
    assert!(answer.problem(400).contains("invalid type"), "{}", answer.text);
    let answer = api.put(path, json!([1])).await;
    answer.problem(400);
    let deep = format!("{{\"desired\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(api.put_text(path, "application/json", deep).await.problem(400).contains("recursion"));
    let answer = api.put_text(path, "text/plain", "{}").await;
    assert!(answer.problem(415).contains("application/json"));
    let answer = api.send(api.request(Method::PUT, path).body("{}")).await;
    assert!(answer.problem(415).contains("no Content-Type"));
    let answer = api.put_text(path, "application/json; charset=utf-8", "{\"unknown\": 1}").await;
    answer.problem(400);
    let answer = api.put_text(path, "application/json", vec![b'{', b'"', 0xff, b'"', b'}']).await;
    answer.problem(400);
}

#[tokio::test]
async fn a_body_of_10_mb_is_refused_with_figures() {
    let fixture = node().await;
    let api = fixture.api();
    let body = format!("{{\"kind\": \"files\", \"desired\": \"{}\"}}", "x".repeat(10_000_000));
    let length = body.len();
    let answer = api.put_text("/v1/replicants/big", "application/json", body.clone()).await;
    assert!(answer.problem(413).contains(&length.to_string()), "{}", answer.text);
    assert_eq!(answer.json["limit_bytes"], 6 * 1024 * 1024);
    // In pieces, so that nothing announces how long it is.
    let pieces =
        body.into_bytes().chunks(1 << 16).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
    let pieces = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let answer = api.put_text("/v1/replicants/big", "application/json", pieces).await;
    answer.problem(413);
    assert!(api.get("/healthz").await.status == 200);
}

#[tokio::test]
async fn ids_that_could_leave_a_folder_are_refused() {
    let fixture = node().await;
    let api = fixture.api();
    for id in ["a%2Fb", "..%2F..%2Fetc%2Fpasswd", "%2e%2e", ".hidden", "a%20b", "a%00b", "%C3%A9", "a..b"] {
        let answer = api
            .raw(&format!(
                "PUT /v1/replicants/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{{\"kind\":\"files\"}}"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{id}: {answer}");
        assert!(answer.contains("urn:khufu:problem:invalid"), "{id}: {answer}");
    }
    let too_long = "a".repeat(201);
    assert!(api.get(&format!("/v1/replicants/{too_long}")).await.problem(400).contains("200 bytes"));
    // Not percent-encoded, a slash makes another path.
    for path in ["/v1/replicants/../sites", "/v1/replicants/a/b", "/v1/replicants/a/b/c", "/v1/replicants//"] {
        let answer = api.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    assert!(
        std::fs::read_dir(fixture.dir.path())
            .unwrap()
            .all(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with('.') })
    );
}

#[tokio::test]
async fn queries_are_checked() {
    let fixture = node().await;
    let api = fixture.api();
    for (path, expected) in [
        ("/v1/replicants?limit=0", "limit"),
        ("/v1/replicants?limit=1001", "1000"),
        ("/v1/replicants?limit=x", "query"),
        ("/v1/replicants?status=happy", "needs-attention"),
        ("/v1/replicants?site=a/b", "site name"),
        ("/v1/replicants?after=a/b", "replicant id"),
        ("/v1/replicants?kin=files", "unknown field"),
        ("/v1/replicants/web/history?limit=0", "limit"),
        ("/v1/verify?id=a/b", "replicant id"),
        ("/v1/scope/explain", "scope"),
        ("/v1/events?after=nonsense", "id of an event"),
    ] {
        let answer = api.get(path).await;
        assert!(answer.problem(400).contains(expected), "{path}: {}", answer.text);
    }
    assert!(api.delete("/v1/replicants/web?keep=perhaps").await.problem(400).contains("keep"));
}

#[tokio::test]
async fn only_loopback_names_are_served_on_loopback() {
    let fixture = node().await;
    let api = fixture.api();
    let get = |host: &str| format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = api.raw(&get("rebound.example.com")).await;
    assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("rebound.example.com"), "{answer}");
    for host in ["localhost", "127.0.0.1:80", "[::1]:80"] {
        assert!(api.raw(&get(host)).await.starts_with("HTTP/1.1 200 "), "{host}");
    }
    let absolute = "GET http://rebound.example.com/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(api.raw(absolute).await.starts_with("HTTP/1.1 421 "));
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_leave() {
    let fixture = node().await;
    let api = fixture.api();
    let request = api.request(Method::OPTIONS, "/v1/replicants/web").header("origin", "http://example.com");
    let answer = api.send(request.header("access-control-request-method", "PUT")).await;
    answer.problem(405);
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn the_openapi_document_lists_what_is_served() {
    let fixture = node().await;
    let document = fixture.api().get("/openapi.json").await;
    assert_eq!(document.status, 200);
    let paths = document.json["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/v1/replicants", &["get"][..]),
        ("/v1/replicants/{id}", &["get", "put", "delete"]),
        ("/v1/replicants/{id}/desired", &["patch"]),
        ("/v1/replicants/{id}/operations", &["post"]),
        ("/v1/replicants/{id}/history", &["get"]),
        ("/v1/replicants/{id}/conflicts", &["get", "post"]),
        ("/v1/replicants/{id}/plan", &["get"]),
        ("/v1/sites", &["get"]),
        ("/v1/peers", &["get"]),
        ("/v1/events", &["get"]),
        ("/v1/verify", &["get"]),
        ("/v1/scope/explain", &["get"]),
        ("/healthz", &["get"]),
        ("/readyz", &["get"]),
        ("/metrics", &["get"]),
    ] {
        for method in methods {
            assert!(paths[path][method].is_object(), "{method} {path}");
        }
    }
    assert!(!paths.contains_key("/v1/faults"));
    let schemas = document.json["components"]["schemas"].as_object().unwrap();
    for name in ["ReplicantView", "OperationAnswer", "Page", "SiteView", "VerifyReport", "Problem", "Policy", "PutBody"]
    {
        assert!(schemas.contains_key(name), "no schema {name}");
    }
    // Every reference leads somewhere.
    let mut references = Vec::new();
    collect(&document.json, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{reference} leads nowhere");
    }
}

fn collect(value: &serde_json::Value, references: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(|reference| reference.as_str()) {
                references.push(reference.to_owned());
            }
            fields.values().for_each(|value| collect(value, references));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn health_and_metrics() {
    let fixture = node().await;
    let api = fixture.api();
    let health = api.get("/healthz").await;
    assert_eq!((health.status, &health.json["site"]), (200, &json!("paris")));
    assert_eq!(health.json["node"], fixture.node.id().to_string());
    assert_eq!(api.get("/readyz").await.status, 200);
    api.get("/v1/replicants/nobody").await;
    let metrics = api.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    for expected in [
        "khufu_engine_replicants 0",
        "khufu_engine_requests_total",
        "khufu_store_commits_total",
        "khufu_persist_seconds_count",
        "khufu_http_requests_total{method=\"GET\",route=\"/v1/replicants/{id}\",status=\"404\"} 1",
        "khufu_p2p_peers 0",
        "libp2p_",
        "# EOF",
    ] {
        assert!(metrics.text.contains(expected), "no {expected} in {}", metrics.text);
    }
}

#[tokio::test]
async fn without_the_flag_there_are_no_faults() {
    let fixture = node().await;
    let api = fixture.api();
    api.get("/v1/faults").await.problem(404);
    api.put("/v1/faults", json!({})).await.problem(404);
    assert!(fixture.node.set_faults(khufu_node::Faults::default()).await.is_err());
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_others_up() {
    use tokio::io::AsyncWriteExt as _;
    let fixture = node().await;
    let api = fixture.api();
    let mut slow = tokio::net::TcpStream::connect(api.address).await.unwrap();
    slow.write_all(b"PUT /v1/replicants/web HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
        .await
        .unwrap();
    assert_eq!(api.get("/readyz").await.status, 200);
    let started = std::time::Instant::now();
    fixture.node.shutdown().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(15));
}
