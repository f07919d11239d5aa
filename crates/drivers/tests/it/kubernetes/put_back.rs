//! Putting back several objects of which operations have changed some.

use super::*;

#[tokio::test]
async fn where_one_object_is_refused_the_others_stay_as_operations_have_made_them() {
    let Some(scene) = Scene::new("put-back").await else { return };
    let mut replica = scene.replica("put-back");
    let names = ["a", "b"];
    let desired = json!({"objects": names.map(|name| scene.config_map(name, json!({"x": "1"})))});
    scene.made(&mut replica, &desired).await;
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a"});
    let patch = json!({"target": target, "type": "merge", "patch": {"data": {"x": "2"}}});
    scene.ran(&mut replica, "p1", "patch", patch).await;
    let value = |name: &str| scene.get("configmap", name).unwrap()["data"]["x"].clone();
    assert_eq!(names.map(value), ["2", "1"]);
    let theirs = r#"{"data":{"x":"9"}}"#;
    scene.kubectl(&["patch", "configmap", "b", "--type=merge", "--field-manager=somebody", "-p", theirs]);
    // The one that has run the operation, and one that has only looked since it was started.
    let other = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    for driver in [&scene.driver, &other] {
        let seen = driver.observe(&replica).await.unwrap();
        assert!(seen.drift.unwrap().contains("somebody") && seen.marker.is_some());
        for _ in 0..2 {
            let error = driver.apply(&replica, Work::Desired(desired.clone())).await.unwrap_err();
            assert!(error.is_permanent() && error.to_string().contains("somebody"), "{error}");
            assert_eq!(names.map(value), ["2", "9"]);
        }
        assert!(driver.observe(&replica).await.unwrap().marker.is_some());
    }
    replica.options = json!({"force": true}).as_object().unwrap().clone();
    scene.made(&mut replica, &desired).await;
    assert_eq!(names.map(value), ["1", "1"]);
    assert_eq!(scene.look(&replica).await.marker, None);
}

#[tokio::test]
async fn where_a_webhook_does_not_let_writes_be_tried_they_are_made() {
    let Some(scene) = Scene::alone("untried").await else { return };
    let mut replica = scene.replica("untried");
    let names = ["a", "b"];
    let desired = json!({"objects": names.map(|name| scene.config_map(name, json!({"x": "1"})))});
    scene.made(&mut replica, &desired).await;
    // Nobody is there, which matters only to those who want to try.
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]});
    scene.apply_by_hand(&json!({"apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "untried"}, "webhooks": [{
            "name": "untried.example.org", "sideEffects": "Unknown", "failurePolicy": "Ignore", "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [rule]}]}));
    until("nothing can be tried", async || {
        let tried = ["annotate", "configmap", "a", "--overwrite", "--dry-run=server", "x=y"];
        let tried = scene.cluster.kubectl(&[&["--namespace", "untried"], &tried[..]].concat());
        String::from_utf8_lossy(&tried.stderr).contains("does not support dry run")
    })
    .await;
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a"});
    let patch = json!({"target": target, "type": "merge", "patch": {"data": {"x": "2"}}});
    scene.ran(&mut replica, "p1", "patch", patch).await;
    let value = |name: &str| scene.get("configmap", name).unwrap()["data"]["x"].clone();
    assert_eq!(names.map(value), ["2", "1"]);
    scene.made(&mut replica, &desired).await;
    assert_eq!(names.map(value), ["1", "1"]);
}
