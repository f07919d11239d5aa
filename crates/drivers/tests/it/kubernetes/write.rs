//! Making, changing and removing objects.

use super::*;

#[tokio::test]
async fn objects_are_made_changed_and_removed() {
    let Some(scene) = Scene::new("write").await else { return };
    let mut replica = scene.replica("web");
    let both =
        json!({"objects": [scene.config_map("a", json!({"x": "1", "y": "1"})), scene.config_map("b", json!({}))]});
    let done = scene.made(&mut replica, &both).await;
    assert_eq!(done.output, "2 objects: 2 created, 0 changed, 0 removed");
    assert_eq!(done.local_id.as_deref(), Some("ConfigMap/write/a,ConfigMap/write/b"));
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"x": "1", "y": "1"}));
    // A field that is not asked for any more goes, and so does an object.
    let one = scene.config_map("a", json!({"x": "2"}));
    let done = scene.made(&mut replica, &one).await;
    assert_eq!(done.output, "1 objects: 0 created, 1 changed, 1 removed");
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"x": "2"}));
    assert_eq!(scene.get("configmap", "b"), None);
    let seen = scene.look(&replica).await;
    assert_eq!((seen.exists, seen.drift), (true, None));
    assert_eq!(seen.digest, done.digest);
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!(scene.get("configmap", "a"), None);
    scene.driver.delete(&replica).await.unwrap();
    assert!(!scene.look(&replica).await.exists);
}

#[tokio::test]
async fn what_is_as_it_should_be_is_not_written() {
    let Some(scene) = Scene::new("unchanged").await else { return };
    let objects: Vec<_> = (0..20).map(|n| scene.config_map(&format!("c{n}"), json!({"n": n.to_string()}))).collect();
    let (desired, mut replica) = (json!({"objects": objects}), scene.replica("many"));
    scene.made(&mut replica, &desired).await;
    let versions = || scene.kubectl(&["get", "configmap", "--output", "jsonpath={.items[*].metadata.resourceVersion}"]);
    let before = versions();
    for _ in 0..2 {
        let done = scene.made(&mut replica, &desired).await;
        assert_eq!(done.output, "20 objects: 0 created, 0 changed, 0 removed");
    }
    assert_eq!(versions(), before);
}

#[tokio::test]
async fn values_that_a_server_writes_in_its_own_way_are_the_same() {
    let Some(scene) = Scene::new("normal").await else { return };
    let (desired, mut replica) = (deployment(&scene, "web"), scene.replica("normal"));
    let done = scene.made(&mut replica, &desired).await;
    let seen = scene.look(&replica).await;
    assert_eq!((seen.drift, &seen.digest), (None, &done.digest));
    // Nobody has made its pods yet.
    assert_eq!(seen.health.unwrap().condition, khufu_drivers::Condition::InProgress);
    let before = scene.get("deployment", "web").unwrap();
    // Times in objects have seconds: something written twice in one of them may leave no trace.
    let second = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let made = second();
    until("it is another second", async || second() > made).await;
    let done = scene.made(&mut replica, &desired).await;
    assert_eq!(done.output, "1 objects: 0 created, 0 changed, 0 removed");
    let after = scene.get("deployment", "web").unwrap();
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn what_the_driver_would_do_is_shown_and_not_done() {
    let Some(scene) = Scene::new("diff").await else { return };
    let mut replica = scene.replica("shown");
    let diff = async |replica: &Replica, desired: &Value| {
        scene.driver.diff(replica, &[Work::Desired(desired.clone())]).await.unwrap()
    };
    let desired = scene.config_map("a", json!({"x": "1"}));
    let text = diff(&replica, &desired).await;
    assert!(text.contains("+kind: ConfigMap"), "{text}");
    assert_eq!(scene.get("configmap", "a"), None);
    scene.made(&mut replica, &desired).await;
    assert_eq!(diff(&replica, &desired).await, "");
    let text = diff(&replica, &scene.config_map("a", json!({"x": "2"}))).await;
    assert!(text.contains("-  x: \"1\"") && text.contains("+  x: \"2\""), "{text}");
    let text = diff(&replica, &scene.config_map("b", json!({}))).await;
    assert!(text.contains("-kind: ConfigMap") && text.contains("+kind: ConfigMap"), "{text}");
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"x": "1"}));
}

#[tokio::test]
async fn a_namespace_is_made_if_the_policy_says_so() {
    let Some(scene) = Scene::new("spaces").await else { return };
    let mut object = scene.config_map("a", json!({}));
    object["metadata"]["namespace"] = json!("spaces-new");
    let error = scene.apply(&scene.replica("elsewhere"), &object).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("spaces-new"), "{error}");
    scene.made(&mut scene.told("elsewhere", json!({"create-namespaces": true})), &object).await;
    // And also where it is the policy that names it.
    object["metadata"].as_object_mut().unwrap().remove("namespace");
    let options = json!({"create-namespaces": true, "namespace": "spaces-other"});
    let done = scene.made(&mut scene.told("other", options), &object).await;
    assert_eq!(done.local_id.as_deref(), Some("ConfigMap/spaces-other/a"));
}

#[tokio::test]
async fn a_replica_whose_objects_nobody_remembers_is_found_and_removed() {
    let Some(scene) = Scene::new("forgotten").await else { return };
    let mut replica = scene.replica("forgotten");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "forgotten"}, "rules": []});
    let objects = json!({"objects": [scene.config_map("a", json!({})), deployment(&scene, "web"), role]});
    scene.made(&mut replica, &objects).await;
    let forgotten = scene.replica("forgotten");
    assert!(scene.look(&forgotten).await.exists);
    scene.driver.delete(&forgotten).await.unwrap();
    for (what, name) in [("configmap", "a"), ("deployment", "web"), ("clusterrole", "forgotten")] {
        assert_eq!(scene.get(what, name), None, "{what}");
    }
}

#[tokio::test]
async fn what_a_finalizer_holds_is_waited_for_and_named() {
    let Some(scene) = Scene::new("finalizer").await else { return };
    let mut object = scene.config_map("held", json!({}));
    object["metadata"]["finalizers"] = json!(["example.org/hold"]);
    let mut replica = scene.replica("held");
    scene.made(&mut replica, &object).await;
    let error = scene.driver.delete(&replica).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("example.org/hold"), "{error}");
    // It cannot be made anew before it is gone.
    assert!(scene.apply(&replica, &object).await.is_err());
    scene.kubectl(&[
        "patch",
        "configmap",
        "held",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
    ]);
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!(scene.get("configmap", "held"), None);
}

#[tokio::test]
async fn what_is_not_in_the_preferred_version_of_its_group_is_removed_too() {
    let Some(scene) = Scene::new("versions").await else { return };
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]}});
    let job = json!({"spec": {"template": template}});
    let cron = json!({"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "versions"},
        "spec": {"schedule": "0 0 * * *", "jobTemplate": job}});
    let mut replica = scene.replica("versions");
    scene.made(&mut replica, &cron).await;
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!(scene.get("cronjob", "c"), None);
    // And also if nobody remembers it.
    scene.made(&mut replica, &cron).await;
    let driver = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    driver.delete(&scene.replica("versions")).await.unwrap();
    assert_eq!(scene.get("cronjob", "c"), None);
}

#[tokio::test]
async fn one_object_in_two_groups_is_not_removed_when_its_group_changes() {
    let Some(scene) = Scene::new("groups").await else { return };
    let old = json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "groups"},
        "spec": {"backend": {"serviceName": "s", "servicePort": 80}}});
    let new = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "groups"},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let mut replica = scene.replica("groups");
    scene.made(&mut replica, &old).await;
    let uid = scene.get("ingress", "i").unwrap()["metadata"]["uid"].clone();
    scene.made(&mut replica, &new).await;
    assert_eq!(scene.get("ingress", "i").unwrap()["metadata"]["uid"], uid);
}

#[tokio::test]
async fn what_a_failed_attempt_has_made_is_not_left_behind() {
    let Some(scene) = Scene::new("failed").await else { return };
    let mut replica = scene.replica("failed");
    let one = scene.config_map("a", json!({}));
    scene.made(&mut replica, &one).await;
    let mut wrong = deployment(&scene, "web");
    wrong["spec"]["replicas"] = json!("many");
    let more = json!({"objects": [one, scene.config_map("b", json!({})), wrong]});
    assert!(scene.apply(&replica, &more).await.is_err());
    assert!(scene.get("configmap", "b").is_some());
    // It is not wanted any more.
    scene.made(&mut replica, &one).await;
    assert_eq!(scene.get("configmap", "b"), None);
    assert!(scene.apply(&replica, &more).await.is_err());
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!((scene.get("configmap", "a"), scene.get("configmap", "b")), (None, None));
}

#[tokio::test]
async fn more_objects_than_a_name_can_list_are_all_removed() {
    let Some(scene) = Scene::new("many").await else { return };
    let name = |n: usize| format!("{}-{n}", "long".repeat(25));
    let objects: Vec<_> = (0..160).map(|n| scene.config_map(&name(n), json!({}))).collect();
    let mut replica = scene.replica("many");
    scene.made(&mut replica, &json!({"objects": objects[..1]})).await;
    let done = scene.made(&mut replica, &json!({"objects": objects})).await;
    assert_eq!(done.local_id.as_deref(), Some("*"));
    scene.made(&mut replica, &json!({"objects": objects[..2]})).await;
    let left =
        || scene.kubectl(&["get", "configmap", "--output", "name"]).lines().filter(|l| l.contains("long")).count();
    assert_eq!(left(), 2);
    scene.made(&mut replica, &json!({"objects": objects})).await;
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!(left(), 0);
}

#[tokio::test]
async fn two_sites_with_one_cluster_leave_each_others_objects_alone() {
    let Some(scene) = Scene::new("shared").await else { return };
    let mut paris = scene.replica("shared");
    let object = scene.config_map("a", json!({"x": "1"}));
    scene.made(&mut paris, &object).await;
    let mut rennes = scene.replica("shared");
    rennes.site = "rennes".parse().unwrap();
    let error = scene.apply(&rennes, &object).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("paris"), "{error}");
    rennes.local_id.clone_from(&paris.local_id);
    scene.driver.delete(&rennes).await.unwrap();
    assert!(scene.get("configmap", "a").is_some());
    // A copy is nobody's, whatever it carries.
    let mut copy = scene.get("configmap", "a").unwrap();
    copy["metadata"] = json!({"name": "copy", "namespace": "shared", "labels": copy["metadata"]["labels"],
        "annotations": copy["metadata"]["annotations"]});
    scene.apply_by_hand(&copy);
    scene.driver.delete(&scene.replica("shared")).await.unwrap();
    assert_eq!(scene.get("configmap", "a"), None);
    assert!(scene.get("configmap", "copy").is_some());
}

#[tokio::test]
async fn where_nothing_is_wanted_any_more_all_goes() {
    let Some(scene) = Scene::new("nothing").await else { return };
    let mut replica = scene.told("nothing", json!({"retain": true}));
    let objects = json!({"objects": [scene.config_map("a", json!({})), deployment(&scene, "web")]});
    scene.made(&mut replica, &objects).await;
    scene.driver.reset(&replica).await.unwrap();
    assert_eq!((scene.get("configmap", "a"), scene.get("deployment", "web")), (None, None));
    // Writing it again is as if nothing had been there.
    scene.made(&mut replica, &objects).await;
    assert!(scene.get("configmap", "a").is_some());
}
