//! What is done with the objects of one replicant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use khufu_crdt::{Condition, Health as Doing, ReplicantId};
use serde_json::{Value, json};

use super::fields::{self, differences, part};
use super::health::{self, Health, Verdict};
use super::kinds::Kind;
use super::manifest::{self, Key, Object, rank};
use super::options::Options;
use super::server::{MANAGER, Server};
use super::stamp::{self, Mark};
use super::watch::Watcher;
use crate::{Done, DriverError, Observed, Replica, digest};

/// How many objects of one replicant are worked on at once.
const AT_ONCE: usize = 8;
/// The longest list of objects by which a replica is known; beyond it they are found by their label.
const MAX_LOCAL_ID_BYTES: usize = 16 << 10;
/// How long is waited for what was removed, or defined, before somebody is told that it takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of so many replicants it is remembered that nothing is to be looked for.
const MAX_TIDY: usize = 100_000;
/// The most bytes of text that say how a replica differs, and of contents that are shown.
const MAX_DRIFT_BYTES: usize = 1_500;
const MAX_SHOWN_BYTES: usize = 32 << 10;

/// The objects of replicants at one API server.
pub(super) struct Replicas {
    server: Arc<Server>,
    pub(super) watcher: Watcher,
    /// The kinds of which there may be objects of replicants; none before it was looked.
    used: tokio::sync::Mutex<Option<BTreeMap<(String, String), Kind>>>,
    /// The replicants of which there is nothing but what their local id names: the last that was done with them succeeded.
    tidy: Mutex<BTreeSet<ReplicantId>>,
}

/// An object that is now as it should be.
struct Made {
    key: Key,
    uid: Option<String>,
    rank: u8,
    change: Change,
    part: Value,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Created,
    Written,
}

/// An object that is asked for, as the server knows its kind.
struct Wanted {
    kind: Kind,
    key: Key,
    rank: u8,
    value: Value,
}

fn inventory(local_id: Option<&str>) -> Vec<Key> {
    local_id.into_iter().flat_map(|text| text.split(',')).filter_map(|key| key.parse().ok()).collect()
}

fn local_id(keys: impl Iterator<Item = Key>) -> Option<String> {
    let text = keys.map(|key| key.to_string()).collect::<Vec<_>>().join(",");
    (!text.is_empty() && text.len() <= MAX_LOCAL_ID_BYTES).then_some(text)
}

fn doing(verdicts: &[(Key, Verdict)]) -> Option<Doing> {
    let verdict = health::rolled_up(verdicts.iter().map(|(key, verdict)| (key, verdict)))?;
    let condition = match verdict.health {
        Health::Current => Condition::Current,
        Health::InProgress => Condition::InProgress,
        Health::Terminating => Condition::Terminating,
        Health::NotFound => Condition::NotFound,
        Health::Failed => Condition::Failed,
    };
    Some(Doing { condition, message: verdict.message })
}

fn clipped(mut text: String, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end < text.len() {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The contents of a replica, by which sites are compared: of each object what its manifest speaks of.
fn digest_of(parts: &BTreeMap<String, Value>) -> String {
    digest(json!(parts).to_string().as_bytes())
}

/// Of several failures the first, since what it was about may be why the others failed.
fn first_of(mut errors: Vec<DriverError>) -> Option<DriverError> {
    // What will be tried again soon comes before what will not.
    let soon = errors.iter().position(|error| !error.is_permanent()).unwrap_or(0);
    (!errors.is_empty()).then(|| errors.swap_remove(soon))
}

fn uid(object: &Value) -> Option<String> {
    object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
}

fn mark(replica: &Replica) -> Mark<'_> {
    Mark { id: &replica.id, site: &replica.site }
}

impl Replicas {
    pub(super) fn new(server: Server) -> Self {
        Self { server: Arc::new(server), watcher: Watcher::new(), used: Default::default(), tidy: Mutex::default() }
    }

    fn tidy(&self) -> std::sync::MutexGuard<'_, BTreeSet<ReplicantId>> {
        self.tidy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kinds of which there may be objects of replicants. What an earlier process has made is looked for once.
    async fn used(&self) -> Result<Vec<Kind>, DriverError> {
        let mut used = self.used.lock().await;
        if used.is_none() {
            let found = self.server.find(stamp::REPLICANT).await?;
            let name = |kind: &Kind| (kind.resource.group.clone(), kind.resource.kind.clone());
            *used = Some(found.into_iter().map(|(kind, _)| (name(&kind), kind)).collect());
        }
        Ok(used.iter().flat_map(BTreeMap::values).cloned().collect())
    }

    async fn uses(&self, kind: &Kind) -> Result<(), DriverError> {
        self.used().await?;
        let name = (kind.resource.group.clone(), kind.resource.kind.clone());
        if let Some(used) = &mut *self.used.lock().await {
            used.entry(name).or_insert_with(|| kind.clone());
        }
        Ok(())
    }

    async fn wanted(&self, object: &Object, options: &Options) -> Result<Wanted, DriverError> {
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
    fn for_server(
        wanted: &Wanted,
        live: Option<&Value>,
        mark: Mark<'_>,
        options: &Options,
    ) -> Result<Value, DriverError> {
        let adopted = match live {
            Some(live) => stamp::take_over(&wanted.key, live, mark, options.adopt)?,
            None => false,
        };
        let mut value = stamp::stamped(&wanted.key, &wanted.value, mark, adopted)?;
        if let Some(live) = live {
            for difference in differences(live, &value) {
                if options.ignores(&fields::written(&difference.path)) {
                    fields::copy(&mut value, live, &difference.path);
                }
            }
        }
        Ok(value)
    }

    async fn make(&self, object: &Object, mark: Mark<'_>, options: &Options) -> Result<Made, DriverError> {
        let wanted = self.wanted(object, options).await?;
        let (kind, key, rank) = (&wanted.kind, &wanted.key, wanted.rank);
        self.watcher.watch(&self.server, kind);
        self.uses(kind).await?;
        let live = self.server.get(kind, key).await?;
        if let Some(live) = &live
            && !live.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null)
        {
            let verdict = health::of(live);
            return Err(DriverError::Unavailable {
                reason: format!("{key} is being removed, and made anew once it is gone: {}", verdict.message),
                retry_after: None,
            });
        }
        let value = Self::for_server(&wanted, live.as_ref(), mark, options)?;
        let (change, live) = match live {
            Some(live) if differences(&live, &value).is_empty() => (Change::None, live),
            live => {
                let change = if live.is_none() { Change::Created } else { Change::Written };
                let now = self.server.apply(kind, key, &value, options.force, false).await?;
                self.watcher.wrote(&now);
                (change, now)
            }
        };
        if key.kind == "CustomResourceDefinition" && change != Change::None {
            self.defined(kind, key).await?;
        }
        let (part, verdict) = (part(&live, &wanted.value), health::of(&live));
        Ok(Made { uid: uid(&live), key: wanted.key, rank, change, part, verdict })
    }

    /// Waits until a definition is served.
    async fn defined(&self, kind: &Kind, key: &Key) -> Result<(), DriverError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let live = self.server.get(kind, key).await?;
            let verdict = live.as_ref().map_or_else(Verdict::not_found, health::of);
            if verdict.health == Health::Current {
                self.server.forget_kinds();
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                let reason = format!("{key} is not served yet: {}", verdict.message);
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn make_namespaces(&self, objects: &[Object], options: &Options) -> Result<(), DriverError> {
        let named = |object: &Object| object.group.is_empty() && object.kind == "Namespace";
        let made: BTreeSet<_> =
            objects.iter().filter(|object| named(object)).map(|object| object.name.as_str()).collect();
        let needed = objects.iter().filter_map(|object| object.namespace.as_deref());
        let needed: BTreeSet<_> =
            needed.chain(options.namespace.as_deref()).filter(|name| !made.contains(name)).collect();
        for name in needed {
            let [group, kind, namespace] = ["", "Namespace", ""].map(str::to_owned);
            let key = Key { group, kind, namespace, name: name.to_owned() };
            let kind = self.server.kind(&key, Some("v1")).await?;
            if self.server.get(&kind, &key).await?.is_none() {
                let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                self.server.apply(&kind, &key, &value, false, false).await?;
            }
        }
        Ok(())
    }

    /// Makes all objects of a desired state, and removes those of an earlier one that it does not ask for any more.
    pub(super) async fn apply(&self, replica: &Replica, desired: &Value) -> Result<Done, DriverError> {
        let options = Options::read(&replica.options)?;
        let objects = manifest::objects(desired, &options)?;
        if options.create_namespaces {
            self.make_namespaces(&objects, &options).await?;
        }
        let tidy = self.tidy().remove(&replica.id);
        let mut made: Vec<Made> = Vec::new();
        let mut ranks: Vec<u8> = objects.iter().map(Object::rank).collect();
        ranks.dedup();
        for rank in ranks {
            let mut calls = Vec::<BoxFuture<'_, _>>::new();
            for object in objects.iter().filter(|object| object.rank() == rank) {
                calls.push(Box::pin(self.make(object, mark(replica), &options)));
            }
            let results: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
            let mut errors = Vec::new();
            for result in results {
                match result {
                    Ok(one) => made.push(one),
                    Err(error) => errors.push(error),
                }
            }
            if let Some(error) = first_of(errors) {
                return Err(error);
            }
        }
        let removed = self.prune(replica, &made, &options, tidy).await?;
        let mut tidy = self.tidy();
        if tidy.len() >= MAX_TIDY {
            tidy.clear();
        }
        tidy.insert(replica.id.clone());
        drop(tidy);
        let count = |change| made.iter().filter(|made| made.change == change).count();
        let output = format!(
            "{} objects: {} created, {} changed, {removed} removed",
            made.len(),
            count(Change::Created),
            count(Change::Written)
        );
        made.sort_by(|a, b| (a.rank, &a.key).cmp(&(b.rank, &b.key)));
        let parts: BTreeMap<_, _> = made.iter().map(|made| (made.key.to_string(), made.part.clone())).collect();
        let local_id = local_id(made.iter().map(|made| made.key.clone()));
        let verdicts: Vec<_> = made.into_iter().map(|made| (made.key, made.verdict)).collect();
        Ok(Done { output, local_id, digest: Some(digest_of(&parts)), health: doing(&verdicts) })
    }

    /// Removes what was asked for once and is not any more. How many.
    async fn prune(
        &self,
        replica: &Replica,
        made: &[Made],
        options: &Options,
        tidy: bool,
    ) -> Result<usize, DriverError> {
        let known =
            if tidy && replica.local_id.is_some() { self.named(replica).await? } else { self.known(replica).await? };
        let mut removed = 0;
        for (kind, key) in known.iter().filter(|(_, key)| !made.iter().any(|made| made.key == *key)) {
            let kept = |uid: &str| made.iter().any(|made| made.uid.as_deref() == Some(uid));
            removed += usize::from(self.remove(kind, key, mark(replica), options, false, kept).await?);
        }
        Ok(removed)
    }

    /// The kind of an object that was made once; none if there is no such kind any more, and so no such object.
    async fn kind_if_served(&self, key: &Key) -> Result<Option<Kind>, DriverError> {
        match self.server.kind(key, None).await {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if super::kinds::is_missing(&error) && !self.server.is_defined(key).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object as it is; none also where its kind is not served any more.
    async fn live(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, DriverError> {
        match self.server.get(kind, key).await {
            Err(error) if super::kinds::is_missing(&error) => Ok(None),
            live => live,
        }
    }

    /// Removes one object, or only what says whose it is. Whether there was something to remove.
    async fn remove(
        &self,
        kind: &Kind,
        key: &Key,
        mark: Mark<'_>,
        options: &Options,
        retain: bool,
        kept: impl Fn(&str) -> bool,
    ) -> Result<bool, DriverError> {
        let Some(live) = self.live(kind, key).await? else { return Ok(false) };
        let was = uid(&live);
        // Somebody may have made another of that name; and one object may be served in several groups.
        if !stamp::is_of(key, &live, mark) || was.as_deref().is_some_and(kept) {
            return Ok(false);
        }
        if retain || stamp::is_adopted(&live) {
            self.server.merge(kind, key, &stamp::released(&live)).await?;
            return Ok(false);
        }
        self.server.delete(kind, key, was.clone(), options.propagation).await?;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some(live) = self.live(kind, key).await? else { return Ok(true) };
            if uid(&live) != was {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= until {
                let verdict = health::of(&live);
                let reason = format!("{key} is not gone yet: {}", verdict.message);
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The objects that a replica is known by, as they are to be removed.
    async fn named(&self, replica: &Replica) -> Result<Vec<(Kind, Key)>, DriverError> {
        let mut found = Vec::new();
        for key in inventory(replica.local_id.as_deref()) {
            if let Some(kind) = self.kind_if_served(&key).await? {
                found.push((kind, key));
            }
        }
        found.sort_by(|(_, a), (_, b)| (rank(&b.group, &b.kind), b).cmp(&(rank(&a.group, &a.kind), a)));
        Ok(found)
    }

    /// All objects of a replicant, as they are to be removed: those that it is known by, and those that have its label,
    /// since what was done last may not have come to an end.
    async fn known(&self, replica: &Replica) -> Result<Vec<(Kind, Key)>, DriverError> {
        let mut found = self.named(replica).await?;
        let selector = stamp::selector(&replica.id);
        for kind in self.used().await? {
            let objects = match self.server.labelled(&kind, &selector).await {
                Ok(objects) => objects,
                Err(DriverError::Refused { reason, .. }) => {
                    tracing::warn!(kind = %kind.resource.kind, reason, "what was made of this kind is not looked for");
                    continue;
                }
                // Without its kind there is no object.
                Err(error) if super::kinds::is_missing(&error) => {
                    let [group, name] = [kind.resource.group.clone(), kind.resource.kind.clone()];
                    let all = Key { group, kind: name, namespace: String::new(), name: "*".into() };
                    if self.server.is_defined(&all).await? {
                        return Err(error);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let text = |object: &Value, pointer: &str| {
                object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            for object in objects {
                let [group, name] = [kind.resource.group.clone(), kind.resource.kind.clone()];
                let (namespace, own) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
                let key = Key { group, kind: name, namespace, name: own };
                if !found.iter().any(|(_, known)| *known == key) {
                    found.push((kind.clone(), key));
                }
            }
        }
        found.sort_by(|(_, a), (_, b)| (rank(&b.group, &b.kind), b).cmp(&(rank(&a.group, &a.kind), a)));
        Ok(found)
    }

    /// Removes all objects of a replicant.
    pub(super) async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        // A policy that is not understood may be what keeps them.
        let options = Options::read(&replica.options)?;
        self.tidy().remove(&replica.id);
        let known = self.known(replica).await?;
        let mut removed = 0;
        for (kind, key) in &known {
            removed += usize::from(self.remove(kind, key, mark(replica), &options, options.retain, |_| false).await?);
        }
        let output = format!("{removed} objects removed, {} left", known.len() - removed);
        Ok(Done { output, ..Done::default() })
    }

    /// Looks at all objects of a replicant.
    pub(super) async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let options = Options::read(&replica.options)?;
        let mut seen = Vec::new();
        if let Some(written) = &replica.written {
            let objects = manifest::objects(written, &options)?;
            let mut calls = Vec::<BoxFuture<'_, _>>::new();
            for object in &objects {
                calls.push(Box::pin(self.look(object, mark(replica), &options)));
            }
            let results: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
            for result in results {
                seen.push(result?);
            }
        } else {
            for (kind, key) in self.known(replica).await? {
                self.watcher.watch(&self.server, &kind);
                let live = self.live(&kind, &key).await?;
                let live = live.filter(|live| stamp::is_of(&key, live, mark(replica)));
                seen.push(Seen { key, live, part: None, drift: Vec::new() });
            }
        }
        let exists = seen.iter().any(|seen| seen.live.is_some());
        let parts = seen.iter().filter_map(|seen| Some((seen.key.to_string(), seen.part.clone()?)));
        let parts: BTreeMap<_, _> = parts.collect();
        let digest = (exists && replica.written.is_some()).then(|| digest_of(&parts));
        let drift: Vec<_> = seen.iter().flat_map(|seen| seen.drift.iter().map(String::as_str)).collect();
        let drift = (!drift.is_empty()).then(|| clipped(drift.join("; "), MAX_DRIFT_BYTES));
        let verdict = |seen: &Seen| seen.live.as_ref().map_or_else(Verdict::not_found, health::of);
        let verdicts: Vec<_> = seen.iter().map(|seen| (seen.key.clone(), verdict(seen))).collect();
        let live: Vec<_> = seen.iter().filter_map(|seen| seen.live.as_ref()).map(plain).collect();
        let shown = clipped(json!(live).to_string(), MAX_SHOWN_BYTES);
        Ok(Observed {
            exists,
            digest,
            drift,
            contents: exists.then_some(Value::String(shown)),
            local_id: local_id(seen.into_iter().filter(|seen| seen.live.is_some()).map(|seen| seen.key)),
            marker: None,
            health: doing(&verdicts).filter(|_| exists || replica.written.is_some()),
        })
    }

    async fn look(&self, object: &Object, mark: Mark<'_>, options: &Options) -> Result<Seen, DriverError> {
        let wanted = match self.wanted(object, options).await {
            Ok(wanted) => wanted,
            Err(error) if super::kinds::is_missing(&error) => {
                let [group, kind, name] = [&object.group, &object.kind, &object.name].map(String::clone);
                let key = Key { group, kind, namespace: object.namespace.clone().unwrap_or_default(), name };
                let drift = vec![format!("{key}: its kind is not served any more")];
                return Ok(Seen { key, live: None, part: None, drift });
            }
            Err(error) => return Err(error),
        };
        self.watcher.watch(&self.server, &wanted.kind);
        let live = self.live(&wanted.kind, &wanted.key).await?;
        let key = wanted.key.clone();
        let Some(live) = live.filter(|live| stamp::is_of(&key, live, mark)) else {
            let drift = vec![format!("{key} is gone")];
            return Ok(Seen { key, live: None, part: None, drift });
        };
        let drift = self.drift(&wanted, &live, mark, options).await?;
        Ok(Seen { key, part: Some(part(&live, &wanted.value)), live: Some(live), drift })
    }

    /// How an object differs from what is asked for, and who did it.
    async fn drift(
        &self,
        wanted: &Wanted,
        live: &Value,
        mark: Mark<'_>,
        options: &Options,
    ) -> Result<Vec<String>, DriverError> {
        let value = Self::for_server(wanted, Some(live), mark, options)?;
        if differences(live, &value).is_empty() {
            return Ok(Vec::new());
        }
        // Servers write values in other ways than people: they say what would change.
        let normal = match self.server.apply(&wanted.kind, &wanted.key, &value, true, true).await {
            Ok(normal) => part(&normal, &value),
            Err(error) if error.is_permanent() => value,
            Err(error) => return Err(error),
        };
        let key = &wanted.key;
        let said = differences(live, &normal).into_iter().map(|difference| {
            let by = fields::set_by(live, &difference.path, MANAGER);
            let by = by.map(|(manager, time)| format!(", set by {manager} at {time}")).unwrap_or_default();
            let path = fields::written(&difference.path);
            if key.is_secret() {
                return format!("{key}: {path} is another{by}");
            }
            let is = difference.is.map_or_else(|| "gone".to_owned(), |is| format!("{}", Short(&is)));
            format!("{key}: {path} is {is}{by}, wanted is {}", Short(&difference.wanted))
        });
        Ok(said.collect())
    }

    /// What a desired state would change, as a unified diff of each object.
    pub(super) async fn diff(&self, replica: &Replica, desired: &Value) -> Result<String, DriverError> {
        let options = Options::read(&replica.options)?;
        let objects = manifest::objects(desired, &options)?;
        let mut text = String::new();
        let mut keys = BTreeSet::new();
        for object in &objects {
            let wanted = match self.wanted(object, &options).await {
                Ok(wanted) => wanted,
                Err(error) if super::kinds::is_missing(&error) => {
                    text.push_str(&format!(
                        "# {error}\n{}",
                        super::diff::between(&object.name, None, Some(&object.value))
                    ));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let live = self.server.get(&wanted.kind, &wanted.key).await?;
            let value = Self::for_server(&wanted, live.as_ref(), mark(replica), &options)?;
            let then = match self.server.apply(&wanted.kind, &wanted.key, &value, options.force, true).await {
                Ok(then) => then,
                // Its namespace may be made with it.
                Err(DriverError::Unavailable { reason, .. }) if live.is_none() => {
                    text.push_str(&format!("# {reason}\n"));
                    value
                }
                Err(error) => return Err(error),
            };
            let (before, after) = (live.as_ref().map(plain), plain(&then));
            text.push_str(&super::diff::between(&wanted.key.to_string(), before.as_ref(), Some(&after)));
            keys.insert(wanted.key);
        }
        for key in inventory(replica.local_id.as_deref()).into_iter().filter(|key| !keys.contains(key)) {
            if let Some(kind) = self.kind_if_served(&key).await?
                && let Some(live) = self.live(&kind, &key).await?
            {
                text.push_str(&super::diff::between(&key.to_string(), Some(&plain(&live)), None));
            }
        }
        Ok(text)
    }
}

/// An object that was looked at.
struct Seen {
    key: Key,
    live: Option<Value>,
    part: Option<Value>,
    drift: Vec<String>,
}

/// A value, shortened for people.
struct Short<'a>(&'a Value);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&clipped(self.0.to_string(), 200))
    }
}

/// An object without what a server keeps for itself.
fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation", "uid", "selfLink", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
    if let Some(whole) = object.as_object_mut() {
        whole.remove("status");
        if whole.get("kind").and_then(Value::as_str) == Some("Secret") {
            hide(whole);
        }
    }
    object
}

/// Leaves of a secret's values only by what they can be told apart.
fn hide(secret: &mut serde_json::Map<String, Value>) {
    for field in ["data", "stringData"] {
        for (_, value) in secret.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten() {
            let digest = digest(value.to_string().as_bytes());
            *value = json!(format!("(hidden, {})", digest.get(..12).unwrap_or_default()));
        }
    }
    let annotations = secret.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}
