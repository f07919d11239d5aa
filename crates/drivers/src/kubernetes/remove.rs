//! Removing objects, and finding those that are to be removed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use kube::core::ObjectMeta;

use super::health;
use super::kinds::{Kind, is_missing};
use super::manifest::{Key, rank};
use super::options::Options;
use super::replicas::{LOOK_EVERY, PATIENCE, Replicas, Used, inventory, mark, uid};
use super::server::PAGE;
use super::stamp::{self, Mark};
use crate::{Done, DriverError, Replica};

/// The most objects of one kind that are found by the label of a replicant.
const MAX_FOUND: usize = 10_000;

/// What was made last goes first.
fn in_order(mut found: Vec<(Kind, Key)>) -> Vec<(Kind, Key)> {
    found.sort_by(|(_, a), (_, b)| (rank(&b.group, &b.kind), b).cmp(&(rank(&a.group, &a.kind), a)));
    found
}

impl Replicas {
    /// Removes one object, or only what says whose it is. Whether there was something to remove.
    pub(super) async fn remove(
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
        let going = !live.pointer("/metadata/deletionTimestamp").is_none_or(serde_json::Value::is_null);
        if !options.cascade && !going {
            self.holds_no_strangers(key, &live, mark).await?;
        }
        self.server.delete(kind, key, was.clone(), options.propagation).await?;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some(live) = self.live(kind, key).await? else { return Ok(true) };
            if uid(&live) != was {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= until {
                let reason = format!("{key} is not gone yet: {}", health::of(&live).message);
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The objects that a replica is known by, as they are to be removed.
    pub(super) async fn named(&self, replica: &Replica) -> Result<Vec<(Kind, Key)>, DriverError> {
        let mut found = Vec::new();
        for key in inventory(replica.local_id.as_deref()) {
            if let Some(kind) = self.kind_if_served(&key).await? {
                found.push((kind, key));
            }
        }
        Ok(in_order(found))
    }

    /// All objects of a replicant, as they are to be removed: those that it is known by, and those that have its label,
    /// since what was done last may not have come to an end.
    pub(super) async fn known(&self, replica: &Replica) -> Result<Vec<(Kind, Key)>, DriverError> {
        let mut found = self.named(replica).await?;
        let mut keys: BTreeSet<_> = found.iter().map(|(_, key)| key.clone()).collect();
        for Used { kind, mut namespaces } in self.used().await? {
            namespaces.extend(keys.iter().map(|key| key.namespace.clone()).filter(|namespace| !namespace.is_empty()));
            let objects = match self.labelled(replica, &kind, &namespaces).await {
                Ok(objects) => objects,
                // Without its kind there is no object.
                Err(error) if is_missing(&error) => {
                    if self.server.is_defined(&kind.of(String::new(), "*".to_owned())).await? {
                        return Err(error);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            for key in objects {
                if keys.insert(key.clone()) {
                    found.push((kind.clone(), key));
                }
            }
        }
        Ok(in_order(found))
    }

    /// The objects of a replicant of one kind. Where the rights do not suffice to look in all namespaces, in these.
    async fn labelled(
        &self,
        replica: &Replica,
        kind: &Kind,
        namespaces: &BTreeSet<String>,
    ) -> Result<Vec<Key>, DriverError> {
        match self.marked(replica, kind, None).await {
            Err(DriverError::Refused { reason, .. }) if !kind.namespaced || namespaces.is_empty() => {
                kind.is_not_looked_for(&reason);
                return Ok(Vec::new());
            }
            Err(DriverError::Refused { .. }) => {}
            other => return other,
        }
        let mut found = Vec::new();
        for namespace in namespaces {
            match self.marked(replica, kind, Some(namespace)).await {
                Ok(objects) => found.extend(objects),
                Err(DriverError::Refused { reason, .. }) => kind.is_not_looked_for(&reason),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Those with the label that are no copies.
    ///
    /// # Errors
    /// Also where there are too many: nobody is to believe that what was not listed is not there.
    async fn marked(&self, replica: &Replica, kind: &Kind, namespace: Option<&str>) -> Result<Vec<Key>, DriverError> {
        let selector = stamp::selector(&replica.id);
        let mut found = Vec::new();
        let look = |object: ObjectMeta| {
            let key = kind.of(object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default());
            if stamp::is_marked(&key, &object, mark(replica)) {
                found.push(key);
            }
            if found.len() > MAX_FOUND { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.server.each(kind, &selector, namespace, PAGE, look).await?;
        if found.len() > MAX_FOUND {
            let name = &kind.resource.kind;
            let reason = format!(
                "more than {MAX_FOUND} objects of the kind {name} are marked as this replicant's, and a replicant makes at most \
                 1,000: see who makes them, and remove by hand those that are not wanted (kubectl delete {} -A -l {selector})",
                kind.resource.plural
            );
            return Err(DriverError::Unavailable { reason, retry_after: None });
        }
        Ok(found)
    }

    /// Removes all objects of a replicant that is no more wanted here.
    pub(super) async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        // A policy that is not understood may be what keeps them.
        let options = Options::read(&replica.options)?;
        self.remove_all(replica, &options, options.retain).await
    }

    /// Removes all objects of a replicant of which no desired state names any.
    pub(super) async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        let options = Options::read(&replica.options)?;
        let done = self.remove_all(replica, &options, false).await?;
        // Nothing is a part of it, until it is written again.
        Ok(Done { local_id: Some(String::new()), ..done })
    }

    async fn remove_all(&self, replica: &Replica, options: &Options, retain: bool) -> Result<Done, DriverError> {
        self.tidy().remove(&replica.id);
        let known = self.known(replica).await?;
        let mut removed = 0;
        for (kind, key) in &known {
            removed += usize::from(self.remove(kind, key, mark(replica), options, retain, |_| false).await?);
        }
        let output = format!("{removed} objects removed, {} left", known.len() - removed);
        Ok(Done { output, ..Done::default() })
    }
}
