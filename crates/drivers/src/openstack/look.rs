//! Looking at resources: whether they are there, how they are doing, what others have done to them, and what would be done.

use std::collections::BTreeMap;

use khufu_crdt::{Condition, Health};
use serde_json::{Map, Value, json};

use super::compare;
use super::desired::{self, Resource};
use super::kinds::Kind;
use super::local::{self, Local};
use super::mark;
use super::options::Options;
use super::replicas::{Replicas, digest_of, whose, words};
use super::status::{health, state, worst};
use crate::text::{between, clipped, cut};
use crate::{DriverError, Observed, Replica, Work};

/// The most bytes of text that say how a replica differs, of one value in it, and of contents that are shown.
const MAX_DRIFT_BYTES: usize = 1_500;
const MAX_VALUE_BYTES: usize = 200;
const MAX_SHOWN_BYTES: usize = 32 << 10;

fn short(value: Option<&Value>) -> String {
    value.map_or_else(|| "gone".to_owned(), |value| clipped(&value.to_string(), MAX_VALUE_BYTES))
}

/// A resource without what nobody else is to know.
fn plain(kind: &Kind, live: &Value) -> Value {
    let mut live = live.clone();
    if let Some(live) = live.as_object_mut() {
        live.retain(|field, _| !kind.secret.contains(&field.as_str()) && field != "links");
    }
    json!({kind.name: live})
}

impl Replicas {
    /// Looks at all resources of a replicant that it is known by.
    pub(super) async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let options = Options::read(&replica.options)?;
        let known = local::read(replica.local_id.as_deref());
        let wanted = match &replica.written {
            Some(written) => desired::resources(written, &options)?,
            None => Vec::new(),
        };
        let (mut parts, mut drift, mut healths, mut shown) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        let mut there = Vec::new();
        for local in &known {
            let place = words(replica, local.kind, &local.name);
            let live = self.session.get(local.kind, &local.id, &place).await?;
            let live = live.filter(|live| mark::begins(local.kind, live, &whose(replica).prefix()) != Some(false));
            let Some(live) = live else {
                drift.push(format!("{place} is gone"));
                healths.push((place, Health { condition: Condition::NotFound, message: "it is not there".to_owned() }));
                continue;
            };
            if let Some(resource) = wanted.iter().find(|one| one.name == local.name && one.kind.name == local.kind.name)
            {
                let fields = self.seen_from_here(replica, resource, &wanted, &known).await;
                for one in compare::differences(local.kind, &live, &fields, &options) {
                    let (is, to) = (short(one.is.as_ref()), short(Some(&one.wanted)));
                    drift.push(format!("{place}: {} is {is}, wanted is {to}", one.field));
                }
                let part = compare::part(local.kind, &live, &resource.fields, &fields, &options);
                parts.insert(local.name.clone(), part);
            }
            healths.push((place, health(&state(local.kind, &live))));
            shown.push(plain(local.kind, &live));
            there.push(local.clone());
        }
        for missing in wanted.iter().filter(|one| !known.iter().any(|local| local.name == one.name)) {
            let place = words(replica, missing.kind, &missing.name);
            drift.push(format!("{place} is gone"));
            healths.push((place, Health { condition: Condition::NotFound, message: "it is not there".to_owned() }));
        }
        let exists = !there.is_empty();
        let known_all = replica.written.is_some();
        Ok(Observed {
            exists,
            digest: (exists && known_all).then(|| digest_of(&parts)),
            drift: (!drift.is_empty()).then(|| clipped(&drift.join("; "), MAX_DRIFT_BYTES)),
            contents: exists.then(|| Value::String(cut(&json!(shown).to_string(), MAX_SHOWN_BYTES))),
            local_id: local::write(&there),
            marker: None,
            unsettled: None,
            health: worst(&healths),
        })
    }

    /// The fields of a resource with local ids; those whose references name nothing now are left out.
    async fn seen_from_here(
        &self,
        replica: &Replica,
        resource: &Resource,
        all: &[Resource],
        own: &[Local],
    ) -> Map<String, Value> {
        let mut fields = Map::new();
        for (field, value) in resource.fields.iter().filter(|(field, _)| resource.kind.is_compared(field)) {
            let one = Resource {
                fields: Map::from_iter([(field.clone(), value.clone())]),
                beside: Map::new(),
                data: None,
                ..resource.clone()
            };
            if let Ok(ids) = self.ids(replica, &one, all, own).await {
                fields.extend(ids.put(&one.fields));
            }
        }
        fields
    }

    /// What some work would change: of each resource the fields that would be another.
    pub(super) async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let options = Options::read(&replica.options)?;
        let mut wanted = Vec::new();
        for work in work {
            match work {
                Work::Desired(desired) => wanted = desired::resources(desired, &options)?,
                Work::Reset => wanted.clear(),
                Work::Operation(_) => {
                    return Err(DriverError::Unsupported { kind: "openstack".to_owned(), what: "run operations" });
                }
            }
        }
        if work.is_empty() {
            return Ok(String::new());
        }
        let known = local::read(replica.local_id.as_deref());
        let mut text = String::new();
        for resource in &wanted {
            text.push_str(&self.change_of(replica, resource, &wanted, &known, &options).await?);
        }
        for local in &known {
            let stays = wanted.iter().any(|one| one.name == local.name && one.kind.name == local.kind.name);
            let place = words(replica, local.kind, &local.name);
            if !stays
                && !local.found
                && let Some(live) = self.session.get(local.kind, &local.id, &place).await?
            {
                text.push_str(&between(&place, Some(&plain(local.kind, &live)), None));
            }
        }
        Ok(text)
    }

    async fn change_of(
        &self,
        replica: &Replica,
        resource: &Resource,
        all: &[Resource],
        known: &[Local],
        options: &Options,
    ) -> Result<String, DriverError> {
        let kind = resource.kind;
        let place = words(replica, kind, &resource.name);
        let local = known.iter().find(|local| local.name == resource.name && local.kind.name == kind.name);
        let live = match local {
            Some(local) => self.session.get(kind, &local.id, &place).await?,
            None => None,
        };
        let fields = self.seen_from_here(replica, resource, all, known).await;
        let Some(live) = live else {
            let written = plain(kind, &Value::Object(resource.fields.clone()));
            return Ok(between(&place, None, Some(&written)));
        };
        let (mut before, mut after) = (Map::new(), Map::new());
        for one in compare::differences(kind, &live, &fields, options) {
            if !one.can_change {
                after.insert("# cannot be changed".into(), json!(one.field));
            }
            before.insert(one.field.clone(), one.is.unwrap_or_default());
            after.insert(one.field, one.wanted);
        }
        Ok(between(&place, Some(&Value::Object(before)), Some(&Value::Object(after))))
    }
}
