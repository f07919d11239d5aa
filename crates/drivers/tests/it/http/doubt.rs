//! What one attempt has left in doubt stays so, whatever comes of those after it.

use super::*;

const KEYED: &str = "key = 'Idempotency-Key'\n";

/// Nothing can be found again, and the service knows by a key what it has done.
fn blind() -> String {
    BLIND.replace("path = \"/notes\" }", "path = \"/notes\", key = \"Idempotency-Key\" }")
}

/// What an attempt may come to that has done nothing itself.
fn later() -> Vec<Fault> {
    let refused = [400, 401, 404, 409].map(Fault::FailBefore);
    [refused.to_vec(), vec![Fault::TooMany { retry_after_s: 300 }, Fault::MovedTo("/api/elsewhere".into())]].concat()
}

/// All attempts of one piece of work are done, and none is answered.
fn unanswered(place: &Place, path: &str) {
    for _ in 0..3 {
        place.rest.next("POST", path, Fault::HangUpAfter);
    }
}

fn is_in_doubt(error: &DriverError) -> bool {
    matches!(error, DriverError::Unanswered { .. } | DriverError::Timeout { .. })
}

#[tokio::test]
async fn an_attempt_that_is_refused_does_not_say_what_became_of_the_one_before() {
    for first in [Fault::HangUpAfter, Fault::FailAfter(500)] {
        for second in later() {
            let place = Place::new(format!("{}{LINES}{KEYED}", blind()));
            let driver = place.driver().await;
            place.rest.next("POST", "/notes", first.clone());
            place.rest.next("POST", "/notes", second.clone());
            let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
            assert!(is_in_doubt(&error), "{first:?}, {second:?}: {error:?}");
            let done = desire(&driver, json!({"title": "a"})).await.unwrap();
            assert_eq!((done.local_id.as_deref(), place.rest.created()), (Some("100"), 1), "{first:?}, {second:?}");

            place.rest.next("POST", "/lines", first.clone());
            place.rest.next("POST", "/lines", second.clone());
            let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
            assert!(is_in_doubt(&error), "{first:?}, {second:?}: {error:?}");
            driver.apply(&web(), add("one", "x")).await.unwrap();
            assert_eq!(place.lines(), ["x"], "{first:?}, {second:?}");
        }
    }
}

#[tokio::test]
async fn a_key_outlives_work_that_does_nothing() {
    for between in later() {
        let place = Place::new(format!("{}{LINES}{KEYED}", blind()));
        let driver = place.driver().await;
        unanswered(&place, "/notes");
        assert!(is_in_doubt(&desire(&driver, json!({"title": "a"})).await.unwrap_err()));
        place.rest.next("POST", "/notes", between.clone());
        let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
        assert!(!is_in_doubt(&error), "this attempt has done nothing: {between:?}: {error:?}");
        desire(&driver, json!({"title": "a"})).await.unwrap();
        assert_eq!(place.rest.created(), 1, "{between:?}");

        unanswered(&place, "/lines");
        assert!(is_in_doubt(&driver.apply(&web(), add("one", "x")).await.unwrap_err()));
        place.rest.next("POST", "/lines", between.clone());
        let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
        assert!(!is_in_doubt(&error), "this attempt has done nothing: {between:?}: {error:?}");
        // Also in another process.
        drop(driver);
        place.driver().await.apply(&web(), add("one", "x")).await.unwrap();
        assert_eq!(place.lines(), ["x"], "{between:?}");
    }
}

#[tokio::test]
async fn a_service_that_is_away_for_a_while_does_nothing_twice() {
    let mut place = Place::new(format!("{}{LINES}{KEYED}", blind()));
    let driver = place.driver().await;
    unanswered(&place, "/notes");
    desire(&driver, json!({"title": "a"})).await.unwrap_err();
    place.rest.stop();
    let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
    assert!(matches!(error, DriverError::Unavailable { .. }), "{error:?}");
    place.rest.start_again();
    desire(&driver, json!({"title": "a"})).await.unwrap();
    assert_eq!(place.rest.created(), 1);
}

#[tokio::test]
async fn what_could_not_even_be_written_leaves_no_doubt() {
    let place = Place::new(BLIND.replace("path = \"/notes\" }", "path = \"/notes?by={desired/by}\" }"));
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a"})).await.unwrap_err();
    desire(&driver, json!({"title": "a", "by": "eve"})).await.unwrap();
    assert_eq!(place.rest.created(), 1);
}
