//! `khufu sites`.

use khufu_engine::SiteView;
use serde_json::Value;

use super::{Context, words};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, Tone, ago, now_ms};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Shows the sites as the node that is asked sees them.
pub(crate) async fn run(_: Args, context: &Context) -> Result<Exit, Failure> {
    let (sites, json): (Vec<SiteView>, Value) = context.client()?.ask_for(Ask::get("/v1/sites")).await?;
    context.out.print(&json, |out| people(out, &sites))?;
    Ok(Exit::Ok)
}

fn people(out: Output, sites: &[SiteView]) -> String {
    let now = now_ms();
    let mut table = Table::new(out, &["SITE", "STATE", "HEARD OF", "ROUND TRIP", "NODES", "KINDS", "LABELS"]);
    for site in sites {
        let connected = site.nodes.iter().filter(|node| node.connected).count();
        let name = if site.here { format!("{} (here)", site.site) } else { site.site.to_string() };
        let nodes = if site.here { site.nodes.len().to_string() } else { format!("{connected}/{}", site.nodes.len()) };
        let heard = if site.here { "now".to_owned() } else { site.seen_at.map_or("never".into(), |at| ago(at, now)) };
        let labels: Vec<String> = site.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([
            (name, Tone::Plain),
            words::liveness(site.state),
            (heard, Tone::Plain),
            (site.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")), Tone::Plain),
            (nodes, Tone::Plain),
            kinds(site, now),
            (words::list(labels), Tone::Plain),
        ]);
    }
    table.or("No site is known.")
}

/// What a site drives, and what of it is away.
fn kinds(site: &SiteView, now: u64) -> (String, Tone) {
    let kind = |kind: &String| match site.away.get(kind) {
        Some(since) => format!("{kind} (away, {})", ago(*since, now)),
        None => kind.clone(),
    };
    let tone = if site.away.is_empty() { Tone::Plain } else { Tone::Bad };
    (words::list(site.kinds.iter().map(kind)), tone)
}
