//! Three honest sites with something to keep, and a member of their network that none of it is meant for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use khufu_crdt::{ChangeHash, OperationId, ReplicantId};
use khufu_engine::harness::{SimulatedKeys, World};
use khufu_engine::{Config, Input, Keys, Metrics, NodeId, Operate, ReplicantView, Request, Response};
use serde_json::{Value, json};

use super::frames::{at, field, read};
use crate::file_policy;

pub(crate) const HONEST: [&str; 3] = ["nantes", "paris", "rennes"];
/// It sorts after all others, so that these begin the comparisons with it.
pub(crate) const WOLF: &str = "wolf";
/// All that the wolf must not see has this in it.
pub(crate) const SECRET: &str = "s3cret";
/// What lives at honest sites only, with these sites.
pub(crate) const KEPT: [(&str, &[&str]); 3] =
    [("log", &["nantes", "paris", "rennes"]), ("pair", &["paris", "rennes"]), ("web", &["nantes", "paris", "rennes"])];

pub(crate) fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

pub(crate) fn node(site: &str) -> NodeId {
    NodeId(format!("node-{site}"))
}

/// The signature of a site's node. In the simulation anybody can make any; what is forged here is made with the keys of
/// the wolf.
pub(crate) fn sign(site: &str, message: &[u8]) -> Vec<u8> {
    SimulatedKeys(node(site)).sign(message)
}

pub(crate) struct Stage {
    pub(crate) world: World,
    /// Operations that were acknowledged, with their words.
    acknowledged: Vec<(&'static str, OperationId, String)>,
    words: u64,
}

impl Stage {
    pub(crate) fn new(seed: u64) -> Self {
        Self::configured(seed, |_| {})
    }

    pub(crate) fn configured(seed: u64, config: fn(&mut Config)) -> Self {
        let mut world = World::configured(seed, config);
        world.recorded = Some(Vec::new());
        world.sites(&["nantes", "paris", "rennes", WOLF]);
        let mut stage = Self { world, acknowledged: Vec::new(), words: 0 };
        stage.world.put_with("paris", "log", "paris & rennes & nantes", &file_policy());
        stage.world.put_with("rennes", "pair", "paris & rennes", &file_policy());
        stage.world.put("nantes", "web", "paris & rennes & nantes", json!({"word": SECRET}));
        for name in ["log", "pair"] {
            stage.write("paris", name);
            stage.write("rennes", name);
        }
        stage.world.settle();
        assert!(stage.said().any(|bytes| holds(bytes, SECRET)), "the sites say nothing that could leak");
        stage
    }

    /// Has a user of an honest site add a word of their own.
    pub(crate) fn write(&mut self, site: &str, name: &'static str) {
        self.words += 1;
        let operation = OperationId::new(format!("{SECRET}-{}", self.words)).unwrap();
        let word = format!("<{SECRET} {}>", self.words);
        let operate = Operate {
            id: id(name),
            operation: Some(operation.clone()),
            op_type: "add".into(),
            payload: json!(word),
            wait_ms: 0,
        };
        let answer = self.world.request(site, Request::Operate(operate));
        assert!(matches!(answer, Ok(Response::Operation(_))), "{name} at {site}: {answer:?} (seed {})", self.seed());
        self.acknowledged.push((name, operation, word));
    }

    pub(crate) fn seed(&self) -> u64 {
        self.world.seed()
    }

    /// The wolf sends a frame.
    pub(crate) fn throw(&mut self, to: &str, bytes: Vec<u8>) {
        self.world.hand(to, Input::Frame { from: node(WOLF), bytes });
    }

    /// The wolf hands on what is gossiped.
    pub(crate) fn whisper(&mut self, to: &str, bytes: Vec<u8>) {
        self.world.hand(to, Input::Gossip { source: node(WOLF), bytes });
    }

    pub(crate) fn metrics(&self, site: &str) -> Metrics {
        self.world.sites[site].engine().expect("it runs").metrics()
    }

    /// What honest sites said to each other since the beginning.
    pub(crate) fn said(&self) -> impl Iterator<Item = &Vec<u8>> {
        let recorded = self.world.recorded.iter().flatten();
        recorded.filter(|said| said.from != WOLF && said.to != WOLF).map(|said| &said.bytes)
    }

    /// What honest sites said to the wolf since the beginning, one of them if it is named.
    pub(crate) fn told<'a>(&'a self, by: Option<&'a str>) -> impl Iterator<Item = &'a Vec<u8>> {
        let recorded = self.world.recorded.iter().flatten();
        recorded
            .filter(move |said| said.to == WOLF && by.map_or(said.from != WOLF, |by| said.from == by))
            .map(|said| &said.bytes)
    }

    pub(crate) fn view(&mut self, site: &str, name: &str) -> ReplicantView {
        match self.world.request(site, Request::Get { id: id(name) }) {
            Ok(Response::Replicant(view)) => *view,
            other => panic!("{name} at {site}: {other:?} (seed {})", self.seed()),
        }
    }

    pub(crate) fn heads(&mut self, site: &str, name: &str) -> Vec<String> {
        self.view(site, name).heads.iter().map(ChangeHash::to_string).collect()
    }

    /// What a site refuses while something is done to it.
    pub(crate) fn refused(&mut self, site: &str, attack: impl FnOnce(&mut Self)) -> u64 {
        let before = self.metrics(site).refused;
        attack(self);
        self.metrics(site).refused - before
    }

    /// Whatever was thrown: the honest sites work, agree, have lost nothing and told the wolf nothing.
    pub(crate) fn all_is_well(&mut self) {
        let seed = self.seed();
        self.bounded();
        for site in HONEST {
            assert_eq!(self.world.sites[site].stopped, None, "{site} (seed {seed})");
            self.write(site, "log");
            self.world.patch(site, "web", json!({ site: SECRET })).unwrap_or_else(|error| panic!("{error}"));
        }
        self.write("paris", "pair");
        self.world.settle();
        for (name, sites) in KEPT {
            let view = self.view(sites[0], name);
            let known: BTreeSet<_> = view.operations.iter().map(|view| &view.operation.id).collect();
            let first = self.world.text(sites[0], name).unwrap_or_default();
            for (of, operation, word) in &self.acknowledged {
                if *of == name {
                    assert!(known.contains(operation), "{name}: {operation} was acknowledged (seed {seed})");
                    assert_eq!(first.matches(word.as_str()).count(), 1, "{name}: {first} (seed {seed})");
                }
            }
            for site in sites {
                assert_eq!(self.world.text(site, name).as_ref(), Some(&first), "{name} at {site} (seed {seed})");
            }
        }
        self.nothing_leaked();
        // What was only for the moment is gone after a while.
        self.world.run_for(Duration::from_secs(15));
        for site in HONEST {
            let metrics = self.metrics(site);
            let left = (metrics.sessions, metrics.waiting, metrics.unstored, metrics.unsettled);
            assert_eq!(left, (0, 0, 0, 0), "{site}: {metrics:?} (seed {seed})");
        }
        self.bounded();
    }

    /// What is in memory is within what the settings allow.
    pub(crate) fn bounded(&self) {
        for site in HONEST {
            let metrics = self.metrics(site);
            let few = metrics.sessions <= 200 && metrics.waiting <= 1024 && metrics.resident <= 2200;
            assert!(few, "{site}: {metrics:?} (seed {})", self.seed());
        }
    }

    /// No contents went to the wolf, nor is anything of it on its disk.
    pub(crate) fn nothing_leaked(&self) {
        let seed = self.seed();
        for bytes in self.told(None) {
            assert!(!holds(bytes, SECRET), "{:?} (seed {seed})", read(bytes));
            let Some(said) = read(bytes) else { continue };
            let body = field(&said, "body").and_then(|body| read(body.as_bytes()?));
            let said = body.unwrap_or(said);
            let about = |kind, document| at(&said, &[kind, document, "replicant"]).and_then(|name| name.as_text());
            let kept = |name: &str| KEPT.iter().any(|(kept, _)| *kept == name);
            let empty = |path: &[&str]| at(&said, path).is_none_or(|list| list.as_array().is_some_and(Vec::is_empty));
            if about("Push", "document").is_some_and(kept) {
                assert!(empty(&["Push", "changes"]) && empty(&["Push", "reports"]), "{said:?} (seed {seed})");
            }
            if about("Sync", "d").is_some_and(kept) {
                assert!(empty(&["Sync", "r"]), "{said:?} (seed {seed})");
                let have = at(&said, &["Sync", "h"]).and_then(|have| have.as_map());
                assert!(have.is_none_or(Vec::is_empty), "{said:?} (seed {seed})");
            }
        }
        for (name, _) in KEPT {
            assert!(!self.world.stores(WOLF, name), "{name} (seed {seed})");
            assert_eq!(self.world.text(WOLF, name), None, "{name} (seed {seed})");
        }
    }

    /// What a site answered to the questions of the wolf, by their numbers.
    pub(crate) fn answers(&self, by: &str) -> BTreeMap<u64, ciborium::Value> {
        let said = self.told(Some(by)).filter_map(|bytes| read(bytes));
        said.filter_map(|said| {
            let nonce = at(&said, &["Reply", "nonce"])?.as_integer()?.try_into().ok()?;
            Some((nonce, at(&said, &["Reply", "reply"])?.clone()))
        })
        .collect()
    }

    /// How much was recorded so far.
    pub(crate) fn so_far(&self) -> usize {
        self.world.recorded.as_ref().map_or(0, Vec::len)
    }

    /// What a site said to the wolf since so much was recorded.
    pub(crate) fn told_since<'a>(&'a self, so_far: usize, by: &'a str) -> impl Iterator<Item = ciborium::Value> + 'a {
        let said = self.world.recorded.iter().flat_map(move |recorded| &recorded[so_far..]);
        said.filter(move |said| said.from == by && said.to == WOLF).filter_map(|said| read(&said.bytes))
    }
}

pub(crate) fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// A value in CBOR.
pub(crate) fn cbor_of(value: &Value) -> ciborium::Value {
    ciborium::Value::serialized(value).unwrap()
}
