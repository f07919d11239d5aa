//! What the driver sees of a replica, and how it takes one away.

use khufu_drivers::{Driver as _, Work, digest};
use serde_json::json;

use super::{Place, command, run, web};

#[tokio::test]
async fn capabilities_follow_from_the_commands_that_there_are() {
    let bare = Place::new(&["true"]).driver().await.capabilities();
    assert!(bare.operations && bare.dry_run && !bare.observe && !bare.reset && !bare.undo);
    let whole = Place::of_files().driver().await.capabilities();
    assert!(whole.observe && whole.reset && !whole.reset_is_loss);
}

#[tokio::test]
async fn the_output_of_a_command_is_the_contents() {
    let place = Place::of_files();
    let driver = place.driver().await;
    let seen = driver.observe(&web()).await.unwrap();
    assert!(!seen.exists && seen.digest.is_none() && seen.drift.is_none() && seen.marker.is_none());
    let done = driver.apply(&web(), command("first", "echo noise >&2; printf one > web")).await.unwrap();
    assert_eq!(done.digest, Some(digest(b"one")));
    let mut replica = web();
    replica.expected = done.digest;
    let seen = driver.observe(&replica).await.unwrap();
    assert_eq!((seen.contents, seen.digest), (Some(json!("one")), Some(digest(b"one"))));
    assert_eq!(seen.marker.unwrap().as_str(), "first");
    assert!(seen.exists && seen.drift.is_none() && seen.unsettled.is_none());
    // Changed by hand, and removed by hand.
    std::fs::write(place.work().join("web"), "two").unwrap();
    assert!(driver.observe(&replica).await.unwrap().drift.unwrap().contains("contents"));
    std::fs::remove_file(place.work().join("web")).unwrap();
    let seen = driver.observe(&replica).await.unwrap();
    assert!(!seen.exists && seen.drift.unwrap().contains("no replica"));
}

#[tokio::test]
async fn contents_that_are_not_kept_whole_are_told_apart_none_the_less() {
    let place = Place::of_files();
    let driver = place.driver().await;
    let long = "x".repeat(100_000);
    std::fs::write(place.work().join("web"), &long).unwrap();
    let seen = driver.observe(&web()).await.unwrap();
    assert_eq!(seen.digest, Some(digest(long.as_bytes())));
    assert!(seen.contents.unwrap().as_str().unwrap().len() < 4200);
}

#[tokio::test]
async fn a_look_that_fails_is_no_sign_that_there_is_nothing() {
    let mut place = Place::of_files();
    place.config.observe.as_mut().unwrap().absent.clear();
    let driver = place.driver().await;
    let error = driver.observe(&web()).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("No such file"), "{error}");
    // What an operation has done is done, whether it can be seen or not.
    let done = driver.apply(&web(), command("op", "true")).await.unwrap();
    assert_eq!(done.digest, None);
}

#[tokio::test]
async fn a_reset_and_a_removal_take_away_what_is_remembered_too() {
    let place = Place::of_files();
    let driver = place.driver().await;
    for end in 0..2 {
        run(&driver, "printf one >> web").await.unwrap();
        assert!(driver.observe(&web()).await.unwrap().marker.is_some());
        match end {
            0 => driver.apply(&web(), Work::Reset).await.unwrap(),
            _ => driver.delete(&web()).await.unwrap(),
        };
        let seen = driver.observe(&web()).await.unwrap();
        assert!(!seen.exists && seen.marker.is_none() && place.read("web").is_none());
    }
    // Both can be repeated.
    driver.reset(&web()).await.unwrap();
    driver.delete(&web()).await.unwrap();
}

#[tokio::test]
async fn without_a_command_a_removal_says_what_stays() {
    let driver = Place::new(&["true"]).driver().await;
    assert!(driver.delete(&web()).await.unwrap().output.contains("stays"));
    assert!(driver.reset(&web()).await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_run_and_runs_nothing() {
    let place = Place::new(&["touch"]);
    let driver = place.driver().await;
    let shown = driver.diff(&web(), &[command("op", "touch 'a b' {id}")]).await.unwrap();
    assert_eq!(shown, "+ run \"/usr/bin/touch\" \"a b\" \"web\"\n");
    driver.diff(&web(), &[command("op", "rm a")]).await.unwrap_err();
    assert!(place.read("web").is_none());
}
