//! What makes no sense is refused with words, and changes nothing.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Lab, PATIENCE, Site, until};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Sends bytes to a port and reads until the other side closes; what cannot be written or read is left out.
async fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it takes connections");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request as it is, with nothing tidied up on the way, as libraries do with dots in paths.
async fn request(site: &Site, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = site.api().trim_start_matches("http://");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = raw(address, format!("{head}{body}").as_bytes()).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {answer:?}")), answer)
}

/// All that is below a directory.
fn tree(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}

async fn nothing_was_made(site: &Site) {
    assert_eq!(site.get("/v1/replicants").await.ok()["items"], json!([]));
    let own = [".khufu", ".khufu/journal.a", ".khufu/journal.b"];
    let made: Vec<_> =
        tree(&site.replicas()).into_iter().filter(|path| !own.iter().any(|own| path.ends_with(own))).collect();
    assert!(made.is_empty(), "{made:?}");
}

#[tokio::test]
async fn ids_that_lead_elsewhere_and_scopes_that_mean_nothing_are_refused_by_name() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    let before = tree(lab.path()).len();
    let body = r#"{"kind": "files", "desired": {"a": 1}}"#;
    let long = "x".repeat(201);
    let ids = [
        "a/b",
        "../escape",
        "..",
        ".",
        "%2e%2e",
        "%2e%2e%2fescape",
        "..%2fescape",
        "%2e%2e/escape",
        "a%2fb",
        "a..b",
        ".hidden",
        ".khufu",
        "%2ekhufu%2fx.json",
        "%00",
        "a%00b",
        "a%0ab",
        "a%20b",
        "a%5cb",
        "%c3%a9",
        "%ff",
        "%",
        "%zz",
        "*",
        "a?b=c",
        "",
        &long,
    ];
    for id in ids {
        for (method, path, body) in [
            ("PUT", format!("/v1/replicants/{id}"), body),
            ("PATCH", format!("/v1/replicants/{id}/desired"), r#"{"a": 1}"#),
            ("POST", format!("/v1/replicants/{id}/operations"), r#"{"type": "add", "payload": {"append": "x"}}"#),
            ("DELETE", format!("/v1/replicants/{id}"), ""),
        ] {
            let (status, answer) = request(&paris, method, &path, body).await;
            assert!((400..500).contains(&status), "{method} {path}: {answer}");
            assert!(answer.contains("application/problem+json") || answer.contains("Bad Request"), "{path}: {answer}");
        }
    }
    for id in ["a..b", "..", "%2e%2e", ".khufu", "a%20b", "a%2fb"] {
        let (status, answer) = request(&paris, "PUT", &format!("/v1/replicants/{id}"), body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("replicant id"), "{id}: it says what is wrong: {answer}");
    }
    // Also where an id is a parameter or part of a body.
    paris.get("/v1/verify?id=a%2Fb").await.problem(400, &["a/b"]);
    paris.get("/v1/replicants?after=..").await.problem(400, &[".."]);
    paris.get("/v1/replicants?site=a%20b").await.problem(400, &["a b"]);

    let deep = format!("{}paris{}", "(".repeat(100), ")".repeat(100));
    let wide = vec!["paris"; 1000].join(" & ");
    for (scope, words) in [
        ("", &["scope"][..]),
        ("   ", &["scope"]),
        ("paris &", &["paris &", "line 1"]),
        ("paris & & rennes", &["line 1", "column 9"]),
        ("(paris", &[")"]),
        ("pariss & rennes", &["pariss", "paris"]),
        ("paris | | rennes", &["line 1"]),
        ("0 of (all)", &["0"]),
        ("[zone]", &["zone"]),
        ("paris; DROP TABLE sites", &["line 1"]),
        ("paris\u{0}", &["line 1"]),
        ("!all", &["!all"]),
        (&deep, &["32"]),
        (&wide, &["4"]),
    ] {
        let body = json!({"kind": "files", "scope": scope, "desired": {"a": 1}});
        paris.put("/v1/replicants/web", body).await.problem(400, words);
    }
    let explained = paris.get("/v1/scope/explain?scope=paris%20%26").await;
    explained.problem(400, &["line 1"]);
    nothing_was_made(&paris).await;
    assert_eq!(tree(lab.path()).len(), before, "no file was made anywhere: {:?}", tree(lab.path()));
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused_with_the_place() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let client = paris.client();
    let send = async |method: Method, path: &str, body: &[u8]| {
        client.send(method, path, &[JSON], body.to_vec()).await.expect("an answer")
    };
    const WEB: &str = "/v1/replicants/web";
    let put = async |body: &str| send(Method::PUT, WEB, body.as_bytes()).await;

    for (body, words) in [
        ("", &["empty"][..]),
        ("{", &["line 1"]),
        ("{\"kind\": \"files\",}", &["line 1 column 18"]),
        ("[]", &["body"]),
        ("null", &["body"]),
        ("7", &["body"]),
        ("\"files\"", &["body"]),
        (r#"{"kind": 7}"#, &["string"]),
        (r#"{"kind": "files", "knid": 1}"#, &["knid"]),
        (r#"{"kind": "files", "desired": {"a": 1e999}}"#, &["line 1"]),
        (r#"{"kind": "files", "overrides": {"a/b": {}}}"#, &["a/b"]),
        (r#"{"kind": "files", "base": ["zz"]}"#, &["zz"]),
        (r#"{"kind": "ftp", "desired": {}}"#, &["ftp"]),
        (r#"{"desired": {}}"#, &["kind"]),
        (r#"{"kind": "files", "policy": {"resolutoins": []}}"#, &["resolutoins"]),
        (
            r#"{"kind": "files", "policy": {"resolutions": [{"before": "a", "after": "b", "result": "both"}]}}"#,
            &["both"],
        ),
        (r#"{"kind": "files", "policy": {"types": {"a": {"absolute": "yes"}}}}"#, &["absolute"]),
    ] {
        put(body).await.problem(400, words);
    }
    let lists = format!("{{\"kind\": \"files\", \"desired\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    put(&lists).await.problem(400, &["recursion limit", "line 1"]);
    let nested = format!("{{\"kind\": \"files\", \"desired\": {}1{}}}", "{\"a\":".repeat(1000), "}".repeat(1000));
    put(&nested).await.problem(400, &["line 1"]);
    send(Method::PUT, WEB, &[0xff, 0xfe, 0x00]).await.problem(400, &["JSON"]);

    // Ten megabytes: told so, also where the length is not announced.
    let large = format!("{{\"kind\": \"files\", \"desired\": {{\"text\": \"{}\"}}}}", "x".repeat(10_000_000));
    put(&large).await.problem(413, &["bytes"]);
    let operation = format!("{{\"type\": \"add\", \"payload\": {{\"append\": \"{}\"}}}}", "x".repeat(10_000_000));
    send(Method::POST, "/v1/replicants/web/operations", operation.as_bytes()).await.problem(413, &["bytes"]);
    let address = paris.api().trim_start_matches("http://").to_owned();
    let mut chunked =
        format!("PUT {WEB} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    chunked.extend(format!("{:x}\r\n", large.len()).bytes().chain(large.bytes()).chain("\r\n0\r\n\r\n".bytes()));
    let answer = raw(&address, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // A document over its limit, in a body that is not.
    let desired = format!("{{\"kind\": \"files\", \"desired\": {{\"text\": \"{}\"}}}}", "x".repeat(5_500_000));
    put(&desired).await.problem(413, &["bytes"]);

    // Types, methods, paths.
    let plain = client.send(Method::PUT, WEB, &[("content-type", "text/plain")], b"{}".to_vec()).await;
    plain.expect("an answer").problem(415, &["text/plain", "application/json"]);
    client.send(Method::PUT, WEB, &[], b"{}".to_vec()).await.expect("an answer").problem(415, &["Content-Type"]);
    send(Method::POST, WEB, b"{}").await.problem(405, &["method"]);
    send(Method::GET, "/v2/replicants", b"").await.problem(404, &["/openapi.json"]);
    paris.get("/v1/replicants?limit=0").await.problem(400, &["limit"]);
    paris.get("/v1/replicants?limits=1").await.problem(400, &["limits"]);
    paris.get("/v1/replicants?status=fine").await.problem(400, &["fine"]);
    paris.put("/v1/faults", json!({"cut": ["paris"]})).await.problem(400, &["paris"]);
    paris.put("/v1/faults", json!({"loss": 2})).await.problem(400, &["loss"]);
    // A name of another machine may not be used to reach this one, as web pages would.
    let rebound = client.send(Method::GET, "/v1/sites", &[("host", "evil.example")], Vec::new()).await;
    rebound.expect("an answer").problem(421, &["evil.example"]);
    nothing_was_made(&paris).await;

    // Operations.
    paris.put_files("web", "here", json!({"a": 1})).await;
    until("it is applied", || async { paris.file("web").ok_or_else(|| "no file".to_owned()) }).await;
    let operate = async |body: Value| paris.post("/v1/replicants/web/operations", body).await;
    operate(json!({"payload": {}})).await.problem(400, &["type"]);
    operate(json!({"type": "add", "payload": {}, "wait": "1h"})).await.problem(400, &["wait"]);
    operate(json!({"type": "add", "payload": {}, "wait": "soon"})).await.problem(400, &["soon"]);
    operate(json!({"type": "add", "id": "a/b"})).await.problem(400, &["a/b"]);
    operate(json!({"type": "add", "payloads": {}})).await.problem(400, &["payloads"]);
    paris.post("/v1/replicants/nobody/operations", json!({"type": "add"})).await.problem(404, &["nobody"]);
    paris.patch("/v1/replicants/nobody/desired", json!({})).await.problem(404, &["nobody"]);
    assert_eq!(paris.view("web").await["operations"], json!([]), "none of that was kept");
    // What only the driver can judge is kept, and reported as failed with its words; the contents stay.
    let answer = operate(json!({"type": "add", "payload": {"apend": "x"}, "wait": "60s"})).await.ok();
    let report = &answer["sites"]["paris"];
    assert_eq!((&answer["complete"], &report["status"]), (&json!(true), &json!("failed")), "{answer}");
    assert!(report["output"].as_str().is_some_and(|output| output.contains("apend")), "{answer}");
    assert_eq!(paris.file("web").as_deref(), Some("a: 1\n"));
    // Kind never changes.
    put(r#"{"kind": "other"}"#).await.problem(409, &["files", "other"]);
    assert_eq!(paris.view("web").await["desired"], json!({"a": 1}));
}

#[tokio::test]
async fn garbage_at_the_ports_stops_nobody() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    let api = paris.api().trim_start_matches("http://").to_owned();
    let mut parts = paris.address().split('/').skip(2).step_by(2);
    let p2p = format!("{}:{}", parts.next().expect("an address"), parts.next().expect("a port"));
    let garbage: Vec<u8> = (0..65_536_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let texts: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0; 64],
        &[0xff; 4096],
        &garbage,
        b"/multistream/1.0.0\n",
    ];
    let mut attempts = tokio::task::JoinSet::new();
    for text in texts {
        for address in [&api, &p2p] {
            for _ in 0..4 {
                let (address, text) = (address.clone(), text.to_vec());
                attempts.spawn(async move { raw(&address, &text).await });
            }
        }
    }
    // Connections that say nothing at all, and stay for as long as the test does.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(&p2p).await.expect("it takes connections"));
        silent.push(TcpStream::connect(&api).await.expect("it takes connections"));
    }
    paris.put_files("web", "paris & rennes", json!({"a": 1})).await;
    lab.converged("web", &[&paris, &rennes]).await;
    rennes.patch("/v1/replicants/web/desired", json!({"b": 2})).await.ok();
    assert_eq!(lab.converged("web", &[&paris, &rennes]).await, "a: 1\nb: 2\n");
    lab.verified(&rennes).await;
    // Those at the API end when it has waited long enough for headers; that is not for this test to see.
    let ended = attempts.len();
    assert!(ended > 0);
    attempts.abort_all();
    // They were counted, and the log was not flooded with them.
    until("refusals are counted", || async {
        let metrics = paris.get("/metrics").await.body;
        let text = metrics.as_str().unwrap_or_default().to_owned();
        let counted = text.lines().any(|line| line.starts_with("khufu_p2p_refusals_total{") && !line.ends_with(" 0"));
        if counted { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(paris.log().lines().count() < 200, "{}", paris.log());
    paris.stop().await;
}

#[tokio::test]
async fn who_has_another_key_is_kept_out_and_both_sides_are_told_to_compare() {
    let lab = Lab::new();
    let other = Lab::new();
    let paris = lab.site("paris").start().await;
    let stranger = other.site("stranger").bootstrap(&paris).start().await;
    for site in [&paris, &stranger] {
        until("it says that the keys may differ", || async {
            let log = site.log();
            if log.contains("PSK") && log.contains("fingerprint") { Ok(()) } else { Err(log) }
        })
        .await;
        assert_eq!(site.get("/v1/peers").await.ok(), json!([]));
        assert_eq!(site.get("/v1/sites").await.ok().as_array().map(Vec::len), Some(1), "it knows itself only");
    }
}
