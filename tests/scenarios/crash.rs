//! Killed in the middle of everything.
#![allow(clippy::print_stdout, reason = "shown when a test fails: how to do the same again")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::support::{Client, Lab, Site, until};

/// Operations asked of each site in each round.
const EACH: usize = 12;
const ROUNDS: usize = 5;

/// Asks for operations one after the other, and notes those that were acknowledged.
async fn ask(client: Client, words: &[String], acknowledged: &Mutex<Vec<String>>) {
    for word in words {
        let body = json!({"id": word, "type": "add", "payload": {"append": format!("{word}\n")}});
        if client.post("/v1/replicants/log/operations", body).await.is_ok() {
            acknowledged.lock().expect("a list").push(word.clone());
        }
    }
}

/// Waits until so many are acknowledged, and kills.
async fn kill(site: Site, after: usize, acknowledged: &Mutex<Vec<String>>) -> crate::support::SiteBuilder {
    until("enough is acknowledged", || async {
        let found = acknowledged.lock().expect("a list").len();
        if found >= after { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    site.kill_9()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_exactly_once_after_any_kill() {
    let seed: u64 = match std::env::var("KHUFU_TEST_SEED") {
        Ok(seed) => seed.parse().expect("KHUFU_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("KHUFU_TEST_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let lab = Lab::new();
    let mut sites = Vec::from(lab.three().await);
    let policy = json!({"resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}]});
    let body = json!({"kind": "files", "scope": "paris & rennes & nantes", "policy": policy});
    sites[0].put("/v1/replicants/log", body).await.ok();
    let mut acknowledged_before = Vec::new();
    for round in 0..ROUNDS {
        let words: Vec<Vec<String>> = sites
            .iter()
            .map(|site| (0..EACH).map(|number| format!("{round}-{}-{number}", site.name())).collect())
            .collect();
        let acknowledged = Mutex::new(Vec::new());
        let clients: Vec<Client> = sites.iter().map(Site::client).collect();
        let victim = sites.remove(dice.random_range(0..sites.len()));
        let after = dice.random_range(1..EACH * 2);
        println!("round {round}: {} is killed after {after}", victim.name());
        let asked = clients.into_iter().zip(&words).map(|(client, words)| ask(client, words, &acknowledged));
        let (_, killed) = tokio::join!(futures::future::join_all(asked), kill(victim, after, &acknowledged));
        sites.push(killed.start().await);

        // Whether what was not acknowledged has happened is not known: asking again, anywhere, settles it.
        let acknowledged = acknowledged.into_inner().expect("a list");
        for word in words.concat() {
            if !acknowledged.contains(&word) {
                let site = &sites[dice.random_range(0..sites.len())];
                let body = json!({"id": word, "type": "add", "payload": {"append": format!("{word}\n")}});
                until("it is taken", || site.client().post_owned("/v1/replicants/log/operations", body.clone())).await;
            }
        }
        acknowledged_before.extend(words.concat());
        let all: Vec<&Site> = sites.iter().collect();
        let contents = lab.converged("log", &all).await;
        let mut times = BTreeMap::<&str, usize>::new();
        contents.lines().for_each(|line| *times.entry(line).or_default() += 1);
        for word in &acknowledged_before {
            assert_eq!(times.remove(word.as_str()), Some(1), "{word} in round {round}, seed {seed}:\n{contents}");
        }
        assert!(times.is_empty(), "nobody asked for {times:?}, seed {seed}");
    }
    lab.verified(&sites[0]).await;
}
