//! One node whose drivers are of several kinds, run by hand: what each driver is told, and what becomes of its answers.

use std::collections::BTreeMap;

use khufu_crdt::{ReplicantId, Status};
use khufu_engine::harness::{SimulatedKeys, capabilities};
use khufu_engine::{
    CallId, Config, DriverCall, DriverDone, DriverFailure, Engine, Input, Output, Put, Record, ReplicantView, Request,
    RequestId, Response, Time, Write,
};
use serde_json::json;

use crate::foreign::node;

struct Node {
    engine: Engine,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
    now: Time,
    /// What drivers were told and have not answered.
    calls: Vec<(CallId, String, DriverCall)>,
    answers: BTreeMap<RequestId, Response>,
}

impl Node {
    /// Starts from a disk, with drivers of these kinds.
    fn start(disk: BTreeMap<Vec<u8>, Vec<u8>>, wall_ms: u64, kinds: &[&str]) -> Self {
        let now = Time { monotonic_us: 0, wall_ms };
        let mut config = Config::fast("paris".parse().unwrap(), node("paris"));
        config.kinds = kinds.iter().map(|kind| ((*kind).to_owned(), capabilities())).collect();
        let restored = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let wanted = Engine::RESTORE_PREFIXES.into_iter().any(|prefix| key.starts_with(prefix));
            wanted.then(|| Record { key: key.clone(), value: value.clone() })
        };
        let records = disk.iter().filter_map(restored).collect();
        let actor = [u8::try_from(kinds.len()).unwrap(); 16];
        let (engine, outputs) =
            Engine::new(config, Box::new(SimulatedKeys(node("paris"))), actor, records, now).unwrap();
        let mut started = Self { engine, disk, now, calls: Vec::new(), answers: BTreeMap::new() };
        started.carry_out(outputs);
        started
    }

    fn hand(&mut self, input: Input) {
        let outputs = self.engine.handle(self.now, input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist { token, writes, .. } => {
                    for write in writes {
                        match write {
                            Write::Put { key, value } => drop(self.disk.insert(key, value)),
                            Write::Delete { key } => drop(self.disk.remove(&key)),
                        }
                    }
                    self.hand(Input::Stored { token });
                }
                Output::Load { replicant, prefix } => {
                    let of = self.disk.iter().filter(|(key, _)| key.starts_with(&prefix));
                    let records = of.map(|(key, value)| Record { key: key.clone(), value: value.clone() }).collect();
                    self.hand(Input::Loaded { replicant, prefix, records, damaged: Vec::new() });
                }
                Output::CallDriver { call, kind, work, .. } => self.calls.push((call, kind, work)),
                Output::Answer { request, answer } => drop(self.answers.insert(request, answer.unwrap())),
                Output::Stop { reason } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn ask(&mut self, request: Request) -> Response {
        let number = RequestId(u64::try_from(self.answers.len()).unwrap());
        self.hand(Input::Request { id: number, who: "user".into(), request });
        self.answers[&number].clone()
    }

    fn put(&mut self, kind: &str) {
        self.ask(Request::Put(Put {
            id: id(),
            kind: Some(kind.into()),
            scope: Some("paris".into()),
            policy: None,
            desired: Some(json!({"made by": kind})),
            overrides: None,
            base: None,
        }));
    }

    fn view(&mut self) -> ReplicantView {
        match self.ask(Request::Get { id: id() }) {
            Response::Replicant(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn said(&mut self) -> Status {
        self.view().sites["paris"].report.as_ref().unwrap().status
    }

    /// What the drivers were told and have not answered: the kind of each, and whether it is to remove the replica.
    fn told(&self) -> Vec<(&str, bool)> {
        self.calls.iter().map(|(_, kind, work)| (kind.as_str(), matches!(work, DriverCall::Delete))).collect()
    }

    /// The driver that was called answers.
    fn answer(&mut self, result: Result<DriverDone, DriverFailure>) {
        let (call, ..) = self.calls.remove(0);
        self.hand(Input::Driver { call, result });
    }

    /// A minute goes by.
    fn wait(&mut self) {
        self.now = Time { monotonic_us: self.now.monotonic_us + 60_000_000, wall_ms: self.now.wall_ms + 60_000 };
        self.hand(Input::Timer);
    }
}

fn id() -> ReplicantId {
    ReplicantId::new("web").unwrap()
}

/// A node whose driver of texts has made a replica.
fn made_by_text() -> Node {
    let mut paris = Node::start(BTreeMap::new(), 1_790_000_000_000, &["text", "other"]);
    paris.put("text");
    assert_eq!(paris.told(), [("text", false)]);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Applied);
    paris
}

#[test]
fn what_is_made_anew_under_another_kind_is_first_removed_by_the_driver_that_made_it() {
    let mut paris = made_by_text();
    paris.ask(Request::Delete { id: id(), keep: false });
    assert_eq!(paris.told(), [("text", true)]);
    // Before the old one is gone, the name is used again.
    paris.put("other");
    let failure = DriverFailure { message: "busy".into(), permanent: false, retry_after_ms: None, unknown: false };
    paris.answer(Err(failure));
    paris.wait();
    assert_eq!(paris.told(), [("text", true)], "the driver of the new kind knows nothing of it");
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.told(), [("other", false)]);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Applied);
    // And that one is removed by the driver that made it.
    paris.ask(Request::Delete { id: id(), keep: false });
    assert_eq!(paris.told(), [("other", true)]);
}

#[test]
fn a_site_without_the_driver_that_made_a_replica_does_not_say_that_it_is_gone() {
    let before = made_by_text();
    let mut paris = Node::start(before.disk, before.now.wall_ms, &["other"]);
    paris.ask(Request::Delete { id: id(), keep: false });
    paris.wait();
    assert_eq!(paris.told(), []);
    assert_eq!(paris.said(), Status::NeedsAttention);
    // It is removed once there is such a driver again.
    let mut paris = Node::start(paris.disk, paris.now.wall_ms, &["other", "text", "third"]);
    paris.wait();
    assert_eq!(paris.told(), [("text", true)]);
    paris.answer(Ok(DriverDone::default()));
    assert_eq!(paris.said(), Status::Removed);
}
