//! Who may do what.

use khufu_node::{Role, StartError, Tokens};
use serde_json::json;

use crate::client::{Api, builder};

fn tokens() -> Tokens {
    Tokens::new().with("rita", Role::Read, "r-secret").with("will", Role::Write, "w-secret").with(
        "ada",
        Role::Admin,
        "a-secret",
    )
}

#[tokio::test]
async fn each_role_may_do_what_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let node = builder("paris", dir.path()).tokens(tokens()).allow_faults(true).start().await.unwrap();
    let nobody = Api::of(&node);
    let [reader, writer, admin] = ["r-secret", "w-secret", "a-secret"].map(|token| nobody.with_token(token));

    assert_eq!(nobody.get("/healthz").await.status, 200);
    assert_eq!(nobody.get("/readyz").await.status, 200);
    for path in ["/v1/replicants", "/v1/sites", "/v1/events", "/metrics", "/openapi.json", "/v1/faults", "/nothing"] {
        let answer = nobody.get(path).await;
        answer.problem(401);
        assert_eq!(answer.headers.get("www-authenticate").unwrap(), "Bearer realm=\"khufu\"");
    }
    nobody.with_token("guess").get("/v1/sites").await.problem(401);
    nobody.with_token("").get("/v1/sites").await.problem(401);
    let basic = nobody.request(reqwest::Method::GET, "/v1/sites").header("authorization", "Basic r-secret");
    nobody.send(basic).await.problem(401);

    for api in [&reader, &writer, &admin] {
        assert_eq!(api.get("/v1/sites").await.status, 200);
        assert_eq!(api.get("/metrics").await.status, 200);
    }
    let create = json!({"kind": "files", "desired": {"a": 1}});
    let answer = reader.put("/v1/replicants/web", create.clone()).await;
    assert!(answer.problem(403).contains("\"rita\" has the role read"), "{}", answer.text);
    reader.patch("/v1/replicants/web/desired", json!({})).await.problem(403);
    reader.post("/v1/replicants/web/operations", json!({"type": "write"})).await.problem(403);
    reader.delete("/v1/replicants/web").await.problem(403);
    assert_eq!(writer.put("/v1/replicants/web", create).await.status, 201);

    writer.get("/v1/faults").await.problem(403);
    writer.put("/v1/faults", json!({})).await.problem(403);
    assert_eq!(admin.get("/v1/faults").await.status, 200);
    assert_eq!(admin.put("/v1/faults", json!({"delay_ms": 1})).await.status, 200);

    // Who made a change is told by the token's name.
    let history = reader.get("/v1/replicants/web/history").await;
    assert!(history.text.contains("\"will\""), "{}", history.text);
}

#[tokio::test]
async fn beyond_loopback_tokens_are_demanded() {
    let dir = tempfile::tempdir().unwrap();
    let anywhere = "0.0.0.0:0".parse().unwrap();
    for tokens in [None, Some(Tokens::new())] {
        let builder = builder("paris", dir.path()).api(anywhere);
        let builder = match tokens {
            None => builder,
            Some(tokens) => builder.tokens(tokens),
        };
        let error = builder.start().await.unwrap_err();
        assert!(matches!(error, StartError::TokensNeeded { .. }), "{error}");
        assert!(error.to_string().contains("token file"), "{error}");
    }
    let node = builder("paris", dir.path()).api(anywhere).tokens(tokens()).start().await.unwrap();
    let mut api = Api::of(&node);
    api.address.set_ip("127.0.0.1".parse().unwrap());
    api.get("/v1/sites").await.problem(401);
    assert_eq!(api.with_token("r-secret").get("/v1/sites").await.status, 200);
    // Any name may lead here; the token is what counts.
    let named = "GET /healthz HTTP/1.1\r\nHost: khufu.example.com\r\nConnection: close\r\n\r\n";
    assert!(api.raw(named).await.starts_with("HTTP/1.1 200 "));
}
