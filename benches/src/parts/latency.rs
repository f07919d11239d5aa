//! Edits at a given rate, each of another replicant: how long until they are acknowledged, known and applied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;

use crate::Options;
use crate::network::Network;
use crate::table::{Goal, Table};
use crate::usage;
use crate::watch::Watch;

/// Connections that edits are made over.
const CONNECTIONS: usize = 16;
/// The most that is waited for the last events.
const PATIENCE: Duration = Duration::from_secs(20);

/// One edit.
struct Edit {
    id: String,
    /// When the request was handed in.
    sent: Instant,
    answered: Instant,
    heads: Vec<String>,
}

/// The moments at which edits are due. From a thread of its own: the timers of the runtime are up to two milliseconds late.
fn moments(options: &Options) -> mpsc::UnboundedReceiver<(u64, Instant)> {
    let (tell, told) = mpsc::unbounded_channel();
    let (count, rate) = (options.seconds * options.rate, options.rate as u32);
    let begun = Instant::now();
    std::thread::spawn(move || {
        for number in 0..count {
            let due = begun + Duration::from_secs(1) * number as u32 / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = tell.send((number, due));
        }
    });
    told
}

/// Makes edits at the first node, at moments that do not depend on how long earlier ones took.
async fn edit(network: &Network, options: &Options) -> Vec<Edit> {
    let (give, take) = mpsc::channel(CONNECTIONS);
    let take = Arc::new(tokio::sync::Mutex::new(take));
    for _ in 0..CONNECTIONS {
        let _ = give.send(network.sites[0].client().await).await;
    }
    let mut moments = moments(options);
    let mut edits = Vec::new();
    while let Some((number, due)) = moments.recv().await {
        let id = format!("edited{}", number as usize % options.replicants);
        let (give, take) = (give.clone(), take.clone());
        edits.push(tokio::spawn(async move {
            let mut client = take.lock().await.recv().await.expect("a connection");
            let heads = client.edit(&id, number as usize + 1).await;
            let answered = Instant::now();
            let _ = give.send(client).await;
            Edit { id, sent: due, answered, heads }
        }));
    }
    let mut done = Vec::new();
    for edit in edits {
        done.push(edit.await.expect("an edit"));
    }
    done
}

/// How long after it was sent an edit was seen by all watchers, and applied at all their sites.
fn everywhere(edit: &Edit, watches: &[Watch]) -> Option<(f64, f64)> {
    let (mut seen, mut applied) = (Duration::ZERO, Duration::ZERO);
    for watch in watches {
        let told = watch.told(&edit.id);
        let (at, _) = told.changed.iter().find(|(_, heads)| *heads == edit.heads)?;
        seen = seen.max(at.saturating_duration_since(edit.sent));
        let at = told.applied.iter().find(|applied| *applied >= at)?;
        applied = applied.max(at.saturating_duration_since(edit.sent));
    }
    Some((seen.as_secs_f64() * 1e3, applied.as_secs_f64() * 1e3))
}

struct Measured {
    edits: Vec<Edit>,
    everywhere: Vec<(f64, f64)>,
    bytes: f64,
    idle_bytes: f64,
    cpu: f64,
}

async fn measure(network: &Network, options: &Options) -> Measured {
    network.create("edited", options.replicants, &json!({"n": 0, "text": "a small desired state"})).await;
    let mut watches = Vec::new();
    for site in &network.sites {
        watches.push(site.watch().await);
    }
    // What nodes say when nothing happens is measured by itself.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, begun) = (network.sent(), Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds.min(10))).await;
    let idle_rate = (network.sent() - before) / begun.elapsed().as_secs_f64();

    let cpu = || network.pids().into_iter().map(|pid| usage::of(pid).cpu).sum::<f64>();
    let (before, cpu_before, begun) = (network.sent(), cpu(), Instant::now());
    let edits = edit(network, options).await;
    let waited = Instant::now();
    let everywhere = loop {
        let all: Vec<_> = edits.iter().filter_map(|edit| everywhere(edit, &watches)).collect();
        if all.len() == edits.len() || waited.elapsed() > PATIENCE {
            break all;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(
        everywhere.len() * 10 >= edits.len() * 9,
        "only {} of {} were seen everywhere",
        everywhere.len(),
        edits.len()
    );
    // Reports may still be on their way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (bytes, took) = (network.sent() - before, begun.elapsed().as_secs_f64());
    Measured { edits, everywhere, bytes, idle_bytes: idle_rate * took, cpu: cpu() - cpu_before }
}

pub(crate) async fn three(options: &Options, table: &mut Table) {
    table.begin("latency");
    let network = Network::start(options, options.nodes).await;
    let measured = measure(&network, options).await;
    let count = measured.edits.len() as f64;
    let answered = measured.edits.iter().map(|edit| edit.answered.duration_since(edit.sent).as_secs_f64() * 1e3);
    let ms = "ms";
    let both = |p50, p99| (Goal::Below(p50), Goal::Below(p99));
    table.add_both("acknowledged, durable at the origin", ms, both(1.0, 3.0), answered.collect());
    let seen = measured.everywhere.iter().map(|(seen, _)| *seen).collect();
    table.add_both("durable and visible to a watcher at all nodes", ms, both(2.0, 4.0), seen);
    let applied = measured.everywhere.iter().map(|(_, applied)| *applied).collect();
    table.add_both("applied by the drivers of all", ms, both(3.0, 8.0), applied);
    let missing = count - measured.everywhere.len() as f64;
    table.add("edits of which a watcher did not see all", "", Goal::Below(0.0), vec![missing]);
    table.add(
        "bytes on the wire for an edit, all nodes together",
        "B",
        Goal::Below(1000.0),
        vec![measured.bytes / count],
    );
    let net = (measured.bytes - measured.idle_bytes) / count;
    table.add("the same without what idle nodes send", "B", Goal::None, vec![net]);
    table.add("processor time for an edit, all nodes together", "ms", Goal::None, vec![measured.cpu / count * 1e3]);
}

pub(crate) async fn ten(options: &Options, table: &mut Table) {
    table.begin("ten");
    let nodes = if options.quick { 4 } else { 10 };
    let network = Network::start(options, nodes).await;
    // Fifty a second are more than two processors take with ten nodes.
    let options = Options { rate: options.rate.min(10), ..options.clone() };
    let counts = async |name: &str| {
        let mut sum = 0.0;
        for site in &network.sites {
            sum += site.metric(name, "").await;
        }
        sum
    };
    let (all, new) = ("gossipsub_topic_msg_recv_counts_unfiltered_total", "gossipsub_topic_msg_recv_counts_total");
    let before = (counts(all).await, counts(new).await);
    let measured = measure(&network, &options).await;
    let after = (counts(all).await, counts(new).await);
    let receivers = measured.edits.len() as f64 * (nodes - 1) as f64;
    let wire = "bytes on the wire for an edit and receiver";
    table.add(wire, "B", Goal::Below(400.0), vec![measured.bytes / receivers]);
    let net = (measured.bytes - measured.idle_bytes) / receivers;
    table.add("the same without what idle nodes send", "B", Goal::None, vec![net]);
    let (all, new) = (after.0 - before.0, after.1 - before.1);
    let duplicates = if new > 0.0 { (all - new) / new } else { 0.0 };
    table.add("gossip that came more than once, for each that came", "", Goal::Below(0.8), vec![duplicates]);
    let seen = measured.everywhere.iter().map(|(seen, _)| *seen).collect();
    table.add("durable and visible to a watcher at all nodes", "ms", Goal::None, seen);
}
