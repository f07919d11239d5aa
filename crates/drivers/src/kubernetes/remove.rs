//! Removing objects, and finding those that are to be removed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use kube::core::ObjectMeta;

use super::apply::first_of;
use super::health;
use super::kinds::{Kind, is_missing};
use super::manifest::{Key, rank};
use super::options::Options;
use super::replicas::{AT_ONCE, LOOK_EVERY, MANY, PATIENCE, Replicas, inventory, mark, uid};
use super::server::PAGE;
use super::stamp::{self, Mark};
use super::used::Used;
use crate::{Done, DriverError, Replica};

/// The most objects of one kind that are found by the label of a replicant.
const MAX_FOUND: usize = 10_000;

/// The objects of a replicant.
pub(super) struct Known {
    pub(super) objects: Vec<(Kind, Key)>,
    /// Why there may be others, which nobody here may look for.
    pub(super) unseen: Option<String>,
    /// Why there may be others, which could not be looked for.
    pub(super) missed: Option<String>,
}

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
        kept: &(dyn Fn(&str) -> bool + Sync),
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
            if let Some(kind) = self.server.kind_if_served(&key).await? {
                found.push((kind, key));
            }
        }
        Ok(in_order(found))
    }

    /// All objects of a replicant, as they are to be removed: those that it is known by, and those that have its label,
    /// since what was done last may not have come to an end.
    pub(super) async fn known(&self, replica: &Replica) -> Result<Known, DriverError> {
        let mut found = self.named(replica).await?;
        let mut unseen = None;
        let mut keys: BTreeSet<_> = found.iter().map(|(_, key)| key.clone()).collect();
        let (used, looked) = self.used.all(&self.server).await?;
        for used in used {
            let mut namespaces = used.namespaces.clone();
            namespaces.extend(keys.iter().map(|key| key.namespace.clone()).filter(|namespace| !namespace.is_empty()));
            let (kind, objects) = match self.labelled_as_served(replica, &used.kind, &namespaces).await {
                Ok((kind, objects, refused)) => {
                    unseen = unseen.or(refused.filter(|_| used.may_be_of(&replica.id)));
                    (kind, objects)
                }
                Err(error) => match self.is_held_up(replica, &used, &error).await? {
                    true => return Err(error),
                    false => continue,
                },
            };
            for key in objects {
                if keys.insert(key.clone()) {
                    found.push((kind.clone(), key));
                }
            }
        }
        // Nobody has the right to list all kinds only to remove a replica, but there was something of one that has many objects.
        if found.is_empty() && (!looked.listed || replica.local_id.as_deref() == Some(MANY)) {
            unseen = unseen.or(looked.refused);
        }
        Ok(Known { objects: in_order(found), unseen, missed: looked.missed })
    }

    /// Whether a kind whose objects cannot be listed keeps it from being known which objects a replicant has. Of a kind without a
    /// definition there are none; and one that is broken holds up only those that may have something of it.
    async fn is_held_up(&self, replica: &Replica, used: &Used, error: &DriverError) -> Result<bool, DriverError> {
        if !used.may_be_of(&replica.id) && self.server.is_ready().await {
            return Ok(false);
        }
        Ok(!is_missing(error) || self.server.is_defined(&used.kind.of(String::new(), "*".to_owned())).await?)
    }

    /// The same as [`labelled`](Self::labelled), and the kind as it is served now: the version in which it was used may be gone.
    async fn labelled_as_served(
        &self,
        replica: &Replica,
        kind: &Kind,
        namespaces: &BTreeSet<String>,
    ) -> Result<(Kind, Vec<Key>, Option<String>), DriverError> {
        let (kind, (objects, refused)) = match self.labelled(replica, kind, namespaces).await {
            Err(error) if is_missing(&error) => {
                let now = self.server.kind(&kind.of(String::new(), "*".to_owned()), None).await?;
                if now == *kind {
                    return Err(error);
                }
                self.used.is_served_as(&now);
                let found = self.labelled(replica, &now, namespaces).await?;
                (now, found)
            }
            found => (kind.clone(), found?),
        };
        Ok((kind, objects, refused))
    }

    /// The objects of a replicant of one kind, and why not all are known. Where the rights do not suffice to look in all
    /// namespaces, in these.
    async fn labelled(
        &self,
        replica: &Replica,
        kind: &Kind,
        namespaces: &BTreeSet<String>,
    ) -> Result<(Vec<Key>, Option<String>), DriverError> {
        match self.marked(replica, kind, None).await {
            Err(DriverError::Refused { reason, .. }) if !kind.namespaced || namespaces.is_empty() => {
                kind.is_not_looked_for(&reason);
                return Ok((Vec::new(), Some(reason)));
            }
            Err(DriverError::Refused { .. }) => {}
            other => return other.map(|found| (found, None)),
        }
        let (mut found, mut refused) = (Vec::new(), None);
        for namespace in namespaces {
            match self.marked(replica, kind, Some(namespace)).await {
                Ok(objects) => found.extend(objects),
                Err(DriverError::Refused { reason, .. }) => {
                    kind.is_not_looked_for(&reason);
                    refused.get_or_insert(reason);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((found, refused))
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
        self.untidy(&replica.id);
        let Known { objects, unseen, missed } = self.known(replica).await?;
        let removed = self.remove_these(&objects, replica, options, retain, &|_| false).await?;
        // What is not remembered and could not be looked for must not be believed to be gone. Where objects stay anyway, they may.
        if !retain && inventory(replica.local_id.as_deref()).is_empty() {
            if let Some(reason) = unseen {
                self.used.look_again();
                return Err(DriverError::Refused { place: replica.id.to_string(), reason: unlisted(&reason) });
            }
            // It is looked again by itself, after a pause.
            if let Some(reason) = missed {
                return Err(DriverError::Unavailable { reason: unlooked(replica, &reason), retry_after: None });
            }
        }
        self.operated().remove(&replica.id);
        let output = format!("{removed} objects removed, {} left", objects.len() - removed);
        Ok(Done { output, ..Done::default() })
    }

    /// Removes objects that are in order. Where some cannot be, the others of their rank are all the same. How many.
    ///
    /// # Errors
    /// That of the first that could not.
    pub(super) async fn remove_these(
        &self,
        objects: &[(Kind, Key)],
        replica: &Replica,
        options: &Options,
        retain: bool,
        kept: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<usize, DriverError> {
        let mut removed = 0;
        for same in objects.chunk_by(|(_, a), (_, b)| rank(&a.group, &a.kind) == rank(&b.group, &b.kind)) {
            let mut calls = Vec::<BoxFuture<'_, _>>::new();
            for (kind, key) in same {
                calls.push(Box::pin(self.remove(kind, key, mark(replica), options, retain, kept)));
            }
            let results: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
            let mut errors = Vec::new();
            for result in results {
                match result {
                    Ok(was_there) => removed += usize::from(was_there),
                    Err(error) => errors.push(error),
                }
            }
            if let Some(error) = first_of(errors) {
                return Err(error);
            }
        }
        Ok(removed)
    }
}

pub(super) fn unlooked(replica: &Replica, reason: &str) -> String {
    format!(
        "what was made of {} is not remembered, and not all kinds could be looked through for it: {reason}. It is looked for again \
         now and then; mend what does not answer, or remove it if it is of no use any more",
        replica.id
    )
}

fn unlisted(reason: &str) -> String {
    format!(
        "what was made of it is not remembered, and cannot be looked for: {reason}. Give the right to list what it may have made \
         (khufu kubernetes rbac prints roles), or remove by hand what is left of it; it is looked for again now and then"
    )
}
