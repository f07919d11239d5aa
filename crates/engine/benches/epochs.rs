//! What a replicant costs over a long life: `cargo bench -p khufu-engine --bench epochs`, with `-- --changes 1000000` for
//! a longer one, `-- --without` for one whose epochs are never closed, and `-- --json` for programs.
//!
//! One engine holds one replicant, and gets edits of its desired state and operations in turn; every hundredth operation
//! replaces those before it. Storage and driver answer at once, and the driver cannot reset: one that can runs all operations
//! again whenever the desired state under them changes, which is not what is measured here. Each row is about the part of that life since the row
//! before.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/memory.rs"]
mod memory;
mod support;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use khufu_crdt::{Capabilities, Policy, ReplicantId};
use khufu_engine::{
    Config, DriverDone, Engine, Input, NodeId, Operate, Output, Put, Record, ReplicantView, Request, RequestId,
    Response, Write,
};
use serde_json::{Value, json};

use self::memory::memory;
use self::support::{NoKeys, time};

/// An engine whose driver is free, and whose disk is a map.
struct Bench {
    engine: Engine,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
    us: u64,
    timer_us: Option<u64>,
    requests: u64,
}

impl Bench {
    fn new(without: bool) -> Self {
        let mut config = Config::new("paris".parse().unwrap(), NodeId("me".into()));
        config.kinds.insert("text".into(), Capabilities { operations: true, ..Capabilities::default() });
        if without {
            config.epochs.changes = usize::MAX;
            config.epochs.aged_changes = usize::MAX;
            config.limits.max_operations = usize::MAX;
        }
        let (engine, outputs) = Engine::new(config, Box::new(NoKeys), [7; 16], Vec::new(), time(0)).unwrap();
        let mut bench = Self { engine, disk: BTreeMap::new(), us: 0, timer_us: None, requests: 0 };
        bench.carry_out(outputs);
        bench
    }

    fn carry_out(&mut self, outputs: Vec<Output>) -> Option<Response> {
        let mut answer = None;
        let mut todo: VecDeque<Output> = outputs.into();
        while let Some(output) = todo.pop_front() {
            let input = match output {
                Output::Persist { token, writes, .. } => {
                    for write in writes {
                        match write {
                            Write::Put { key, value } => self.disk.insert(key, value),
                            Write::Delete { key } => self.disk.remove(&key),
                        };
                    }
                    Input::Stored { token }
                }
                Output::Load { replicant, prefix } => {
                    let found = self.disk.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
                    let records = found.map(|(key, value)| Record { key: key.clone(), value: value.clone() }).collect();
                    Input::Loaded { replicant, prefix, records, damaged: Vec::new() }
                }
                Output::CallDriver { call, .. } => {
                    let result = Ok(DriverDone { digest: Some("d".into()), ..DriverDone::default() });
                    Input::Driver { call, result }
                }
                Output::SetTimer { at_us } => {
                    self.timer_us = Some(at_us);
                    continue;
                }
                Output::Answer { answer: given, .. } => {
                    answer = Some(given.expect("an answer that is no error"));
                    continue;
                }
                _ => continue,
            };
            todo.extend(self.engine.handle(time(self.us), input));
        }
        answer
    }

    fn ask(&mut self, request: Request) -> Response {
        self.us += 1000;
        while self.timer_us.is_some_and(|at| at <= self.us) {
            self.timer_us = None;
            let outputs = self.engine.handle(time(self.us), Input::Timer);
            self.carry_out(outputs);
        }
        self.requests += 1;
        let input = Input::Request { id: RequestId(self.requests), who: "bench".into(), request };
        let outputs = self.engine.handle(time(self.us), input);
        self.carry_out(outputs).expect("an answer")
    }

    fn view(&mut self) -> ReplicantView {
        match self.ask(Request::Get { id: id() }) {
            Response::Replicant(view) => *view,
            other => panic!("{other:?}"),
        }
    }
}

fn id() -> ReplicantId {
    ReplicantId::new("long-lived").unwrap()
}

/// The n-th change of a life.
fn change(number: u64) -> Request {
    if number.is_multiple_of(2) {
        let patch = json!({"spec": {"replicas": number, "template": {"spec": {"host": format!("h{}", number % 7)}}}});
        return Request::Patch { id: id(), patch };
    }
    let op_type = if number % 200 == 1 { "set" } else { "add" };
    let payload = Value::from(format!("line {number}"));
    Request::Operate(Operate { id: id(), operation: None, op_type: op_type.into(), payload, wait_ms: 0 })
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let given = args.iter().position(|arg| arg == "--changes").and_then(|at| args.get(at + 1)?.parse().ok());
    let changes: u64 = given.unwrap_or(20_000);
    let policy: Policy = serde_json::from_value(json!({
        "resolutions": [
            {"before": "set", "after": "set", "result": "take-one"},
            {"before": "add", "after": "set", "result": "take-both-reverse-order"},
            {"before": "add", "after": "add", "result": "take-both-keep-order"}
        ],
        "types": {"set": {"absolute": true, "idempotent": true}}
    }))
    .unwrap();
    let mut bench = Bench::new(has("--without"));
    bench.ask(Request::Put(Put {
        id: id(),
        kind: Some("text".into()),
        scope: Some("paris".into()),
        policy: Some(policy),
        desired: Some(json!({"spec": {"replicas": 0, "template": {"spec": {"host": "h"}}}})),
        overrides: None,
        base: None,
    }));
    let json = has("--json");
    if !json {
        println!(
            "{:>9} {:>13} {:>6} {:>10} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9}",
            "changes", "epoch", "ops", "doc KB", "disk KB", "memory MB", "mean us", "median", "p99", "max"
        );
    }
    let rows_wanted = 10;
    let mut rows = Vec::new();
    let mut number = 0;
    for row in 1..=rows_wanted {
        let until = changes * row / rows_wanted;
        let mut times = Vec::new();
        while number < until {
            let begun = Instant::now();
            bench.ask(change(number));
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            number += 1;
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        let view = bench.view();
        let disk: usize = bench.disk.iter().map(|(key, value)| key.len() + value.len()).sum();
        let row = json!({
            "changes": number, "epoch": view.epoch, "operations": view.operations.len(), "document_bytes": view.bytes,
            "disk_bytes": disk, "memory_bytes": memory(), "mean_us": mean, "median_us": at(0.5), "p99_us": at(0.99),
            "max_us": times.last(),
        });
        if !json {
            show(&row);
        }
        rows.push(row);
    }
    if json {
        println!("{}", json!({ "rows": rows }));
    }
}

/// A line of the table, as soon as it is known: all of them may take hours.
fn show(row: &Value) {
    let n = |key: &str| row[key].as_f64().unwrap_or_default();
    println!(
        "{:>9} {:>13} {:>6} {:>10.1} {:>10.1} {:>10.1} {:>9.0} {:>9.0} {:>9.0} {:>9.0}",
        n("changes"),
        n("epoch"),
        n("operations"),
        n("document_bytes") / 1e3,
        n("disk_bytes") / 1e3,
        n("memory_bytes") / 1e6,
        n("mean_us"),
        n("median_us"),
        n("p99_us"),
        n("max_us")
    );
}
