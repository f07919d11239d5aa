//! Where resources live and by which rules: what first requests say, and what later ones may say of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::shell::builder;
use super::{ALL, MATRIX, lines, post, three};
use crate::support::{Answer, Lab, Site, until};

async fn ask(site: &Site, id: &str, sites: &str, command: &str) -> Answer {
    let parts = [("command", None, command), ("sites", None, sites), ("type", None, "add")];
    post(site, &format!("/exec/{id}"), &parts).await
}

fn names(list: &Value) -> BTreeSet<String> {
    let of = |name: &Value| name.as_str().expect("a name").to_owned();
    match list {
        Value::Object(sites) => sites.keys().cloned().collect(),
        list => list.as_array().into_iter().flatten().map(of).collect(),
    }
}

/// Waits until these sites agree on where a resource with so many operations lives and are done; where that is, and what its
/// file holds there, in lines. Others have no file.
async fn agreed(id: &str, operations: usize, sites: &[&Site]) -> (BTreeSet<String>, BTreeSet<String>) {
    until("all agree where it lives, and have run all", || async {
        let mut found = Vec::new();
        for site in sites {
            let view = site.try_get(&format!("/v1/replicants/{id}")).await?;
            let placed = names(&view["placement"]["sites"]);
            let known = view["operations"].as_array().map_or(0, Vec::len);
            if view["status"] != "applied" || known != operations {
                return Err(format!("at {}: {view}", site.name()));
            }
            let lines = site.file(id).map(|file| file.lines().map(str::to_owned).collect::<BTreeSet<_>>());
            if lines.is_some() != placed.contains(site.name()) {
                return Err(format!("at {}, of {placed:?}: {lines:?}", site.name()));
            }
            found.push((placed, lines));
        }
        let placed = found.iter().map(|(placed, _)| placed).collect::<BTreeSet<_>>();
        let lines = found.iter().filter_map(|(_, lines)| lines.as_ref()).collect::<BTreeSet<_>>();
        match (placed.len(), lines.len()) {
            (1, 1) => Ok((found[0].0.clone(), lines.into_iter().next().expect("one").clone())),
            _ => Err(format!("{found:?}")),
        }
    })
    .await
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn of_first_requests_at_once_one_says_where_it_lives_and_all_are_carried_out() {
    let lab = Lab::new();
    let sites = three(&lab).await;
    let [paris, rennes, nantes] = &sites;
    let all = [paris, rennes, nantes];
    // At one site: whoever is second finds what the first has made.
    let asked = ["paris&rennes", "paris&nantes", ALL, "paris", "paris&rennes&nantes", "paris&nantes"];
    for round in 0..3 {
        let id = format!("here-{round}");
        let requests = asked.iter().enumerate().map(|(number, list)| {
            let command = format!("echo {number} >> __ID__");
            let id = &id;
            async move { lines(&ask(paris, id, list, &command).await) }
        });
        let replies = futures::future::join_all(requests).await;
        let places: BTreeSet<_> = replies.iter().flatten().map(|reply| names(&reply["Locations"])).collect();
        assert_eq!(places.len(), 1, "{replies:?}");
        assert!(replies.iter().flatten().all(|reply| reply["Status"] == "OK"), "{replies:?}");
        let (placed, written) = agreed(&id, 6, &all).await;
        assert_eq!((Some(&placed), written), (places.first(), set(&["0", "1", "2", "3", "4", "5"])));
    }
    // At sites that were apart: one of the lists counts when they meet. What was asked for at others is carried out where it
    // says, and those that it does not name keep nothing.
    lab.cut(&all, &[("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")]).await;
    let left = ask(paris, "apart", "paris&rennes", "echo left >> __ID__");
    let right = ask(nantes, "apart", "nantes&rennes", "echo right >> __ID__");
    let (left, right) = tokio::join!(left, right);
    for (answer, own) in [(left, "paris"), (right, "nantes")] {
        let said = lines(&answer).into_iter().map(|reply| (reply["Site"].clone(), reply["Status"].clone()));
        assert_eq!(said.collect::<Vec<_>>(), [(json!(own), json!("OK")), (json!("rennes"), json!("TIMEOUT"))]);
    }
    lab.cut(&all, &[]).await;
    let (placed, written) = agreed("apart", 2, &all).await;
    assert!([set(&["paris", "rennes"]), set(&["nantes", "rennes"])].contains(&placed), "{placed:?}");
    assert_eq!(written, set(&["left", "right"]));
}

#[tokio::test]
async fn whoever_asks_where_a_resource_does_not_live_is_told_so_and_moves_nothing() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = &three(&lab).await;
    assert_eq!(lines(&ask(paris, "log", "paris&rennes", "echo one >> __ID__").await).len(), 2);
    // Also where the list of the request names this site.
    for list in [ALL, "nantes"] {
        let refused = ask(nantes, "log", list, "echo two >> __ID__").await;
        let said = refused.body.as_str().unwrap_or_default();
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(said.starts_with("Site is not in locations") && said.contains("paris&rennes"), "{said}");
    }
    // Where it lives the list of a later request means nothing.
    assert_eq!(lines(&ask(rennes, "log", ALL, "echo three >> __ID__").await).len(), 2);
    let (placed, written) = agreed("log", 2, &[paris, rennes, nantes]).await;
    assert_eq!((placed, written), (set(&["paris", "rennes"]), set(&["one", "three"])));
}

#[tokio::test]
async fn a_matrix_changes_only_what_it_speaks_of() {
    let lab = Lab::new();
    let paris = builder(&lab, "paris").arguments(&["--cheops-api", "127.0.0.1:0"]).start().await;
    let exec = async |matrix: &str| {
        let parts =
            [("command", None, "true"), ("sites", None, "paris"), ("type", None, "set"), ("config", None, matrix)];
        assert_eq!(lines(&post(&paris, "/exec/log", &parts).await)[0]["Status"], "OK");
        paris.view("log").await["policy"].clone()
    };
    let mut policy = exec(MATRIX).await;
    assert_eq!(policy["types"]["set"]["absolute"], true);
    // Somebody adds to it with Khufu.
    let more = json!({"before": "add", "after": "add", "result": "take-both-any-order"});
    policy["resolutions"].as_array_mut().expect("a list").push(more);
    policy["types"]["add"] = json!({"idempotent": true});
    policy["retry"]["attempts"] = json!(2);
    policy["after_failure"] = json!("wait");
    paris.put("/v1/replicants/log", json!({ "policy": policy })).await.ok();
    let policy = paris.view("log").await["policy"].clone();
    assert_eq!(exec(MATRIX).await, policy);
    let other =
        MATRIX.replace("take-one", "take-both-keep-order").replace("take-both-reverse-order", "take-both-any-order");
    let now = exec(&other).await;
    let results: Vec<_> = now["resolutions"].as_array().expect("a list").iter().map(|entry| &entry["result"]).collect();
    assert_eq!(results, ["take-both-keep-order", "take-both-keep-order", "take-both-any-order", "take-both-any-order"]);
    assert_eq!((&now["types"]["set"]["absolute"], &now["types"]["add"]), (&json!(false), &policy["types"]["add"]));
    assert_eq!((&now["retry"], &now["after_failure"]), (&policy["retry"], &policy["after_failure"]));
}

#[tokio::test]
async fn whoever_works_is_waited_for_longer_than_whoever_is_gone() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab).await;
    assert_eq!(lines(&ask(&paris, "slow", ALL, "true").await).len(), 3);
    drop(nantes);
    let begun = std::time::Instant::now();
    let replies = lines(&ask(&paris, "slow", ALL, "sleep 24; echo done").await);
    let said = replies.iter().map(|reply| format!("{} {}", reply["Site"], reply["Status"])).collect::<Vec<_>>();
    assert_eq!(said[0], "\"nantes\" \"TIMEOUT\"", "{said:?}");
    assert_eq!(replies.iter().filter(|reply| reply["Output"] == "done\n").count(), 2, "{said:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(40), "{:?}", begun.elapsed());
    drop(rennes);
}
