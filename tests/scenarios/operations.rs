//! Operations on the objects of three sites, each with a Kubernetes API server of its own.

use khufu_test_servers::kubernetes::{Builder, Cluster};
use serde_json::{Value, json};

use super::kubernetes::{NAMES, all_have, deployment, kubectl, nodes};
use crate::support::{Lab, Site, until};

fn policy(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/{name}.yaml"));
    serde_saphyr::from_str(&std::fs::read_to_string(path).expect("the policy is there")).expect("YAML")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_sites_got_in_different_orders_end_alike() {
    let Some([one, two, three]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = nodes(&lab, [&one, &two, &three], &[]).await;
    let sites = [&paris, &rennes, &nantes];
    let (all, web) = ([&one, &two, &three], ["deployment", "web"]);
    let scope = "paris & rennes & nantes";
    let body =
        json!({"kind": "kubernetes", "scope": scope, "desired": deployment(), "policy": policy("kubernetes-policy")});
    paris.put("/v1/replicants/web", body).await.ok();
    all_have(&all, &web, "{.spec.replicas}", "2").await;
    let uids: Vec<_> = all.iter().map(|cluster| kubectl(cluster, &web, "{.metadata.uid}")).collect();
    let operate = async |site: &Site, of: &str, payload: Value| {
        site.post("/v1/replicants/web/operations", json!({"type": of, "payload": payload})).await.ok()
    };
    let image = |image: &str| {
        let containers = json!([{"name": "web", "image": image}]);
        json!({"type": "strategic", "patch": {"spec": {"template": {"spec": {"containers": containers}}}}})
    };
    operate(&rennes, "scale", json!({"replicas": 3})).await;
    all_have(&all, &web, "{.spec.replicas}", "3").await;

    // Each site gets its own first. The site that is cut off has asked for the same later, by the clocks, and earlier.
    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    operate(&nantes, "patch", image("nginx:2")).await;
    operate(&nantes, "scale", json!({"replicas": 6})).await;
    all_have(&[&three], &web, "{.spec.replicas} {.spec.template.spec.containers[0].image}", "6 nginx:2").await;
    operate(&paris, "scale", json!({"replicas": 5})).await;
    operate(&rennes, "restart", json!(null)).await;
    operate(&rennes, "patch", image("nginx:3")).await;
    let append = json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "example.org/b"}]);
    let first = json!({"type": "merge", "patch": {"metadata": {"finalizers": ["example.org/a"]}}});
    operate(&paris, "patch", first).await;
    operate(&paris, "patch", json!({"type": "json", "patch": append})).await;
    let of = "{.spec.replicas} {.spec.template.spec.containers[*].image} {.metadata.finalizers[*]}";
    all_have(&[&one, &two], &web, of, "5 nginx:3 side:1 example.org/a example.org/b").await;
    // Its node is killed with what it was asked for just before.
    operate(&nantes, "restart", json!({"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}))
        .await;
    let nantes = nantes.kill_9().start().await;
    let sites = [&paris, &rennes, &nantes];
    lab.cut(&sites, &[]).await;
    // The later of two sizes, the later of two images, and the list as one site has made it.
    all_have(&all, &web, of, "5 nginx:3 side:1 example.org/a example.org/b").await;
    lab.verified(&rennes).await;
    let restarts = "{.spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt}";
    let at = kubectl(&one, &web, restarts);
    assert!(at.starts_with("20"), "{at}");
    all_have(&all, &web, restarts, &at).await;
    until("nobody failed", || async {
        let view = paris.try_get("/v1/replicants/web").await?;
        if view["status"] == "applied" { Ok(()) } else { Err(view["sites"].to_string()) }
    })
    .await;

    // An edit of the desired state is under the operations, and none of it made another object.
    paris.patch("/v1/replicants/web/desired", json!({"metadata": {"labels": {"color": "blue"}}})).await.ok();
    all_have(&all, &web, "{.metadata.labels.color} {.spec.replicas}", "blue 5").await;
    let same: Vec<_> = all.iter().map(|cluster| kubectl(cluster, &web, "{.metadata.uid}")).collect();
    assert_eq!(same, uids);

    // A removal, and a manifest after it, which is another object.
    let gone = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    operate(&nantes, "patch", json!({"type": "json", "patch": gone})).await;
    operate(&nantes, "delete", json!(null)).await;
    all_have(&all, &web, "{.metadata.name}", "").await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"x": "1"}});
    operate(&rennes, "apply", json!({ "manifest": map })).await;
    all_have(&all, &["configmap", "web"], "{.data.x}", "1").await;
    lab.verified(&paris).await;
    // What operations have made goes with the replicant.
    paris.delete("/v1/replicants/web").await.ok();
    all_have(&all, &["configmap", "web"], "{.metadata.name}", "").await;
}
