use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_drivers::{Changes, Driver, FilesDriver, Work};
use serde_json::json;

use crate::{append, replica, write};

async fn next(changes: &mut Changes) -> ReplicantId {
    tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.expect("nobody was told").unwrap()
}

#[tokio::test]
async fn changes_by_hand_are_told_and_our_own_are_not() {
    let dir = tempfile::tempdir().unwrap();
    // While no driver looked: told with the first look.
    let driver = FilesDriver::new(dir.path()).unwrap();
    driver.apply(&replica("early"), write("a", "x")).await.unwrap();
    driver.apply(&replica("same"), write("a", "x")).await.unwrap();
    drop(driver);
    std::fs::write(dir.path().join("early"), "edited").unwrap();

    let driver = FilesDriver::new(dir.path()).unwrap().look_every(Duration::from_millis(5));
    let mut changes = driver.watch().unwrap();
    assert_eq!(next(&mut changes).await.as_str(), "early");
    for n in 0..20 {
        driver.apply(&replica("web"), append(&n.to_string(), "one\n")).await.unwrap();
    }
    driver.apply(&replica("other"), Work::Desired(json!(1))).await.unwrap();
    driver.reset(&replica("other")).await.unwrap();
    std::fs::write(dir.path().join("web"), "edited").unwrap();
    // The first news is of the edit: all that we did ourselves was no news.
    assert_eq!(next(&mut changes).await.as_str(), "web");
    std::fs::remove_file(dir.path().join("same")).unwrap();
    while next(&mut changes).await.as_str() != "same" {}
    // Twice: whoever edits may write a file in two steps.
    std::fs::write(dir.path().join("other"), "made by hand").unwrap();
    while next(&mut changes).await.as_str() != "other" {}
}

#[tokio::test]
async fn watching_ends_with_the_driver() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FilesDriver::new(dir.path()).unwrap();
    let mut changes = driver.watch().unwrap();
    let mut second = driver.watch().unwrap();
    drop(driver);
    let ended = tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.expect("it goes on");
    assert!(ended.is_err());
    assert!(second.recv().await.is_err());
}
