//! Operations: what they may ask for, and what is sent.

use khufu_crdt::Payload;

use super::*;

/// What may be asked for here, and what takes it back.
const ALLOWED: &str = r#"
[[resources.note.operations]]
method = "POST"
path = "/notes/{local_id}/lines"
keep = { line = "/n" }
undo = { path = "/notes/{local_id}/lines/{kept/line}" }

[[resources.note.operations]]
method = "PUT"
path = "/texts/*"
"#;

fn asks(payload: Value) -> Work {
    Work::Operation(operation("op", payload))
}

async fn place() -> (Place, HttpDriver) {
    let place = Place::new(format!("{NOTES}{ALLOWED}"));
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a"})).await.unwrap();
    (place, driver)
}

#[tokio::test]
async fn a_request_is_sent_as_it_was_stored() {
    let (place, driver) = place().await;
    let payload = json!({
        "method": "POST", "path": "/notes/{local_id}/lines?at={id}%20x", "headers": {"X-Any": "{id}"},
        "body": {"text": "{local_id} {{"},
    });
    let done = driver.apply(&web(), asks(payload)).await.unwrap();
    assert!(done.output.starts_with("201 Created: {") && done.local_id.as_deref() == Some("100"), "{}", done.output);
    let sent = place.rest.asked().into_iter().rfind(|asked| asked.method == "POST").unwrap();
    assert_eq!((sent.path.as_str(), sent.header("x-any")), ("/api/notes/100/lines?at=web%20x", Some("{id}")));
    assert_eq!(place.lines(), ["{local_id} {{"]);
    let template = json!({
        "method": "POST", "path": "/notes/{local_id}/lines", "headers": {"X-Any": "{operation}"}, "template": true,
        "body": {"text": "{site} {local_id}", "n": "{id}"},
    });
    driver.apply(&web(), asks(template)).await.unwrap();
    let sent = place.rest.asked().into_iter().rfind(|asked| asked.method == "POST").unwrap();
    assert_eq!((sent.header("x-any"), place.lines()[1].as_str()), (Some("op"), "paris 100"));
}

#[tokio::test]
async fn bodies_may_be_any_bytes() {
    let (place, driver) = place().await;
    for (body, sent) in [
        (json!({"text": "{a: 1}"}), b"{a: 1}".to_vec()),
        (json!({"base64": "AP8="}), vec![0, 255]),
        (json!({"body": "x"}), b"\"x\"".to_vec()),
        (json!({}), Vec::new()),
    ] {
        let mut payload = json!({"method": "PUT", "path": "/texts/one", "headers": {"Content-Type": "a/b"}});
        payload.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        driver.apply(&web(), asks(payload)).await.unwrap();
        let asked = place.rest.asked().into_iter().rfind(|asked| asked.method == "PUT").unwrap();
        assert_eq!((asked.body, asked.headers.iter().filter(|it| it.0 == "content-type").count()), (sent, 1), "{body}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_never_sent() {
    let (place, driver) = place().await;
    let before = place.rest.asked().len();
    for (method, path) in [
        ("DELETE", "/notes/{local_id}"),
        ("PUT", "/notes/{local_id}/lines"),
        ("POST", "/notes/101/lines"),
        ("POST", "/notes/{id}/lines"),
        ("POST", "/notes/{local_id}/lines/"),
        ("POST", "/notes/{local_id}"),
        ("PUT", "/texts/a/b"),
        ("PUT", "/texts/"),
        ("PUT", "/texts/../notes/100"),
        ("PUT", "/texts/%2e%2e"),
        ("PUT", "/texts/..%2fnotes%2f100"),
        ("PUT", "/texts/{desired/title}"),
        ("PUT", "//evil.example/texts/a"),
        ("PUT", "http://evil.example/texts/a"),
        ("PUT", "/texts/a#b"),
    ] {
        let error = driver.apply(&web(), asks(json!({"method": method, "path": path}))).await.unwrap_err();
        let DriverError::Invalid { field, .. } = &error else { panic!("{method} {path}: {error:?}") };
        assert_eq!(field, "payload.path", "{error}");
    }
    assert_eq!(place.rest.asked().len(), before);
}

#[tokio::test]
async fn payloads_that_make_no_sense_are_refused_by_field() {
    let (_place, driver) = place().await;
    let put = |with: Value| {
        let mut payload = json!({"method": "PUT", "path": "/texts/a"});
        payload.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        payload
    };
    let wrong = [
        (json!("GET /"), "payload"),
        (json!({"path": "/texts/a"}), "payload.method"),
        (put(json!({"method": "put"})), "payload.method"),
        (json!({"method": "PUT"}), "payload.path"),
        (put(json!({"path": format!("/texts/{}", "a".repeat(9 << 10))})), "payload.path"),
        (put(json!({"url": "http://a"})), "payload.url"),
        (put(json!({"headers": []})), "payload.headers"),
        (put(json!({"headers": {"a b": ""}})), "payload.headers.a b"),
        (put(json!({"headers": {"A": 7}})), "payload.headers.A"),
        (put(json!({"headers": {"A": "x\r\nB: y"}})), "payload.headers.A"),
        (put(json!({"headers": {"A": "x".repeat(17 << 10)}})), "payload.headers.A"),
        (put(json!({"headers": {"Host": "a"}})), "payload.headers.Host"),
        (put(json!({"headers": {"AUTHORIZATION": "Bearer x"}})), "payload.headers.AUTHORIZATION"),
        (put(json!({"headers": {"Proxy-Authorization": "x"}})), "payload.headers.Proxy-Authorization"),
        (put(json!({"headers": {"Cookie": "x"}})), "payload.headers.Cookie"),
        (put(json!({"text": 7})), "payload.text"),
        (put(json!({"base64": "?"})), "payload.base64"),
        (put(json!({"text": "a", "body": 1})), "payload.text"),
        (put(json!({"text": "x".repeat((4 << 20) + 1)})), "payload.text"),
        (put(json!({"template": 1})), "payload.template"),
        (put(json!({"template": true, "body": "{nothing}"})), "payload.body"),
    ];
    for (payload, place) in wrong {
        let shown = payload.to_string().chars().take(100).collect::<String>();
        let error = driver.apply(&web(), asks(payload)).await.unwrap_err();
        let DriverError::Invalid { field, .. } = &error else { panic!("{shown}: {error:?}") };
        assert_eq!(field, place, "{error}");
    }
    let mut elsewhere = operation("op", json!(null));
    elsewhere.payload = Payload::Blob("0".repeat(64));
    assert!(driver.apply(&web(), Work::Operation(elsewhere)).await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn headers_that_make_another_request_of_it_are_refused() {
    let (place, driver) = place().await;
    let before = place.rest.asked().len();
    let asks_with =
        |name: &str| asks(json!({"method": "PUT", "path": "/texts/a", "headers": {name: "DELETE"}, "text": "x"}));
    for name in [
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X_HTTP_Method_Override",
        "X-HTTP-Method",
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "Impersonate-User",
        "Impersonate-Extra-scopes",
        "X-Remote-User",
        "X-Forwarded-User",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X_Forwarded_Proto",
        "X-Real-IP",
        "Proxy-Connection",
        "Content_Length",
    ] {
        let error = driver.apply(&web(), asks_with(name)).await.unwrap_err();
        let DriverError::Invalid { field, .. } = &error else { panic!("{name}: {error:?}") };
        assert_eq!(field, &format!("payload.headers.{name}"), "{error}");
    }
    assert_eq!(place.rest.asked().len(), before);
    for name in ["If-Match", "X-Request-Id", "Prefer", "X-Original"] {
        driver.apply(&web(), asks_with(name)).await.unwrap();
    }
}

#[tokio::test]
async fn operations_are_taken_back_last_first() {
    let (place, driver) = place().await;
    let works = [add("one", "x"), add("two", "y"), add("three", "z")];
    for work in &works {
        driver.apply(&web(), work.clone()).await.unwrap();
    }
    let undo = async |work: &Work| {
        let Work::Operation(operation) = work else { unreachable!() };
        driver.undo(&web(), operation).await
    };
    assert!(undo(&works[0]).await.is_err());
    undo(&works[2]).await.unwrap();
    // The request may have been sent before, by a process that ended.
    place.rest.next("DELETE", "/lines/2", Fault::HangUpAfter);
    undo(&works[1]).await.unwrap();
    assert_eq!((place.lines(), observe(&driver).await.marker.unwrap().as_str()), (vec!["x".to_owned()], "one"));
}

#[tokio::test]
async fn without_a_replica_nothing_is_run_and_one_that_was_removed_is_lost() {
    let place = Place::new(format!("{NOTES}{ALLOWED}"));
    let driver = place.driver().await;
    let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("not there yet"), "{error}");
    desire(&driver, json!({"title": "a"})).await.unwrap();
    assert!(place.rest.remove(100));
    let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
    assert!(matches!(error, DriverError::Lost { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_is_the_last_word_unless_the_file_says_otherwise() {
    let place = Place::new(format!("{NOTES}{ALLOWED}")).with("retry = [409]\n");
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a"})).await.unwrap();
    for (status, again) in [(403, false), (422, false), (409, true)] {
        place.rest.next("POST", "/lines", Fault::FailBefore(status));
        let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
        assert_eq!(!error.is_permanent(), again, "{error}");
        assert!(
            error.to_string().contains("POST /api/notes/100/lines") && error.to_string().contains("not done"),
            "{error}"
        );
        // It is known that it did not run.
        let seen = observe(&driver).await;
        assert_eq!((seen.marker, seen.unsettled), (None, None));
    }
}
