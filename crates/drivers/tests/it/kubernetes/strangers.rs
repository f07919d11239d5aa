//! What would go with an object and cannot be seen now, or belongs to what stays.

use super::*;

#[tokio::test]
async fn a_definition_of_which_no_version_is_served_keeps_what_is_stored() {
    let Some(scene) = Scene::alone("unserved").await else { return };
    let group = "unserved.example.org";
    let mut replica = scene.replica("unserved");
    scene.made(&mut replica, &kinds::definition(group)).await;
    until("somebody has one", async || {
        let well = kinds::well(&scene, group, json!(1)).to_string();
        scene.cluster.kubectl_as(ADMIN, &["create", "-f", "-"], Some(&well)).status.success()
    })
    .await;
    let serve = |served: bool| {
        let patch = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": served}]).to_string();
        scene.kubectl(&["patch", "crd", "wells.unserved.example.org", "--type=json", "-p", &patch]);
    };
    // It is not asked again at once which kinds there are.
    assert!(scene.driver.delete(&replica).await.unwrap_err().is_permanent());
    serve(false);
    until("it is not served", async || {
        !scene.cluster.kubectl(&["get", "--raw", "/apis/unserved.example.org/v1/wells"]).status.success()
    })
    .await;
    // One that remembers the kind, and one that does not.
    let new = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    for driver in [&scene.driver, &scene.driver, &new] {
        let error = driver.delete(&replica).await.unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("cascade"), "{error}");
        let definition = scene.get("crd", "wells.unserved.example.org").unwrap();
        assert_eq!(definition["metadata"]["deletionTimestamp"], Value::Null);
    }
    serve(true);
    until("it is seen", async || {
        let error = scene.driver.delete(&replica).await.unwrap_err();
        error.is_permanent() && error.to_string().contains("Well.unserved.example.org/unserved/w")
    })
    .await;
    assert!(scene.get("wells.unserved.example.org", "w").is_some());
}

#[tokio::test]
async fn a_namespace_is_kept_while_a_kind_is_not_served_of_which_others_may_have_something_there() {
    let Some(scene) = Scene::alone("sleeping").await else { return };
    let (group, name) = ("sleeping.example.org", "wells.sleeping.example.org");
    let mut replica = scene.replica("house");
    let house = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "house"}});
    scene.made(&mut replica, &house).await;
    scene.apply_by_hand(&kinds::definition(group));
    let mut well = kinds::well(&scene, group, json!(1));
    well["metadata"]["namespace"] = json!("house");
    until("somebody has a well there", async || {
        scene.cluster.kubectl_as(ADMIN, &["create", "-f", "-"], Some(&well.to_string())).status.success()
    })
    .await;
    scene.serve(name, false).await;
    let is_there = || scene.get("namespace", "house").unwrap()["metadata"]["deletionTimestamp"] == Value::Null;
    let error = scene.driver.delete(&replica).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains(name) && is_there(), "{error}");
    scene.serve(name, true).await;
    until("it is seen", async || {
        let error = scene.driver.delete(&replica).await.unwrap_err();
        assert!(is_there(), "{error}");
        error.to_string().contains("Well.sleeping.example.org/house/w")
    })
    .await;
}

#[tokio::test]
async fn a_definition_that_was_never_served_keeps_nothing() {
    let Some(scene) = Scene::new("clash").await else { return };
    let group = "clash.example.org";
    scene.apply_by_hand(&kinds::definition(group));
    until("somebody has one", async || {
        let well = kinds::well(&scene, group, json!(1)).to_string();
        scene.cluster.kubectl_as(ADMIN, &["create", "-f", "-"], Some(&well)).status.success()
    })
    .await;
    // Its kind has another definition already.
    let mut other = kinds::definition(group);
    other["metadata"]["name"] = json!("springs.clash.example.org");
    other["spec"]["names"] = json!({"plural": "springs", "singular": "spring", "kind": "Well"});
    let mut replica = scene.replica("clash");
    let error = scene.apply(&replica, &other).await.unwrap_err();
    assert!(error.to_string().contains("not served yet"), "{error}");
    replica.local_id = Some("CustomResourceDefinition.apiextensions.k8s.io/springs.clash.example.org".into());
    until("it is removed", async || scene.driver.delete(&replica).await.is_ok()).await;
    assert_eq!(scene.get("crd", "springs.clash.example.org"), None);
    assert!(scene.get("wells.clash.example.org", "w").is_some());
}

#[tokio::test]
async fn what_belongs_to_something_in_no_namespace_keeps_the_one_that_it_is_in() {
    let Some(scene) = Scene::new("landlord").await else { return };
    let object = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    let mut replica = scene.replica("let");
    scene.made(&mut replica, &object("Namespace", "let")).await;
    let owner = scene.get("namespace", "landlord").unwrap()["metadata"]["uid"].clone();
    let mut furniture = object("ConfigMap", "furniture");
    furniture["metadata"] = json!({"name": "furniture", "namespace": "let", "ownerReferences":
        [{"apiVersion": "v1", "kind": "Namespace", "name": "landlord", "uid": owner}]});
    scene.apply_by_hand(&furniture);
    let error = scene.driver.delete(&replica).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("ConfigMap/let/furniture"), "{error}");
    assert_eq!(scene.get("namespace", "let").unwrap()["metadata"]["deletionTimestamp"], Value::Null);
}
