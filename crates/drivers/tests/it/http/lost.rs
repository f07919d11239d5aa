//! Creations whose answers are lost: nothing is created twice.

use super::*;

#[tokio::test]
async fn what_was_created_is_found_whatever_became_of_the_answer() {
    let faults = [
        Fault::HangUpAfter,
        Fault::FailAfter(500),
        Fault::FailAfter(503),
        Fault::CutAfter,
        Fault::SlowAfter(Duration::from_secs(3)),
        Fault::HangUpBefore,
        Fault::FailBefore(500),
    ];
    for fault in faults {
        let place = Place::new(NOTES);
        let driver = place.driver().await;
        place.rest.next("POST", "/notes", fault.clone());
        let first = desire(&driver, json!({"title": "a"})).await;
        assert!(first.is_ok() == (fault == Fault::CutAfter), "{fault:?}: {first:?}");
        let done = desire(&driver, json!({"title": "a"})).await.unwrap();
        assert_eq!((done.local_id.as_deref(), place.rest.created()), (Some("100"), 1), "{fault:?}");
    }
}

#[tokio::test]
async fn it_is_found_on_a_later_page() {
    for next in ["next = \"/next\"", "next = \"/none\""] {
        let place = Place::new(NOTES.replace("?label={id}", "").replace("next = \"/next\"", next));
        let driver = place.driver().await;
        for id in ["a", "b", "c", "d", "e", "f"] {
            driver.apply(&replica(id), Work::Desired(json!({"title": id}))).await.unwrap();
        }
        place.rest.next("POST", "/notes", Fault::HangUpAfter);
        desire(&driver, json!({"title": "a"})).await.unwrap_err();
        let done = desire(&driver, json!({"title": "a"})).await.unwrap();
        // Whoever says that there are no more pages is believed.
        assert_eq!(done.local_id.as_deref(), Some(if next.contains("none") { "107" } else { "106" }));
    }
}

#[tokio::test]
async fn a_process_that_ended_in_the_middle_creates_nothing_twice() {
    for fault in [Fault::SlowAfter(Duration::from_millis(400)), Fault::SlowBefore(Duration::from_millis(400))] {
        let place = Place::new(NOTES.replace("settle_ms = 300", "settle_ms = 2000"));
        place.rest.next("POST", "/notes", fault.clone());
        broken_off(place.driver().await, Work::Desired(json!({"title": "a"}))).await;
        let driver = place.driver().await;
        // One that is slow before it does its work has done nothing yet when it is looked for.
        let done = desire(&driver, json!({"title": "b"})).await.unwrap();
        place.rest.quiet();
        assert_eq!((done.local_id.as_deref(), place.rest.created()), (Some("100"), 1), "{fault:?}");
        assert_eq!(place.only()["title"], "b");
    }
}

#[tokio::test]
async fn what_the_engine_forgot_is_found_by_its_mark() {
    let mut place = Place::new(NOTES);
    desire(&place.driver().await, json!({"title": "a"})).await.unwrap();
    // A site that has lost its disk.
    place.dir = tempfile::tempdir().unwrap();
    let driver = place.driver().await;
    assert_eq!(observe(&driver).await.local_id.as_deref(), Some("100"));
    assert_eq!(desire(&driver, json!({"title": "a"})).await.unwrap().output, "as it should be");
}

#[tokio::test]
async fn where_nobody_can_find_out_a_person_is_asked() {
    let place = Place::new(BLIND);
    let driver = place.driver().await;
    place.rest.next("POST", "/notes", Fault::HangUpAfter);
    desire(&driver, json!({"title": "a"})).await.unwrap_err();
    for _ in 0..2 {
        let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
        assert!(matches!(error, DriverError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains("web.json"), "{error}");
    }
    assert!(matches!(driver.reset(&web()).await.unwrap_err(), DriverError::Refused { .. }));
    assert_eq!(place.rest.created(), 1);
    // The person has looked.
    std::fs::remove_file(place.dir.path().join("state/notes/web.json")).unwrap();
    desire(&driver, json!({"title": "a"})).await.unwrap();
    assert_eq!(place.rest.created(), 2);
    // When it goes, it is said what may be left.
    place.rest.next("POST", "/notes", Fault::HangUpAfter);
    driver.apply(&replica("other"), Work::Desired(json!({"title": "a"}))).await.unwrap_err();
    let gone = driver.delete(&replica("other")).await.unwrap();
    assert!(gone.output.contains("no way to find out"), "{}", gone.output);
}

#[tokio::test]
async fn a_key_lets_the_service_find_out() {
    let place = Place::new(BLIND.replace("path = \"/notes\" }", "path = \"/notes\", key = \"Idempotency-Key\" }"));
    place.rest.next("POST", "/notes", Fault::SlowAfter(Duration::from_millis(400)));
    broken_off(place.driver().await, Work::Desired(json!({"title": "a"}))).await;
    let driver = place.driver().await;
    place.rest.next("POST", "/notes", Fault::HangUpAfter);
    let done = desire(&driver, json!({"title": "a"})).await.unwrap();
    assert_eq!((done.local_id.as_deref(), place.rest.created()), (Some("100"), 1));
    // Another one is not taken for it.
    driver.reset(&web()).await.unwrap();
    assert_eq!(desire(&driver, json!({"title": "a"})).await.unwrap().local_id.as_deref(), Some("101"));
}

#[tokio::test]
async fn a_busy_service_is_asked_again_when_it_says() {
    let place = Place::new(BLIND).with("not_done = [507]\n");
    let driver = place.driver().await;
    place.rest.next("POST", "/notes", Fault::TooMany { retry_after_s: 1 });
    place.rest.next("POST", "/notes", Fault::FailBefore(507));
    let begun = std::time::Instant::now();
    desire(&driver, json!({"title": "a"})).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!((place.rest.created(), place.rest.count("POST", "/notes")), (1, 3));
    // One that wants to be left alone for long is, by whoever asks.
    place.rest.next("PUT", "/notes", Fault::TooMany { retry_after_s: 300 });
    let error = desire(&driver, json!({"title": "b"})).await.unwrap_err();
    assert_eq!((error.is_permanent(), error.retry_after()), (false, Some(Duration::from_secs(300))));
}

#[tokio::test]
async fn several_with_one_mark_are_a_matter_for_a_person() {
    let marked = json!({"title": "x", "labels": {"khufu": "web"}});
    let place = Place::new(format!("{NOTES}[[resources.note.operations]]\nmethod = 'POST'\npath = '/notes'\n"));
    let driver = place.driver().await;
    for id in ["one", "two"] {
        let payload = json!({"method": "POST", "path": "/notes", "body": marked});
        driver.apply(&web(), Work::Operation(operation(id, payload))).await.unwrap();
    }
    let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("100, 101"), "{error}");
}
