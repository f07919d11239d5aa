//! What is not watched: it is looked for now and then, and said.

use super::*;

const EVERY: Duration = Duration::from_secs(2);

/// A role of a user for one resource, in all namespaces or in one.
pub(super) fn rights(user: &str, resource: &str, verbs: &[&str], namespace: Option<&str>) -> [Value; 2] {
    let api = "rbac.authorization.k8s.io";
    let (role, binding) = match namespace {
        Some(_) => ("Role", "RoleBinding"),
        None => ("ClusterRole", "ClusterRoleBinding"),
    };
    let metadata = json!({"name": format!("{user}-{resource}"), "namespace": namespace});
    let rule = json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
    let subject = json!({"apiGroup": api, "kind": "User", "name": user});
    [
        json!({"apiVersion": format!("{api}/v1"), "kind": role, "metadata": metadata, "rules": [rule]}),
        json!({"apiVersion": format!("{api}/v1"), "kind": binding, "metadata": metadata, "subjects": [subject],
            "roleRef": {"apiGroup": api, "kind": role, "name": metadata["name"]}}),
    ]
}

impl Scene {
    pub(super) fn grant(&self, roles: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": roles});
        let output = self.cluster.kubectl_as(ADMIN, &["apply", "-f", "-"], Some(&list.to_string()));
        assert!(output.status.success(), "{output:?}");
    }

    async fn hurried(self, user: &str, watches: usize) -> Self {
        let driver = KubernetesDriver::hurried(&self.cluster.kubeconfig(user), watches, EVERY).await.unwrap();
        Self { driver, ..self }
    }

    async fn says(&self, replica: &Replica) -> String {
        self.look(replica).await.health.map(|health| health.message).unwrap_or_default()
    }
}

/// Whether this replica is told of, within some looks.
async fn told(changes: &mut khufu_drivers::Changes, id: &str) -> bool {
    let told = async { while changes.recv().await.unwrap().as_str() != id {} };
    tokio::time::timeout(3 * EVERY, told).await.is_ok()
}

/// Nothing is told of any more.
async fn quiet(changes: &mut khufu_drivers::Changes, scene: &Scene, replica: &Replica) {
    until("nothing more is told", async || {
        scene.look(replica).await;
        !told(changes, replica.id.as_str()).await
    })
    .await;
}

#[tokio::test]
async fn what_is_one_too_many_to_be_watched_is_listed_now_and_then() {
    let Some(scene) = Scene::new("unwatched").await else { return };
    let scene = scene.hurried(ADMIN, 0).await;
    let mut changes = scene.driver.watch().unwrap();
    let mut replica = scene.replica("unwatched");
    scene.made(&mut replica, &scene.config_map("a", json!({"x": "1"}))).await;
    until("it is said", async || {
        scene.says(&replica).await.contains("ConfigMap by hand are looked for only every 2 s")
    })
    .await;
    assert!(scene.says(&replica).await.contains("so many kinds and namespaces are watched already"));
    // Lists tell only of what is another than it was.
    quiet(&mut changes, &scene, &replica).await;
    scene.kubectl(&["patch", "configmap", "a", "--type=merge", "-p", r#"{"data":{"x":"2"}}"#]);
    assert!(told(&mut changes, "unwatched").await);
    quiet(&mut changes, &scene, &replica).await;
    scene.kubectl(&["delete", "configmap", "a"]);
    assert!(told(&mut changes, "unwatched").await);
    // Of what is another's, and never looked at here, they tell once.
    let other = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    let desired = Work::Desired(scene.config_map("b", json!({})));
    other.apply(&scene.replica("another"), desired).await.unwrap();
    assert!(told(&mut changes, "another").await);
    assert!(!told(&mut changes, "another").await);
}

#[tokio::test]
async fn what_may_not_be_listed_is_looked_at_now_and_then_and_watched_once_it_may() {
    let Some(scene) = Scene::new("late").await else { return };
    let few = ["get", "create", "patch", "delete"];
    scene.grant(&rights(LATE, "configmaps", &few, Some("late")));
    let scene = scene.hurried(LATE, 128).await;
    let mut changes = scene.driver.watch().unwrap();
    let mut replica = scene.replica("late");
    let desired = scene.config_map("a", json!({"x": "1"}));
    until("the rights are known", async || scene.apply(&replica, &desired).await.is_ok()).await;
    scene.made(&mut replica, &desired).await;
    until("it is said", async || scene.says(&replica).await.contains("does not let it be watched")).await;
    // Nobody sees whether it has changed, so it is looked at, again and again.
    for _ in 0..3 {
        assert!(told(&mut changes, "late").await);
    }
    let all = [&few[..], &["list", "watch"]].concat();
    scene.grant(&rights(LATE, "configmaps", &all, None));
    until("it is watched", async || !scene.says(&replica).await.contains("by hand")).await;
    quiet(&mut changes, &scene, &replica).await;
    scene.kubectl(&["annotate", "configmap", "a", "at=night"]);
    assert!(told(&mut changes, "late").await);
}

#[tokio::test]
async fn one_that_was_watched_by_namespace_is_watched_in_all_once_it_may() {
    let Some(scene) = Scene::new("wider").await else { return };
    scene.kubectl(&["create", "namespace", "wider-too"]);
    let verbs = ["get", "create", "patch", "delete", "list", "watch"];
    let namespaces = ["wider", "wider-too"];
    for namespace in namespaces {
        scene.grant(&rights(WIDER, "limitranges", &verbs, Some(namespace)));
    }
    let scene = scene.hurried(WIDER, 128).await;
    // Nobody else watches this kind but the server itself.
    let all = || scene.cluster.metric("apiserver_registered_watchers", &[("kind", "LimitRange")]);
    let others = all();
    let watchers = || all() - others;
    let range = |namespace: &str| {
        let metadata = json!({"name": "a", "namespace": namespace});
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata,
            "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}})
    };
    let mut replica = scene.replica("wider");
    let desired = json!({"objects": namespaces.map(range)});
    until("the rights are known", async || scene.apply(&replica, &desired).await.is_ok()).await;
    scene.made(&mut replica, &desired).await;
    until("both are watched", async || {
        scene.look(&replica).await;
        watchers() == 2.0
    })
    .await;
    assert!(!scene.says(&replica).await.contains("by hand"));
    scene.grant(&rights(WIDER, "limitranges", &verbs, None));
    until("one watch is enough", async || watchers() == 1.0).await;
    let mut changes = scene.driver.watch().unwrap();
    quiet(&mut changes, &scene, &replica).await;
    scene.kubectl(&["annotate", "limitrange", "a", "at=night"]);
    assert!(told(&mut changes, "wider").await);
}
