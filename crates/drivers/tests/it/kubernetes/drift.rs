//! What others do to objects by hand.

use super::*;

#[tokio::test]
async fn who_has_changed_what_is_said() {
    let Some(scene) = Scene::new("drift").await else { return };
    let mut replica = scene.replica("drift");
    let objects = json!({"objects": [deployment(&scene, "web"), scene.config_map("a", json!({"x": "1"}))]});
    scene.made(&mut replica, &objects).await;
    // Older servers do not write down who has scaled something.
    scene.kubectl(&["scale", "deployment", "web", "--replicas=5"]);
    let drift = scene.look(&replica).await.drift.unwrap();
    assert!(drift.contains("spec.replicas is 5"), "{drift}");
    scene.kubectl(&["set", "image", "deployment/web", "web=nginx:2", "--field-manager=somebody"]);
    scene.kubectl(&["delete", "configmap", "a"]);
    let seen = scene.look(&replica).await;
    let drift = seen.drift.unwrap();
    assert!(drift.contains("spec.replicas is 5") && drift.contains("wanted is 2"), "{drift}");
    assert!(drift.contains("[name=web].image is \"nginx:2\", set by somebody"), "{drift}");
    assert!(drift.contains("ConfigMap/drift/a is gone"), "{drift}");
    assert_eq!(seen.health.unwrap().condition, khufu_drivers::Condition::NotFound);
    // Put back, by force: others have set these fields.
    replica.options = json!({"force": true}).as_object().unwrap().clone();
    scene.made(&mut replica, &objects).await;
    assert_eq!(scene.look(&replica).await.drift, None);
    assert_eq!(scene.get("deployment", "web").unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn what_is_ignored_is_left_to_others() {
    let Some(scene) = Scene::new("ignore").await else { return };
    let mut replica = scene.told("ignore", json!({"ignore": ["spec.replicas"]}));
    let mut desired = deployment(&scene, "web");
    scene.made(&mut replica, &desired).await;
    assert_eq!(scene.get("deployment", "web").unwrap()["spec"]["replicas"], 2);
    scene.kubectl(&["scale", "deployment", "web", "--replicas=7"]);
    assert_eq!(scene.look(&replica).await.drift, None);
    desired["metadata"]["labels"] = json!({"app": "web"});
    scene.made(&mut replica, &desired).await;
    let live = scene.get("deployment", "web").unwrap();
    assert_eq!((&live["spec"]["replicas"], &live["metadata"]["labels"]["app"]), (&json!(7), &json!("web")));
    // It is no part of what is compared between sites.
    let digest = scene.look(&replica).await.digest;
    scene.kubectl(&["scale", "deployment", "web", "--replicas=8"]);
    assert_eq!(scene.look(&replica).await.digest, digest);
    replica.options.clear();
    assert_ne!(scene.look(&replica).await.digest, digest);
    // What others have removed stays away, too.
    let mut replica = scene.told("ignored", json!({"ignore": ["data.theirs"]}));
    let desired = scene.config_map("a", json!({"ours": "1", "theirs": "2"}));
    scene.made(&mut replica, &desired).await;
    assert_eq!(scene.get("configmap", "a").unwrap()["data"]["theirs"], "2");
    scene.kubectl(&["patch", "configmap", "a", "--type=json", "-p", r#"[{"op":"remove","path":"/data/theirs"}]"#]);
    assert_eq!(scene.look(&replica).await.drift, None);
    let desired = scene.config_map("a", json!({"ours": "2", "theirs": "2"}));
    scene.made(&mut replica, &desired).await;
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"ours": "2"}));
}

#[tokio::test]
async fn values_of_secrets_stay_where_they_are() {
    let Some(scene) = Scene::new("hidden").await else { return };
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "hidden"},
        "data": {"password": "b3VyLXBhc3N3b3Jk"}});
    let mut replica = scene.told("hidden", json!({"secrets": "allow"}));
    scene.made(&mut replica, &secret).await;
    scene.kubectl(&["patch", "secret", "s", "--type=merge", "-p", r#"{"data":{"password":"dGhlaXItcGFzc3dvcmQ="}}"#]);
    let seen = scene.look(&replica).await;
    assert!(seen.drift.as_ref().is_some_and(|drift| drift.contains("data.password")), "{seen:?}");
    let mut other = secret.clone();
    other["data"]["more"] = json!("b3VyLXBhc3N3b3Jk");
    let diff = scene.driver.diff(&replica, &[Work::Desired(other)]).await;
    let said = format!("{seen:?} {diff:?}");
    assert!(!said.contains("dGhlaXItcGFzc3dvcmQ") && !said.contains("b3VyLXBhc3N3b3Jk"), "{said}");
}

#[tokio::test]
async fn what_is_added_to_a_list_that_is_one_thing_is_a_change_and_to_another_is_not() {
    let Some(scene) = Scene::new("lists").await else { return };
    let api = "rbac.authorization.k8s.io";
    let user = |name: &str| json!({"apiGroup": api, "kind": "User", "name": name});
    let binding = json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "b", "namespace": "lists"},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "view"}, "subjects": [user("alice")]});
    let mut replica = scene.replica("lists");
    let objects = json!({"objects": [binding, deployment(&scene, "web")]});
    scene.made(&mut replica, &objects).await;
    // Others put containers beside ours, and that is theirs.
    let side = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"side:1"}]}}}}"#;
    scene.kubectl(&["patch", "deployment", "web", "-p", side]);
    assert_eq!(scene.look(&replica).await.drift, None);
    let mallory = format!(r#"[{{"op":"add","path":"/subjects/-","value":{}}}]"#, user("mallory"));
    scene.kubectl(&["patch", "rolebinding", "b", "--type=json", "-p", &mallory]);
    let drift = scene.look(&replica).await.drift.unwrap();
    assert!(drift.contains("mallory") && !drift.contains("side"), "{drift}");
    replica.options = json!({"force": true}).as_object().unwrap().clone();
    let done = scene.made(&mut replica, &objects).await;
    assert_eq!(done.output, "2 objects: 0 created, 1 changed, 0 removed");
    assert_eq!(scene.get("rolebinding", "b").unwrap()["subjects"], json!([user("alice")]));
    let containers = scene.get("deployment", "web").unwrap()["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(containers.as_array().unwrap().len(), 2);
    assert_eq!(scene.look(&replica).await.drift, None);
}
