//! What a document says, as plain values.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ObjId, ReadDoc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::json::canonical;
use crate::desired::overlay::{OverrideError, lay_over};
use crate::desired::view::{Reader, Slot};
use crate::{
    Base, Hlc, Operation, OperationId, Operations, Payload, Placement, Policy, Resolved, SiteName, resolve_after,
};

/// What a new replicant is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Which driver looks after it.
    pub kind: String,
    /// The scope as written.
    pub scope: String,
    /// The value of that scope.
    pub placement: Placement,
    /// Its rules.
    #[serde(default)]
    pub policy: Policy,
    /// Its desired state, any JSON value; null for none.
    #[serde(default)]
    pub desired: Value,
    /// What is laid over the desired state, by site.
    #[serde(default)]
    pub overrides: BTreeMap<SiteName, Value>,
}

/// The tombstone of a replicant. It covers what was known where it was deleted: a replicant that somebody makes or puts
/// again without knowing of the deletion, or after it, is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deleted {
    /// When it was deleted.
    pub at: Hlc,
    /// At which site.
    pub by: SiteName,
    /// Whether the replicas stay on their platforms. Of concurrent deletions one that keeps is enough.
    #[serde(default)]
    pub keep: bool,
}

/// What a document says. All who hold the same changes read the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Which driver looks after it; empty before it is created.
    pub kind: String,
    /// The scope as written. Where it is not the placement's [`expression`](Placement::expression), an edit of the
    /// scope met a decision made concurrently about the old one: the placement has to be decided anew.
    pub scope: String,
    /// Where it lives. Its `leaving` holds, besides what was written there, every site that a concurrent decision
    /// named and this one does not.
    pub placement: Option<Placement>,
    /// Its rules; what was not set has its default.
    pub policy: Policy,
    /// The desired state, with what was written concurrently laid together. An empty map where none was ever given.
    pub desired: Value,
    /// What is laid over the desired state, by site.
    pub overrides: BTreeMap<SiteName, Value>,
    /// What the operations of closed epochs come to: it stands before all others.
    #[serde(skip_serializing_if = "Base::is_empty")]
    pub base: Base,
    /// All operations of this epoch.
    pub operations: Operations,
    /// Present while it is deleted.
    pub deleted: Option<Deleted>,
}

impl State {
    /// Whether there is a desired state: anything but null and an empty map.
    #[must_use]
    pub fn has_desired(&self) -> bool {
        match &self.desired {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        }
    }

    /// What a site is to bring about: the desired state with that site's override laid over it: as a JSON patch (RFC 6902)
    /// if it is a list, in whose pointers `[key=value]` is the element of a list that has this; else as a JSON merge patch.
    ///
    /// # Errors
    /// [`OverrideError`] if a JSON patch does not fit the desired state as it is now, or is none: two sites may have
    /// edited it while apart.
    pub fn effective(&self, site: &SiteName) -> Result<Value, OverrideError> {
        match self.overrides.get(site) {
            Some(laid) => lay_over(&self.desired, laid),
            None => Ok(self.desired.clone()),
        }
    }

    /// The list of all operations as they are to be run; see [`resolve_after`].
    #[must_use]
    pub fn resolved(&self) -> Resolved {
        resolve_after(&self.base, &self.operations, &self.policy)
    }

    /// Whether any operation is known that still counts.
    #[must_use]
    pub fn has_operations(&self) -> bool {
        !self.base.operations.is_empty() || !self.operations.is_empty()
    }

    /// All operations that are known, those of closed epochs that still count included.
    #[must_use]
    pub fn all_operations(&self) -> Cow<'_, Operations> {
        if self.base.operations.is_empty() {
            return Cow::Borrowed(&self.operations);
        }
        let closed = self.base.operations.iter().map(|operation| (operation.id.clone(), operation.clone()));
        Cow::Owned(closed.chain(self.operations.clone()).collect())
    }

    /// One operation, also of a closed epoch if it still counts.
    #[must_use]
    pub fn operation(&self, id: &OperationId) -> Option<&Operation> {
        self.operations.get(id).or_else(|| self.base.get(id))
    }

    /// SHA-256 of the one canonical text of these contents: equal where the contents are.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut text = String::new();
        canonical(&serde_json::to_value(self).unwrap_or(Value::Null), &mut text);
        Sha256::digest(text).into()
    }
}

pub(crate) fn read_desired(doc: &Automerge, keys: &[String]) -> Value {
    Reader::merging(doc, None, keys).root("desired").map_or(Value::Null, |slot| slot.node.json())
}

pub(crate) fn read_overrides(doc: &Automerge, keys: &[String]) -> BTreeMap<SiteName, Value> {
    overrides_of(Reader::merging(doc, None, keys).root("overrides"))
}

pub(super) fn overrides_of(slot: Option<Slot>) -> BTreeMap<SiteName, Value> {
    match slot.map(|slot| slot.node.json()) {
        Some(Value::Object(sites)) => {
            sites.into_iter().filter_map(|(site, value)| Some((SiteName::new(site).ok()?, value))).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// The fields by which the elements of lists are matched under a policy.
pub(crate) fn list_keys(policy: &Policy) -> Vec<String> {
    if policy.list_keys.is_empty() { vec!["name".to_owned()] } else { policy.list_keys.clone() }
}

/// The policy as written into a document: what has its default is left out, so that two who create a replicant at once
/// compete only about what they said.
pub(crate) fn write_policy(policy: &Policy) -> Value {
    let default = serde_json::to_value(Policy::default()).unwrap_or_default();
    let mut value = serde_json::to_value(policy).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.retain(|key, field| default.get(key) != Some(field));
    }
    value
}

pub(crate) fn read_policy(doc: &Automerge) -> Policy {
    policy_of(Reader::merging(doc, None, &[]).root("policy"))
}

pub(super) fn policy_of(slot: Option<Slot>) -> Policy {
    let value = slot.map_or(Value::Null, |slot| slot.node.json());
    if let Ok(policy) = Policy::deserialize(&value) {
        return policy;
    }
    // A field that this version cannot read must not cost the others.
    let mut readable = Map::new();
    for (key, field) in value.as_object().into_iter().flatten() {
        if Policy::deserialize(json!({ key: field })).is_ok() {
            readable.insert(key.clone(), field.clone());
        }
    }
    Policy::deserialize(Value::Object(readable)).unwrap_or_default()
}

pub(crate) fn write_placement(placement: &Placement) -> Value {
    let set = |sites: &BTreeSet<SiteName>| {
        Value::Object(sites.iter().map(|site| (site.to_string(), Value::Bool(true))).collect())
    };
    let mut value = json!({
        "sites": set(&placement.sites),
        "leaving": set(&placement.leaving),
        "mode": placement.mode,
        "expression": placement.expression,
        "decided_at": placement.decided_at,
        "decided_by": placement.decided_by,
    });
    if let (Some(prime), Value::Object(fields)) = (&placement.prime, &mut value) {
        fields.insert("prime".to_owned(), json!(prime));
    }
    value
}

fn placement_from(mut value: Value) -> Option<Placement> {
    let fields = value.as_object_mut()?;
    for key in ["sites", "leaving"] {
        let sites: Vec<Value> = match fields.get(key) {
            Some(Value::Object(sites)) => {
                let named = sites.iter().filter(|(_, there)| **there == Value::Bool(true));
                named
                    .map(|(site, _)| site)
                    .filter(|site| SiteName::new(site.as_str()).is_ok())
                    .map(|s| json!(s))
                    .collect()
            }
            _ => Vec::new(),
        };
        fields.insert(key.to_owned(), Value::Array(sites));
    }
    Placement::deserialize(value).ok()
}

/// The placements that compete, the winner last.
pub(crate) fn placements(doc: &Automerge) -> Vec<Placement> {
    let reader = Reader::whole(doc, None);
    let raws = reader.written("placement");
    raws.iter().filter_map(|raw| placement_from(reader.alone(raw).json())).collect()
}

/// The changes that wrote them.
pub(crate) fn placement_changes(doc: &Automerge) -> Vec<automerge::ChangeHash> {
    let reader = Reader::whole(doc, None);
    let raws = reader.written("placement");
    raws.iter().filter_map(|raw| doc.hash_for_opid(&raw.id)).collect()
}

/// Where it lives, by all that was written of that.
pub(super) fn placement_of(reader: &Reader<'_>, slot: &Slot) -> Option<Placement> {
    let (_, losers) = slot.raws.split_last()?;
    let losers = losers.iter().map(|raw| reader.alone(raw).json());
    let mut all: Vec<Placement> = losers.chain([slot.node.json()]).filter_map(placement_from).collect();
    let mut winner = all.pop()?;
    for loser in all {
        winner.leaving.extend(loser.sites);
        winner.leaving.extend(loser.leaving);
    }
    winner.leaving.retain(|site| !winner.sites.contains(site));
    Some(winner)
}

/// The ids of the operations that deletions ended.
pub(crate) fn read_ended(doc: &Automerge) -> BTreeSet<OperationId> {
    let slot = Reader::merging(doc, None, &[]).root("ended");
    let fields = slot.as_ref().and_then(|slot| slot.node.as_map()).map(|map| map.fields.keys());
    fields.into_iter().flatten().filter_map(|id| OperationId::new(id.as_str()).ok()).collect()
}

/// Whether it was made and no deletion knew of that. What is made is written under a name of its own, and a deletion
/// takes away the names that it knows.
fn is_made(doc: &Automerge) -> bool {
    let slot = Reader::merging(doc, None, &[]).root("made");
    slot.as_ref().and_then(|slot| slot.node.as_map()).is_some_and(|map| !map.fields.is_empty())
}

pub(crate) fn read_deleted(doc: &Automerge) -> Option<Deleted> {
    // Mostly there is none, which is seen at a glance.
    if Reader::whole(doc, None).written("deleted").is_empty() || is_made(doc) { None } else { last_deletion(doc) }
}

/// The last deletion, also where it was made again since.
pub(crate) fn last_deletion(doc: &Automerge) -> Option<Deleted> {
    let reader = Reader::whole(doc, None);
    let raws = reader.written("deleted");
    let all: Vec<Deleted> = raws.iter().filter_map(|raw| Deleted::deserialize(reader.alone(raw).json()).ok()).collect();
    let keep = all.iter().any(|deleted| deleted.keep);
    all.into_iter().last().map(|winner| Deleted { keep, ..winner })
}

pub(crate) fn write_operation(operation: &Operation) -> Value {
    let (key, payload) = match &operation.payload {
        Payload::Value(value) => ("payload", value.clone()),
        Payload::Blob(hash) => ("blob", Value::String(hash.clone())),
    };
    json!({
        "type": operation.op_type,
        "parents": operation.parents,
        "cut": operation.cut,
        "at": operation.at,
        "by": operation.by,
        key: payload,
    })
}

pub(crate) fn read_operation(id: String, value: Value) -> Option<Operation> {
    let Value::Object(mut fields) = value else { return None };
    let payload = match (fields.remove("payload"), fields.remove("blob")) {
        (_, Some(Value::String(hash))) => Payload::Blob(hash),
        (payload, _) => Payload::Value(payload.unwrap_or(Value::Null)),
    };
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let mut parents: Vec<OperationId> = match fields.remove("parents") {
        Some(Value::Array(ids)) => ids.into_iter().filter_map(|id| OperationId::new(text(Some(id))?).ok()).collect(),
        _ => Vec::new(),
    };
    parents.sort();
    parents.dedup();
    Some(Operation {
        id: OperationId::new(id).ok()?,
        op_type: text(fields.remove("type"))?,
        parents,
        cut: fields.remove("cut") == Some(Value::Bool(true)),
        at: Hlc(fields.remove("at").and_then(|at| at.as_u64()).unwrap_or_default()),
        by: SiteName::new(text(fields.remove("by"))?).ok()?,
        payload,
    })
}

/// One operation of a document, read without the others; as it was at some heads, if there are any given.
pub(crate) fn operation(
    doc: &Automerge,
    at: Option<&[automerge::ChangeHash]>,
    operations: &ObjId,
    id: &OperationId,
) -> Option<Operation> {
    match at {
        Some(heads) => doc.get_at(operations, id.as_str(), heads).ok()??,
        None => doc.get(operations, id.as_str()).ok()??,
    };
    let all = Reader::whole(doc, at).field(operations, id.as_str())?;
    read_operation(id.to_string(), all.node.json())
}
