//! Three sites, each with a Kubernetes API server of its own.

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::{Value, json};

use crate::support::{Lab, Site, until};

const NAMES: [&str; 3] = ["paris", "rennes", "nantes"];

/// Something of an object as the API server of a site has it; nothing if it has no such object or field.
fn kubectl(cluster: &Cluster, what: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    let output = cluster.kubectl(&[&["get"], what, &["--ignore-not-found", "--output", &path]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until something is so at all these clusters.
async fn all_have(clusters: &[&Cluster], what: &[&str], path: &str, wanted: &str) {
    until(&format!("{what:?} has {wanted:?} in {path}"), || async {
        let found: Vec<_> = clusters.iter().map(|cluster| kubectl(cluster, what, path)).collect();
        if found.iter().all(|found| found == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn status(site: &Site, id: &str, of: &str) -> Value {
    site.view(id).await["sites"][of]["report"].clone()
}

fn deployment() -> Value {
    let labels = json!({"app": "web"});
    let containers = json!([{"name": "web", "image": "nginx:1"}, {"name": "side", "image": "side:1"}]);
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"color": "red"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_at_one_site_is_at_all_api_servers_and_sites_that_were_apart_agree() {
    let Some([one, mut two, three]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let site = |cluster: &Cluster| {
        let driver = format!("kubernetes={}", cluster.kubeconfig(ADMIN).display());
        lab.site(cluster.name()).arguments(&["--driver", &driver])
    };
    let paris = site(&one).start().await;
    let (rennes, nantes) = tokio::join!(site(&two).bootstrap(&paris).start(), site(&three).bootstrap(&paris).start());
    let sites = [&paris, &rennes, &nantes];
    lab.met(&sites).await;
    let web = ["deployment", "web"];

    // Put at one, it is at all.
    let body = json!({"kind": "kubernetes", "scope": "paris & rennes & nantes", "desired": deployment()});
    paris.put("/v1/replicants/web", body).await.ok();
    all_have(&[&one, &two, &three], &web, "{.spec.replicas}", "2").await;
    until("all sites say so", || async {
        let view = rennes.try_get("/v1/replicants/web").await?;
        let healths: Vec<_> = NAMES.iter().map(|name| &view["sites"][*name]["report"]["observed"]["health"]).collect();
        // Nobody makes pods here.
        let said = view["status"] == "applied" && healths.iter().all(|health| health["condition"] == "in-progress");
        if said { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
    lab.verified(&nantes).await;

    // Apart, they edit different fields, and one that both edit.
    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    paris.patch("/v1/replicants/web/desired", json!({"spec": {"replicas": 3}})).await.ok();
    paris.patch("/v1/replicants/web/desired", json!({"metadata": {"labels": {"color": "green"}}})).await.ok();
    let mut other = deployment();
    other["spec"]["template"]["spec"]["containers"][1]["image"] = json!("side:2");
    other["metadata"]["labels"]["color"] = json!("blue");
    nantes.patch("/v1/replicants/web/desired", other).await.ok();
    all_have(&[&one, &two], &web, "{.spec.replicas}", "3").await;
    all_have(&[&three], &web, "{.spec.template.spec.containers[1].image}", "side:2").await;
    lab.cut(&sites, &[]).await;
    let all = [&one, &two, &three];
    all_have(&all, &web, "{.spec.replicas} {.spec.template.spec.containers[*].image}", "3 nginx:1 side:2").await;
    until("one color is everywhere", || async {
        let found: Vec<_> = all.iter().map(|cluster| kubectl(cluster, &web, "{.metadata.labels.color}")).collect();
        let same = found.iter().all(|color| *color == found[0] && ["green", "blue"].contains(&color.as_str()));
        if same { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let conflicts = rennes.get("/v1/replicants/web/conflicts").await.ok();
    assert_eq!(conflicts[0]["path"], "/desired/metadata/labels/color", "{conflicts}");

    // An API server is away: the others go on, its site says why it does not, and catches up.
    two.kill();
    nantes.patch("/v1/replicants/web/desired", json!({"spec": {"replicas": 4}})).await.ok();
    all_have(&[&one, &three], &web, "{.spec.replicas}", "4").await;
    until("rennes says why it does not", || async {
        let report = status(&paris, "web", "rennes").await;
        let output = report["desired"]["output"].as_str().unwrap_or_default();
        if output.contains("not available") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    two.start_again();
    all_have(&[&two], &web, "{.spec.replicas}", "4").await;

    let all = [&one, &two, &three];

    // A site that cannot be reached is never called well.
    let rennes = rennes.kill_9();
    until("nobody knows how rennes is doing", || async {
        let view = paris.try_get("/v1/replicants/web").await?;
        let unknown = view["health"]["condition"] == "unknown" && view["sites"]["rennes"]["health"]["at"].is_u64();
        if unknown { Ok(()) } else { Err(view["sites"].to_string()) }
    })
    .await;
    let described = paris.khufu(&["describe", "web"]);
    assert!(described.out.contains("rennes: the site cannot be reached"), "{described:?}");
    let rennes = rennes.start().await;

    // One site has it otherwise.
    let overrides = json!({"overrides": {"rennes": {"spec": {"replicas": 1}}}});
    paris.put("/v1/replicants/web", overrides).await.ok();
    all_have(&[&two], &web, "{.spec.replicas}", "1").await;
    all_have(&[&one, &three], &web, "{.spec.replicas}", "4").await;

    // Somebody changes it by hand: it is said who, and put back where the policy says so.
    assert!(three.kubectl(&["scale", "deployment", "web", "--replicas=9"]).status.success());
    until("the change by hand is seen", || async {
        let report = status(&paris, "web", "nantes").await;
        let drift = report["observed"]["drift"].as_str().unwrap_or_default();
        if drift.contains("spec.replicas is 9") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    assert_eq!(kubectl(&three, &web, "{.spec.replicas}"), "9");
    paris.put("/v1/replicants/web", json!({"policy": {"drift": "correct", "options": {"force": true}}})).await.ok();
    assert!(one.kubectl(&["scale", "deployment", "web", "--replicas=8"]).status.success());
    all_have(&[&one], &web, "{.spec.replicas}", "4").await;

    // It leaves a site, and then all.
    paris.put("/v1/replicants/web", json!({"scope": "paris & rennes"})).await.ok();
    all_have(&[&three], &web, "{.metadata.name}", "").await;
    assert_eq!(kubectl(&one, &web, "{.metadata.name}"), "web");
    rennes.delete("/v1/replicants/web").await.ok();
    all_have(&all, &web, "{.metadata.name}", "").await;
}
