//! Hearing of changes that others make.

use super::*;

#[tokio::test]
async fn what_others_change_is_told_and_what_khufu_writes_is_not() {
    let Some(scene) = Scene::new("watched").await else { return };
    let mut changes = scene.driver.watch().unwrap();
    let mut replica = scene.replica("watched");
    scene.made(&mut replica, &scene.config_map("a", json!({"x": "1"}))).await;
    let told = async |changes: &mut khufu_drivers::Changes| {
        tokio::time::timeout(Duration::from_secs(30), changes.recv()).await.expect("nothing was told").unwrap()
    };
    // The watch begins with what is there; what was written since is not told of.
    until("the watch runs", async || {
        scene.kubectl(&["annotate", "configmap", "a", "--overwrite", &format!("at={:?}", Instant::now())]);
        tokio::time::timeout(Duration::from_millis(900), changes.recv()).await.is_ok()
    })
    .await;
    while tokio::time::timeout(Duration::from_millis(1_500), changes.recv()).await.is_ok() {}
    for number in 2..12 {
        scene.made(&mut replica, &scene.config_map("a", json!({"x": number.to_string()}))).await;
    }
    let quiet = tokio::time::timeout(Duration::from_secs(2), changes.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    scene.kubectl(&["delete", "configmap", "a"]);
    assert_eq!(told(&mut changes).await, "watched".parse().unwrap());
}
