//! What is left out of a manifest that was in it before is not asked for any more, however that is said.

use khufu_test_servers::kubernetes::Cluster;
use serde_json::{Value, json};

use super::{Alone, deployment};

const OPTIONS: &str = "khufu.dev/options";

/// A Deployment with a number of replicas or without, and with or without what is said as annotations.
fn manifest(name: &str, replicas: Option<u64>, said: bool) -> String {
    let mut manifest = deployment(name, said.then_some("paris"));
    let spec = manifest["spec"].as_object_mut().expect("a map");
    match replicas {
        Some(replicas) => drop(spec.insert("replicas".to_owned(), json!(replicas))),
        None => drop(spec.remove("replicas")),
    }
    if said {
        manifest["metadata"]["annotations"][OPTIONS] = json!("{\"force\": true}");
        manifest["metadata"]["annotations"]["khufu.dev/drift"] = json!("correct");
    }
    manifest.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_out_is_not_asked_for_any_more_and_is_as_the_server_has_it() {
    let Some(alone) = Alone::start(Cluster::builder("paris")).await else { return };
    let (cluster, site, desk) = alone.parts();
    let client = &["apply", "-f", "-"][..];
    let server = &["apply", "--server-side", "-f", "-"][..];
    let (create, replace) = (&["create", "-f", "-"][..], &["replace", "-f", "-"][..]);
    // 1 is what the server has of its own, and yet not the same as asking for nothing.
    for (number, (first, second)) in
        [(client, client), (server, server), (client, server), (create, replace)].into_iter().enumerate()
    {
        for replicas in [3, 1] {
            let name = format!("web-{number}-{replicas}");
            desk.kubectl(first, Some(&manifest(&name, Some(replicas), true)));
            let id = format!("kubernetes:default:deployments.apps:{name}");
            let view = site.view(&id).await;
            assert_eq!(view["desired"]["spec"]["replicas"], replicas);
            assert_eq!(
                (&view["policy"]["options"]["force"], &view["policy"]["drift"]),
                (&json!(true), &json!("correct"))
            );
            desk.kubectl(second, Some(&manifest(&name, None, false)));
            let view = site.view(&id).await;
            let spec = &view["desired"]["spec"];
            assert!(spec["replicas"].is_null() && spec["template"].is_object(), "{second:?} {replicas}: {view}");
            assert_eq!(desk.has(&["deployment", &name], "{.spec.replicas}"), "1", "{second:?}");
            assert!(view["policy"]["options"]["force"].is_null(), "{first:?} {second:?}: {view}");
            assert_eq!(view["policy"]["drift"], "report", "{first:?} {second:?}: {view}");
            assert_eq!(view["scope"], "paris", "it lives where it was put");
        }
    }

    // What was read and is sent back asks for nothing more, and nothing less.
    let name = "web-1-3";
    let id = format!("kubernetes:default:deployments.apps:{name}");
    desk.kubectl(replace, Some(&manifest(name, Some(2), true)));
    let before = site.view(&id).await;
    let shown = desk.kubectl(&["get", "deployment", name, "--output=json"], None);
    desk.kubectl(replace, Some(&shown.replace("nginx:1", "nginx:2")));
    let after = site.view(&id).await;
    let image = |view: &Value| view["desired"]["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&after), "nginx:2");
    assert_eq!(
        after["desired"]["spec"].to_string().replace("nginx:2", "nginx:1"),
        before["desired"]["spec"].to_string()
    );
    assert_eq!(after["policy"], before["policy"]);
    // Somebody who has seen the object as the API server has it, by a watch, has left nothing of that out.
    let there = cluster.kubectl(&["get", "deployment", name, "--output=json"]);
    desk.kubectl(replace, Some(&super::text(&there.stdout)));
    assert_eq!(site.view(&id).await["policy"], before["policy"]);

    // By patches.
    for (kind, patch) in [
        ("merge", json!({"spec": {"replicas": null}})),
        ("strategic", json!({"spec": {"replicas": null}})),
        ("json", json!([{"op": "remove", "path": "/spec/replicas"}])),
    ] {
        desk.kubectl(&["scale", "deployment", name, "--replicas=3"], None);
        assert_eq!(site.view(&id).await["desired"]["spec"]["replicas"], 3);
        desk.kubectl(&["patch", "deployment", name, "--type", kind, "--patch", &patch.to_string()], None);
        let view = site.view(&id).await;
        assert!(view["desired"]["spec"]["replicas"].is_null(), "{kind}: {view}");
        assert_eq!(desk.has(&["deployment", name], "{.spec.replicas}"), "1", "{kind}");
    }
}
