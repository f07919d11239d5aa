//! Kinds that a server does not have from the start.

use super::*;

pub(super) fn definition(group: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"depth": {"type": "integer"}}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("wells.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "wells", "singular": "well", "kind": "Well"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

pub(super) fn well(scene: &Scene, group: &str, depth: Value) -> Value {
    json!({"apiVersion": format!("{group}/v1"), "kind": "Well", "metadata": {"name": "w", "namespace": scene.namespace},
        "spec": {"depth": depth}})
}

#[tokio::test]
async fn a_definition_and_its_objects_are_one_replicant() {
    let Some(scene) = Scene::new("defined").await else { return };
    let group = "defined.example.org";
    let mut replica = scene.replica("wells");
    let desired = json!({"objects": {"w": well(&scene, group, json!(3)), "crd": definition(group)}});
    scene.made(&mut replica, &desired).await;
    assert_eq!(scene.get("wells.defined.example.org", "w").unwrap()["spec"]["depth"], 3);
    assert_eq!(scene.look(&replica).await.drift, None);
    scene.driver.delete(&replica).await.unwrap();
    until("the definition is gone", async || scene.get("crd", "wells.defined.example.org").is_none()).await;
}

#[tokio::test]
async fn a_kind_that_is_not_there_yet_is_waited_for() {
    let Some(scene) = Scene::new("undefined").await else { return };
    let group = "undefined.example.org";
    let (mut replica, desired) = (scene.replica("later"), well(&scene, "undefined.example.org", json!(3)));
    let error = scene.apply(&replica, &desired).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("Well.undefined.example.org"), "{error}");
    let diff = scene.driver.diff(&replica, &[Work::Desired(desired.clone())]).await.unwrap();
    assert!(diff.contains("does not serve"), "{diff}");
    scene.apply_by_hand(&definition(group));
    // A server does not serve a new kind at once everywhere in itself.
    until("the kind is served", async || match scene.apply(&replica, &desired).await {
        Ok(done) => {
            replica.local_id = done.local_id;
            true
        }
        Err(error) => {
            assert!(!error.is_permanent(), "{error}");
            false
        }
    })
    .await;
    assert!(scene.look(&replica).await.exists);
    // Without its kind it is gone, too, which keeps nobody from removing it.
    scene.kubectl(&["delete", "crd", "wells.undefined.example.org"]);
    until("the object is gone", async || !scene.look(&replica).await.exists).await;
    until("it is removed", async || scene.driver.delete(&replica).await.is_ok()).await;
}

#[tokio::test]
async fn what_a_server_does_not_take_is_said_in_its_words() {
    let Some(scene) = Scene::new("invalid").await else { return };
    let mut wrong = deployment(&scene, "web");
    wrong["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let mut unknown = deployment(&scene, "web");
    unknown["spec"]["replicsa"] = json!(3);
    let mut text = deployment(&scene, "web");
    text["spec"]["replicas"] = json!("many");
    for (object, said) in [(wrong, "selector"), (unknown, "replicsa"), (text, "replicas")] {
        let error = scene.apply(&scene.replica("invalid"), &object).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(said), "{said}: {error}");
    }
    // What cannot be changed.
    let mut replica = scene.replica("immutable");
    let mut desired = deployment(&scene, "web");
    scene.made(&mut replica, &desired).await;
    desired["spec"]["selector"]["matchLabels"] = json!({"app": "web", "more": "x"});
    desired["spec"]["template"]["metadata"]["labels"] = json!({"app": "web", "more": "x"});
    let error = scene.apply(&replica, &desired).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("immutable"), "{error}");
}
