//! Edits as fast as they go, until every node has them on disk.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;

use crate::Options;
use crate::http::Client;
use crate::network::Network;
use crate::table::{Goal, Table};
use crate::usage;
use crate::watch::Watch;

/// Edits per second until the first node has acknowledged all, and until all nodes have all.
struct Rates {
    acknowledged: f64,
    everywhere: f64,
    cpu_ms: f64,
}

/// `carried` edits go in one request.
async fn rates(
    network: &Network,
    watches: &[Watch],
    (clients, carried): (usize, usize),
    edits: usize,
    ids: &[String],
) -> Rates {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(network.sites[0].client().await);
    }
    watches.iter().for_each(Watch::clear);
    let cpu = || network.pids().into_iter().map(|pid| usage::of(pid).cpu).sum::<f64>();
    let cpu_before = cpu();
    let begun = Instant::now();
    let each = connections.into_iter().enumerate().map(|(number, mut client): (usize, Client)| {
        let ids = ids.to_vec();
        tokio::spawn(async move {
            for first in (number * carried..edits).step_by(clients * carried) {
                let some = first..edits.min(first + carried);
                match carried {
                    1 => _ = client.edit(&ids[first % ids.len()], first + 1).await,
                    _ => client.edit_many(some.map(|edit| (ids[edit % ids.len()].as_str(), edit + 1))).await,
                }
            }
        })
    });
    for client in futures::future::join_all(each).await {
        client.expect("a client");
    }
    let acknowledged = begun.elapsed().as_secs_f64();
    let mut client = network.sites[0].client().await;
    let mut wanted = HashMap::new();
    for id in ids.iter().take(edits) {
        wanted.insert(id.clone(), client.heads(id).await);
    }
    let mut last = begun;
    for (watch, site) in watches.iter().zip(&network.sites) {
        last = last.max(watch.has(&wanted, &site.host).await);
        let (gaps, events) = watch.counts();
        eprintln!("  {}: {events} events, {gaps} gaps", site.name);
    }
    let everywhere = last.duration_since(begun).as_secs_f64().max(acknowledged);
    let count = edits as f64;
    Rates {
        acknowledged: count / acknowledged,
        everywhere: count / everywhere,
        cpu_ms: (cpu() - cpu_before) / count * 1e3,
    }
}

async fn started(options: &Options, replicants: usize) -> (Network, Vec<Watch>, Vec<String>) {
    let network = Network::start(options, options.nodes).await;
    network.create("edited", replicants, &json!({"n": 0, "text": "a small desired state"})).await;
    let mut watches = Vec::new();
    for site in &network.sites {
        watches.push(site.watch().await);
    }
    let ids = (0..replicants).map(|number| format!("edited{number}")).collect();
    (network, watches, ids)
}

fn note(table: &mut Table, name: &str, goal: Goal, rates: &Rates) {
    table.add(format!("{name}: edits until all nodes have them durably"), "/s", goal, vec![rates.everywhere]);
    table.add(format!("{name}: acknowledged"), "/s", Goal::None, vec![rates.acknowledged]);
    table.add(format!("{name}: processor time for an edit, all nodes"), "ms", Goal::None, vec![rates.cpu_ms]);
}

pub(crate) async fn spread(options: &Options, table: &mut Table) {
    table.begin("throughput");
    let (network, watches, ids) = started(options, options.replicants).await;
    let one = rates(&network, &watches, (1, 1), options.edits / 4, &ids).await;
    note(table, "1 client", Goal::Above(1500.0), &one);
    let many = rates(&network, &watches, (64, 1), options.edits, &ids).await;
    note(table, "64 clients", Goal::Above(6000.0), &many);
    let carried = rates(&network, &watches, (4, 100), options.edits, &ids).await;
    note(table, "4 clients, 100 edits in a request", Goal::Above(10_000.0), &carried);
}

pub(crate) async fn hot(options: &Options, table: &mut Table) {
    table.begin("hot");
    let (network, watches, ids) = started(options, 1).await;
    let hot = rates(&network, &watches, (64, 1), options.edits, &ids).await;
    note(table, "one replicant, 64 clients", Goal::Above(2000.0), &hot);
}
