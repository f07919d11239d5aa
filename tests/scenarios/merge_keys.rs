//! Lists of Kubernetes objects merge by what the API server says.

use khufu_test_servers::kubernetes::{Builder, Cluster};
use serde_json::{Value, json};

use super::kubernetes::{all_have, nodes};
use crate::support::{Lab, until};

fn deployment(ports: Value, mounts: Value, env: Value) -> Value {
    let labels = json!({"app": "web"});
    let container = json!({"name": "web", "image": "nginx:1", "ports": ports, "volumeMounts": mounts, "env": env});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_that_add_to_lists_while_apart_both_win_and_what_both_added_is_there_once() {
    let Some([one, two]) = Builder::start_all(["paris", "rennes"].map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes] = nodes(&lab, [&one, &two], &[]).await;
    let sites = [&paris, &rennes];
    let (all, web) = ([&one, &two], ["deployment", "web"]);
    let env = |name: &str| json!({"name": name, "value": "1"});
    let mount = |path: &str| json!({"name": "v", "mountPath": path});
    let desired = deployment(json!([{"containerPort": 80}]), json!([mount("/a")]), json!([env("A")]));
    let body = json!({"kind": "kubernetes", "scope": "paris & rennes", "desired": desired});
    let view = paris.put("/v1/replicants/web", body.clone()).await.ok();
    let keys = json!(["containerPort", "devicePath", "ip", "mountPath", "name"]);
    // A server that did not say it in time is taken for what servers usually say.
    let usual = json!(["containerPort", "devicePath", "ip", "mountPath", "port", "name"]);
    let said = &view["policy"]["list_keys"];
    assert!([&keys, &usual].contains(&said), "{view}");
    all_have(&all, &web, "{.spec.template.spec.containers[0].ports[*].containerPort}", "80").await;

    lab.cut(&sites, &[("paris", "rennes")]).await;
    let ports = json!([{"containerPort": 80}, {"containerPort": 443, "name": "https"}, {"containerPort": 81}]);
    let of_paris = deployment(ports, json!([mount("/a"), mount("/b")]), json!([env("A"), env("B")]));
    paris.put("/v1/replicants/web", json!({ "desired": of_paris })).await.ok();
    let mut shared = mount("/b");
    shared["readOnly"] = json!(true);
    let ports = json!([{"containerPort": 80}, {"containerPort": 443, "protocol": "TCP"}, {"containerPort": 82}]);
    let of_rennes = deployment(ports, json!([mount("/a"), shared, mount("/c")]), json!([env("C"), env("A"), env("B")]));
    rennes.put("/v1/replicants/web", json!({ "desired": of_rennes })).await.ok();
    lab.cut(&sites, &[]).await;
    let wanted = json!({"ports": ["443 https", "80 ", "81 ", "82 "], "mounts": ["/a ", "/b true", "/c "], "env": ["A", "B", "C"]});
    until("both have all of it once", || async {
        let found = all.map(|cluster| {
            let path = |path: &str| {
                let text = super::kubernetes::kubectl(cluster, &web, path);
                let mut parts: Vec<_> = text.split_terminator(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            let container = "range .spec.template.spec.containers[0]";
            json!({
                "ports": path(&format!("{{{container}.ports[*]}}{{.containerPort}} {{.name}},{{end}}")),
                "mounts": path(&format!("{{{container}.volumeMounts[*]}}{{.mountPath}} {{.readOnly}},{{end}}")),
                "env": path(&format!("{{{container}.env[*]}}{{.name}},{{end}}")),
            })
        });
        if found.iter().all(|found| *found == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    lab.verified(&rennes).await;

    // Who puts it again, as it was put first, or with a policy that says nothing of lists, leaves that as it is.
    let mut again = body;
    again["policy"] = json!({"drift": "ignore"});
    let view = rennes.put("/v1/replicants/web", again).await.ok();
    assert_eq!(&view["policy"]["list_keys"], said, "{view}");
    // And who says something of lists is heard.
    let other = json!({"kind": "kubernetes", "scope": "paris", "desired": desired_named("other"), "policy": {"list_keys": ["name"]}});
    let view = paris.put("/v1/replicants/other", other).await.ok();
    assert_eq!(view["policy"]["list_keys"], json!(["name"]), "{view}");
}

fn desired_named(name: &str) -> Value {
    let mut desired = deployment(json!([{"containerPort": 80}]), json!([]), json!([]));
    desired["metadata"]["name"] = json!(name);
    desired
}
