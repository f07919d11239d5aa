//! Nodes that know very many replicants, of which few are used.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Options;
use crate::network::Network;
use crate::table::{Goal, Table};
use crate::usage;

pub(crate) async fn run(options: &Options, table: &mut Table) {
    table.begin("many");
    let mut network = Network::start(options, options.nodes).await;
    let begun = Instant::now();
    // Known, without anything for a driver to do.
    network.create("known", options.known, &json!({})).await;
    let name = |what: &str| format!("{} known: {what}", options.known);
    let rate = options.known as f64 / begun.elapsed().as_secs_f64();
    table.add(name("made, until all nodes have them"), "/s", Goal::None, vec![rate]);
    let used = options.known / 100;
    let mut client = network.sites[0].client().await;
    for number in 0..used {
        client.edit(&format!("known{}", number * 100), number + 1).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mib = |pid| usage::of(pid).rss / 1e6;
    table.add(name("memory of a node"), "MB", Goal::Below(200.0), network.pids().into_iter().map(mib).collect());

    let seconds = options.seconds as f64;
    let cpu = || network.pids().into_iter().map(|pid| usage::of(pid).cpu).sum::<f64>();
    let (bytes, before) = (network.sent(), cpu());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let nodes = network.sites.len() as f64;
    let traffic = (network.sent() - bytes) / seconds / nodes;
    table.add(name("idle traffic, sent by a node"), "B/s", Goal::Below(100.0), vec![traffic]);
    let share = (cpu() - before) / seconds / nodes * 1e3;
    table.add(name("idle processor use of a node, of 1000"), "", Goal::None, vec![share]);
    let disk = network.on_disk(&network.sites[0].name) / 1e6;
    table.add(name("on disk"), "MB", Goal::None, vec![disk]);

    let stopped = network.stop_last();
    network.start_again(&stopped);
    let again = network.sites.last().expect("a node");
    let mut client = again.client().await;
    let begun = Instant::now();
    client.get("/v1/replicants/known0").await;
    let serves = again.began + begun.elapsed();
    table.add(name("restart until it serves"), "s", Goal::Below(1.0), vec![serves.as_secs_f64()]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    table.add(name("memory after a restart"), "MB", Goal::Below(200.0), vec![mib(again.pid())]);
}
