//! Looks, drift, health, dry runs.

use khufu_crdt::Condition;

use super::*;

#[tokio::test]
async fn services_that_call_it_differently_have_the_same_contents() {
    let mut digests = Vec::new();
    for first in [100, 7] {
        let resources = format!("{NOTES}contents = ['/title', '/lines']\n{LINES}");
        let place = Place::of(Rest::builder(first).start(), resources);
        let driver = place.driver().await;
        desire(&driver, json!({"title": "a"})).await.unwrap();
        let seen = observe(&driver).await;
        assert!(seen.exists && seen.contents.unwrap()["title"] == "a");
        // What the service adds is another everywhere, also where operations have run.
        let done = driver.apply(&web(), add("one", "x")).await.unwrap();
        assert_eq!(place.only()["id"], first);
        digests.push((seen.digest.unwrap(), done.digest.unwrap()));
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn what_operations_have_done_is_part_of_the_contents() {
    let place = Place::new(format!("{NOTES}contents = ['/title', '/lines']\n{LINES}"));
    let driver = place.driver().await;
    let made = desire(&driver, json!({"title": "a"})).await.unwrap();
    let done = driver.apply(&after(&made), add("one", "x")).await.unwrap();
    assert_ne!(done.digest, made.digest);
    let seen = driver.observe(&after(&done)).await.unwrap();
    assert_eq!((&seen.digest, seen.drift, seen.marker.unwrap().as_str()), (&done.digest, None, "one"));
    place.rest.edit(100, |note| note["lines"] = json!([]));
    assert!(driver.observe(&after(&done)).await.unwrap().drift.is_some());
}

#[tokio::test]
async fn changes_by_hand_are_named_and_put_back() {
    let place = Place::new(NOTES);
    let driver = place.driver().await;
    let done = desire(&driver, json!({"title": "a", "deep": {"x": 1}})).await.unwrap();
    place.rest.edit(100, |note| note["other"] = json!("somebody's"));
    assert_eq!(driver.observe(&after(&done)).await.unwrap().drift, None);
    place.rest.edit(100, |note| {
        note["title"] = json!("hand");
        note["deep"] = json!({});
    });
    let drift = driver.observe(&after(&done)).await.unwrap().drift.unwrap();
    assert_eq!(drift, "/deep/x is missing instead of 1, /title is \"hand\" instead of \"a\"");
    desire(&driver, json!({"title": "a", "deep": {"x": 1}})).await.unwrap();
    assert_eq!((&place.only()["title"], &place.only()["other"]), (&json!("a"), &json!("somebody's")));
    assert!(place.rest.remove(100));
    let gone = driver.observe(&after(&done)).await.unwrap();
    assert_eq!((gone.exists, gone.drift.as_deref()), (false, Some("there is no replica any more")));
    assert_eq!(desire(&driver, json!({"title": "a"})).await.unwrap().local_id.as_deref(), Some("101"));
}

#[tokio::test]
async fn somebody_elses_note_under_its_name_is_not_touched() {
    let place = Place::new(NOTES);
    let driver = place.driver().await;
    let done = desire(&driver, json!({"title": "a"})).await.unwrap();
    // As where a service has lost its memory and begins to count anew.
    place
        .rest
        .edit(100, |note| *note = json!({"id": 100, "title": "theirs", "labels": {"khufu": "theirs"}, "lines": []}));
    assert!(!driver.observe(&after(&done)).await.unwrap().exists);
    driver.delete(&after(&done)).await.unwrap();
    assert_eq!(place.only()["title"], "theirs");
}

#[tokio::test]
async fn how_it_is_doing_is_told() {
    let rule =
        "health = { field = '/state', current = ['ready'], progress = ['building'], failed = [3], message = '/why' }\n";
    let place = Place::new(format!("{NOTES}{rule}"));
    let driver = place.driver().await;
    let done = desire(&driver, json!({"title": "a"})).await.unwrap();
    assert_eq!(done.health.unwrap().condition, Condition::Current);
    for (state, condition, message) in [
        (json!("building"), Condition::InProgress, "/state is \"building\""),
        (json!(3), Condition::Failed, "broke"),
        (json!("?"), Condition::Unknown, "broke"),
    ] {
        place.rest.edit(100, |note| {
            if condition != Condition::InProgress {
                note["why"] = json!("broke");
            }
            note["state"] = state;
        });
        let health = observe(&driver).await.health.unwrap();
        assert_eq!((health.condition, health.message.as_str()), (condition, message));
    }
}

#[tokio::test]
async fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let place = Place::new(format!("{NOTES}{LINES}"));
    let driver = place.driver().await;
    let diff = async |work: &[Work]| driver.diff(&web(), work).await.unwrap();
    let new = diff(&[Work::Desired(json!({"title": "a"})), add("one", "x")]).await;
    assert!(new.contains("note/new") && new.contains("+title: a"), "{new}");
    assert!(new.ends_with("+ POST /api/notes/NEW/lines {\"text\":\"x\"}\n"), "{new}");
    assert!(place.rest.notes().is_empty());
    desire(&driver, json!({"title": "a", "size": 1})).await.unwrap();
    assert_eq!(diff(&[Work::Desired(json!({"title": "a", "size": 1}))]).await, "");
    let changed = diff(&[Work::Desired(json!({"title": "b"}))]).await;
    assert!(
        changed.contains("-title: a") && changed.contains("+title: b") && changed.contains("-size: 1"),
        "{changed}"
    );
    assert!(!changed.contains("updated_at"), "{changed}");
    assert_eq!(place.only()["title"], "a");
}

#[tokio::test]
async fn whether_the_service_is_there_is_told() {
    let mut place = Place::new(NOTES);
    let driver = place.driver().await;
    let mut reachable = driver.reachable().unwrap();
    let patience = Duration::from_secs(30);
    let until = async |reachable: &mut tokio::sync::watch::Receiver<Option<bool>>, is: bool| {
        tokio::time::timeout(patience, reachable.wait_for(|now| *now == Some(is))).await.unwrap().unwrap();
    };
    until(&mut reachable, true).await;
    place.rest.stop();
    let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
    assert!(matches!(error, DriverError::Unavailable { .. }), "{error:?}");
    until(&mut reachable, false).await;
    place.rest.start_again();
    until(&mut reachable, true).await;
    desire(&driver, json!({"title": "a"})).await.unwrap();
}
