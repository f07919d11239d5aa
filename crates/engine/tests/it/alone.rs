//! One node, run by hand: what each of its drivers is told, and what becomes of their answers.

use std::collections::BTreeMap;

use khufu_crdt::{Capabilities, Policy, ReplicantId, Status};
use khufu_engine::harness::{SimulatedKeys, capabilities};
use khufu_engine::{
    CallId, Config, DriverCall, DriverDone, DriverFailure, Engine, Input, Operate, Output, Put, Record, ReplicantView,
    Request, RequestId, Response, Time, Write,
};
use serde_json::{Value, json};

use crate::foreign::node;

pub(crate) struct Node {
    engine: Engine,
    pub(crate) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) now: Time,
    /// What drivers were told and have not answered.
    pub(crate) calls: Vec<(CallId, String, DriverCall)>,
    answers: BTreeMap<RequestId, Response>,
}

impl Node {
    /// Starts from a disk, with drivers of these kinds.
    pub(crate) fn start(disk: BTreeMap<Vec<u8>, Vec<u8>>, wall_ms: u64, kinds: &[&str]) -> Self {
        Self::start_unsure(disk, wall_ms, kinds, &[])
    }

    /// The same where some of the drivers have yet to say whether they reach their platform.
    pub(crate) fn start_unsure(
        disk: BTreeMap<Vec<u8>, Vec<u8>>,
        wall_ms: u64,
        kinds: &[&str],
        unsure: &[&str],
    ) -> Self {
        let now = Time { monotonic_us: 0, wall_ms };
        let mut config = Config::fast("paris".parse().unwrap(), node("paris"));
        let able = |kind: &str| Capabilities {
            reset_is_loss: kind == "lasting",
            reset: kind != "grown",
            observe: kind != "blind",
            ..capabilities()
        };
        config.kinds = kinds.iter().map(|kind| ((*kind).to_owned(), able(kind))).collect();
        config.unsure = unsure.iter().map(|kind| (*kind).to_owned()).collect();
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

    pub(crate) fn hand(&mut self, input: Input) {
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

    pub(crate) fn ask(&mut self, request: Request) -> Response {
        let number = RequestId(u64::try_from(self.answers.len()).unwrap());
        self.hand(Input::Request { id: number, who: "user".into(), request });
        self.answers[&number].clone()
    }

    pub(crate) fn put(&mut self, kind: &str) {
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

    /// Puts this with a policy.
    pub(crate) fn put_as(&mut self, name: &str, kind: &str, desired: Value, policy: Value) {
        self.ask(Request::Put(Put {
            id: ReplicantId::new(name).unwrap(),
            kind: Some(kind.into()),
            scope: Some("paris".into()),
            policy: Some(Policy::parse(policy).unwrap()),
            desired: Some(desired),
            overrides: None,
            base: None,
        }));
    }

    pub(crate) fn operate(&mut self, op_type: &str, payload: &str) {
        let number = RequestId(u64::try_from(self.answers.len()).unwrap() + 1_000);
        let (op_type, payload) = (op_type.to_owned(), json!(payload));
        let request = Request::Operate(Operate { id: id(), operation: None, op_type, payload, wait_ms: 0 });
        self.hand(Input::Request { id: number, who: "user".into(), request });
    }

    pub(crate) fn view(&mut self) -> ReplicantView {
        match self.ask(Request::Get { id: id() }) {
            Response::Replicant(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn said(&mut self) -> Status {
        self.view().sites["paris"].report.as_ref().unwrap().status
    }

    /// What the drivers were told and have not answered: the kind of each, and whether it is to remove the replica.
    pub(crate) fn told(&self) -> Vec<(&str, bool)> {
        self.calls.iter().map(|(_, kind, work)| (kind.as_str(), matches!(work, DriverCall::Delete))).collect()
    }

    /// The driver that was called answers.
    pub(crate) fn answer(&mut self, result: Result<DriverDone, DriverFailure>) {
        let (call, ..) = self.calls.remove(0);
        self.hand(Input::Driver { call, result });
    }

    /// A minute goes by.
    pub(crate) fn wait(&mut self) {
        self.wait_ms(60_000);
    }

    pub(crate) fn wait_ms(&mut self, time_ms: u64) {
        self.now = Time { monotonic_us: self.now.monotonic_us + time_ms * 1000, wall_ms: self.now.wall_ms + time_ms };
        self.hand(Input::Timer);
    }
}

pub(crate) fn id() -> ReplicantId {
    ReplicantId::new("web").unwrap()
}
