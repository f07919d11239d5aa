//! What somebody has changed past Khufu is as it was written for whoever writes it through the front.

use khufu_test_servers::kubernetes::{ADMIN, Cluster};
use serde_json::json;

use super::{Alone, deployment, text, through};

const WEB: [&str; 2] = ["deployment", "web"];
const IMAGE: &str = "{.spec.template.spec.containers[?(@.name=='web')].image}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_by_hand_is_as_whoever_writes_it_has_written() {
    let Some(alone) = Alone::start(Cluster::builder("paris").user("ben", &[])).await else { return };
    let (cluster, site, desk) = alone.parts();
    // Nothing of it needs a word, and Khufu's marks stay.
    let is_well = |said: String, path: &str, wanted: &str| {
        assert!(!said.contains("Warning"), "{path} {wanted}: {said}");
        assert_eq!(desk.has(&WEB, path), wanted);
        let of = desk.has(&WEB, "{.metadata.annotations.khufu\\.dev/replicant}");
        assert_eq!(of, "kubernetes:default:deployments.apps:web");
    };
    let manifest = deployment("web", None).to_string();
    desk.scoped("/scope/paris", &["create", "-f", "-"], Some(&manifest));

    // By a whole object: also what nobody has asked for goes, as it does at an API server.
    let replace = ["replace", "-f", "-"];
    desk.by_hand(&["set", "image", "deployment/web", "web=hand:1"]);
    desk.by_hand(&["label", "deployment", "web", "team=hand"]);
    is_well(desk.kubectl(&replace, Some(&manifest)), IMAGE, "nginx:1");
    assert_eq!(desk.has(&WEB, "{.metadata.labels.team}"), "");
    // The field is Khufu's again, and needs no force.
    is_well(desk.kubectl(&["set", "image", "deployment/web", "web=nginx:2"], None), IMAGE, "nginx:2");

    // By a patch that asks for what is asked for already.
    for (kind, patch) in [
        ("strategic", json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:2"}]}}}})),
        (
            "json",
            json!([{"op": "test", "path": "/metadata/labels/team", "value": "hand"},
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "nginx:2"},
            {"op": "remove", "path": "/metadata/labels/team"}]),
        ),
    ] {
        desk.by_hand(&["set", "image", "deployment/web", "web=hand:2"]);
        desk.by_hand(&["label", "deployment", "web", "--overwrite", "team=hand"]);
        let patch = ["patch", "deployment", "web", "--type", kind, "--patch", &patch.to_string()];
        is_well(desk.kubectl(&patch, None), IMAGE, "nginx:2");
    }
    assert_eq!(desk.has(&WEB, "{.metadata.labels.team}"), "");

    // By one that asks for something else, where somebody else has set the field; and by a whole object that also does.
    desk.by_hand(&["set", "image", "deployment/web", "web=hand:3"]);
    is_well(desk.kubectl(&["set", "image", "deployment/web", "web=nginx:3"], None), IMAGE, "nginx:3");
    desk.by_hand(&["set", "image", "deployment/web", "web=hand:4"]);
    let more = manifest.replace("side:1", "side:2").replace("nginx:1", "nginx:3");
    is_well(desk.kubectl(&replace, Some(&more)), "{.spec.template.spec.containers[*].image}", "nginx:3 side:2");
    is_well(desk.kubectl(&["set", "image", "deployment/web", "web=nginx:4"], None), IMAGE, "nginx:4");

    // What somebody else has set, and whoever writes has not written, stays. It keeps this site from making the rest.
    desk.by_hand(&["patch", "deployment", "web", "--patch", "{\"spec\":{\"replicas\":9}}"]);
    let told = desk.kubectl(&["label", "deployment", "web", "color=red"], None);
    assert!(told.contains("paris cannot make it now") && told.contains("spec.replicas"), "{told}");
    assert_eq!(desk.has(&WEB, "{.spec.replicas}{.metadata.labels.color}"), "9");
    desk.by_hand(&["set", "image", "deployment/web", "web=hand:4"]);
    let writes = || desk.has(&WEB, "{.metadata.generation}").parse::<u64>().expect("a number");
    let before = writes();
    is_well(desk.kubectl(&["set", "image", "deployment/web", "web=nginx:4"], None), IMAGE, "nginx:4");
    assert_eq!(desk.has(&WEB, "{.spec.replicas}"), "9", "it is not what was written");
    assert_eq!(writes(), before + 1, "nor was it another for a moment");
    is_well(desk.kubectl(&["scale", "deployment", "web", "--replicas=2"], None), "{.spec.replicas}", "2");
    let label = ["label", "deployment", "web", "size=big"];
    is_well(desk.kubectl(&label, None), "{.metadata.labels.color}{.metadata.labels.size}", "redbig");

    // Server-side apply does not take it unless it is told to.
    desk.by_hand(&["set", "image", "deployment/web", "web=hand:5"]);
    let containers = json!([{"name": "web", "image": "nginx:5"}]);
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": containers}}}})
    .to_string();
    let apply = ["apply", "--server-side", "--validate=false", "-f", "-"];
    let refused = desk.refused(ADMIN, "", &apply, Some(&applied));
    assert!(refused.contains("conflict with \"kubectl-set\""), "{refused}");
    is_well(desk.kubectl(&[&apply[..], &["--force-conflicts"]].concat(), Some(&applied)), IMAGE, "nginx:5");

    // Whoever may update and not patch puts back what is asked for all the same.
    desk.by_hand(&["create", "role", "update", "--verb=get,update", "--resource=deployments"]);
    desk.by_hand(&["create", "rolebinding", "ben", "--role=update", "--user=ben"]);
    desk.by_hand(&["set", "image", "deployment/web", "web=hand:6"]);
    let mut asked = site.view("kubernetes:default:deployments.apps:web").await["desired"].clone();
    asked["metadata"].as_object_mut().expect("a map").remove("annotations");
    let output = through(cluster, site, "ben", "", &replace, Some(&asked.to_string()));
    assert!(output.status.success(), "{output:?}");
    is_well(text(&output.stderr), IMAGE, "nginx:5");
}
