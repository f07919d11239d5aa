//! An engine whose disk is a map, whose drivers do as told at once, and whose network is a list.

use std::collections::{BTreeMap, VecDeque};

use khufu_crdt::{Capabilities, SiteName};
use khufu_engine::{
    Config, DriverDone, Engine, Input, Keys, NodeId, Operate, Output, Put, Record, Request, RequestError, RequestId,
    Response, RestoreError, Time, Write,
};
use serde_json::json;

/// The most outputs that one input may lead to, answers of disk and drivers included.
const MAX_OUTPUTS: usize = 20_000;

/// Every signature is genuine, so that what is signed gets read.
pub struct AnyKeys;

impl Keys for AnyKeys {
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        vec![7]
    }
    fn verify(&self, _: &NodeId, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

pub struct Site {
    pub engine: Engine,
    pub stored: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Frames that were sent, to whom.
    pub sent: Vec<(NodeId, Vec<u8>)>,
    /// What was gossiped.
    pub gossiped: Vec<Vec<u8>>,
    pub answers: BTreeMap<RequestId, Result<Response, RequestError>>,
    us: u64,
    timer: Option<u64>,
    requests: u64,
}

fn time(us: u64) -> Time {
    Time { monotonic_us: us, wall_ms: 1_790_000_000_000 + us / 1000 }
}

pub fn node(site: &str) -> NodeId {
    NodeId(format!("node-{site}"))
}

impl Site {
    /// Starts from what is stored.
    pub fn new(name: &str, stored: BTreeMap<Vec<u8>, Vec<u8>>, doubtful: bool) -> Result<Self, RestoreError> {
        let mut config = Config::fast(SiteName::new(name).expect("a name"), node(name));
        let capabilities = Capabilities { operations: true, reset: true, observe: true, ..Capabilities::default() };
        config.kinds.insert("text".into(), capabilities);
        config.doubtful = doubtful;
        let mut prefixes = Engine::RESTORE_PREFIXES.to_vec();
        prefixes.extend(doubtful.then_some(Engine::RECOVERY_PREFIX));
        let restore = prefixes.iter().flat_map(|prefix| scan(&stored, prefix)).collect();
        let mut actor = [0; 16];
        actor.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        let us = 1_000_000;
        let (engine, outputs) = Engine::new(config, Box::new(AnyKeys), actor, restore, time(us))?;
        let (sent, gossiped, answers) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut site = Self { engine, stored, sent, gossiped, answers, us, timer: None, requests: 0 };
        site.carry_out(outputs);
        Ok(site)
    }

    pub fn hand(&mut self, input: Input) {
        self.us += 100;
        let outputs = self.engine.handle(time(self.us), input);
        self.carry_out(outputs);
    }

    /// Lets time go by, with all that becomes due.
    pub fn pass(&mut self, us: u64) {
        let end = self.us.saturating_add(us);
        for _ in 0..100 {
            let Some(due) = self.timer.filter(|due| *due <= end) else { break };
            self.us = self.us.max(due);
            self.timer = None;
            self.hand(Input::Timer);
        }
        self.us = self.us.max(end);
    }

    pub fn ask(&mut self, request: Request) -> Option<Result<Response, RequestError>> {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.hand(Input::Request { id, who: "fuzz".into(), request });
        self.answers.remove(&id)
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut left = VecDeque::from(outputs);
        let mut count = 0;
        while let Some(output) = left.pop_front() {
            count += 1;
            assert!(count <= MAX_OUTPUTS, "one input leads to more than {MAX_OUTPUTS} outputs");
            let input = match output {
                Output::Persist { token, writes, .. } => {
                    for write in writes {
                        match write {
                            Write::Put { key, value } => drop(self.stored.insert(key, value)),
                            Write::Delete { key } => drop(self.stored.remove(&key)),
                        }
                    }
                    Input::Stored { token }
                }
                Output::Load { replicant, prefix } => {
                    let records = scan(&self.stored, &prefix);
                    Input::Loaded { replicant, prefix, records, damaged: Vec::new() }
                }
                Output::CallDriver { call, .. } => {
                    Input::Driver { call, result: Ok(DriverDone { digest: Some("d".into()), ..DriverDone::default() }) }
                }
                Output::Send { to, frame } => {
                    self.sent.push((to, frame));
                    continue;
                }
                Output::Publish { frame, .. } => {
                    self.gossiped.push(frame);
                    continue;
                }
                Output::Answer { request, answer } => {
                    self.answers.insert(request, answer);
                    continue;
                }
                Output::SetTimer { at_us } => {
                    self.timer = Some(at_us);
                    continue;
                }
                Output::Stop { reason } => panic!("the node would stop: {reason}"),
                _ => continue,
            };
            left.extend(self.engine.handle(time(self.us), input));
        }
    }
}

fn scan(stored: &BTreeMap<Vec<u8>, Vec<u8>>, prefix: &[u8]) -> Vec<Record> {
    stored
        .range(prefix.to_vec()..)
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, value)| Record { key: key.clone(), value: value.clone() })
        .collect()
}

/// Carries frames and gossip between two sites until both are silent. Gives what came to the first.
pub fn exchange(a: &mut Site, b: &mut Site, names: [&str; 2]) -> Vec<(u8, Vec<u8>)> {
    let mut came = Vec::new();
    for _ in 0..50 {
        let (from_a, from_b) = (std::mem::take(&mut a.sent), std::mem::take(&mut b.sent));
        let (gossip_a, gossip_b) = (std::mem::take(&mut a.gossiped), std::mem::take(&mut b.gossiped));
        if from_a.is_empty() && from_b.is_empty() && gossip_a.is_empty() && gossip_b.is_empty() {
            break;
        }
        for (_, bytes) in from_a {
            b.hand(Input::Frame { from: node(names[0]), bytes });
        }
        for bytes in gossip_a {
            b.hand(Input::Gossip { source: node(names[0]), bytes });
        }
        for (_, bytes) in from_b {
            came.push((0, bytes.clone()));
            a.hand(Input::Frame { from: node(names[1]), bytes });
        }
        for bytes in gossip_b {
            came.push((1, bytes.clone()));
            a.hand(Input::Gossip { source: node(names[1]), bytes });
        }
    }
    came
}

fn put(id: &str, scope: &str, desired: Option<serde_json::Value>) -> Request {
    let policy = json!({"resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}]});
    Request::Put(Put {
        id: id.parse().expect("an id"),
        kind: Some("text".into()),
        scope: Some(scope.into()),
        policy: serde_json::from_value(policy).ok(),
        desired,
        overrides: None,
        base: None,
    })
}

fn operate(id: &str, op: &str) -> Request {
    Request::Operate(Operate {
        id: id.parse().expect("an id"),
        operation: op.parse().ok(),
        op_type: "add".into(),
        payload: json!({"append": op}),
        wait_ms: 1000,
    })
}

/// Two sites that have met and hold the same, and all that the second said to the first.
pub fn two_sites() -> (Site, Site, Vec<(u8, Vec<u8>)>) {
    let names = ["paris", "rennes"];
    let mut paris = Site::new(names[0], BTreeMap::new(), false).expect("a start");
    let mut rennes = Site::new(names[1], BTreeMap::new(), false).expect("a start");
    paris.hand(Input::PeerUp { node: node(names[1]) });
    rennes.hand(Input::PeerUp { node: node(names[0]) });
    let mut came = exchange(&mut paris, &mut rennes, names);
    let mut step = |paris: &mut Site, rennes: &mut Site, who: usize, request: Request| {
        let asked = if who == 0 { &mut *paris } else { &mut *rennes };
        let _ = asked.ask(request);
        for _ in 0..4 {
            came.extend(exchange(paris, rennes, names));
            paris.pass(300_000);
            rennes.pass(300_000);
        }
    };
    step(&mut paris, &mut rennes, 0, put("web", "paris & rennes", Some(json!({"a": 1, "list": [1, 2, {"b": "c"}]}))));
    step(&mut paris, &mut rennes, 1, put("log", "all", None));
    for (who, op) in [(0, "op-1"), (1, "op-2"), (1, "op-3")] {
        step(&mut paris, &mut rennes, who, operate("log", op));
    }
    step(&mut paris, &mut rennes, 1, put("gone", "paris & rennes", Some(json!({"x": 1}))));
    step(&mut paris, &mut rennes, 1, Request::Delete { id: "gone".parse().expect("an id"), keep: false, base: None });
    let patch = json!({"a": 2, "text": "x".repeat(300)});
    step(&mut paris, &mut rennes, 1, Request::Patch { id: "web".parse().expect("an id"), patch });
    step(&mut paris, &mut rennes, 0, Request::Verify { id: None });
    step(&mut paris, &mut rennes, 1, Request::Verify { id: None });
    step(&mut paris, &mut rennes, 1, Request::Plan { id: "web".parse().expect("an id") });
    // What one of them missed comes by comparing.
    paris.hand(Input::PeerDown { node: node(names[1]) });
    rennes.hand(Input::PeerDown { node: node(names[0]) });
    for n in 0..5 {
        let patch = json!({"n": n});
        step(&mut paris, &mut rennes, 1, Request::Patch { id: "web".parse().expect("an id"), patch });
    }
    paris.hand(Input::PeerUp { node: node(names[1]) });
    rennes.hand(Input::PeerUp { node: node(names[0]) });
    for _ in 0..20 {
        came.extend(exchange(&mut paris, &mut rennes, names));
        paris.pass(1_000_000);
        rennes.pass(1_000_000);
    }
    (paris, rennes, came)
}
