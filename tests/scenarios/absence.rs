//! Whoever says nothing changes nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Lab, Site, until};

/// How long sites are silent. With these settings they are thought down after about one second, and placements are
/// decided anew two seconds later.
const SILENCE: Duration = Duration::from_secs(30);

/// Replicants and scopes; some are at all four sites, some at those that were chosen.
const SCOPES: [(&str, &str); 6] = [
    ("everywhere", "all"),
    ("named", "paris & rennes & nantes & brest"),
    ("except", "all & !brest"),
    ("west", "[zone=west]"),
    ("one-of", "paris & (rennes | nantes | brest)"),
    ("two-of", "2 of (all)"),
];

/// What each site has on its disk.
fn files(sites: &[&Site]) -> Vec<(String, &'static str)> {
    let found = |site: &&Site| {
        let present = SCOPES.iter().filter(|(id, _)| site.file(id).is_some());
        present.map(|(id, _)| (site.name().to_owned(), *id)).collect::<Vec<_>>()
    };
    sites.iter().flat_map(found).collect()
}

#[tokio::test]
async fn a_site_that_hangs_is_cut_off_or_is_down_never_makes_anything_go_away() {
    let lab = Lab::new();
    let site = |name: &str| lab.site(name).arguments(&["--label", "zone=west"]);
    let paris = site("paris").start().await;
    let (rennes, nantes, brest) = tokio::join!(
        site("rennes").bootstrap(&paris).start(),
        site("nantes").bootstrap(&paris).start(),
        site("brest").bootstrap(&paris).start()
    );
    lab.met(&[&paris, &rennes, &nantes, &brest]).await;
    for (id, scope) in SCOPES {
        paris.put_files(id, scope, json!({"id": id})).await;
    }
    let at_all = [&paris, &rennes, &nantes, &brest];
    for id in ["everywhere", "named", "west"] {
        lab.converged(id, &at_all).await;
    }
    lab.converged("except", &at_all[..3]).await;
    lab.verified(&paris).await;
    let before = files(&at_all);
    assert!(before.len() >= 4 * 3 + 3 + 2 + 2, "{before:?}");

    // One hangs, one is cut off from all, one is down; only paris is left.
    rennes.freeze();
    lab.cut(&[&paris, &nantes], &[("paris", "nantes")]).await;
    nantes.cut(&["paris", "rennes", "brest"]).await;
    let down = brest.kill_9();
    until("all others are thought down", || async {
        let views = paris.try_get("/v1/sites").await?;
        let down = views.as_array().into_iter().flatten().filter(|view| view["state"] == "down").count();
        if down == 3 { Ok(()) } else { Err(views.to_string()) }
    })
    .await;

    let until_then = Instant::now() + SILENCE;
    while Instant::now() < until_then {
        for (name, id) in &before {
            let path = lab.path().join(name).join("replicas").join(id);
            assert!(
                path.exists(),
                "{id} is gone at {name} because somebody is silent; paris: {}",
                paris.view(id).await
            );
        }
        for site in [&paris, &nantes] {
            for (id, _) in SCOPES {
                let held = before.contains(&(site.name().to_owned(), id));
                assert!(!held || site.lists(id).await.expect("a list"), "{id} is no longer held at {}", site.name());
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // Those who are left work on.
    paris.patch("/v1/replicants/everywhere/desired", json!({"of": "paris"})).await.ok();
    nantes.patch("/v1/replicants/everywhere/desired", json!({"and": "nantes"})).await.ok();

    rennes.thaw();
    paris.cut(&[]).await;
    nantes.cut(&[]).await;
    let brest = down.start().await;
    let all = [&paris, &rennes, &nantes, &brest];
    lab.met(&all).await;
    assert_eq!(lab.converged("everywhere", &all).await, "and: nantes\nid: everywhere\nof: paris\n");
    for id in ["named", "west"] {
        lab.converged(id, &all).await;
    }
    lab.converged("except", &all[..3]).await;
    lab.verified(&nantes).await;
}
