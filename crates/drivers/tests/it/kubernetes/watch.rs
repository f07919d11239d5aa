//! Hearing of changes that others make.

use super::*;

#[tokio::test]
async fn what_others_change_is_told_and_what_khufu_writes_is_not() {
    let Some(scene) = Scene::new("watched").await else { return };
    let mut changes = scene.driver.watch().unwrap();
    let mut replica = scene.replica("watched");
    scene.made(&mut replica, &scene.config_map("a", json!({"x": "1"}))).await;
    // Other tests change theirs at the same time.
    let ours = async |changes: &mut khufu_drivers::Changes, within: u64| {
        let told = async { while changes.recv().await.unwrap().as_str() != "watched" {} };
        tokio::time::timeout(Duration::from_millis(within), told).await.is_ok()
    };
    // The watch begins with what is there; what was written since is not told of.
    until("the watch runs", async || {
        scene.kubectl(&["annotate", "configmap", "a", "--overwrite", &format!("at={:?}", Instant::now())]);
        ours(&mut changes, 900).await
    })
    .await;
    while ours(&mut changes, 1_500).await {}
    for number in 2..12 {
        scene.made(&mut replica, &scene.config_map("a", json!({"x": number.to_string()}))).await;
    }
    assert!(!ours(&mut changes, 2_000).await);
    scene.kubectl(&["delete", "configmap", "a"]);
    assert!(ours(&mut changes, 30_000).await);
}
