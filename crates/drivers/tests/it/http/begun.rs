//! Operations whose answers are lost, or whose process ends.

use super::*;

/// Lines that carry the operation.
const MARKED: &str = r#"
[[resources.note.operations]]
method = "POST"
path = "/notes/{local_id}/lines"
mark = "/by"
find = { path = "/notes/{local_id}/lines", list = "/items" }
"#;

/// A request that creates.
const CREATING: &str = "[[resources.note.operations]]\nmethod = 'POST'\npath = '/notes'\ncreates = true\n";

fn create(id: &str, title: &str) -> Work {
    let payload = json!({"method": "POST", "path": "/notes", "body": {"title": title}});
    Work::Operation(operation(id, payload))
}

/// What the engine does about an operation that gave no answer: it looks, and runs it again if that says that it did not run.
async fn resumed(driver: &HttpDriver, id: &str, work: Work) -> Result<(), String> {
    let seen = observe(driver).await;
    match (seen.marker, seen.unsettled) {
        (Some(marker), None) if marker.as_str() == id => Ok(()),
        (_, Some(unsettled)) if unsettled.as_str() == id => Err("nobody knows".into()),
        (_, None) => driver.apply(&web(), work).await.map(drop).map_err(|error| error.to_string()),
        other => panic!("{other:?}"),
    }
}

const FAULTS: [Fault; 6] = [
    Fault::HangUpAfter,
    Fault::HangUpBefore,
    Fault::FailAfter(500),
    Fault::FailBefore(500),
    Fault::SlowAfter(Duration::from_secs(3)),
    Fault::SlowBefore(Duration::from_millis(2200)),
];

#[tokio::test]
async fn what_carries_its_mark_runs_once() {
    for fault in FAULTS {
        let place = Place::new(format!("{NOTES}{MARKED}"));
        let driver = place.driver().await;
        desire(&driver, json!({"title": "a"})).await.unwrap();
        place.rest.next("POST", "/lines", fault.clone());
        let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
        assert!(matches!(error, DriverError::Unanswered { .. } | DriverError::Timeout { .. }), "{fault:?}: {error:?}");
        resumed(&driver, "one", add("one", "x")).await.unwrap();
        place.rest.quiet();
        assert_eq!(place.lines(), ["x"], "{fault:?}");
        assert_eq!(place.only()["lines"][0]["by"], "one");
        // The next one is another one.
        driver.apply(&web(), add("two", "x")).await.unwrap();
        assert_eq!(place.lines(), ["x", "x"], "{fault:?}");
    }
}

#[tokio::test]
async fn what_has_a_key_runs_once() {
    for fault in FAULTS {
        let place = Place::new(format!("{NOTES}{LINES}key = 'Idempotency-Key'\n"));
        place.rest.next("POST", "/lines", fault.clone());
        let driver = place.driver().await;
        desire(&driver, json!({"title": "a"})).await.unwrap();
        // It may be sent again at once; what ends in the middle is sent again later, with the same key.
        if let Err(error) = driver.apply(&web(), add("one", "x")).await {
            resumed(&driver, "one", add("one", "x")).await.map_err(|again| format!("{error}: {again}")).unwrap();
        }
        assert_eq!(place.lines(), ["x"], "{fault:?}");
        // Run again on what was made anew, it has its effect again.
        driver.reset(&web()).await.unwrap();
        desire(&driver, json!({"title": "a"})).await.unwrap();
        driver.apply(&web(), add("one", "x")).await.unwrap();
        assert_eq!(place.lines(), ["x"], "{fault:?}");
    }
}

#[tokio::test]
async fn what_nobody_can_find_out_is_unsettled() {
    for fault in FAULTS {
        let place = Place::new(format!("{NOTES}{LINES}"));
        let driver = place.driver().await;
        desire(&driver, json!({"title": "a"})).await.unwrap();
        place.rest.next("POST", "/lines", fault.clone());
        driver.apply(&web(), add("one", "x")).await.unwrap_err();
        drop(driver);
        // Also after a crash, and however often it is asked.
        let driver = place.driver().await;
        for _ in 0..2 {
            assert!(resumed(&driver, "one", add("one", "x")).await.is_err(), "{fault:?}");
        }
        // Made anew, nothing is in doubt any more.
        driver.reset(&web()).await.unwrap();
        assert_eq!(observe(&driver).await.unsettled, None);
    }
}

#[tokio::test]
async fn a_process_that_ended_in_the_middle_runs_nothing_twice() {
    for (allowed, known) in [(MARKED, true), (LINES, false)] {
        let place = Place::new(format!("{NOTES}{allowed}").replace("settle_ms = 300", "settle_ms = 3000"));
        let driver = place.driver().await;
        desire(&driver, json!({"title": "a"})).await.unwrap();
        place.rest.next("POST", "/lines", Fault::SlowBefore(Duration::from_millis(500)));
        broken_off(driver, add("one", "x")).await;
        let driver = place.driver().await;
        assert_eq!(resumed(&driver, "one", add("one", "x")).await.is_ok(), known);
        place.rest.quiet();
        assert_eq!(place.lines(), ["x"]);
    }
}

#[tokio::test]
async fn an_operation_that_creates_does_so_once() {
    for fault in FAULTS {
        let place = Place::new(format!("{NOTES}{CREATING}{LINES}"));
        let driver = place.driver().await;
        place.rest.next("POST", "/notes", fault.clone());
        driver.apply(&web(), create("new", "a")).await.unwrap_err();
        resumed(&driver, "new", create("new", "a")).await.unwrap();
        place.rest.quiet();
        assert_eq!(observe(&driver).await.local_id.as_deref(), Some("100"), "{fault:?}");
        driver.apply(&web(), add("one", "x")).await.unwrap();
        assert_eq!((place.lines(), place.rest.created()), (vec!["x".to_owned()], 1), "{fault:?}");
        // Run again, it makes another one, and the old one goes.
        driver.apply(&web(), create("new", "b")).await.unwrap();
        assert_eq!((place.only()["title"].as_str(), place.lines()), (Some("b"), vec![]), "{fault:?}");
        assert_eq!(observe(&driver).await.marker.unwrap().as_str(), "new");
    }
}

#[tokio::test]
async fn an_operation_whose_creation_nobody_can_find_is_unsettled() {
    let place = Place::new(format!("{BLIND}{CREATING}"));
    let driver = place.driver().await;
    place.rest.next("POST", "/notes", Fault::HangUpAfter);
    driver.apply(&web(), create("new", "a")).await.unwrap_err();
    assert!(resumed(&driver, "new", create("new", "a")).await.is_err());
    // What cannot be found cannot be removed to make it anew.
    assert!(driver.reset(&web()).await.unwrap_err().is_permanent());
    assert_eq!(place.rest.created(), 1);
}

#[tokio::test]
async fn idempotent_methods_are_sent_again() {
    let allowed = "[[resources.note.operations]]\nmethod = 'PUT'\npath = '/texts/{id}'\n";
    for fault in [Fault::HangUpAfter, Fault::FailAfter(500), Fault::FailBefore(502), Fault::HangUpBefore] {
        let place = Place::new(format!("{NOTES}{allowed}"));
        let driver = place.driver().await;
        place.rest.next("PUT", "/texts", fault.clone());
        let payload = json!({"method": "PUT", "path": "/texts/{id}", "text": "x"});
        driver.apply(&web(), Work::Operation(operation("one", payload))).await.unwrap();
        assert_eq!(place.rest.text("web").as_deref(), Some("x"), "{fault:?}");
    }
}
