//! Server-side apply, where all fields are the driver's to the API server; and the other ways in which an object becomes a
//! replicant's, or is one's among others.

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::{Value, json};

use super::{ALL, Desk, NAMES, all_have, deployment, three};
use crate::support::{Lab, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_manager_applies_no_more_goes_and_what_was_there_is_taken_over() {
    let Some([one, two, three_]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab, [&one, &two, &three_]).await;
    let [a, b, c] =
        &[(&one, &paris), (&two, &rennes), (&three_, &nantes)].map(|(cluster, site)| Desk { cluster, site });
    let all = [a, b, c];
    let apply = ["apply", "--server-side", "-f", "-"];

    // A field that is applied no more goes, at whichever site that is said.
    let web = ["deployment", "web"];
    let mut manifest = deployment("web", Some(ALL));
    manifest["metadata"]["labels"] = json!({"team": "blue", "color": "red"});
    a.kubectl(&apply, Some(&manifest.to_string()));
    all_have(&all, &web, "{.spec.replicas} {.metadata.labels.team}", "2 blue").await;
    manifest["metadata"]["labels"] = json!({"color": "red"});
    b.kubectl(&apply, Some(&manifest.to_string()));
    all_have(&all, &web, "{.metadata.labels.color}{.metadata.labels.team}", "red").await;

    // Another manager meets the first, and takes the field from it.
    let other =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 5}})
            .to_string();
    let by = ["apply", "--server-side", "--field-manager=ci", "--validate=false", "-f", "-"];
    let refused = c.refused(ADMIN, "", &by, Some(&other));
    assert!(refused.contains("conflict with \"kubectl\"") && refused.contains(".spec.replicas"), "{refused}");
    assert_eq!(c.has(&web, "{.spec.replicas}"), "2");
    c.kubectl(&[&by[..], &["--force-conflicts"]].concat(), Some(&other));
    all_have(&all, &web, "{.spec.replicas}", "5").await;
    manifest["spec"].as_object_mut().expect("a map").remove("replicas");
    a.kubectl(&apply, Some(&manifest.to_string()));
    assert_eq!(a.has(&web, "{.spec.replicas}"), "5", "it is of another manager now");
    let nothing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}).to_string();
    c.kubectl(&by, Some(&nothing));
    until("nobody asks for a number of replicas", || async {
        let desired = paris.view("kubernetes:default:deployments.apps:web").await["desired"].clone();
        if desired["spec"]["replicas"].is_null() { Ok(()) } else { Err(desired.to_string()) }
    })
    .await;

    // What somebody has set by hand is taken from him by whoever writes it here, and not by what comes from other sites.
    assert!(one.kubectl(&["label", "deployment", "web", "team=hand"]).status.success());
    b.kubectl(&["label", "deployment", "web", "team=green"], None);
    all_have(&[b, c], &web, "{.metadata.labels.team}", "green").await;
    assert_eq!(a.has(&web, "{.metadata.labels.team}"), "hand");
    a.kubectl(&["label", "--overwrite", "deployment", "web", "team=blue"], None);
    all_have(&all, &web, "{.metadata.labels.team}", "blue").await;
    assert!(one.kubectl(&["label", "--overwrite", "deployment", "web", "team=hand"]).status.success());
    b.kubectl(&["label", "--overwrite", "deployment", "web", "team=green"], None);
    a.kubectl(&["annotate", "deployment", "web", "khufu.dev/options={\"force\": true}"], None);
    all_have(&all, &web, "{.metadata.labels.team}", "green").await;

    // What was there becomes a replicant's by being applied with a scope, stays where it was, and is made elsewhere.
    let map = |data: Value| {
        let annotations = json!({"khufu.dev/scope": ALL});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": {"name": "map", "annotations": annotations}})
    };
    for cluster in [&one, &two] {
        let made = cluster.kubectl(&["create", "configmap", "map", "--from-literal=a=0"]);
        assert!(made.status.success(), "{made:?}");
    }
    let what = ["configmap", "map"];
    a.kubectl(&["apply", "-f", "-"], Some(&map(json!({"a": "1"})).to_string()));
    all_have(&all, &what, "{.data.a}", "1").await;
    a.kubectl(&["delete", "configmap", "map"], None);
    all_have(&[a, c], &what, "{.metadata.name}", "").await;
    until("it is nobody's at the other site", || async {
        let left = b.has(&what, "{.data.a}{.metadata.labels}");
        if left == "1" { Ok(()) } else { Err(left) }
    })
    .await;

    // The same by an annotation alone: all of it that means something elsewhere is made there.
    assert!(one.kubectl(&["create", "deployment", "plain", "--image=nginx:1"]).status.success());
    a.kubectl(&["annotate", "deployment", "plain", &format!("khufu.dev/scope={ALL}")], None);
    let plain = ["deployment", "plain"];
    all_have(&all, &plain, "{.spec.template.spec.containers[0].image}", "nginx:1").await;
    c.kubectl(&["set", "image", "deployment/plain", "nginx=nginx:2"], None);
    all_have(&all, &plain, "{.spec.template.spec.containers[0].image}", "nginx:2").await;

    // What a site has of its own stays there, and whoever writes something else is told.
    let own = json!({"overrides": {"rennes": {"spec": {"replicas": 4}}}});
    paris.put("/v1/replicants/kubernetes:default:deployments.apps:plain", own).await.ok();
    all_have(&[b], &plain, "{.spec.replicas}", "4").await;
    let said = b.kubectl(&["scale", "deployment", "plain", "--replicas=3"], None);
    assert!(said.contains("here it is not as written: .spec.replicas"), "{said}");
    all_have(&[a, c], &plain, "{.spec.replicas}", "3").await;
    assert_eq!(b.has(&plain, "{.spec.replicas}"), "4");
    let said = a.kubectl(&["scale", "deployment", "plain", "--replicas=2"], None);
    assert!(!said.contains("Warning"), "{said}");

    // Secrets need to be allowed, and one that is refused is in no document.
    let secret = ["create", "secret", "generic", "key", "--from-literal=a=b"];
    let refused = a.refused(ADMIN, "/scope/all", &secret, None);
    assert!(refused.contains("secrets"), "{refused}");
    assert!(!paris.get("/v1/replicants").await.ok().to_string().contains("secrets"));
    let allowed = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}, "metadata": {"name": "key",
        "annotations": {"khufu.dev/options": "{\"secrets\": \"allow\"}"}}});
    a.scoped("/scope/all", &["create", "-f", "-"], Some(&allowed.to_string()));
    all_have(&all, &["secret", "key"], "{.data.a}", "Yg==").await;

    // An object of a replicant of several is edited there, and taken out.
    let object =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}});
    let desired = json!({"objects": {"x": object("x"), "y": object("y")}});
    paris.put("/v1/replicants/both", json!({"kind": "kubernetes", "scope": ALL, "desired": desired})).await.ok();
    all_have(&all, &["configmap", "y"], "{.data.a}", "1").await;
    c.kubectl(&["patch", "configmap", "y", "--patch", "{\"data\":{\"a\":\"2\"}}"], None);
    all_have(&all, &["configmap", "y"], "{.data.a}", "2").await;
    let moved = b.refused(ADMIN, "", &["annotate", "--overwrite", "configmap", "y", "khufu.dev/scope=paris"], None);
    assert!(moved.contains("several objects"), "{moved}");
    b.kubectl(&["delete", "configmap", "y"], None);
    all_have(&all, &["configmap", "y"], "{.metadata.name}", "").await;
    all_have(&all, &["configmap", "x"], "{.data.a}", "1").await;

    // What its finalizers keep can be let go.
    let held =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.org/x"]}});
    a.scoped("/scope/paris", &["create", "-f", "-"], Some(&held.to_string()));
    a.kubectl(&["delete", "configmap", "held", "--wait=false"], None);
    assert_eq!(a.has(&["configmap", "held"], "{.metadata.name}"), "held");
    a.kubectl(&["patch", "configmap", "held", "--type=merge", "--patch", "{\"metadata\":{\"finalizers\":null}}"], None);
    all_have(&[a], &["configmap", "held"], "{.metadata.name}", "").await;

    // Of all that is selected, what is a replicant's goes everywhere, and the rest here.
    for (desk, name, label) in [(a, "own", "g=1"), (b, "own", "g=1"), (a, "stays", "g=2")] {
        desk.kubectl(&["create", "configmap", name], None);
        desk.kubectl(&["label", "configmap", name, label], None);
    }
    a.scoped("/scope/all", &["create", "configmap", "ours"], None);
    a.kubectl(&["label", "configmap", "ours", "g=1"], None);
    all_have(&all, &["configmap", "ours"], "{.metadata.labels.g}", "1").await;
    a.kubectl(&["delete", "--raw", "/api/v1/namespaces/default/configmaps?labelSelector=g%3D1"], None);
    all_have(&all, &["configmap", "ours"], "{.metadata.name}", "").await;
    assert_eq!(a.has(&["configmap", "own"], "{.metadata.name}"), "");
    assert_eq!(b.has(&["configmap", "own"], "{.metadata.name}"), "own");
    assert_eq!(a.has(&["configmap", "stays"], "{.metadata.name}"), "stays");
    for site in [&rennes, &nantes] {
        assert!(!site.log().contains("panicked"), "{}", site.log());
    }
}
