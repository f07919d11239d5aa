//! kubectl at a site that is cut off.

use khufu_test_servers::kubernetes::{Builder, Cluster};
use serde_json::json;

use super::{ALL, Desk, NAMES, all_have, deployment, three};
use crate::support::{Lab, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_at_a_site_that_is_cut_off_and_all_agree_afterwards() {
    let Some([one, two, three_]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab, [&one, &two, &three_]).await;
    let sites = [&paris, &rennes, &nantes];
    let [a, b, c] =
        &[(&one, &paris), (&two, &rennes), (&three_, &nantes)].map(|(cluster, site)| Desk { cluster, site });
    let (all, web) = ([a, b, c], ["deployment", "web"]);
    let apply = ["apply", "-f", "-"];
    a.kubectl(&apply, Some(&deployment("web", Some(ALL)).to_string()));
    all_have(&all, &web, "{.spec.replicas}", "2").await;

    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    // Different fields, and an object that both create.
    a.kubectl(&["scale", "deployment", "web", "--replicas=3"], None);
    c.edit(&["deployment", "web"], "s/side:1/side:2/");
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "paris"}, "metadata": {"name": "map",
        "annotations": {"khufu.dev/scope": ALL}}});
    a.kubectl(&apply, Some(&map.to_string()));
    map["data"] = json!({"b": "nantes"});
    c.kubectl(&apply, Some(&map.to_string()));
    assert_eq!(c.has(&web, "{.spec.template.spec.containers[1].image}"), "side:2");
    assert_eq!(c.has(&["configmap", "map"], "{.data}"), "{\"b\":\"nantes\"}");
    all_have(&[a, b], &web, "{.spec.replicas}", "3").await;
    all_have(&[a, b], &["configmap", "map"], "{.data}", "{\"a\":\"paris\"}").await;
    // What cannot be known is not called well.
    until("nobody knows how nantes is doing", || async {
        let shown = a.kubectl(
            &["get", "deployment", "web", "--output=jsonpath={.metadata.annotations.khufu\\.dev/sites}"],
            None,
        );
        let sites: serde_json::Value = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
        if sites["nantes"]["status"] == "unknown" { Ok(()) } else { Err(shown) }
    })
    .await;

    lab.cut(&sites, &[]).await;
    all_have(&all, &web, "{.spec.replicas} {.spec.template.spec.containers[*].image}", "3 nginx:1 side:2").await;
    all_have(&all, &["configmap", "map"], "{.data.a} {.data.b}", "paris nantes").await;

    // Deleted at a site that is cut off, it goes at the others afterwards.
    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    c.kubectl(&["delete", "deployment", "web"], None);
    assert_eq!(a.has(&web, "{.metadata.name}"), "web");
    lab.cut(&sites, &[]).await;
    all_have(&all, &web, "{.metadata.name}", "").await;
}
