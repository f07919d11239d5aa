//! Catching up: a node that was stopped, and two nodes that lost each other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Options;
use crate::http::Client;
use crate::network::Network;
use crate::table::{Goal, Table};

/// Edits each of the replicants so often, over several connections, and gives their heads.
async fn edit_all(host: &str, ids: &[String], times: usize) -> HashMap<String, Vec<String>> {
    let workers = 16;
    let each = (0..workers).map(|worker| async move {
        let mut client = Client::new(host).await;
        for edit in (worker..ids.len() * times).step_by(workers) {
            client.edit(&ids[edit % ids.len()], edit + 1).await;
        }
    });
    futures::future::join_all(each).await;
    let mut client = Client::new(host).await;
    let mut heads = HashMap::new();
    for id in ids {
        heads.insert(id.clone(), client.heads(id).await);
    }
    heads
}

/// What the last node missed while it was stopped, and what it takes to come back.
async fn missed(options: &Options, table: &mut Table, replicants: usize, times: usize, goals: (Goal, Goal)) {
    let mut network = Network::start(options, options.nodes).await;
    network.create("edited", replicants, &json!({"n": 0, "text": "a small desired state"})).await;
    let ids: Vec<String> = (0..replicants).map(|number| format!("edited{number}")).collect();
    let stopped = network.stop_last();
    let watch = network.sites[1].watch().await;
    let heads = edit_all(&network.sites[0].host, &ids, times).await;
    watch.has(&heads, &network.sites[1].host).await;
    network.start_again(&stopped);
    let back = network.sites.last().expect("a node");
    let watch = back.watch().await;
    let met = back.connected(1).await;
    let had = watch.has(&heads, &back.host).await;
    let bytes = back.frame_bytes().await;
    let name = if replicants == 1 {
        format!("{times} changes of 1 replicant")
    } else {
        format!("{times} changes of each of {replicants} replicants")
    };
    let took = had.saturating_duration_since(met).as_secs_f64() * 1e3;
    table.add(format!("missed {name}: from the first connection on"), "ms", goals.0, vec![took]);
    table.add(format!("missed {name}: frames, both ways"), "B", goals.1, vec![bytes]);
}

pub(crate) async fn away(options: &Options, table: &mut Table) {
    table.begin("away");
    missed(options, table, 1, options.missed, (Goal::Below(200.0), Goal::Below(40_000.0))).await;
    let many = options.missed / 10;
    missed(options, table, many, 10, (Goal::Below(1000.0), Goal::Below(1_500_000.0))).await;
}

pub(crate) async fn reconnect(options: &Options, table: &mut Table) {
    table.begin("reconnect");
    let network = Network::start(options, 2).await;
    network.create("edited", options.shared, &json!({})).await;
    let [here, there] = network.sites.as_slice() else { return };
    let mut client = here.client().await;
    // What nobody changes for longer than this is compared at once.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for differ in [0, 10] {
        client.ask("PUT", "/v1/faults", json!({"cut": [there.name]}).to_string()).await;
        while here.metric("khufu_p2p_peers", "").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ids: Vec<String> = (0..differ).map(|number| format!("edited{}", number * options.shared / 10)).collect();
        let heads = edit_all(&here.host, &ids, 1).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let watch = there.watch().await;
        let before = here.frame_bytes().await;
        client.ask("PUT", "/v1/faults", json!({"cut": []}).to_string()).await;
        let met = here.connected(1).await;
        let had = if differ > 0 { watch.has(&heads, &there.host).await } else { Instant::now() };
        // What is compared is compared at once; the heartbeats of a second are counted as well.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let bytes = here.frame_bytes().await - before;
        let goal = if differ == 0 { 1000.0 } else { 20_000.0 };
        table.add(
            format!("{differ} of {} differ: frames, both ways", options.shared),
            "B",
            Goal::Below(goal),
            vec![bytes],
        );
        if differ > 0 {
            let took = had.saturating_duration_since(met).as_secs_f64() * 1e3;
            table.add(
                format!("{differ} of {} differ: until both have all", options.shared),
                "ms",
                Goal::Below(1000.0),
                vec![took],
            );
        }
    }
}
