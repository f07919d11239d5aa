//! What is asked for after a write is what was written, whatever there is here: by hand, made up by the API server, or nothing.

use khufu_test_servers::kubernetes::{ADMIN, Cluster};
use serde_json::{Value, json};

use super::{Alone, deployment};

const WEB: [&str; 2] = ["deployment", "web"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_asked_for_also_where_it_is_so_already_or_gone() {
    let Some(alone) = Alone::start(Cluster::builder("paris")).await else { return };
    let (_, site, desk) = alone.parts();
    let desired = async |kind: &str, path: &str| {
        let view = site.view(&format!("kubernetes:default:{kind}")).await;
        view["desired"].pointer(path).cloned().unwrap_or_default()
    };
    let quiet = |arguments: &[&str], input: Option<&str>| {
        let said = desk.kubectl(arguments, input);
        assert!(!said.contains("Warning"), "{arguments:?}: {said}");
    };
    let patch = |what: &[&str], kind: &str, patch: Value| {
        quiet(&[&["patch"], what, &["--type", kind, "--patch", &patch.to_string()]].concat(), None);
    };

    // Of a Service, the ports that the API server makes up are of this cluster, unless somebody names them.
    let service = ["service", "web"];
    desk.scoped("/scope/paris", &["create", "service", "clusterip", "web", "--tcp=80:80"], None);
    patch(&service, "merge", json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}}));
    assert_eq!(desk.has(&service, "{.spec.type}"), "LoadBalancer");
    let spec = desired("services:web", "/spec").await;
    assert!(spec["ports"][0]["nodePort"].is_null() && spec["healthCheckNodePort"].is_null(), "{spec}");
    patch(&service, "strategic", json!({"spec": {"ports": [{"port": 80, "nodePort": 30555}]}}));
    assert_eq!(desk.has(&service, "{.spec.ports[0].nodePort}"), "30555");
    assert_eq!(desired("services:web", "/spec/ports/0/nodePort").await, 30555);
    patch(
        &service,
        "merge",
        json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null, "healthCheckNodePort": null,
        "ports": [{"name": "80-80", "port": 80, "protocol": "TCP", "targetPort": 80}]}}),
    );
    assert!(desired("services:web", "/spec/ports/0/nodePort").await.is_null());

    // What is so already by hand is asked for by whoever writes it.
    let mut manifest = deployment("web", None);
    desk.scoped("/scope/paris", &["create", "-f", "-"], Some(&manifest.to_string()));
    let replicas = async || desired("deployments.apps:web", "/spec/replicas").await;
    desk.by_hand(&["scale", "deployment", "web", "--replicas=9"]);
    quiet(&["scale", "deployment", "web", "--replicas=9"], None);
    assert_eq!(replicas().await, 9);
    desk.by_hand(&["scale", "deployment", "web", "--replicas=8"]);
    patch(&WEB, "merge", json!({"spec": {"replicas": 8}}));
    assert_eq!(replicas().await, 8);
    desk.by_hand(&["set", "image", "deployment/web", "side=hand:1"]);
    let image = "/spec/template/spec/containers/1/image";
    patch(&WEB, "json", json!([{"op": "replace", "path": image, "value": "hand:1"}]));
    assert_eq!(desired("deployments.apps:web", image).await, "hand:1");
    desk.by_hand(&["scale", "deployment", "web", "--replicas=4"]);
    manifest["spec"]["replicas"] = json!(4);
    quiet(&["replace", "-f", "-"], Some(&manifest.to_string()));
    assert_eq!(replicas().await, 4);
    // Not by whoever sends back what he has read.
    desk.by_hand(&["scale", "deployment", "web", "--replicas=6"]);
    let mut read: Value =
        serde_json::from_str(&desk.kubectl(&["get", "deployment", "web", "--output=json"], None)).expect("JSON");
    read["metadata"]["labels"] = json!({"team": "blue"});
    read["metadata"]["resourceVersion"] = Value::Null;
    desk.kubectl(&["replace", "-f", "-"], Some(&read.to_string()));
    assert_eq!((replicas().await, desk.has(&WEB, "{.metadata.labels.team}")), (json!(4), "blue".to_owned()));
    // What is changed by hand and then back is the driver's again.
    desk.by_hand(&["label", "deployment", "web", "--overwrite", "team=hand"]);
    for team in ["blue", "green"] {
        quiet(&["label", "deployment", "web", "--overwrite", &format!("team={team}")], None);
        assert_eq!(desk.has(&WEB, "{.metadata.labels.team}"), team);
    }

    // What somebody has removed past Khufu is made again by whoever applies it, and nothing else takes its place.
    desk.by_hand(&["delete", "deployment", "web"]);
    let refused = desk.refused(ADMIN, "", &["create", "-f", "-"], Some(&manifest.to_string()));
    assert!(refused.contains("apply it to have it made again"), "{refused}");
    assert_eq!(desk.has(&WEB, "{.metadata.name}"), "");
    for apply in [&["apply", "-f", "-"][..], &["apply", "--server-side", "-f", "-"], &["apply", "-f", "-"]] {
        quiet(apply, Some(&manifest.to_string()));
        let of = desk.has(&WEB, "{.metadata.annotations.khufu\\.dev/replicant}");
        assert_eq!(of, "kubernetes:default:deployments.apps:web", "{apply:?}");
        desk.by_hand(&["delete", "deployment", "web"]);
    }

    // What a write takes away goes also where it makes a replicant of the object.
    desk.by_hand(&["create", "configmap", "old", "--from-literal=a=1", "--from-literal=b=2"]);
    desk.by_hand(&["label", "configmap", "old", "x=y"]);
    let old =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}, "data": {"a": "1"}}).to_string();
    let told = desk.scoped("/scope/paris", &["replace", "-f", "-"], Some(&old));
    assert!(!told.contains("Warning"), "{told}");
    assert_eq!(desk.has(&["configmap", "old"], "{.data}{.metadata.labels.x}"), "{\"a\":\"1\"}");

    // What was set before somebody applied it stays when he applies it no more.
    desk.scoped("/scope/paris", &["create", "configmap", "both", "--from-literal=a=1"], None);
    for data in [json!({"a": "1", "b": "2"}), json!({"b": "2"}), json!({"c": "3"})] {
        let both = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "both"}, "data": data});
        let apply = ["apply", "--server-side", "--field-manager=ci", "-f", "-"];
        quiet(&apply, Some(&both.to_string()));
    }
    assert_eq!(desk.has(&["configmap", "both"], "{.data.a}{.data.b}{.data.c}"), "13");
}
