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

#[tokio::test]
async fn where_rights_end_at_a_namespace_all_works_within_it() {
    let Some(scene) = Scene::new("confined").await else { return };
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"]});
    let metadata = json!({"name": "khufu", "namespace": "confined"});
    let api = "rbac.authorization.k8s.io";
    scene.apply_by_hand(
        &json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": [rule]}),
    );
    scene.apply_by_hand(&json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "khufu"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": NARROW}]}));
    let driver = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(NARROW), None).await.unwrap();
    let scene = Scene { driver, ..scene };
    let mut changes = scene.driver.watch().unwrap();
    let mut replica = scene.replica("confined");
    let both = json!({"objects": [scene.config_map("a", json!({})), scene.config_map("b", json!({}))]});
    scene.made(&mut replica, &both).await;
    // What others change is heard of.
    until("the change is told of", async || {
        scene.made(&mut replica, &both).await;
        scene.kubectl(&["annotate", "configmap", "a", "--overwrite", &format!("at={:?}", Instant::now())]);
        tokio::time::timeout(Duration::from_millis(900), changes.recv()).await.is_ok_and(|told| told.is_ok())
    })
    .await;
    // And what nobody remembers is found.
    let mut forgotten = scene.replica("confined");
    forgotten.local_id = Some("ConfigMap/confined/a".into());
    scene.driver.delete(&forgotten).await.unwrap();
    assert_eq!((scene.get("configmap", "a"), scene.get("configmap", "b")), (None, None));
}

#[tokio::test]
async fn a_kind_that_goes_and_comes_back_is_watched_again() {
    let Some(scene) = Scene::new("back").await else { return };
    let group = "back.example.org";
    let mut changes = scene.driver.watch().unwrap();
    let ours = async |changes: &mut khufu_drivers::Changes, within: u64| {
        let told = async { while changes.recv().await.unwrap().as_str() != "back" {} };
        tokio::time::timeout(Duration::from_millis(within), told).await.is_ok()
    };
    let mut replica = scene.replica("back");
    let desired = json!({"objects": [kinds::definition(group), kinds::well(&scene, group, json!(3))]});
    scene.made(&mut replica, &desired).await;
    let watched = async |changes: &mut khufu_drivers::Changes| {
        until("the watch runs", async || {
            let now = format!("at={:?}", Instant::now());
            scene.kubectl(&["annotate", "wells.back.example.org", "w", "--overwrite", &now]);
            ours(changes, 900).await
        })
        .await;
        while ours(changes, 1_500).await {}
    };
    watched(&mut changes).await;
    scene.kubectl(&["delete", "crd", "wells.back.example.org"]);
    assert!(ours(&mut changes, 30_000).await);
    until("all is made again", async || scene.apply(&replica, &desired).await.is_ok()).await;
    watched(&mut changes).await;
}

#[tokio::test]
async fn what_a_look_that_failed_has_seen_is_told_all_the_same() {
    let Some(scene) = Scene::new("unseen").await else { return };
    scene.kubectl(&["label", "namespace", "unseen", "name=unseen"]);
    let mut changes = scene.driver.watch().unwrap();
    let ours = async |changes: &mut khufu_drivers::Changes, within: u64| {
        let told = async { while changes.recv().await.unwrap().as_str() != "unseen" {} };
        tokio::time::timeout(Duration::from_millis(within), told).await.is_ok()
    };
    let mut replica = scene.replica("unseen");
    let both = json!({"objects": [scene.config_map("a", json!({"x": "1"})), deployment(&scene, "web")]});
    scene.made(&mut replica, &both).await;
    until("the watch runs", async || {
        scene.kubectl(&["annotate", "configmap", "a", "--overwrite", &format!("at={:?}", Instant::now())]);
        ours(&mut changes, 900).await
    })
    .await;
    // How the server would write the deployment cannot be asked any more.
    scene.kubectl(&["set", "image", "deployment/web", "web=nginx:2"]);
    let rule =
        json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["UPDATE"]});
    scene.apply_by_hand(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "unseen"}, "webhooks": [{"name": "unseen.example.org", "rules": [rule], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/"},
            "namespaceSelector": {"matchLabels": {"name": "unseen"}}}]}));
    until("looks fail", async || scene.driver.observe(&replica).await.is_err()).await;
    while ours(&mut changes, 1_500).await {}
    scene.kubectl(&["patch", "configmap", "a", "--type=merge", "-p", r#"{"data":{"x":"2"}}"#]);
    let error = scene.driver.observe(&replica).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    assert!(ours(&mut changes, 30_000).await);
    // One that succeeds says it, and then nobody need look.
    scene.kubectl(&["delete", "validatingwebhookconfiguration", "unseen"]);
    until("looks succeed", async || scene.driver.observe(&replica).await.is_ok()).await;
}
