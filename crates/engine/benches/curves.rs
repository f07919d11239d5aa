//! What an edit, a replicant and a peer cost as there are more of them: `cargo bench -p khufu-engine --bench curves`, with
//! `-- --quick` for small numbers and `-- --json` for programs.
//!
//! Engines with the settings of real nodes in one thread, on a simulated network, disk and platform. Bytes are those of
//! frames, without what a connection adds. Times are processor time of this process for all engines and the simulation
//! together; other work on the machine hardly changes them.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "support/memory.rs"]
mod memory;

use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::Request;
use khufu_engine::harness::{World, deployed};
use serde_json::{Value, json};

use self::memory::memory;

/// Processor time of this process so far, in microseconds; 0 where there is no `/proc`.
fn processor_us() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1000.0
}

/// A line of a table: names and numbers.
type Row = Vec<(&'static str, f64)>;

/// Until all agree. Asked only now and then, since that takes longer than what is measured.
fn settle(world: &mut World) {
    for _ in 0..3600 {
        world.run_for(Duration::from_secs(1));
        if world.disagreement().is_none() {
            return;
        }
    }
    panic!("the sites do not agree: {:?}", world.disagreement());
}

fn sites(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("site{number:02}")).collect()
}

/// So many sites that know each other.
fn world(count: usize) -> World {
    let mut world = World::configured(960, deployed);
    (world.weather.delay_us, world.weather.jitter_us) = (100, 100);
    let names = sites(count);
    // The harness names sites for as long as a process lives.
    let names: Vec<&str> = names.into_iter().map(|name| &*name.leak()).collect();
    world.sites(&names);
    world
}

/// Replicants that live at all sites.
fn put(world: &mut World, count: u64) {
    for number in 0..count {
        let desired = json!({"n": 0, "text": "a small desired state"});
        world.put("site00", &format!("web{number}"), "all", desired);
    }
    settle(world);
    world.run_for(Duration::from_secs(60));
}

/// What happens while something is done: frames, their bytes, and processor time.
fn said(world: &mut World, act: impl FnOnce(&mut World)) -> (f64, f64, f64) {
    world.recorded = Some(Vec::new());
    let begun = processor_us();
    act(world);
    let took = processor_us() - begun;
    let recorded = world.recorded.take().unwrap_or_default();
    let bytes: usize = recorded.iter().map(|message| message.bytes.len()).sum();
    (recorded.len() as f64, bytes as f64, took)
}

/// Edits of these replicants in turn, fifty a second, until all have them.
fn edits(world: &mut World, count: u64, replicants: u64) -> (f64, f64, f64) {
    let (frames, bytes, took) = said(world, |world| {
        for number in 0..count {
            let id = ReplicantId::new(format!("web{}", number % replicants)).unwrap();
            world.ask("site00", Request::Patch { id, patch: json!({"n": number + 1}) });
            world.run_for(Duration::from_millis(20));
        }
        world.run_for(Duration::from_secs(2));
    });
    settle(world);
    let each = count as f64;
    (frames / each, bytes / each, took / each)
}

fn by_sites(quick: bool) -> Vec<Row> {
    let counts: &[usize] = if quick { &[2, 5] } else { &[2, 3, 5, 10, 16, 20, 40] };
    let row = |count: &usize| {
        let mut world = world(*count);
        put(&mut world, 20);
        let (frames, bytes, us) = edits(&mut world, if quick { 20 } else { 100 }, 20);
        let receivers = (*count - 1) as f64;
        vec![
            ("sites", *count as f64),
            ("frames per receiver", frames / receivers),
            ("bytes per receiver", bytes / receivers),
            ("us per site", us / *count as f64),
        ]
    };
    counts.iter().map(row).collect()
}

fn by_replicants(quick: bool) -> Vec<Row> {
    let counts: &[u64] = if quick { &[10, 100] } else { &[10, 100, 1_000, 10_000] };
    let row = |count: &u64| {
        let before = memory();
        let mut world = world(3);
        put(&mut world, *count);
        let held = memory().saturating_sub(before) as f64 / 3.0;
        let (_, idle, idle_us) = said(&mut world, |world| world.run_for(Duration::from_secs(60)));
        let (_, bytes, us) = edits(&mut world, 100, (*count).min(100));
        world.isolate("site02");
        world.run_for(Duration::from_secs(60));
        let (_, again, _) = said(&mut world, |world| {
            world.heal();
            world.run_for(Duration::from_secs(30));
        });
        world.crash("site01");
        let begun = processor_us();
        world.start("site01");
        let start = processor_us() - begun;
        vec![
            ("replicants", *count as f64),
            ("memory per replicant and node", held / *count as f64),
            ("idle B/s per node", idle / 180.0),
            ("idle us/s per node", idle_us / 180.0),
            ("edit bytes", bytes),
            ("edit us per site", us / 3.0),
            ("meeting again, bytes", again),
            ("start ms", start / 1000.0),
        ]
    };
    counts.iter().map(row).collect()
}

fn by_history(quick: bool) -> Vec<Row> {
    let (rows, edited) = if quick { (2, 100) } else { (10, 500) };
    let mut world = world(3);
    put(&mut world, 1);
    let row = |number: u64| {
        let (_, bytes, us) = edits(&mut world, edited, 1);
        let document = world.stored_document("site01", &ReplicantId::new("web0").unwrap());
        let document = document.map_or(0, |document| document.change_count()) as f64;
        vec![
            ("edits so far", ((number + 1) * edited) as f64),
            ("changes in the document", document),
            ("edit bytes", bytes),
            ("edit us per site", us / 3.0),
        ]
    };
    (0..rows).map(row).collect()
}

fn by_peers(quick: bool) -> Vec<Row> {
    let counts: &[usize] = if quick { &[2, 5] } else { &[2, 5, 10, 20, 40] };
    let row = |count: &usize| {
        let mut world = world(*count);
        world.run_for(Duration::from_secs(120));
        let (frames, bytes, us) = said(&mut world, |world| world.run_for(Duration::from_secs(60)));
        let each = 60.0 * *count as f64 * (*count - 1) as f64;
        vec![
            ("nodes", *count as f64),
            ("frames/s per peer", frames / each),
            ("B/s per peer", bytes / each),
            ("us/s per peer", us / each),
        ]
    };
    counts.iter().map(row).collect()
}

fn table(title: &str, rows: &[Row]) {
    println!("\n{title}\n");
    let Some(first) = rows.first() else { return };
    println!("| {} |", first.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    println!("|{}", "---|".repeat(first.len()));
    for row in rows {
        let cells = row.iter().map(|(_, number)| match *number {
            number if number.fract() == 0.0 || number >= 100.0 => format!("{number:.0}"),
            number => format!("{number:.2}"),
        });
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// A curve: what it is about, and how it is measured.
type Curve = (&'static str, fn(bool) -> Vec<Row>);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let curves: [Curve; 4] =
        [("sites", by_sites), ("replicants", by_replicants), ("history", by_history), ("peers", by_peers)];
    let named = |title: &str| args.iter().any(|arg| arg == title);
    let all = !curves.iter().any(|(title, _)| named(title));
    let mut results = serde_json::Map::new();
    for (title, measure) in curves {
        if all || named(title) {
            let rows = measure(has("--quick"));
            if !has("--json") {
                table(title, &rows);
            }
            let object = |row: Row| row.into_iter().map(|(name, number)| (name.to_owned(), json!(number))).collect();
            let rows: Vec<Value> = rows.into_iter().map(object).collect();
            results.insert(title.to_owned(), rows.into());
        }
    }
    if has("--json") {
        println!("{}", Value::Object(results));
    }
}
