//! What a document says of the epochs before it: the root `closed`, written by the change with which an epoch begins.
//!
//! ```text
//! closed : { <cut>: {
//!   epoch, changes      the epoch that was closed there, and how many changes it held up to the cut
//!   base                {operations: [...], clock}: see [`Base`]
//!   left_out            ids of operations that were closed and are not in the base any more, of the last closings
//!   past                {<epoch>: {cut, actors: {<actor>: <seq>}}}: which changes of the last epochs were closed over
//!   conflicts           {<pointer>: [values]}: what lost and nobody has picked from
//! } }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ROOT, ReadDoc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::author::Origin;
use super::state::{read_operation, write_operation};
use super::{ChangeHash, ConflictValue};
use crate::desired::view::{Node, Reader};
use crate::{Base, Epoch, Hlc, OperationId};

/// The most ids of operations that are remembered after they were left out.
const MAX_LEFT_OUT: usize = 1000;
/// The most closed epochs whose changes are remembered.
const MAX_PAST: usize = 16;
/// The most actors that are remembered of closed epochs, those of the last one not counted.
const MAX_PAST_ACTORS: usize = 1000;

/// Which changes of one epoch were closed over: of each actor all up to a number. Changes that were carried over count as
/// those that they were made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    /// The change at which the epoch was closed; empty where another document followed it than this one follows.
    #[serde(default)]
    pub(crate) cut: String,
    /// By the actor's bytes in hexadecimal.
    #[serde(default)]
    pub(crate) actors: BTreeMap<String, u64>,
}

/// One closing of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Closing {
    /// The last change that was closed over.
    pub(crate) cut: String,
    /// The change of this document that says so: its first one.
    pub(crate) change: ChangeHash,
    /// How many changes were closed over.
    pub(crate) changes: u64,
    pub(crate) base: Base,
    pub(crate) left_out: BTreeSet<OperationId>,
    pub(crate) past: BTreeMap<Epoch, Past>,
    /// Values that lost, by the JSON pointer to the field.
    pub(crate) conflicts: BTreeMap<String, Vec<ConflictValue>>,
}

impl Closing {
    /// Whether an operation was closed over, as far as that is remembered.
    pub(crate) fn has_operation(&self, id: &OperationId) -> bool {
        self.left_out.contains(id) || self.base.get(id).is_some()
    }

    /// Whether it is remembered what was closed over of an epoch: be it nothing, since others went another way through
    /// that one.
    pub(crate) fn remembers(&self, epoch: Epoch) -> bool {
        self.past.first_key_value().is_some_and(|(oldest, _)| epoch >= *oldest)
    }

    /// Whether a change of an earlier epoch was closed over; none if nothing is remembered of that epoch. `origins` are
    /// those that it was made from.
    pub(crate) fn covers(&self, epoch: Epoch, actor: &str, seq: u64, origins: &[Origin]) -> Option<bool> {
        let covered = |epoch: &Epoch, actor: &str, seq| {
            let actors = self.past.get(epoch).map(|past| &past.actors);
            let covered = actors.and_then(|actors| actors.get(actor)).is_some_and(|last| *last >= seq);
            self.remembers(*epoch).then_some(covered)
        };
        if origins.is_empty() {
            return covered(&epoch, actor, seq);
        }
        // All of them are the same edit.
        let known: Vec<bool> =
            origins.iter().filter_map(|origin| covered(&origin.epoch, &origin.actor, origin.seq)).collect();
        if known.is_empty() { None } else { Some(known.contains(&true)) }
    }

    /// What the next closing remembers: these changes (actor, number, what they were made from) of `epoch`, closed at
    /// `cut`, beside what was remembered before.
    pub(crate) fn remember<'a>(
        before: Option<&Self>,
        epoch: Epoch,
        cut: &ChangeHash,
        changes: impl Iterator<Item = (String, u64, &'a [Origin])>,
    ) -> BTreeMap<Epoch, Past> {
        let mut past = before.map(|before| before.past.clone()).unwrap_or_default();
        let mut this = Past { cut: cut.to_string(), actors: BTreeMap::new() };
        let remembered = |epoch: Epoch| before.is_none_or(|before| before.remembers(epoch));
        let raise = |actors: &mut BTreeMap<String, u64>, actor: &str, seq: u64| {
            let last = actors.entry(actor.to_owned()).or_insert(0);
            *last = seq.max(*last);
        };
        for (actor, seq, origins) in changes {
            if origins.is_empty() {
                raise(&mut this.actors, &actor, seq);
            }
            for (number, origin) in origins.iter().enumerate() {
                if let Some(past) = past.get_mut(&origin.epoch) {
                    raise(&mut past.actors, &origin.actor, origin.seq);
                } else if number == 0 && remembered(origin.epoch) {
                    // It was made in an epoch that others have closed, or left, for another than this one.
                    raise(&mut past.entry(origin.epoch).or_default().actors, &origin.actor, origin.seq);
                }
            }
        }
        // The oldest go first.
        let (mut kept, mut actors) = (BTreeMap::new(), 0);
        for (epoch, past) in past.into_iter().rev().take(MAX_PAST) {
            actors += past.actors.len();
            if actors > MAX_PAST_ACTORS {
                break;
            }
            kept.insert(epoch, past);
        }
        kept.insert(epoch, this);
        kept
    }

    /// The ids that the next closing remembers.
    pub(crate) fn remember_left_out(before: Option<&Self>, mut now: BTreeSet<OperationId>) -> BTreeSet<OperationId> {
        let old = before.into_iter().flat_map(|before| before.left_out.iter().cloned());
        let room = MAX_LEFT_OUT.saturating_sub(now.len());
        let old: Vec<_> = old.filter(|id| !now.contains(id)).take(room).collect();
        now.extend(old);
        now
    }

    /// As it is written.
    pub(crate) fn write(&self, epoch: Epoch) -> Value {
        let operations: Vec<Value> = self
            .base
            .operations
            .iter()
            .map(|operation| {
                let mut value = write_operation(operation);
                if let Value::Object(fields) = &mut value {
                    fields.insert("id".to_owned(), json!(operation.id));
                }
                value
            })
            .collect();
        let mut base = json!({ "operations": operations });
        if let (Some(clock), Value::Object(fields)) = (self.base.clock, &mut base) {
            fields.insert("clock".to_owned(), json!(clock));
        }
        json!({
            "epoch": epoch,
            "changes": self.changes,
            "base": base,
            "left_out": self.left_out,
            "past": self.past,
            "conflicts": self.conflicts,
        })
    }

    fn read(cut: &str, change: ChangeHash, mut value: Value) -> Option<Self> {
        let fields = value.as_object_mut()?;
        let mut take = |key: &str| fields.remove(key).unwrap_or_default();
        let mut base = take("base");
        let clock = base.get("clock").and_then(Value::as_u64).map(Hlc);
        let operations = match base.get_mut("operations").map(Value::take) {
            Some(Value::Array(operations)) => operations,
            _ => Vec::new(),
        };
        let operation = |mut value: Value| {
            let id = value.as_object_mut()?.remove("id")?;
            read_operation(id.as_str()?.to_owned(), value)
        };
        let left_out: Vec<Value> = serde_json::from_value(take("left_out")).unwrap_or_default();
        let conflicts: BTreeMap<String, Value> = serde_json::from_value(take("conflicts")).unwrap_or_default();
        Some(Self {
            cut: cut.to_owned(),
            change,
            changes: take("changes").as_u64().unwrap_or_default(),
            base: Base { operations: operations.into_iter().filter_map(operation).collect(), clock },
            left_out: left_out.iter().filter_map(|id| OperationId::new(id.as_str()?).ok()).collect(),
            past: serde_json::from_value(take("past")).unwrap_or_default(),
            conflicts: conflicts
                .into_iter()
                .filter_map(|(pointer, values)| Some((pointer, serde_json::from_value(values).ok()?)))
                .collect(),
        })
    }
}

/// The cuts at which the epoch before this document was closed: one, but for what came late to some of those that closed
/// it.
pub(crate) fn cuts(doc: &Automerge) -> Vec<String> {
    let maps = doc.get_all(ROOT, "closed").unwrap_or_default();
    let mut cuts: Vec<String> =
        maps.iter().filter(|(value, _)| value.is_object()).flat_map(|(_, map)| doc.keys(map)).collect();
    cuts.sort();
    cuts.dedup();
    cuts
}

/// The closing that counts: of several, which are always nested, the one that closed over the most.
pub(crate) fn closing(doc: &Automerge) -> Option<Closing> {
    let slot = Reader::merging(doc, None, &[]).root("closed")?;
    let Node::Map(map) = slot.node else { return None };
    map.fields
        .iter()
        .filter_map(|(cut, slot)| {
            let change = doc.hash_for_opid(&slot.raws.last()?.id)?;
            Closing::read(cut, change.into(), slot.node.json())
        })
        .max_by(|a, b| (a.changes, &a.cut).cmp(&(b.changes, &b.cut)))
}

/// Where the values of a conflict that was kept stand, to be removed when it is settled.
pub(crate) fn kept_in(doc: &Automerge, cut: &str) -> Option<automerge::ObjId> {
    let slot = Reader::merging(doc, None, &[]).root("closed")?;
    let closing = slot.node.as_map()?.fields.get(cut)?;
    closing.node.as_map()?.fields.get("conflicts")?.node.objects().first().cloned()
}
