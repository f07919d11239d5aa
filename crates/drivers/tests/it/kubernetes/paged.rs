//! More objects than fit into a page of a list, or into memory. What takes a real API server minutes to hold, one that is made
//! up says at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::made_up::{self, resource, web};
use super::*;

/// Config maps by their names, in the namespace `shop`; and the namespace, called with its slash.
type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

const NAMESPACE: &str = "/shop";

/// The value of the label of the replicant `web`.
const LABEL: &str = "4b5e57f6eb2f42b9039b3d1e13929295f231749c";

struct Made {
    objects: Objects,
    driver: KubernetesDriver,
    _folder: tempfile::TempDir,
}

/// An object with the label of the replicant `web`; a copy of one is not its.
pub(super) fn marked(kind: &str, name: &str, is_copy: bool) -> Value {
    let namespace = if kind == "Namespace" { "" } else { "shop" };
    let called = if is_copy { format!("{kind}/{namespace}/original") } else { format!("{kind}/{namespace}/{name}") };
    let labels = json!({"khufu.dev/replicant": LABEL});
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": name,
        "labels": labels, "annotations": {"khufu.dev/replicant": "web", "khufu.dev/site": "paris", "khufu.dev/object": called}}})
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn answer(objects: &Objects, method: &str, path: &str, query: &str) -> (u16, Value) {
    let mut objects = objects.lock().unwrap();
    let all = path.trim_start_matches("/api/v1/");
    let name = match all.trim_start_matches("namespaces/") {
        "shop" => Some(NAMESPACE),
        within => within.strip_prefix("shop/configmaps/"),
    };
    match (path, name) {
        ("/readyz", _) => (200, json!("ok")),
        ("/api", _) => (200, json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ("/apis", _) => (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        ("/api/v1", _) => {
            let all = [
                resource("configmaps", "ConfigMap", true),
                resource("pods", "Pod", true),
                resource("namespaces", "Namespace", false),
            ];
            (200, json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": all}))
        }
        (_, Some(name)) if method == "DELETE" => match objects.remove(name) {
            Some(object) => (200, object),
            None => (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})),
        },
        (_, Some(name)) => match objects.get(name) {
            Some(object) => (200, object.clone()),
            None => {
                let details = json!({"name": name, "kind": "configmaps"});
                let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
                    "message": "not found", "details": details});
                (404, status)
            }
        },
        (_, None) => {
            let limit: usize = parameter(query, "limit").unwrap().parse().unwrap();
            assert!(limit <= 500);
            let first: usize = parameter(query, "continue").map_or(0, |next| next.parse().unwrap());
            let kind = match all.rsplit('/').next() {
                Some("namespaces") => "Namespace",
                Some("pods") => "Pod",
                _ => "ConfigMap",
            };
            let of_kind: Vec<_> = objects.values().filter(|object| object["kind"] == kind).collect();
            let page: Vec<_> = of_kind.iter().skip(first).take(limit).collect();
            let next = (first + limit < of_kind.len()).then(|| (first + limit).to_string());
            let metadata = json!({"continue": next.unwrap_or_default(), "resourceVersion": "1"});
            (
                200,
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": page}),
            )
        }
    }
}

async fn made(all: impl IntoIterator<Item = Value>) -> Made {
    let name = |object: &Value| match object["kind"].as_str() {
        Some("Namespace") => NAMESPACE.to_owned(),
        _ => object["metadata"]["name"].as_str().unwrap().to_owned(),
    };
    let objects: Objects = Arc::new(Mutex::new(all.into_iter().map(|object| (name(&object), object)).collect()));
    let server = objects.clone();
    let (folder, path) = made_up::server(move |method, path, query| answer(&server, method, path, query).into()).await;
    let driver = KubernetesDriver::from_kubeconfig(&path, None).await.unwrap();
    Made { objects, driver, _folder: folder }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_behind_ten_thousand_copies_is_found() {
    let copies = (0..10_500).map(|number| marked("ConfigMap", &format!("copy-{number}"), true));
    let server = made(copies.chain([marked("ConfigMap", "ours", false)])).await;
    let seen = server.driver.observe(&web()).await.unwrap();
    // And copies are nothing that is gone.
    assert_eq!((seen.exists, seen.drift), (true, None));
    let done = server.driver.delete(&web()).await.unwrap();
    assert_eq!(done.output, "1 objects removed, 0 left");
    assert!(!server.objects.lock().unwrap().contains_key("ours"));
    assert_eq!(server.objects.lock().unwrap().len(), 10_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_more_objects_than_are_looked_at_is_told_and_nothing_is_believed_to_be_gone() {
    let server = made((0..10_001).map(|number| marked("ConfigMap", &format!("n-{number}"), false))).await;
    for error in [
        server.driver.delete(&web()).await.map(drop).unwrap_err(),
        server.driver.observe(&web()).await.map(drop).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("more than 10000") && text.contains("kubectl delete configmaps"), "{text}");
    }
    assert_eq!(server.objects.lock().unwrap().len(), 10_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_behind_ten_thousand_objects_keeps_a_namespace() {
    let unmarked = |name: &str, owners: Value| {
        let mut object = marked("ConfigMap", name, true);
        object["metadata"]["annotations"] = json!({});
        object["metadata"]["labels"] = json!({});
        object["metadata"]["ownerReferences"] = owners;
        object
    };
    // What belongs to something else goes with it, and is nobody's.
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]);
    let owned = (0..10_500).map(|number| unmarked(&format!("n-{number}"), owner.clone()));
    let server = made(owned.chain([unmarked("stranger", json!([])), marked("Namespace", "shop", false)])).await;
    let mut replica = web();
    replica.local_id = Some("Namespace/shop".into());
    let error = server.driver.delete(&replica).await.unwrap_err();
    assert!(error.to_string().contains("ConfigMap/shop/stranger"), "{error}");
    assert!(server.objects.lock().unwrap().contains_key(NAMESPACE));
}
