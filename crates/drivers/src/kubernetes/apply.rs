//! Making the objects of a desired state.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use khufu_crdt::{Condition, Health};
use serde_json::{Value, json};

use super::health::{self, rolled_up};
use super::kinds::Kind;
use super::manifest::{self, Key, Object};
use super::options::Options;
use super::replicas::{AT_ONCE, LOOK_EVERY, MANY, PATIENCE, Replicas, digest_of, local_id, mark, uid};
use super::server::Write;
use super::stamp::{self, Mark};
use crate::{Done, DriverError, Replica};

/// An object that is now as it should be.
pub(super) struct Made {
    key: Key,
    uid: Option<String>,
    rank: u8,
    change: Change,
    part: Value,
    health: Health,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Created,
    Written,
}

/// Of several failures the first, since what it was about may be why the others failed.
pub(super) fn first_of(mut errors: Vec<DriverError>) -> Option<DriverError> {
    // What will be tried again soon comes before what will not.
    let soon = errors.iter().position(|error| !error.is_permanent()).unwrap_or(0);
    (!errors.is_empty()).then(|| errors.swap_remove(soon))
}

impl Replicas {
    /// Makes one object as it is to be.
    pub(super) async fn make(&self, object: &Object, mark: Mark<'_>, options: &Options) -> Result<Made, DriverError> {
        let wanted = self.wanted(object, options).await?;
        let (kind, key, rank) = (&wanted.kind, &wanted.key, wanted.rank);
        self.watcher.watch(&self.server, kind, &key.namespace);
        let live = self.server.get(kind, key).await?;
        // Of what may not even be read, nothing is made.
        self.used.add(kind, &key.namespace, mark.id);
        if let Some(live) = &live
            && !live.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null)
        {
            let health = health::of(live);
            return Err(DriverError::Unavailable {
                reason: format!("{key} is being removed, and made anew once it is gone: {}", health.message),
                retry_after: None,
            });
        }
        let value = Self::for_server(&wanted, live.as_ref(), mark, options)?;
        let as_wanted = match &live {
            Some(live) => {
                stamp::is_applied(live, &value) && self.changed(&wanted, live, &value, options).await?.is_empty()
            }
            None => false,
        };
        let (change, live) = match live {
            Some(live) if as_wanted => (Change::None, live),
            live => {
                let was = live.as_ref().map(|live| uid(live).unwrap_or_default());
                let (change, write) = match &was {
                    None => (Change::Created, Write::New),
                    Some(uid) => (Change::Written, Write::Over(uid)),
                };
                let now = self.server.apply(kind, key, &value, options.force, write).await?;
                self.normal.wrote(&now, &value);
                if change == Change::Created {
                    // There is such a kind, whatever was seen before.
                    self.server.defined.forget();
                }
                (change, now)
            }
        };
        self.watcher.saw(kind, mark.id, &live);
        if key.kind == "CustomResourceDefinition" && change != Change::None {
            self.defined(kind, key).await?;
        }
        let (part, health) = (Self::part(&live, &wanted.value, options), health::of(&live));
        Ok(Made { uid: uid(&live), key: wanted.key, rank, change, part, health })
    }

    /// Waits until a definition is served.
    async fn defined(&self, kind: &Kind, key: &Key) -> Result<(), DriverError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let live = self.server.get(kind, key).await?;
            let health = live.as_ref().map_or_else(health::not_found, health::of);
            if health.condition == Condition::Current {
                self.server.forget_kinds();
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                let reason = format!("{key} is not served yet: {}", health.message);
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn make_namespaces(&self, objects: &[Object], options: &Options) -> Result<(), DriverError> {
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
                let made = self.server.apply(&kind, &key, &value, false, Write::New).await;
                // It is nobody's, whoever has made it.
                if made.is_err() && self.server.get(&kind, &key).await?.is_none() {
                    made?;
                }
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
        // Where operations have run on some of them, those would stay without that for as long as one of the others is refused.
        if self.operated().contains(&replica.id) {
            self.would_take(replica, &options, &objects).await?;
        }
        let done = self.bring_about(replica, &options, &objects).await?;
        self.operated().remove(&replica.id);
        Ok(done)
    }

    /// Makes these objects, and removes all others of the replicant.
    pub(super) async fn bring_about(
        &self,
        replica: &Replica,
        options: &Options,
        objects: &[Object],
    ) -> Result<Done, DriverError> {
        let moves = self.server.moves();
        let tidy = self.untidy(&replica.id);
        let mut made: Vec<Made> = Vec::new();
        let mut ranks: Vec<u8> = objects.iter().map(Object::rank).collect();
        ranks.dedup();
        for rank in ranks {
            let mut calls = Vec::<BoxFuture<'_, _>>::new();
            for object in objects.iter().filter(|object| object.rank() == rank) {
                calls.push(Box::pin(self.make(object, mark(replica), options)));
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
        let (removed, tidy) = self.prune(replica, &made, options, tidy).await?;
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
        if tidy && local_id.as_deref().is_some_and(|names| names != MANY) {
            self.is_tidy(&replica.id, moves);
        }
        let health = rolled_up(made.iter().map(|made| (&made.key, &made.health)));
        let health = self.watcher.with_blind(health, made.iter().map(|made| &made.key));
        Ok(Done { output, local_id, digest: Some(digest_of(&parts)), health })
    }

    /// Removes what was asked for once and is not any more. How many, and whether that is certainly all.
    async fn prune(
        &self,
        replica: &Replica,
        made: &[Made],
        options: &Options,
        tidy: bool,
    ) -> Result<(usize, bool), DriverError> {
        let (known, all) = if tidy {
            (self.named(replica).await?, true)
        } else {
            let known = self.known(replica).await?;
            (known.objects, known.unseen.is_none() && known.missed.is_none())
        };
        let kept = |uid: &str| made.iter().any(|made| made.uid.as_deref() == Some(uid));
        let known: Vec<_> = known.into_iter().filter(|(_, key)| !made.iter().any(|made| made.key == *key)).collect();
        Ok((self.remove_these(&known, replica, options, false, &kept).await?, all))
    }
}
