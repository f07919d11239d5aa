//! Whoever says nothing changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{Lab, Site, until};

/// How often those who are left compare what they have after others took over, before the silent ones are back. Whoever
/// would take something away would have done so by then.
const ROUNDS: u64 = 30;

/// Replicants and scopes; some are at all five sites, some at those that were chosen.
const SCOPES: [(&str, &str); 6] = [
    ("everywhere", "all"),
    ("named", "paris & rennes & nantes & brest & lyon"),
    ("except", "all & !brest"),
    ("west", "[zone=west]"),
    ("one-of", "paris & (rennes | nantes | brest | lyon)"),
    ("two-of", "paris & 2 of (rennes & nantes & brest & lyon)"),
];

/// How often a site has begun to compare what it has with another.
async fn rounds(site: &Site) -> u64 {
    let metrics = site.get("/metrics").await.body;
    let line = |line: &str| line.strip_prefix("khufu_engine_reconciles_total ")?.parse().ok();
    metrics.as_str().and_then(|text| text.lines().find_map(line)).expect("the metric")
}

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
    let (rennes, nantes, brest, lyon) = tokio::join!(
        site("rennes").bootstrap(&paris).start(),
        site("nantes").bootstrap(&paris).start(),
        site("brest").bootstrap(&paris).start(),
        site("lyon").bootstrap(&paris).start()
    );
    let at_all = [&paris, &rennes, &nantes, &brest, &lyon];
    lab.met(&at_all).await;
    for (id, scope) in SCOPES {
        paris.put_files(id, scope, json!({"id": id})).await;
    }
    for id in ["everywhere", "named", "west"] {
        lab.converged(id, &at_all).await;
    }
    lab.converged("except", &[&paris, &rennes, &nantes, &lyon]).await;
    lab.verified(&paris).await;
    let before = files(&at_all);
    assert!(before.len() >= 5 * 3 + 4 + 2 + 3, "{before:?}");
    let sites_of = async |id: &str| -> BTreeSet<String> {
        let view = paris.view(id).await;
        assert_eq!(view["placement"]["leaving"], json!([]), "{id}: nobody is told to clean up; {view}");
        serde_json::from_value(view["placement"]["sites"].clone()).expect("names")
    };
    let mut placed = BTreeMap::new();
    for (id, _) in SCOPES {
        placed.insert(id, sites_of(id).await);
    }

    // One hangs, one is cut off from all, one is down; paris and lyon are left.
    rennes.freeze();
    lab.cut(&[&paris, &nantes, &lyon], &[("paris", "nantes"), ("lyon", "nantes")]).await;
    nantes.cut(&["paris", "rennes", "brest", "lyon"]).await;
    let down = brest.kill_9();
    until("all three are thought down", || async {
        let views = paris.try_get("/v1/sites").await?;
        let down = views.as_array().into_iter().flatten().filter(|view| view["state"] == "down").count();
        if down == 3 { Ok(()) } else { Err(views.to_string()) }
    })
    .await;

    let nothing_is_taken_away = async || {
        for (name, id) in &before {
            let path = lab.path().join(name).join("replicas").join(id);
            assert!(path.exists(), "{id} is gone at {name} because somebody is silent");
        }
        for (id, placed) in &placed {
            let now = sites_of(id).await;
            assert!(now.is_superset(placed), "{id} was at {placed:?} and is now at {now:?}");
        }
        for site in [&paris, &nantes, &lyon] {
            for (id, _) in SCOPES {
                let held = before.contains(&(site.name().to_owned(), id));
                assert!(!held || site.lists(id).await.expect("a list"), "{id} is no longer held at {}", site.name());
            }
        }
    };
    // Placements are decided anew; where somebody is to take over, somebody does.
    for id in ["one-of", "two-of"] {
        until("lyon takes over", || async {
            nothing_is_taken_away().await;
            let placed = sites_of(id).await;
            if placed.contains("lyon") && lyon.file(id).is_some() { Ok(()) } else { Err(format!("{id}: {placed:?}")) }
        })
        .await;
    }
    // One of the two begins.
    let rounds = async || rounds(&paris).await + rounds(&lyon).await;
    let end = rounds().await + ROUNDS;
    until("they have gone on for a while", || async {
        nothing_is_taken_away().await;
        let now = rounds().await;
        if now >= end { Ok(()) } else { Err(format!("{now} rounds of {end}")) }
    })
    .await;
    // Those who are left work on.
    paris.patch("/v1/replicants/everywhere/desired", json!({"of": "paris"})).await.ok();
    nantes.patch("/v1/replicants/everywhere/desired", json!({"and": "nantes"})).await.ok();

    rennes.thaw();
    for site in [&paris, &nantes, &lyon] {
        site.cut(&[]).await;
    }
    let brest = down.start().await;
    let all = [&paris, &rennes, &nantes, &brest, &lyon];
    lab.met(&all).await;
    assert_eq!(lab.converged("everywhere", &all).await, "and: nantes\nid: everywhere\nof: paris\n");
    for id in ["named", "west"] {
        lab.converged(id, &all).await;
    }
    lab.converged("except", &[&paris, &rennes, &nantes, &lyon]).await;
    lab.verified(&nantes).await;
}
