//! Making the resources of a desired state.

use std::collections::BTreeMap;

use khufu_crdt::Health;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha512};
use tokio::time::Instant;

use super::api;
use super::compare::{self, Difference};
use super::desired::{self, Resource};
use super::kinds::Mark;
use super::local::{self, Local};
use super::mark;
use super::options::Options;
use super::replicas::{PATIENCE, Pauses, Replicas, Trace, digest_of, whose, words};
use super::status::{State, health, state, worst};
use crate::{Done, DriverError, Replica};

/// A resource that is now as it should be.
struct Made {
    local: Local,
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

/// A resource on its way.
struct Making<'a> {
    replica: &'a Replica,
    resource: &'a Resource,
    /// Its fields with local ids in the places of references.
    fields: Map<String, Value>,
    options: &'a Options,
    place: String,
    until: Instant,
}

fn named<'a>(known: &'a [Local], resource: &Resource) -> Option<&'a Local> {
    known.iter().find(|local| local.name == resource.name && local.kind.name == resource.kind.name)
}

/// What cannot be changed is said, and what could be done instead.
fn fixed(place: &str, differences: &[Difference]) -> Option<DriverError> {
    let cannot = differences.iter().filter(|difference| !difference.can_change);
    let fields: Vec<_> = cannot.map(|one| format!("{} is {}", one.field, one.is.clone().unwrap_or_default())).collect();
    (!fields.is_empty()).then(|| DriverError::Refused {
        place: place.to_owned(),
        reason: format!(
            "what is asked for cannot be changed in what is there ({}): ask for another resource under another name, or \
             remove this one by hand, and it is made anew",
            fields.join(", ")
        ),
    })
}

impl Replicas {
    /// Makes all resources of a desired state, and removes those of an earlier one that it does not ask for any more.
    pub(super) async fn apply(&self, replica: &Replica, wanted: &Value) -> Result<Done, DriverError> {
        let options = Options::read(&replica.options)?;
        let resources = desired::resources(wanted, &options)?;
        let known = local::read(replica.local_id.as_deref());
        let before = self.trace(&replica.id);
        self.touch(&replica.id, resources.iter().map(|resource| resource.kind.name));
        let until = Instant::now() + PATIENCE;
        let (mut made, mut own): (Vec<Made>, Vec<Local>) = (Vec::new(), Vec::new());
        for resource in &resources {
            let place = words(replica, resource.kind, &resource.name);
            let waits = |error: DriverError| match error {
                DriverError::Unavailable { reason, retry_after } => {
                    DriverError::Unavailable { reason: format!("{place}: {reason}"), retry_after }
                }
                other => other,
            };
            self.await_needs(replica, resource, &own).await.map_err(waits)?;
            let ids = self.ids(replica, resource, &resources, &own).await.map_err(waits)?;
            let fields = ids.put(&resource.fields);
            let beside = ids.put(&resource.beside);
            let making = Making { replica, resource, fields, options: &options, place: place.clone(), until };
            let one = self.make(&making, beside, named(&known, resource)).await?;
            own.push(one.local.clone());
            made.push(one);
        }
        let mut removed = 0;
        let mut others: Vec<_> = known.into_iter().filter(|local| !is_among(&own, local)).collect();
        if let Some(Trace::Touched(kinds)) = before {
            let found = self.survey(replica, &|kind| kinds.contains(kind.name)).await?;
            let found = found.into_iter().filter(|local| !is_among(&own, local) && !is_among(&others, local));
            others.extend(found.collect::<Vec<_>>());
        }
        removed += self.remove_all(replica, others).await?;
        // What was asked for earlier and may still come is looked for when something is done again.
        if self.nothing_is_in_doubt(replica).is_ok() {
            self.tidied(&replica.id);
        }
        let count = |change| made.iter().filter(|made| made.change == change).count();
        let output = format!(
            "{} resources: {} created, {} changed, {removed} removed",
            made.len(),
            count(Change::Created),
            count(Change::Written)
        );
        let parts: BTreeMap<_, _> = made.iter().map(|made| (made.local.name.clone(), made.part.clone())).collect();
        let healths: Vec<_> = made.iter().map(|made| (made.local.name.clone(), made.health.clone())).collect();
        // An empty one says that there is nothing, which none would not.
        let local_id = Some(local::write(&own).unwrap_or_default());
        Ok(Done { output, local_id, digest: Some(digest_of(&parts)), health: worst(&healths) })
    }

    /// Makes one resource as it is to be.
    async fn make(
        &self,
        making: &Making<'_>,
        beside: Map<String, Value>,
        known: Option<&Local>,
    ) -> Result<Made, DriverError> {
        let Making { resource, fields, options, place, .. } = making;
        let kind = resource.kind;
        let mark = whose(making.replica).mark(&resource.name);
        let mut live = None;
        if let Some(known) = known {
            let there = self.session.get(kind, &known.id, place).await?;
            live = there.filter(|live| mark::begins(kind, live, &mark) != Some(false));
        }
        let mut found = known.is_some_and(|known| known.found) && live.is_some();
        if live.is_none() {
            live = self.session.find(kind, &mark, fields, place).await?;
            found = live.is_some() && kind.mark == Mark::Name;
        }
        if found
            && let Some(live) = &live
            && !compare::differences(kind, live, fields, options).is_empty()
        {
            let reason = "one of that name is there already, and it is another: choose another name".to_owned();
            return Err(DriverError::Refused { place: place.clone(), reason });
        }
        let mut change = Change::None;
        let live = match live {
            Some(live) => {
                self.answered(&mark);
                live
            }
            None => {
                change = Change::Created;
                let mut new = fields.clone();
                new.retain(|field, _| kind.is_at_creation(field));
                mark::put(kind, &mut new, &mark);
                self.ask(&mark, place)?;
                let created = self.session.create(kind, new, &beside, place).await;
                if !matches!(created, Err(DriverError::Timeout { .. } | DriverError::Unanswered { .. })) {
                    self.answered(&mark);
                }
                created?
            }
        };
        let id =
            api::id(kind, &live).ok_or_else(|| DriverError::Unanswered { reason: format!("{place}: it has no id") })?;
        // Nova says no more than the id of what it is about to make.
        let live = match kind.status.is_some() && live.get("status").is_none() {
            true => self.again(making, &id).await?,
            false => live,
        };
        let live = self.settled(making, &id, live).await?;
        let (live, written) = self.write(making, &id, live).await?;
        if written && change == Change::None {
            change = Change::Written;
        }
        let part = compare::part(kind, &live, &resource.fields, fields, options);
        let local = Local { name: resource.name.clone(), kind, id, found };
        Ok(Made { local, change, part, health: health(&state(kind, &live)) })
    }

    /// Waits until a service has made a resource.
    ///
    /// # Errors
    /// [`DriverError::Failed`] if it could not, with what it says.
    async fn settled(&self, making: &Making<'_>, id: &str, mut live: Value) -> Result<Value, DriverError> {
        let (kind, place) = (making.resource.kind, &making.place);
        let mut pauses = Pauses::new(making.until);
        loop {
            match state(kind, &live) {
                State::Ready => return Ok(live),
                State::Failed(why) => {
                    let reason = format!(
                        "{place} has failed: {why}. Mend what keeps it from being made, remove it by hand, and apply again"
                    );
                    return Err(DriverError::Failed { reason, again: false });
                }
                State::Working(status) if !pauses.pause().await => {
                    let reason = format!("{place} is not ready yet: {status}");
                    return Err(DriverError::Unavailable { reason, retry_after: None });
                }
                State::Working(_) => {}
            }
            live = self.session.get(kind, id, place).await?.ok_or_else(|| DriverError::Unavailable {
                reason: format!("{place} was removed while it was made"),
                retry_after: None,
            })?;
        }
    }

    /// Changes what is not as it is to be. What is there then, and whether anything was written.
    async fn write(&self, making: &Making<'_>, id: &str, live: Value) -> Result<(Value, bool), DriverError> {
        let Making { resource, fields, options, place, .. } = making;
        let kind = resource.kind;
        let mut written = false;
        if let Some(data) = &resource.data {
            written = self.give(making, id, &live, data).await?;
        }
        let live = if written { self.again(making, id).await? } else { live };
        let differ = compare::differences(kind, &live, fields, options);
        if let Some(error) = fixed(place, &differ) {
            return Err(error);
        }
        if differ.is_empty() {
            return Ok((live, written));
        }
        let plain = differ.iter().filter(|one| kind.is_changed(&one.field));
        let plain: Map<_, _> = plain.map(|one| (one.field.clone(), one.wanted.clone())).collect();
        if !plain.is_empty() {
            self.session.update(kind, id, &plain, place).await?;
        }
        for part in kind.parts {
            if let Some(one) = differ.iter().find(|one| one.field == part.field) {
                self.session.write_part(kind, id, part, &one.wanted, place).await?;
            }
        }
        let live = self.again(making, id).await?;
        Ok((self.settled(making, id, live).await?, true))
    }

    async fn again(&self, making: &Making<'_>, id: &str) -> Result<Value, DriverError> {
        let live = self.session.get(making.resource.kind, id, &making.place).await?;
        live.ok_or_else(|| DriverError::Unavailable {
            reason: format!("{} was removed while it was written", making.place),
            retry_after: None,
        })
    }

    /// Gives an image its data, if it has none. Whether it did.
    async fn give(&self, making: &Making<'_>, id: &str, live: &Value, data: &[u8]) -> Result<bool, DriverError> {
        if live.get("status").and_then(Value::as_str) == Some("queued") {
            self.session.upload(making.resource.kind, id, data, &making.place).await?;
            return Ok(true);
        }
        let hash = Sha512::digest(data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let same = match (live.get("os_hash_algo").and_then(Value::as_str), live.get("os_hash_value")) {
            (Some("sha512"), Some(value)) => *value == Value::String(hash),
            _ => live.get("size").and_then(Value::as_u64) == u64::try_from(data.len()).ok(),
        };
        if same {
            return Ok(false);
        }
        let reason = "an image keeps the data that it was given: ask for another image under another name".to_owned();
        Err(DriverError::Refused { place: making.place.clone(), reason })
    }
}

/// Whether a resource is one of these, under whatever name.
pub(super) fn is_among(these: &[Local], local: &Local) -> bool {
    these.iter().any(|this| this.kind.name == local.kind.name && this.id == local.id)
}
