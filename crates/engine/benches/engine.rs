//! What one engine costs, beside the bare document: `cargo bench -p khufu-engine`, with `-- --json` for programs.
//!
//! Storage and drivers answer at once and for free, so that only the engine is measured. Each row is the median of many
//! single steps; the last column compares it with the same edit of a bare document in the same run.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::VecDeque;
use std::time::Instant;

use khufu_crdt::{
    Actor, Author, Capabilities, DocumentId, Hlc, Placement, Policy, Replicant, ReplicantId, SiteName, Spec,
};
use khufu_engine::{Config, DriverDone, Engine, Input, NodeId, Operate, Output, Put, Request, RequestId, Response};
use serde_json::{Value, json};

use self::support::{NoKeys, time};

/// An engine whose disk and driver are free.
struct Bench {
    engine: Engine,
    us: u64,
    requests: u64,
}

impl Bench {
    fn new() -> Self {
        let mut config = Config::new("paris".parse().unwrap(), NodeId("me".into()));
        config.kinds.insert("text".into(), Capabilities { operations: true, reset: true, ..Capabilities::default() });
        config.resident = usize::MAX;
        let (engine, _) = Engine::new(config, Box::new(NoKeys), [7; 16], Vec::new(), time(0)).unwrap();
        Self { engine, us: 0, requests: 0 }
    }

    fn ask(&mut self, request: Request) -> Response {
        self.requests += 1;
        self.us += 1000;
        let input = Input::Request { id: RequestId(self.requests), who: "bench".into(), request };
        let mut answer = None;
        let mut todo: VecDeque<Output> = self.engine.handle(time(self.us), input).into();
        while let Some(output) = todo.pop_front() {
            match output {
                Output::Persist { token, .. } => {
                    todo.extend(self.engine.handle(time(self.us), Input::Stored { token }))
                }
                Output::CallDriver { call, .. } => {
                    let result = Ok(DriverDone { digest: Some("d".into()), ..DriverDone::default() });
                    todo.extend(self.engine.handle(time(self.us), Input::Driver { call, result }));
                }
                Output::Answer { answer: given, .. } => answer = Some(given),
                _ => {}
            }
        }
        answer.expect("an answer").expect("an answer that is no error")
    }
}

fn manifest(number: u64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("web-{number}"), "labels": {"app": "web", "tier": "front"}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}]},
            {"name": "log", "image": "log:1", "env": [{"name": "LEVEL", "value": "info"}]}
        ]}}}
    })
}

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

fn put(name: &str, desired: Option<Value>) -> Request {
    Request::Put(Put {
        id: id(name),
        kind: Some("text".into()),
        scope: Some("paris".into()),
        policy: None,
        desired,
        overrides: None,
        base: None,
    })
}

/// The median time of one step, in microseconds.
fn median(steps: u64, mut step: impl FnMut(u64)) -> f64 {
    let mut times: Vec<f64> = (0..steps)
        .map(|number| {
            let begun = Instant::now();
            step(number);
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn bare() -> (Replicant, impl FnMut() -> Author) {
    let site = SiteName::new("paris").unwrap();
    let mut at = 1_790_000_000_000 * 1024;
    let author = {
        let site = site.clone();
        move || {
            at += 1;
            Author { site: site.clone(), at: Hlc(at), who: "bench".into(), why: String::new() }
        }
    };
    let mut author = author;
    let document = DocumentId { replicant: id("bare"), epoch: 0 };
    let mut doc = Replicant::genesis(document, &Actor::new([8; 16])).unwrap();
    let placement = Placement {
        sites: [site.clone()].into(),
        leaving: Default::default(),
        mode: Default::default(),
        prime: None,
        expression: "paris".into(),
        decided_at: Hlc(1),
        decided_by: site,
    };
    let spec = Spec {
        kind: "text".into(),
        scope: "paris".into(),
        placement,
        policy: Policy::default(),
        desired: manifest(0),
        overrides: Default::default(),
    };
    doc.create(&author(), spec).unwrap();
    (doc, author)
}

fn main() {
    let mut rows = Vec::<(&str, f64, Option<f64>)>::new();
    let mut bench = Bench::new();
    let created = median(2000, |number| {
        bench.ask(put(&format!("r{number}"), Some(manifest(number))));
    });
    let bare_created = median(200, |_| {
        let (doc, _) = bare();
        std::hint::black_box(doc.state());
    });
    rows.push(("create and apply a manifest", created, Some(bare_created)));
    let (mut doc, mut author) = bare();
    let bare_patched = median(300, |number| {
        doc.patch_desired(&author(), &json!({"spec": {"replicas": number}})).unwrap();
        std::hint::black_box(doc.state());
    });
    let patched = median(300, |number| {
        bench.ask(Request::Patch { id: id("r0"), patch: json!({"spec": {"replicas": number + 10}}) });
    });
    rows.push(("patch one field, 2,000 others idle", patched, Some(bare_patched)));
    bench.ask(put("log", None));
    let operated = median(300, |number| {
        bench.ask(Request::Operate(Operate {
            id: id("log"),
            operation: None,
            op_type: "append".into(),
            payload: json!({"append": number.to_string()}),
            wait_ms: 0,
        }));
    });
    rows.push(("operation, up to 300 before it", operated, None));
    let read = median(300, |_| {
        bench.ask(Request::Get { id: id("r1") });
    });
    rows.push(("read one", read, None));
    let listed = median(50, |_| {
        bench.ask(Request::List(khufu_engine::ListQuery { limit: 100, ..Default::default() }));
    });
    rows.push(("list the first 100 of 2,001", listed, None));
    let idle = median(300, |_| {
        bench.us += 1_000_000;
        std::hint::black_box(bench.engine.handle(time(bench.us), Input::Timer));
    });
    rows.push(("timer, 2,001 idle", idle, None));
    if std::env::args().any(|arg| arg == "--json") {
        let rows: Vec<_> =
            rows.iter().map(|(what, us, bare)| json!({"what": what, "median_us": us, "bare_us": bare})).collect();
        println!("{}", json!({ "rows": rows }));
        return;
    }
    println!("{:<38} {:>12} {:>12} {:>8}", "what", "median us", "bare us", "ratio");
    for (what, us, bare) in rows {
        let (bare, ratio) =
            bare.map_or(("-".into(), "-".into()), |bare| (format!("{bare:.1}"), format!("{:.1}", us / bare)));
        println!("{what:<38} {us:>12.1} {bare:>12} {ratio:>8}");
    }
}
