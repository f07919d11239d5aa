//! How many batches a second become durable, one after the other and in groups.
//!
//! `cargo run --release -p khufu-store --example bench_store -- [directory] [--json]` (the directory decides on the
//! disk; without one a temporary directory is used, which may be in memory).
#![allow(clippy::print_stdout)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use khufu_store::{Options, SledStore, Store, StoreError, Write};

struct Row {
    name: &'static str,
    threads: u32,
    batches: u64,
    syncs: u64,
    took: Duration,
    median: Duration,
    worst: Duration,
}

const VALUE_BYTES: usize = 300;
const TIME: Duration = Duration::from_secs(2);

/// Some threads commit, each waiting for one batch before it makes the next.
fn blocking(store: &SledStore, name: &'static str, threads: u32) -> Result<Row, StoreError> {
    let before = store.stats();
    let started = Instant::now();
    let mut times = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while started.elapsed() < TIME {
                        let at = Instant::now();
                        let key = format!("{name}/{thread}/{:08}", times.len());
                        store.commit(vec![Write::put(key, vec![7; VALUE_BYTES])])?;
                        times.push(at.elapsed());
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().unwrap_or(Err(StoreError::Closed))?);
        }
        Ok::<_, StoreError>(all)
    })?;
    let took = started.elapsed();
    times.sort();
    Ok(row(name, threads, took, before.syncs, store, &times))
}

/// One thread submits and does not wait, as a node does.
fn submitting(store: &SledStore, name: &'static str) -> Result<Row, StoreError> {
    let before = store.stats();
    let started = Instant::now();
    let (tell, told) = mpsc::channel();
    let mut count = 0_u64;
    while started.elapsed() < TIME {
        let (tell, at) = (tell.clone(), Instant::now());
        let write = Write::put(format!("{name}/{count:08}"), vec![7; VALUE_BYTES]);
        let done = Box::new(move |result: Result<(), StoreError>| {
            let _ = tell.send(result.map(|()| at.elapsed()));
        });
        store.submit(vec![write], done);
        count += 1;
    }
    drop(tell);
    let mut times = told.iter().collect::<Result<Vec<_>, _>>()?;
    let took = started.elapsed();
    times.sort();
    Ok(row(name, 1, took, before.syncs, store, &times))
}

fn row(name: &'static str, threads: u32, took: Duration, syncs: u64, store: &SledStore, times: &[Duration]) -> Row {
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    Row {
        name,
        threads,
        batches: times.len() as u64,
        syncs: store.stats().syncs - syncs,
        took,
        median: at(50).unwrap_or_default(),
        worst: at(99).unwrap_or_default(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let above = arguments.iter().find(|argument| !argument.starts_with("--"));
    let dir = above.map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;
    let store = SledStore::open(dir.path(), Options::default())?;
    let rows = [
        blocking(&store, "one after the other", 1)?,
        blocking(&store, "four at once", 4)?,
        blocking(&store, "thirty-two at once", 32)?,
        submitting(&store, "submitted")?,
    ];
    if !json {
        println!(
            "{:<20} {:>7} {:>10} {:>12} {:>8} {:>11} {:>11}",
            "", "threads", "batches/s", "batches/sync", "syncs", "median us", "99% us"
        );
    }
    for row in rows {
        let Row { name, threads, batches, syncs, took, median, worst } = row;
        let rate = batches as f64 / took.as_secs_f64();
        let grouped = batches as f64 / syncs.max(1) as f64;
        let (median, worst) = (median.as_micros(), worst.as_micros());
        if json {
            println!(
                r#"{{"name":"{name}","threads":{threads},"batches_per_second":{rate:.0},"batches_per_sync":{grouped:.1},"syncs":{syncs},"median_us":{median},"p99_us":{worst}}}"#
            );
        } else {
            println!("{name:<20} {threads:>7} {rate:>10.0} {grouped:>12.1} {syncs:>8} {median:>11} {worst:>11}");
        }
    }
    Ok(())
}
