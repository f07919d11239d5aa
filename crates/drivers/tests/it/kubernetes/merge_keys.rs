//! By what lists merge, as the API server says.

use super::*;

async fn keys(scene: &Scene, desired: &Value) -> Vec<String> {
    scene.driver.list_keys(desired, &serde_json::Map::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_those_of_the_kinds_that_are_asked_for() {
    let Some(scene) = Scene::new("keys").await else { return };
    // The first time a server may take longer to tell than anybody waits, and then built-in kinds are as they usually are.
    // Terms of affinity have a `topologyKey` and are one value, so nothing is told apart by that.
    let pods = ["containerPort", "devicePath", "ip", "mountPath", "name"];
    until("the schema is known", async || keys(&scene, &deployment(&scene, "web")).await == pods).await;
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(keys(&scene, &service).await, ["port", "name"]);
    let both = json!({"objects": {"w": deployment(&scene, "web"), "s": service}});
    let all = ["containerPort", "devicePath", "ip", "mountPath", "port", "name"];
    assert_eq!(keys(&scene, &both).await, all);
    // Rules of roles are one value.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    assert_eq!(keys(&scene, &role).await, ["name"]);
    assert_eq!(keys(&scene, &scene.config_map("a", json!({"x": "1"}))).await, Vec::<String>::new());
    assert_eq!(keys(&scene, &json!({"no": "manifest"})).await, Vec::<String>::new());

    // Custom kinds say it themselves: in a definition beside them, and once it is served.
    let mut definition = kinds::definition("keys.example.org");
    let pipes = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["depth"],
        "items": {"type": "object", "required": ["depth"],
            "properties": {"depth": {"type": "integer"}, "name": {"type": "string"}}}});
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["pipes"] = pipes;
    let mut well = kinds::well(&scene, "keys.example.org", json!(3));
    well["spec"]["pipes"] = json!([{"depth": 1, "name": "a"}]);
    let together = json!({"objects": [definition, well]});
    assert_eq!(keys(&scene, &together).await, ["depth", "name"]);
    assert_eq!(keys(&scene, &well).await, ["name"]);
    scene.apply_by_hand(&definition);
    until("the new kind is in the schema", async || {
        let driver = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
        driver.list_keys(&well, &serde_json::Map::new()).await == ["depth", "name"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_built_in_kinds_are_as_they_usually_are_and_nobody_waits() {
    let Some(mut cluster) = Cluster::start("silent") else { return };
    let driver = KubernetesDriver::from_kubeconfig(&cluster.kubeconfig(ADMIN), None).await.unwrap();
    cluster.pause();
    let desired = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [{"name": "web"}]}}}});
    let begun = Instant::now();
    let keys = driver.list_keys(&desired, &serde_json::Map::new()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(keys, ["containerPort", "devicePath", "ip", "mountPath", "port", "name"]);
    let custom =
        json!({"apiVersion": "w/v1", "kind": "Well", "metadata": {"name": "w"}, "spec": {"pipes": [{"depth": 1}]}});
    assert_eq!(driver.list_keys(&custom, &serde_json::Map::new()).await, ["name"]);
}
