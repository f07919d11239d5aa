//! `khufu peers`.

use std::collections::BTreeMap;

use khufu_engine::SiteView;
use khufu_node::PeerView;
use serde_json::Value;

use super::{Context, words};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, Tone, age, now_ms};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Shows the connections of the node that is asked, and the nodes it knows without having one.
pub(crate) async fn run(_: Args, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let (peers, json): (Vec<PeerView>, Value) = client.ask_for(Ask::get("/v1/peers")).await?;
    let (sites, _): (Vec<SiteView>, Value) = client.ask_for(Ask::get("/v1/sites")).await?;
    context.out.print(&json, |out| people(out, &peers, &sites))?;
    Ok(Exit::Ok)
}

fn people(out: Output, peers: &[PeerView], sites: &[SiteView]) -> String {
    let now = now_ms();
    let connected: BTreeMap<String, &PeerView> = peers.iter().map(|peer| (peer.node.to_string(), peer)).collect();
    let mut site_of = BTreeMap::new();
    let mut table = Table::new(out, &["NODE", "SITE", "CONNECTED", "ROUND TRIP", "SENT", "RECEIVED", "ADDRESS"]);
    for site in sites {
        for node in &site.nodes {
            site_of.insert(node.node.to_string(), site.site.to_string());
        }
    }
    for (node, peer) in &connected {
        table.row([
            (node.clone(), Tone::Plain),
            (site_of.get(node).cloned().unwrap_or_else(|| "?".into()), Tone::Plain),
            (age(peer.connected_since, now), Tone::Good),
            (peer.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")), Tone::Plain),
            (bytes(peer.bytes_out), Tone::Plain),
            (bytes(peer.bytes_in), Tone::Plain),
            (peer.remote.clone(), Tone::Plain),
        ]);
    }
    let unconnected =
        sites.iter().filter(|site| !site.here).flat_map(|site| site.nodes.iter().map(move |node| (site, node)));
    for (site, node) in unconnected.filter(|(_, node)| !connected.contains_key(&node.node.to_string())) {
        let blank = || ("-".to_owned(), Tone::Plain);
        table.row([
            (node.node.to_string(), Tone::Plain),
            (site.site.to_string(), Tone::Plain),
            ("no".to_owned(), Tone::Bad),
            blank(),
            blank(),
            blank(),
            (words::list(&node.addresses), Tone::Plain),
        ]);
    }
    table.or("No connections, and no other node is known.")
}

/// A size as people read it.
fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}
