//! Removing what cannot all be found, or cannot all go.

use super::blind::rights;
use super::*;

const ALL: [&str; 6] = ["get", "create", "patch", "delete", "list", "watch"];

#[tokio::test]
async fn what_is_not_remembered_is_not_believed_to_be_gone_where_it_may_not_be_looked_for() {
    let Some(scene) = Scene::new("taken").await else { return };
    let roles = rights(TAKEN, "configmaps", &ALL, None);
    scene.grant(&roles);
    let kubeconfig = scene.cluster.kubeconfig(TAKEN);
    let new = async || KubernetesDriver::hurried(&kubeconfig, 128, Duration::from_secs(5)).await.unwrap();
    let driver = new().await;
    let mut replica = scene.replica("taken");
    let desired = scene.config_map("a", json!({"x": "1"}));
    until("the rights are known", async || driver.apply(&replica, Work::Desired(desired.clone())).await.is_ok()).await;
    // What it may not make, it has not made, and it may be removed.
    let refused = Work::Desired(deployment(&scene, "web"));
    let failed = scene.replica("failed");
    assert!(driver.apply(&failed, refused).await.unwrap_err().is_permanent());
    driver.delete(&failed).await.unwrap();

    scene.kubectl(&["delete", "clusterrolebinding", "taken-configmaps"]);
    until("the rights are gone", async || {
        !scene.cluster.kubectl_as(TAKEN, &["get", "configmaps", "--namespace", "taken"], None).status.success()
    })
    .await;
    let restarted = new().await;
    for names in [None, Some("*".to_owned()), Some(String::new())] {
        replica.local_id = names;
        for driver in [&driver, &restarted] {
            let error = driver.delete(&replica).await.unwrap_err();
            let text = error.to_string();
            assert!(
                error.is_permanent() && text.contains("cannot list") && text.contains("khufu kubernetes rbac"),
                "{text}"
            );
        }
    }
    // The same where the server does not know any more who asks: that passes.
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("kubeconfig");
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    std::fs::write(&stale, text.replace(scene.cluster.token(TAKEN), "stale")).unwrap();
    let unknown = KubernetesDriver::from_kubeconfig(&stale, None).await.unwrap();
    let error = unknown.delete(&replica).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("token"), "{error}");
    assert!(scene.get("configmap", "a").is_some());

    scene.grant(&roles);
    replica.local_id = None;
    until("it is removed", async || restarted.delete(&replica).await.is_ok_and(|done| done.output.starts_with("1 ")))
        .await;
    assert_eq!(scene.get("configmap", "a"), None);
}

#[tokio::test]
async fn one_object_that_does_not_go_holds_up_none_of_its_rank() {
    let Some(scene) = Scene::new("holding").await else { return };
    let mut replica = scene.replica("holding");
    let objects = |names: &[&str]| {
        let all: Vec<_> = names.iter().map(|name| scene.config_map(name, json!({}))).collect();
        json!({"objects": all})
    };
    let hold = |name: &str| {
        let held = r#"{"metadata":{"finalizers":["example.org/held"]}}"#;
        scene.kubectl(&["patch", "configmap", name, "--type=merge", "-p", held]);
    };
    scene.made(&mut replica, &objects(&["a", "b", "c", "d", "stays"])).await;
    hold("c");
    hold("d");
    let error = scene.apply(&replica, &objects(&["stays"])).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("is not gone yet"), "{error}");
    assert_eq!([scene.get("configmap", "a"), scene.get("configmap", "b")], [None, None]);
    // The same where all is to go.
    let mut all = scene.replica("holding-all");
    scene.made(&mut all, &objects(&["x", "y", "z"])).await;
    hold("z");
    let error = scene.driver.delete(&all).await.unwrap_err();
    assert!(error.to_string().contains("ConfigMap/holding/z is not gone yet"), "{error}");
    assert_eq!([scene.get("configmap", "x"), scene.get("configmap", "y")], [None, None]);
}
