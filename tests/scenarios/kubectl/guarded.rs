//! What a write through the front must not do to what it is not about: objects of other sites, of others, of the same replicant.

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::{Value, json};

use super::rough::said;
use super::{Desk, FRONT, all_have, deployment};
use crate::scenarios::kubernetes::nodes;
use crate::support::Lab;

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_changes_nothing_that_it_is_not_about() {
    let builder = |name| Cluster::builder(name).user("eve", &[]);
    let Some([one, two]) = Builder::start_all(["paris", "rennes"].map(builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes] = nodes(&lab, [&one, &two], FRONT).await;
    let [a, b] = &[(&one, &paris), (&two, &rennes)].map(|(cluster, site)| Desk { cluster, site });
    let (both, apply) = ("/scope/paris%20%26%20rennes", ["apply", "-f", "-"]);

    // An object of this site, of the name of one that is a replicant elsewhere.
    a.by_hand(&["create", "configmap", "far", "--from-literal=a=local"]);
    b.scoped("/scope/rennes", &["create", "configmap", "far", "--from-literal=a=1"], None);
    for prefix in ["/scope/rennes", both] {
        let refused = a.refused(ADMIN, prefix, &apply, Some(&map("far", json!({"a": "2"})).to_string()));
        assert!(refused.contains("lives at rennes"), "{refused}");
    }
    assert_eq!(a.has(&["configmap", "far"], "{.data.a}"), "local");
    let view = rennes.view("kubernetes:default:configmaps:far").await;
    assert_eq!((&view["desired"]["data"], &view["policy"]["options"]["adopt"]), (&json!({"a": "1"}), &Value::Null));

    // One that is in the way of a replicant here: that is for its options to say, at all sites.
    a.by_hand(&["create", "configmap", "way", "--from-literal=a=local"]);
    b.scoped(both, &["create", "configmap", "way", "--from-literal=a=1"], None);
    let told = a.scoped(both, &apply, Some(&map("way", json!({"a": "2"})).to_string()));
    assert!(told.contains("it is there already"), "{told}");
    all_have(&[b], &["configmap", "way"], "{.data.a}", "2").await;
    assert_eq!(a.has(&["configmap", "way"], "{.data.a}"), "local");
    let options = paris.view("kubernetes:default:configmaps:way").await["policy"]["options"].clone();
    assert!(options.get("adopt").is_none() && options.get("force").is_none(), "{options}");

    // Who may make objects may not change those of other sites.
    a.by_hand(&["create", "role", "maker", "--verb=get,create", "--resource=configmaps"]);
    a.by_hand(&["create", "rolebinding", "eve", "--role=maker", "--user=eve"]);
    b.scoped("/scope/rennes", &["create", "configmap", "theirs", "--from-literal=a=1"], None);
    let hers = map("theirs", json!({"a": "eve"})).to_string();
    let refused = a.refused("eve", "/scope/rennes", &apply, Some(&hers));
    assert!(refused.contains("right to patch"), "{refused}");
    a.scoped("/scope/rennes", &apply, Some(&map("theirs", json!({"a": "2"})).to_string()));
    all_have(&[b], &["configmap", "theirs"], "{.data.a}", "2").await;

    // A scope that is said again, and is another by now.
    let mut moved = map("moved", json!({}));
    moved["metadata"]["annotations"] = json!({"khufu.dev/scope": "paris"});
    a.kubectl(&apply, Some(&moved.to_string()));
    let id = "/v1/replicants/kubernetes:default:configmaps:moved";
    paris.put(id, json!({"scope": "paris & rennes"})).await.ok();
    let told = a.kubectl(&["annotate", "--overwrite", "configmap", "moved", "khufu.dev/scope=paris"], None);
    assert!(told.contains("edited in another way") && told.contains("khufu.dev/scope"), "{told}");

    // One of several objects: its dependents do not go against what was said, and nothing is deleted in parts.
    let objects = json!({"web": deployment("web", None), "map": map("of-several", json!({}))});
    let body = json!({"kind": "kubernetes", "scope": "paris", "desired": {"objects": objects}});
    paris.put("/v1/replicants/shop", body).await.ok();
    all_have(&[a], &["deployment", "web"], "{.spec.replicas}", "2").await;
    all_have(&[a], &["configmap", "of-several"], "{.metadata.name}", "of-several").await;
    for arguments in [&["deployment", "web"][..], &["deployments", "--all"]] {
        let refused = a.refused(ADMIN, "", &[&["delete", "--cascade=orphan"], arguments].concat(), None);
        assert!(refused.contains("of several objects"), "{refused}");
    }
    let request = format!(
        "DELETE /api/v1/namespaces/default/configmaps?limit=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
        one.admin_token()
    );
    let answer = said(&paris, request.as_bytes(), usize::MAX).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("leave out limit"), "{answer}");
    let objects = paris.view("shop").await["desired"]["objects"].clone();
    assert_eq!(objects.as_object().map(serde_json::Map::len), Some(2), "{objects}");
    a.kubectl(&["delete", "deployment", "web"], None);
    assert_eq!(a.has(&["configmap", "of-several"], "{.metadata.name}"), "of-several");
}
