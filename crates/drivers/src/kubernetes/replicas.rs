//! The objects of replicants at one API server, and what all that is done with them has in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use khufu_crdt::ReplicantId;
use serde_json::{Value, json};

use super::fields::{self, Difference, differences};
use super::kinds::{Kind, is_missing};
use super::manifest::{Key, Object};
use super::merge_keys::Schemas;
use super::normal::Normal;
use super::options::Options;
use super::server::{MANAGER, Server, Write};
use super::stamp::{self, Mark};
use super::used::InUse;
use super::watching::{Pace, Watcher};
use crate::pulse::Pulse;
use crate::{DriverError, Replica, digest};

/// How many objects of one replicant are worked on at once.
pub(super) const AT_ONCE: usize = 8;
/// How long is waited for what was removed, or defined, before somebody is told that it takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked meanwhile.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest list of objects by which a replica is known; beyond it they are found by their label.
const MAX_LOCAL_ID_BYTES: usize = 16 << 10;
/// Of so many replicants it is remembered what is known of them all.
const MAX_REMEMBERED: usize = 100_000;
/// What stands for a list that is longer.
pub(super) const MANY: &str = "*";

/// The objects of replicants at one API server.
pub(super) struct Replicas {
    pub(super) server: Arc<Server>,
    pub(super) watcher: Arc<Watcher>,
    pub(super) pulse: Pulse,
    pub(super) normal: Normal,
    pub(super) schemas: Arc<Schemas>,
    /// The kinds of which there may be objects of replicants, and in which namespaces there are.
    pub(super) used: InUse,
    /// The replicants of which there is nothing but what their local id names: the last that was done with them succeeded.
    /// At a server; see [`Server::moves`].
    tidy: Mutex<(u64, BTreeSet<ReplicantId>)>,
    /// The replicants of which some object was last seen as operations have made it.
    operated: Mutex<BTreeSet<ReplicantId>>,
}

/// An object that is asked for, as the server knows its kind.
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) rank: u8,
    pub(super) value: Value,
}

pub(super) fn inventory(local_id: Option<&str>) -> Vec<Key> {
    local_id.into_iter().flat_map(|text| text.split(',')).filter_map(|key| key.parse().ok()).collect()
}

pub(super) fn local_id(keys: impl Iterator<Item = Key>) -> Option<String> {
    let text = keys.map(|key| key.to_string()).collect::<Vec<_>>().join(",");
    let text = if text.len() > MAX_LOCAL_ID_BYTES { MANY.to_owned() } else { text };
    (!text.is_empty()).then_some(text)
}

/// The contents of a replica, by which sites are compared: of each object what its manifest speaks of.
pub(super) fn digest_of(parts: &BTreeMap<String, Value>) -> String {
    digest(json!(parts).to_string().as_bytes())
}

/// Remembers a replicant; where there are too many, only those from then on.
pub(super) fn remember(all: &mut BTreeSet<ReplicantId>, id: &ReplicantId) {
    if all.contains(id) {
        return;
    }
    if all.len() >= MAX_REMEMBERED {
        all.clear();
    }
    all.insert(id.clone());
}

pub(super) fn uid(object: &Value) -> Option<String> {
    object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
}

pub(super) fn mark(replica: &Replica) -> Mark<'_> {
    Mark { id: &replica.id, site: &replica.site }
}

/// The manifest of an object as it is to be applied to what is there.
pub(super) fn as_applied(
    key: &Key,
    manifest: &Value,
    live: Option<&Value>,
    mark: Mark<'_>,
    options: &Options,
) -> Result<Value, DriverError> {
    let adopted = match live {
        Some(live) => stamp::take_over(key, live, mark, options.adopt)?,
        None => false,
    };
    let mut value = stamp::stamped(key, manifest, mark, adopted)?;
    if let Some(live) = live {
        for difference in differences(live, &value) {
            if !options.ignores(&fields::written(&difference.path)) {
                continue;
            }
            match difference.is {
                Some(_) => fields::copy(&mut value, live, &difference.path),
                None => fields::remove(&mut value, &difference.path),
            }
        }
    }
    Ok(value)
}

impl Replicas {
    pub(super) fn new(server: Server, pace: Pace) -> Self {
        let pulse = Pulse::new();
        let watcher = Arc::new(Watcher::new(pulse.suspect(), pace));
        Self {
            server: Arc::new(server),
            watcher,
            pulse,
            normal: Normal::default(),
            schemas: Arc::default(),
            used: InUse::new(pace.again),
            tidy: Mutex::default(),
            operated: Mutex::default(),
        }
    }

    /// There may be something of a replicant that its local id does not name. Whether that was otherwise.
    pub(super) fn untidy(&self, id: &ReplicantId) -> bool {
        let mut tidy = self.tidy.lock().unwrap_or_else(PoisonError::into_inner);
        tidy.1.remove(id) && tidy.0 == self.server.moves()
    }

    /// There is nothing of a replicant but what its local id names, at the server that was reached before so many moves.
    pub(super) fn is_tidy(&self, id: &ReplicantId, moves: u64) {
        let mut tidy = self.tidy.lock().unwrap_or_else(PoisonError::into_inner);
        if tidy.0 != moves {
            *tidy = (moves, BTreeSet::new());
        }
        remember(&mut tidy.1, id);
    }

    pub(super) fn operated(&self) -> std::sync::MutexGuard<'_, BTreeSet<ReplicantId>> {
        self.operated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn wanted(&self, object: &Object, options: &Options) -> Result<Wanted, DriverError> {
        let mut key = Key {
            group: object.group.clone(),
            kind: object.kind.clone(),
            namespace: String::new(),
            name: object.name.clone(),
        };
        let kind = self.server.kind(&key, Some(&object.version)).await?;
        if kind.namespaced {
            key.namespace = object.namespace.clone().unwrap_or_else(|| options.namespace().to_owned());
        }
        Ok(Wanted { kind, key, rank: object.rank(), value: object.value.clone() })
    }

    /// The manifest of an object as it is to be applied to what is there.
    pub(super) fn for_server(
        wanted: &Wanted,
        live: Option<&Value>,
        mark: Mark<'_>,
        options: &Options,
    ) -> Result<Value, DriverError> {
        as_applied(&wanted.key, &wanted.value, live, mark, options)
    }

    /// Where an object is not as it is to be, in the values that the server would write: it writes some in another way than
    /// people. How it wrote what was applied last is remembered, and else asked by a dry run.
    pub(super) async fn changed(
        &self,
        wanted: &Wanted,
        live: &Value,
        value: &Value,
        options: &Options,
    ) -> Result<Vec<Difference>, DriverError> {
        let mut changed = differences(live, value);
        let concerns = |difference: &Difference| !options.ignores(&fields::written(&difference.path));
        let no_more = !fields::more(live, value).iter().any(concerns);
        if (changed.is_empty() && no_more) || self.normal.is_as_written(live, value) {
            return Ok(Vec::new());
        }
        match self.server.apply(&wanted.kind, &wanted.key, value, true, Write::Try).await {
            Ok(normal) => {
                self.normal.wrote(&normal, value);
                let mut changed = differences(live, &fields::part(&normal, value));
                // A list may be one thing to the server, though its elements have names.
                changed.extend(fields::more(live, &fields::whole(&normal, value)));
                changed.retain(concerns);
                Ok(changed)
            }
            Err(error) if error.is_permanent() => {
                // Nobody can say how it would be written: only what is gone or somebody else's is certainly another.
                let others = |path: &[fields::Step]| fields::set_by(live, path, MANAGER).is_some();
                changed.retain(|difference| difference.is.is_none() || others(&difference.path));
                Ok(changed)
            }
            Err(error) => Err(error),
        }
    }

    /// What is compared of an object: all that its manifest speaks of, but for what others may set.
    pub(super) fn part(live: &Value, wanted: &Value, options: &Options) -> Value {
        let mut part = fields::part(live, wanted);
        if !options.ignore.is_empty() {
            fields::without(&mut part, &|path| options.ignores(path));
        }
        part
    }

    /// An object as it is; none also where there is no such kind any more. One that is defined and not served may be there.
    pub(super) async fn live(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, DriverError> {
        match self.server.get(kind, key).await {
            Err(error) if is_missing(&error) && !self.server.is_defined(key).await? => Ok(None),
            live => live,
        }
    }
}
