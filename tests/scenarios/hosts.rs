//! Sites on hosts of their own, with a real network between them.

use serde_json::json;

use crate::support::{Lab, Network, Site, until};

/// Waits until a site thinks this of another.
async fn thinks(site: &Site, other: &str, state: &str) {
    until(&format!("{} thinks {other} {state}", site.name()), || async {
        let views = site.try_get("/v1/sites").await?;
        let found = views.as_array().into_iter().flatten().find(|view| view["site"] == other);
        if found.is_some_and(|view| view["state"] == state) { Ok(()) } else { Err(views.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn hosts_of_one_local_network_find_each_other_and_get_over_a_pulled_plug_and_a_line_that_works_one_way() {
    let Some(network) = Network::new(&["paris", "rennes", "nantes"]) else { return };
    let lab = Lab::new();
    // Nobody is told of anybody: they find each other by mDNS.
    let start = |name: &str| lab.site(name).within(&network.namespace(name)).arguments(&["--mdns"]).start();
    let (paris, rennes, nantes) = tokio::join!(start("paris"), start("rennes"), start("nantes"));
    let sites = [&paris, &rennes, &nantes];
    lab.met(&sites).await;
    paris.put_files("web", "paris & rennes & nantes", json!({"a": 1})).await;
    assert_eq!(lab.converged("web", &sites).await, "a: 1\n");

    // Nothing is closed and nothing refused: packets just go nowhere.
    network.plug("nantes", false);
    paris.patch("/v1/replicants/web/desired", json!({"of": "paris"})).await.ok();
    nantes.patch("/v1/replicants/web/desired", json!({"and": "nantes"})).await.ok();
    lab.same_document("web", &[&paris, &rennes]).await;
    thinks(&paris, "nantes", "down").await;
    thinks(&nantes, "rennes", "down").await;
    assert_eq!(paris.file("web").as_deref(), Some("a: 1\nof: paris\n"));
    assert_eq!(nantes.file("web").as_deref(), Some("a: 1\nand: nantes\n"));
    network.plug("nantes", true);
    assert_eq!(lab.converged("web", &sites).await, "a: 1\nand: nantes\nof: paris\n");
    lab.met(&sites).await;

    // One that hears all and is heard by nobody works on, and is heard when the line is whole again.
    network.mute("rennes", true);
    rennes.operate("web", "add", json!({"append": "unheard\n"})).await;
    thinks(&paris, "rennes", "down").await;
    paris.patch("/v1/replicants/web/desired", json!({"a": 2})).await.ok();
    lab.same_document("web", &[&paris, &nantes]).await;
    assert_eq!(paris.file("web").as_deref(), Some("a: 2\nand: nantes\nof: paris\n"));
    network.mute("rennes", false);
    assert_eq!(lab.converged("web", &sites).await, "a: 2\nand: nantes\nof: paris\nunheard\n");
    lab.met(&sites).await;
    lab.verified(&nantes).await;
}
