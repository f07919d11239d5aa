//! What is known of an operation that was broken off, in this process and in the next.

use khufu_drivers::{Driver as _, DriverError, Work};

use super::{Place, command, number, runs, until, web};

#[tokio::test]
async fn an_operation_that_was_broken_off_counts_as_neither_done_nor_undone() {
    let place = Place::of_files();
    let driver = place.driver().await;
    driver.apply(&web(), command("first", "echo first >> web")).await.unwrap();
    let replica = web();
    let call = driver.apply(&replica, command("second", "echo second >> web; echo $$ > pid; sleep 300"));
    let process = tokio::select! {
        result = call => panic!("it ended: {result:?}"),
        process = number(&place, "pid") => process,
    };
    let told = |seen: khufu_drivers::Observed| (seen.marker.map(String::from), seen.unsettled.map(String::from));
    let unsettled = (Some("first".to_owned()), Some("second".to_owned()));
    assert_eq!(told(driver.observe(&web()).await.unwrap()), unsettled);
    assert!(!runs(process));
    // The next process knows as much.
    drop(driver);
    let driver = place.driver().await;
    assert_eq!(told(driver.observe(&web()).await.unwrap()), unsettled);
    // And all is well once the replica was made anew.
    driver.apply(&web(), Work::Reset).await.unwrap();
    driver.apply(&web(), command("first", "echo first >> web")).await.unwrap();
    driver.apply(&web(), command("second", "echo second >> web")).await.unwrap();
    assert_eq!(told(driver.observe(&web()).await.unwrap()), (Some("second".to_owned()), None));
    assert_eq!(place.read("web").unwrap(), "first\nsecond\n");
}

#[tokio::test]
async fn an_operation_that_failed_or_did_not_start_is_known_not_to_have_been_done() {
    let place = Place::of_files();
    let driver = place.driver().await;
    driver.apply(&web(), command("first", "echo first >> web")).await.unwrap();
    driver.apply(&web(), command("second", "exit 1")).await.unwrap_err();
    let seen = driver.observe(&web()).await.unwrap();
    assert_eq!((seen.marker.unwrap().as_str(), seen.unsettled), ("first", None));
    // Where commands are started is gone.
    std::fs::remove_dir_all(place.work()).unwrap();
    let error = driver.apply(&web(), command("third", "true")).await.unwrap_err();
    assert!(matches!(error, DriverError::Io { .. }), "{error:?}");
    std::fs::create_dir(place.work()).unwrap();
    let seen = driver.observe(&web()).await.unwrap();
    assert_eq!((seen.marker.unwrap().as_str(), seen.unsettled), ("first", None));
}

#[tokio::test]
async fn nothing_runs_of_which_it_cannot_be_noted_that_it_has_begun() {
    let place = Place::of_files();
    let driver = place.driver().await;
    std::fs::remove_dir_all(place.dir.path().join("state/notes")).unwrap();
    driver.apply(&web(), command("first", "echo first >> web")).await.unwrap_err();
    assert_eq!(place.read("web"), None);
}

#[tokio::test]
async fn a_note_that_cannot_be_read_is_said_until_the_replica_is_made_anew() {
    let place = Place::of_files();
    let driver = place.driver().await;
    driver.apply(&web(), command("first", "echo first >> web")).await.unwrap();
    std::fs::write(place.dir.path().join("state/notes/web.json"), "{").unwrap();
    let error = driver.observe(&web()).await.unwrap_err();
    assert!(matches!(&error, DriverError::Refused { place, .. } if place.ends_with("web.json")), "{error:?}");
    driver.apply(&web(), command("second", "echo second >> web")).await.unwrap_err();
    assert_eq!(place.read("web").unwrap(), "first\n");
    driver.apply(&web(), Work::Reset).await.unwrap();
    assert!(driver.observe(&web()).await.unwrap().marker.is_none());
}

#[tokio::test]
async fn what_left_its_process_group_is_ended_before_the_replica_is_touched_again() {
    let place = Place::of_files();
    let driver = place.driver().await;
    let replica = web();
    let text = "setsid sh -c 'while :; do echo late >> web; sleep 0.05; done' & sleep 300";
    let call = driver.apply(&replica, command("first", text));
    tokio::select! {
        result = call => panic!("it ended: {result:?}"),
        () = until("it goes on", || place.read("web").is_some_and(|text| text.lines().count() > 2)) => {}
    }
    driver.apply(&web(), Work::Reset).await.unwrap();
    driver.apply(&web(), command("second", "sleep 0.3; echo second >> web")).await.unwrap();
    assert_eq!(place.read("web").unwrap(), "second\n");
}
