//! How long changes of files take until they are durable, and how many syncs that is.
//!
//! `cargo run --release -p khufu-drivers --example bench_files -- [directory]` (the directory decides on the disk; without
//! one a temporary directory is used, which may be in memory). Syncs are counted by `strace`, in a run of their own.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use khufu_crdt::{Hlc, Operation, OperationId, Payload};
use khufu_drivers::{Driver, FilesDriver, Replica, Work};
use serde_json::json;

const WRITES: usize = 1000;
const REPLICAS: usize = 100;
const CONTENTS_BYTES: usize = 200;
const ROUNDS: usize = 5;

struct Taken {
    /// Until all was answered.
    all: Duration,
    /// Until the driver had ended.
    end: Duration,
    each: Vec<Duration>,
}

fn work(n: usize) -> Work {
    let text = format!("{n:08}{}", "x".repeat(CONTENTS_BYTES - 8));
    Work::Operation(Operation {
        id: OperationId::new(format!("op-{n}")).unwrap(),
        op_type: "write".to_owned(),
        parents: Vec::new(),
        cut: false,
        at: Hlc::default(),
        by: "paris".parse().unwrap(),
        payload: Payload::Value(json!({ "write": text })),
    })
}

/// Some tasks write, each waiting for one answer before it asks again.
fn run(dir: &Path, tasks: usize) -> Taken {
    let folder = tempfile::tempdir_in(dir).unwrap();
    let driver = Arc::new(FilesDriver::new(folder.path()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (driver, next) = (driver.clone(), next.clone());
            runtime.spawn(async move {
                let mut each = Vec::new();
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= WRITES {
                        return each;
                    }
                    let id = format!("r{}", n % REPLICAS).parse().unwrap();
                    let at = Instant::now();
                    driver.apply(&Replica::new(id, "paris".parse().unwrap()), work(n)).await.unwrap();
                    each.push(at.elapsed());
                }
            })
        })
        .collect();
    let each = running.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
    let all = begun.elapsed();
    let ending = Instant::now();
    drop(runtime);
    drop(driver);
    Taken { all, end: ending.elapsed(), each }
}

/// The syncs of such a run; none without `strace`.
fn syncs(dir: &Path, tasks: usize) -> Option<usize> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-e", "signal=none", "-o"])
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .arg(dir)
        .arg(tasks.to_string())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return None;
    }
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    Some(trace.lines().filter(|line| line.contains("sync") && !line.contains("resumed>")).count())
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    let temporary = tempfile::tempdir().unwrap();
    let dir = args.next().map_or_else(|| temporary.path().to_owned(), Into::into);
    if let Some(tasks) = args.next() {
        run(&dir, tasks.to_str().unwrap().parse().unwrap());
        return;
    }
    println!("{WRITES} writes of {CONTENTS_BYTES} bytes over {REPLICAS} replicas, medians of {ROUNDS} runs");
    println!("| at once | all | one, median | one, 99 of 100 | end of the driver | syncs, with opening and end |");
    println!("|---|---|---|---|---|---|");
    for tasks in [1, 16] {
        let mut runs: Vec<_> = (0..ROUNDS).map(|_| run(&dir, tasks)).collect();
        runs.sort_by_key(|taken| taken.all);
        let taken = &mut runs[ROUNDS / 2];
        taken.each.sort();
        let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        let syncs = syncs(&dir, tasks).map_or("not counted".to_owned(), |syncs| syncs.to_string());
        let (half, most) = (taken.each[WRITES / 2], taken.each[WRITES * 99 / 100]);
        println!("| {tasks} | {} | {} | {} | {} | {syncs} |", ms(taken.all), ms(half), ms(most), ms(taken.end));
    }
}
