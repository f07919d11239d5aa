//! Whose objects and fields are whose.

use super::*;

#[tokio::test]
async fn fields_of_others_are_left_alone() {
    let Some(scene) = Scene::new("fields").await else { return };
    let mut replica = scene.replica("fields");
    let desired = scene.config_map("a", json!({"ours": "1"}));
    scene.made(&mut replica, &desired).await;
    scene.kubectl(&["patch", "configmap", "a", "--type=merge", "-p", r#"{"data":{"theirs":"2"}}"#]);
    scene.kubectl(&["label", "configmap", "a", "team=x"]);
    assert_eq!(scene.look(&replica).await.drift, None);
    let desired = scene.config_map("a", json!({"ours": "3"}));
    scene.made(&mut replica, &desired).await;
    let live = scene.get("configmap", "a").unwrap();
    assert_eq!(live["data"], json!({"ours": "3", "theirs": "2"}));
    assert_eq!(live["metadata"]["labels"]["team"], "x");
}

#[tokio::test]
async fn a_field_that_somebody_else_has_set_is_taken_only_by_force() {
    let Some(scene) = Scene::new("conflict").await else { return };
    let mut replica = scene.replica("conflict");
    scene.made(&mut replica, &scene.config_map("a", json!({"x": "1"}))).await;
    scene.kubectl(&[
        "patch",
        "configmap",
        "a",
        "--type=merge",
        "--field-manager=somebody",
        "-p",
        r#"{"data":{"x":"2"}}"#,
    ]);
    let wanted = scene.config_map("a", json!({"x": "3"}));
    let error = scene.apply(&replica, &wanted).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_permanent() && text.contains("somebody") && text.contains("data.x"), "{text}");
    assert_eq!(scene.get("configmap", "a").unwrap()["data"]["x"], "2");
    replica.options = json!({"force": true}).as_object().unwrap().clone();
    scene.made(&mut replica, &wanted).await;
    assert_eq!(scene.get("configmap", "a").unwrap()["data"]["x"], "3");
}

#[tokio::test]
async fn an_object_that_was_there_is_not_touched_unless_it_is_said() {
    let Some(scene) = Scene::new("adopt").await else { return };
    for name in ["never", "keep", "own"] {
        scene.apply_by_hand(&scene.config_map(name, json!({"theirs": "1"})));
    }
    let error = scene.apply(&scene.replica("never"), &scene.config_map("never", json!({"x": "1"}))).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("adopt"), "{error}");
    assert_eq!(scene.get("configmap", "never").unwrap()["data"], json!({"theirs": "1"}));
    // Nor is it removed.
    let mut known = scene.replica("never");
    known.local_id = Some("ConfigMap/adopt/never".into());
    scene.driver.delete(&known).await.unwrap();
    assert!(scene.get("configmap", "never").is_some());
    for adopt in ["keep", "own"] {
        let mut replica = scene.told(adopt, json!({"adopt": adopt}));
        scene.made(&mut replica, &scene.config_map(adopt, json!({"x": "1"}))).await;
        assert_eq!(scene.get("configmap", adopt).unwrap()["data"], json!({"theirs": "1", "x": "1"}));
        assert_eq!(scene.look(&replica).await.drift, None);
        scene.driver.delete(&replica).await.unwrap();
    }
    let kept = scene.get("configmap", "keep").unwrap();
    assert_eq!(kept["data"], json!({"theirs": "1", "x": "1"}));
    assert!(!kept["metadata"].to_string().contains("khufu.dev/replicant\":"), "{kept}");
    assert_eq!(scene.get("configmap", "own"), None);
}

#[tokio::test]
async fn an_object_has_one_replicant() {
    let Some(scene) = Scene::new("one-owner").await else { return };
    let object = scene.config_map("a", json!({"x": "1"}));
    scene.made(&mut scene.replica("first"), &object).await;
    let second = scene.told("second", json!({"adopt": "own", "force": true}));
    let error = scene.apply(&second, &object).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("first"), "{error}");
    let mut second = scene.replica("second");
    second.local_id = Some("ConfigMap/one-owner/a".into());
    scene.driver.delete(&second).await.unwrap();
    assert!(scene.get("configmap", "a").is_some());
}

#[tokio::test]
async fn what_is_retained_stays_and_is_nobodys() {
    let Some(scene) = Scene::new("retain").await else { return };
    let mut replica = scene.told("retained", json!({"retain": true}));
    scene.made(&mut replica, &scene.config_map("a", json!({"x": "1"}))).await;
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!(scene.get("configmap", "a").unwrap()["data"]["x"], "1");
    assert!(!scene.look(&replica).await.exists);
    // A policy that nobody understands may be one that keeps it.
    let mut other = scene.replica("other");
    scene.made(&mut other, &scene.config_map("b", json!({}))).await;
    other.options = json!({"retian": true}).as_object().unwrap().clone();
    assert!(scene.driver.delete(&other).await.unwrap_err().is_permanent());
    assert!(scene.get("configmap", "b").is_some());
}

#[tokio::test]
async fn secrets_and_rights_are_not_gone_around() {
    let Some(scene) = Scene::new("rights").await else { return };
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "rights"},
        "stringData": {"password": "x"}});
    let error = scene.apply(&scene.replica("secret"), &secret).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("secrets"), "{error}");
    scene.made(&mut scene.told("secret", json!({"secrets": "allow"})), &secret).await;
    let nobody = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(NOBODY), None).await.unwrap();
    let object = scene.config_map("a", json!({}));
    let error = nobody.apply(&scene.replica("nobody"), Work::Desired(object)).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("nobody"), "{error}");
}

#[tokio::test]
async fn what_others_have_put_into_a_namespace_does_not_go_with_it() {
    let Some(scene) = Scene::new("host").await else { return };
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let inside = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ours", "namespace": "house"}});
    let mut replica = scene.replica("house");
    let both = json!({"objects": [namespace("house"), inside]});
    scene.made(&mut replica, &both).await;
    let guest =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "house"}});
    scene.apply_by_hand(&guest("guest"));
    // Also where the guest is another replicant's.
    let mut other = scene.replica("lodger");
    scene.made(&mut other, &guest("lodger")).await;
    let error = scene.driver.delete(&replica).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_permanent() && text.contains("ConfigMap/house/guest") && text.contains("lodger"), "{text}");
    assert!(text.contains("cascade") && !text.contains("house/ours"), "{text}");
    // Nor a copy of what is ours.
    scene.made(&mut replica, &both).await;
    let mut copy = scene.cluster.kubectl(&["get", "configmap", "ours", "--namespace", "house", "--output=json"]).stdout;
    copy = String::from_utf8(copy).unwrap().replace("\"name\": \"ours\"", "\"name\": \"copy\"").into_bytes();
    scene.apply_by_hand(&serde_json::from_slice(&copy).unwrap());
    let error = scene.driver.delete(&replica).await.unwrap_err();
    assert!(error.to_string().contains("house/copy"), "{error}");
    let names = || scene.kubectl(&["get", "configmap", "--namespace", "house", "--output=name"]);
    assert!(names().contains("configmap/guest") && names().contains("configmap/lodger"), "{}", names());
    // Nor where the namespace is only not in the manifest any more.
    let error = scene.apply(&replica, &scene.config_map("rest", json!({}))).await.unwrap_err();
    assert!(error.to_string().contains("guest"), "{error}");
    assert!(names().contains("configmap/guest"), "{}", names());
    scene.driver.delete(&other).await.unwrap();
    scene.kubectl(&["delete", "configmap", "guest", "copy", "--namespace", "house"]);
    // Nobody removes what is in a namespace here, but there is nothing.
    let removed = scene.driver.delete(&replica).await;
    assert!(removed.as_ref().map_or_else(|error| !error.is_permanent(), |_| true), "{removed:?}");
    assert_ne!(scene.get("namespace", "house").unwrap()["metadata"]["deletionTimestamp"], Value::Null);

    // The same with objects of a kind that is defined.
    let group = "host.example.org";
    let mut replica = scene.replica("kind");
    scene.made(&mut replica, &kinds::definition(group)).await;
    until("the kind is served", async || {
        let made = scene.cluster.kubectl_as(
            ADMIN,
            &["create", "-f", "-"],
            Some(&kinds::well(&scene, group, json!(1)).to_string()),
        );
        made.status.success()
    })
    .await;
    let error = scene.driver.delete(&replica).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("Well.host.example.org/host/w"), "{error}");
    assert!(scene.get("wells.host.example.org", "w").is_some());
    replica.options = json!({"cascade": true}).as_object().unwrap().clone();
    until("all is gone", async || scene.driver.delete(&replica).await.is_ok()).await;
    assert_eq!(scene.get("crd", "wells.host.example.org"), None);
}
