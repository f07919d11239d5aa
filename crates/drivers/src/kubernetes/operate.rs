//! Running operations, and what a replica consists of when some have run.
//!
//! The manifest of an object is the one of the desired state, or, once an operation has changed it, the one in an annotation of
//! the object. An operation makes another of it, which is applied like that of a desired state: as a whole, under the same
//! manager. So the next desired state takes back what operations did, field by field, without removing what it asks for.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use khufu_crdt::{Operation, OperationId};
use serde_json::Value;

use super::answer::is_untried;
use super::health::{self, rolled_up};
use super::kinds::{Kind, is_missing};
use super::manifest::{self, Key, Object};
use super::operation::{Action, allowed, nothing, place};
use super::options::Options;
use super::replicas::{AT_ONCE, MANY, Replicas, digest_of, inventory, local_id, mark, remember};
use super::server::Write;
use super::stamp;
use crate::{Done, DriverError, Replica};

/// An object of a replica.
pub(super) struct Held {
    pub(super) key: Key,
    /// None if it is not served any more.
    pub(super) kind: Option<Kind>,
    /// What it is to be; none if nobody remembers.
    pub(super) manifest: Option<Object>,
    /// What it is; none if it is not there, or is not of this replica.
    pub(super) live: Option<Value>,
}

impl Held {
    /// The operation that changed it last, and its number among all of the replica.
    pub(super) fn marker(&self) -> Option<(u64, OperationId)> {
        stamp::marker_of(self.live.as_ref()?)
    }

    /// That part of it of which its manifest speaks.
    pub(super) fn part(&self, options: &Options) -> Option<Value> {
        Some(Replicas::part(self.live.as_ref()?, &self.manifest.as_ref()?.value, options))
    }
}

/// One object of a manifest that was changed.
fn only(value: &Value, options: &Options) -> Result<Object, DriverError> {
    let object = manifest::objects(value, options)?.pop();
    object.ok_or_else(|| DriverError::invalid("payload", "it makes no object of the manifest"))
}

/// The manifest that an object carries, if it may be made and is this object's. Whoever may annotate an object here need not
/// be allowed to write others, and would have them written with the rights of the node.
fn operated_on(key: &Key, manifest: &Value, options: &Options) -> Option<Object> {
    let object = only(manifest, options).ok()?;
    let called = key_of(&object, options);
    let here = key.namespace.is_empty() || called.namespace == key.namespace;
    ((&called.group, &called.kind, &called.name) == (&key.group, &key.kind, &key.name) && here).then_some(object)
}

/// An object with what tells which operation made it so.
fn operated(object: &Object, marker: Option<(u64, &OperationId)>) -> Object {
    Object { value: stamp::operated(&object.value, marker), ..object.clone() }
}

/// What an object of a manifest is called, as far as that is known before the server is asked of its kind.
fn key_of(object: &Object, options: &Options) -> Key {
    let [group, kind, name] = [&object.group, &object.kind, &object.name].map(String::clone);
    Key { group, kind, namespace: object.namespace.clone().unwrap_or_else(|| options.namespace().to_owned()), name }
}

/// The names of all objects, by which a replica is known that operations have run on.
fn named(keys: impl Iterator<Item = Key>) -> Result<String, DriverError> {
    let mut keys = keys.peekable();
    if keys.peek().is_none() {
        return Ok(String::new());
    }
    local_id(keys).filter(|names| names != MANY).ok_or_else(|| {
        let reason =
            "the names of all objects are longer than 16 KiB, too long for operations that change which there are";
        DriverError::invalid("payload", format!("{reason}: change its desired state instead"))
    })
}

impl Replicas {
    /// The objects of a replica: those of the desired state that was written last, and those that operations have made,
    /// without those that operations have removed.
    pub(super) async fn held(&self, replica: &Replica, options: &Options) -> Result<Vec<Held>, DriverError> {
        Ok(self.held_and_missed(replica, options).await?.0)
    }

    /// The same, and why there may be others, which could not be looked for.
    pub(super) async fn held_and_missed(
        &self,
        replica: &Replica,
        options: &Options,
    ) -> Result<(Vec<Held>, Option<String>), DriverError> {
        let names = replica.local_id.as_deref().filter(|names| *names != MANY);
        let names: Option<BTreeSet<Key>> = names.map(|names| inventory(Some(names)).into_iter().collect());
        let is_there = |key: &Key| names.as_ref().is_none_or(|names| names.contains(key));
        let mut found = Vec::new();
        let mut keys = BTreeSet::new();
        for object in replica
            .written
            .iter()
            .map(|written| manifest::objects(written, options))
            .collect::<Result<Vec<_>, _>>()?
            .concat()
        {
            let (kind, key) = match self.wanted(&object, options).await {
                Ok(wanted) => (Some(wanted.kind), wanted.key),
                Err(error) if is_missing(&error) => {
                    let [group, kind, name] = [&object.group, &object.kind, &object.name].map(String::clone);
                    let key = Key { group, kind, namespace: object.namespace.clone().unwrap_or_default(), name };
                    // Of what is defined, and not served now, nobody knows what there is.
                    self.server.kind_if_served(&key).await?;
                    (None, key)
                }
                Err(error) => return Err(error),
            };
            if kind.is_none() || is_there(&key) {
                found.push(Held { key: key.clone(), kind, manifest: Some(object), live: None });
            }
            keys.insert(key);
        }
        let (others, missed) = if names.is_some() {
            (self.named(replica).await?, None)
        } else {
            let known = self.known(replica).await?;
            (known.objects, known.missed)
        };
        for (kind, key) in others.into_iter().rev() {
            if keys.insert(key.clone()) {
                found.push(Held { key, kind: Some(kind), manifest: None, live: None });
            }
        }
        let mut calls = Vec::<BoxFuture<'_, Result<Held, DriverError>>>::new();
        for held in found {
            calls.push(Box::pin(self.seen(held, replica, options)));
        }
        let results: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
        Ok((results.into_iter().collect::<Result<_, _>>()?, missed))
    }

    /// An object with what there is of it.
    async fn seen(&self, mut held: Held, replica: &Replica, options: &Options) -> Result<Held, DriverError> {
        let Some(kind) = &held.kind else { return Ok(held) };
        self.watcher.watch(&self.server, kind, &held.key.namespace);
        let live = self.live(kind, &held.key).await?;
        held.live = live.filter(|live| stamp::is_of(&held.key, live, mark(replica)));
        if let Some(manifest) = held.live.as_ref().and_then(stamp::manifest_of)
            && let Some(manifest) = operated_on(&held.key, &manifest, options)
        {
            remember(&mut self.operated(), &replica.id);
            held.manifest = Some(manifest);
        }
        Ok(held)
    }

    /// Runs an operation.
    pub(super) async fn operate(&self, replica: &Replica, operation: &Operation) -> Result<Done, DriverError> {
        let options = Options::read(&replica.options)?;
        let action = Action::read(operation, &options)?;
        self.untidy(&replica.id);
        let mut held = self.held(replica, &options).await?;
        let number = held.iter().filter_map(Held::marker).map(|(number, _)| number).max().unwrap_or(0) + 1;
        let marker = Some((number, &operation.id));
        let (output, names) = match action {
            Action::Apply(objects) => {
                named(objects.iter().map(|object| key_of(object, &options)))?;
                if options.create_namespaces {
                    self.make_namespaces(&objects, &options).await?;
                }
                let wanted: Vec<_> = objects.iter().map(|object| operated(object, None)).collect();
                self.would_take(replica, &options, &wanted).await?;
                let done = self.bring_about(replica, &options, &wanted).await?;
                // Only now that all is done does anything say so.
                if let Some(last) = objects.last() {
                    self.make(&operated(last, marker), mark(replica), &options).await?;
                }
                (done.output, done.local_id.unwrap_or_default())
            }
            Action::Change(target, change) => {
                let place = place(target.as_ref(), held.iter().map(|held| &held.key))?;
                let place = place.ok_or_else(|| nothing(target.as_ref()))?;
                let names = local_id(held.iter().map(|held| held.key.clone()));
                let output = match held.get(place) {
                    // Some patches give something else when they are laid over it twice.
                    Some(held) if held.marker().is_some_and(|(_, last)| last == operation.id) => {
                        format!("{} was changed before", held.key)
                    }
                    // Made from the manifest alone, it would be without what operations before this one have done.
                    Some(Held { key, kind: Some(_), live: None, .. }) if replica.local_id.is_some() => {
                        return Err(DriverError::Lost { place: key.to_string() });
                    }
                    Some(Held { key, manifest: Some(manifest), .. }) => {
                        let changed = only(&change.make(key, &manifest.value)?, &options)?;
                        self.make(&operated(&changed, marker), mark(replica), &options).await?;
                        format!("{key} changed")
                    }
                    _ => {
                        let reason = "nobody remembers what this object was made of: put the desired state, or an \
                                      operation \"apply\", and ask again";
                        return Err(DriverError::Refused { place: replica.id.to_string(), reason: reason.into() });
                    }
                };
                (output, names.unwrap_or_default())
            }
            Action::Delete(target) => {
                let place = place(target.as_ref(), held.iter().map(|held| &held.key))?;
                let gone = place.map(|place| held.remove(place));
                gone.as_ref().map_or(Ok(()), |gone| allowed(&gone.key.group, &gone.key.kind))?;
                let names = named(held.iter().map(|held| held.key.clone()))?;
                let output = match &gone {
                    Some(Held { key, kind, .. }) => {
                        if let Some(kind) = kind
                            && let Err(error) = self.remove(kind, key, mark(replica), &options, false, &|_| false).await
                        {
                            let live = self.live(kind, key).await?;
                            let going = |live: &Value| live.pointer("/metadata/deletionTimestamp").is_some();
                            // What finalizers hold goes by itself, and nothing brings it back.
                            if error.is_permanent() || !live.as_ref().is_some_and(going) {
                                return Err(error);
                            }
                        }
                        format!("{key} removed")
                    }
                    // Which is what was asked for.
                    None => nothing(target.as_ref()).to_string(),
                };
                (output, names)
            }
        };
        let local_id = Some(names);
        let now = Replica { local_id, ..replica.clone() };
        let held = self.held(&now, &options).await?;
        let parts: BTreeMap<_, _> =
            held.iter().filter_map(|held| Some((held.key.to_string(), held.part(&options)?))).collect();
        let healths: Vec<_> = held
            .iter()
            .map(|held| (&held.key, held.live.as_ref().map_or_else(health::not_found, health::of)))
            .collect();
        let health = rolled_up(healths.iter().map(|(key, health)| (key, health)));
        let health = self.watcher.with_blind(health, held.iter().map(|held| &held.key));
        let digest = (!parts.is_empty()).then(|| digest_of(&parts));
        Ok(Done { output, local_id: now.local_id, digest, health })
    }

    /// Tries what is to be made of several objects: an operation that fails, or what is to be put back and is refused, is to have
    /// changed none of them. What cannot be tried before others are there, or not at all, is left out.
    pub(super) async fn would_take(
        &self,
        replica: &Replica,
        options: &Options,
        objects: &[Object],
    ) -> Result<(), DriverError> {
        if objects.len() < 2 {
            return Ok(());
        }
        let mut calls = Vec::<BoxFuture<'_, Result<(), DriverError>>>::new();
        for object in objects {
            calls.push(Box::pin(async move {
                let wanted = self.wanted(object, options).await?;
                let live = self.live(&wanted.kind, &wanted.key).await?;
                let value = Self::for_server(&wanted, live.as_ref(), mark(replica), options)?;
                self.server.apply(&wanted.kind, &wanted.key, &value, options.force, Write::Try).await.map(drop)
            }));
        }
        let results: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
        let refused = |error: &DriverError| error.is_permanent() && !is_untried(error);
        results.into_iter().filter_map(Result::err).find(refused).map_or(Ok(()), Err)
    }

    /// The manifests of a replica after some operations, from those before.
    ///
    /// # Errors
    /// That of the first that fails.
    pub(super) fn foreseen(
        objects: &mut Vec<Object>,
        operation: &Operation,
        options: &Options,
    ) -> Result<(), DriverError> {
        let keys: Vec<_> = objects.iter().map(|object| key_of(object, options)).collect();
        match Action::read(operation, options)? {
            Action::Apply(all) => {
                named(all.iter().map(|object| key_of(object, options)))?;
                *objects = all;
            }
            Action::Change(target, change) => {
                let place = place(target.as_ref(), keys.iter())?.ok_or_else(|| nothing(target.as_ref()))?;
                if let (Some(object), Some(key)) = (objects.get_mut(place), keys.get(place)) {
                    *object = only(&change.make(key, &object.value)?, options)?;
                }
            }
            Action::Delete(target) => {
                if let Some(place) = place(target.as_ref(), keys.iter())? {
                    let gone = objects.remove(place);
                    allowed(&gone.group, &gone.kind)?;
                }
            }
        }
        Ok(())
    }
}
