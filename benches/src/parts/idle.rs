//! Nodes with nothing to do.

use std::time::Duration;

use serde_json::json;

use crate::Options;
use crate::network::Network;
use crate::table::{Goal, Table};
use crate::usage;

pub(crate) async fn run(options: &Options, table: &mut Table) {
    table.begin("idle");
    let network = Network::start(options, options.nodes).await;
    network.create("one", 1, &json!({"n": 1})).await;
    // What nodes do when they have just met is not what they do when idle.
    tokio::time::sleep(Duration::from_secs(if options.quick { 2 } else { 15 })).await;
    let seconds = options.seconds as f64;
    let before: Vec<_> = network.pids().into_iter().map(usage::of).collect();
    let bytes = network.sent();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let after: Vec<_> = network.pids().into_iter().map(usage::of).collect();
    let sent = (network.sent() - bytes) / seconds / network.sites.len() as f64;
    table.add("memory of a node", "MB", Goal::Below(25.0), after.iter().map(|usage| usage.rss / 1e6).collect());
    let share = before.iter().zip(&after).map(|(before, after)| (after.cpu - before.cpu) / seconds * 1e3);
    table.add("processor use of a node, of 1000", "", Goal::Below(2.0), share.collect());
    table.add("traffic, sent by a node", "B/s", Goal::Below(100.0), vec![sent]);
}
