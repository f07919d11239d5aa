//! Carrying over into a later epoch what was not closed over.
//!
//! A change that is carried over becomes one change of the later document, which is a function of the change, of what it
//! had seen, and of the change with which that epoch began. So it has the same bytes whoever carries it over, and may be
//! carried over by many and as often as one likes. What it had seen and was closed over is that first change now; what it
//! had not seen stays concurrent with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use automerge::{ActorId, Automerge, ObjId, ROOT, ReadDoc};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::author::{Author, Message, Origin};
use super::epoch::unnamed;
use super::state::{operation, write_operation};
use super::{Change, ChangeHash, EditError, Replicant};
use crate::desired::edit::{Editor, three_way};
use crate::desired::view::Reader;
use crate::{Epoch, Hlc, OperationId, SiteName};

/// What was carried over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// The changes of the later document that were not in it, in an order that can be applied; with the site that made
    /// the one it was made from.
    pub made: Vec<(Change, Option<SiteName>)>,
    /// For each change that was carried over, and the one at which the epoch was closed, what it is now.
    pub names: BTreeMap<ChangeHash, ChangeHash>,
}

/// Part of the name of what is carried over: whoever carries over in another way writes under another.
const FORMAT: &[u8] = b"khufu-carry-6";
/// The most changes of earlier epochs that a change says it was made from.
const MAX_ORIGINS: usize = 4;
/// The most versions of the later document that are at hand: as many branches can be followed without looking back.
const MAX_VERSIONS: usize = 8;

/// The values of a document, of which edits are worked out as differences.
#[derive(Debug, Clone, Default, PartialEq)]
struct Contents {
    kind: Value,
    scope: Value,
    placement: Value,
    policy: Value,
    desired: Value,
    overrides: Value,
    made: Value,
    ended: Value,
    deleted: Value,
}

impl Contents {
    fn read(doc: &Automerge, heads: &[automerge::ChangeHash], keys: &[String]) -> Self {
        let root = |root| Self::root(doc, Some(heads), root, keys);
        Self {
            kind: root("kind"),
            scope: root("scope"),
            placement: root("placement"),
            policy: root("policy"),
            desired: root("desired"),
            overrides: root("overrides"),
            made: root("made"),
            ended: root("ended"),
            deleted: root("deleted"),
        }
    }

    fn root(doc: &Automerge, heads: Option<&[automerge::ChangeHash]>, root: &str, keys: &[String]) -> Value {
        let reader = match root {
            "desired" | "overrides" => Reader::merging(doc, heads, keys),
            "policy" | "made" | "ended" => Reader::merging(doc, heads, &[]),
            _ => Reader::whole(doc, heads),
        };
        reader.root(root).map_or(Value::Null, |slot| slot.node.json())
    }

    /// What a document said after a late change, by what it said before that.
    fn after(&self, doc: &Automerge, late: &Late, keys: &[String]) -> Self {
        let heads = [late.hash];
        // Most changes edit one field of the desired state: one edit is in one place, so all else is as it was. To read
        // it all takes time in proportion to the history, for each change of it.
        if late.length == 1 {
            let desired = Self::root(doc, Some(&heads), "desired", keys);
            if desired != self.desired {
                return Self { desired, ..self.clone() };
            }
        }
        Self::read(doc, &heads, keys)
    }
}

/// A change that was not closed over.
struct Late {
    hash: automerge::ChangeHash,
    deps: Vec<automerge::ChangeHash>,
    length: usize,
    message: Option<Message>,
    origin: Origin,
}

impl Late {
    /// It, and what it was made from: all of them are the same edit.
    fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.message.iter().flat_map(|message| &message.carried).chain([&self.origin])
    }
}

impl Replicant {
    /// Carries over into `next`, a later epoch of this replicant, all changes of this document that were not closed over
    /// and that it does not have.
    ///
    /// Which these are, `next` remembers for some of the last epochs. Beyond that, all are carried over that none of the
    /// `shared` changes comes after or is: heads that other sites have said that they have.
    ///
    /// # Errors
    /// That `next` begins with no closing, or that a change cannot be carried over; then nothing was.
    pub fn carry_into(&self, next: &mut Self, shared: &[ChangeHash]) -> Result<Carried, EditError> {
        let Some(closing) = next.closing().cloned() else {
            return Err(EditError::Automerge(format!("{} does not follow another epoch", next.id)));
        };
        let mut carried = Carried::default();
        if let Ok(cut) = closing.cut.parse() {
            carried.names.insert(cut, closing.change);
        }
        let mut late = self.late(next, shared, &mut carried.names);
        let brought = next.brought();
        late.retain(|late| {
            let same = late.origins().find_map(|origin| brought.get(&(origin.epoch, origin.hash)));
            same.is_none_or(|same| {
                carried.names.insert(late.hash.into(), *same);
                false
            })
        });
        let mut work = next.beside(next.doc.clone());
        let mut versions: VecDeque<Self> = VecDeque::new();
        // What the document said after the change that was carried over last, as read with these merge keys.
        let mut last: Option<(automerge::ChangeHash, Vec<String>, Contents)> = None;
        for late in late {
            let name = |dep: &automerge::ChangeHash| carried.names.get(&(*dep).into()).copied();
            let mut deps: BTreeSet<ChangeHash> = late.deps.iter().filter_map(name).collect();
            deps.remove(&closing.change);
            // What it had seen and has no name in the later epoch was closed over.
            let closed = |dep: &automerge::ChangeHash| name(dep).is_none_or(|name| name == closing.change);
            let seen: Vec<ChangeHash> = deps.iter().copied().collect();
            if !late.deps.iter().any(|dep| dep.0 != self.genesis.hash.0 && closed(dep)) {
                if deps.is_empty() {
                    // Who had seen nothing at all made something of that name without knowing of this one.
                    deps.insert(next.genesis.hash);
                }
            } else if deps.is_empty() || !work.knew(&seen, &[closing.change]) {
                // What else it had seen comes after that change, most of the time; not what a stranger made.
                deps.insert(closing.change);
            }
            let heads: Vec<automerge::ChangeHash> = deps.into_iter().map(Into::into).collect();
            let mut here = if work.doc.get_heads() == heads {
                None
            } else {
                let known = versions.iter().position(|version| version.doc.get_heads() == heads);
                Some(match known.and_then(|known| versions.remove(known)) {
                    Some(version) => version,
                    None => work.at_heads(&heads)?,
                })
            };
            let change = self.carry(&late, &closing.change, here.as_mut().unwrap_or(&mut work), &mut last)?;
            carried.names.insert(late.hash.into(), change.hash);
            if let Some(version) = here {
                if work.has(&change.hash) {
                    versions.push_back(version);
                    continue;
                }
                let parsed = automerge::Change::from_bytes(change.bytes.clone())
                    .map_err(|error| EditError::Automerge(error.to_string()))?;
                work.doc.apply_changes([parsed])?;
                work.changes += 1;
                work.bytes = work.bytes.saturating_add(change.bytes.len());
                versions.push_back(version);
                if versions.len() > MAX_VERSIONS {
                    versions.pop_front();
                }
            }
            carried.made.push((change, late.message.map(|message| message.author.site)));
        }
        if !carried.made.is_empty() {
            next.doc = work.doc;
            next.changes = work.changes;
            next.bytes = work.bytes;
            next.sequences = None;
            next.changed();
            // What waited for one of them may go on now.
            let mut waiting = std::mem::take(&mut next.queue);
            waiting.retain(|hash, _| !next.has(hash));
            let mut rest = super::Received::default();
            next.take_parsed(waiting, &mut rest);
        }
        Ok(carried)
    }

    /// What was carried over into this document, by what it was made from: also by way of an epoch in between, which
    /// others may have left out.
    fn brought(&self) -> BTreeMap<(Epoch, ChangeHash), ChangeHash> {
        let metas = self.doc.get_changes_meta(&[]);
        let messages = metas.iter().filter_map(|meta| {
            // Most were made here, and need not be read for that.
            let message = meta.message.as_deref().filter(|message| message.contains("\"carried\""))?;
            Some((meta.hash, Message::parse(message)?))
        });
        let origins = messages.flat_map(|(hash, message)| {
            message.carried.into_iter().map(move |origin| ((origin.epoch, origin.hash), hash.into()))
        });
        origins.collect()
    }

    /// The changes that were not closed over, in an order in which none stands before those that it depends on. Adds to
    /// `names` what the one is called now at which `next` was begun, if it was carried over into this document.
    fn late(&self, next: &Self, shared: &[ChangeHash], names: &mut BTreeMap<ChangeHash, ChangeHash>) -> Vec<Late> {
        let closing = next.closing();
        let shared: Vec<automerge::ChangeHash> =
            shared.iter().map(|hash| (*hash).into()).filter(|hash| self.holds(hash)).collect();
        let mut unknown: Option<BTreeSet<automerge::ChangeHash>> = None;
        let mut late = Vec::new();
        for meta in self.doc.get_changes_meta(&[]) {
            if meta.hash.0 == self.genesis.hash.0 || Some(meta.hash.0) == self.closing().map(|own| own.change.0) {
                continue;
            }
            let message = meta.message.as_deref().and_then(Message::parse);
            let origins = message.as_ref().map_or(&[][..], |message| &message.carried);
            let actor = meta.actor.to_hex_string();
            if let Some(closing) =
                closing.filter(|closing| origins.iter().any(|origin| closing.cut == origin.hash.to_string()))
            {
                names.insert(meta.hash.into(), closing.change);
            }
            let covered = closing.and_then(|closing| closing.covers(self.id.epoch, &actor, meta.seq, origins));
            let covered = covered.unwrap_or_else(|| {
                let unknown = unknown.get_or_insert_with(|| {
                    self.doc.get_changes_meta(&shared).into_iter().map(|meta| meta.hash).collect()
                });
                !unknown.contains(&meta.hash)
            });
            if !covered {
                let length = usize::try_from(meta.max_op.saturating_add(1).saturating_sub(meta.start_op));
                late.push(Late {
                    hash: meta.hash,
                    deps: meta.deps,
                    length: length.unwrap_or(usize::MAX),
                    origin: Origin { epoch: self.id.epoch, actor, seq: meta.seq, hash: meta.hash.into() },
                    message,
                });
            }
        }
        late
    }

    /// Makes in `next`, which is at the right heads, the change that a late one becomes.
    fn carry(
        &self,
        late: &Late,
        first: &ChangeHash,
        next: &mut Self,
        last: &mut Option<(automerge::ChangeHash, Vec<String>, Contents)>,
    ) -> Result<Change, EditError> {
        let mut origins = late.message.as_ref().map(|message| message.carried.clone()).unwrap_or_default();
        origins.push(late.origin.clone());
        // What it was in the beginning is what all that was made from it has in common.
        let surplus = origins.len().saturating_sub(MAX_ORIGINS);
        origins.drain(1..=surplus);
        let message = match &late.message {
            Some(message) => message.clone(),
            None => {
                let author = Author { site: unnamed()?, at: Hlc::default(), who: String::new(), why: String::new() };
                Message { author, what: String::new(), op: None, carried: Vec::new() }
            }
        };
        let message = Message { carried: origins, ..message };
        // What it comes after may be one of several that were made from the same edit.
        let mut digest = Sha256::new().chain_update(FORMAT).chain_update(first.0).chain_update(late.hash.0);
        for head in next.doc.get_heads() {
            digest.update(head.0);
        }
        let digest = digest.finalize();
        // Those of one actor stay together in the order of actors, which decides between concurrent edits.
        let name: Vec<u8> = late.origin.actor.bytes().take(16).chain(digest.iter().copied().take(16)).collect();
        let actor = ActorId::from(name);
        if let Some(id) = &message.op
            && let Some(change) = self.carry_operation(late, id, next, &actor, &message)?
        {
            return Ok(change);
        }
        if message.what == "pick"
            && let Some(change) = self.carry_pick(late, next, &actor, &message)?
        {
            return Ok(change);
        }
        let keys = Self::keys_of(&next.doc);
        let before = match last.take() {
            Some((hash, read_by, contents)) if late.deps == [hash] && read_by == keys => contents,
            _ => Contents::read(&self.doc, &late.deps, &keys),
        };
        let after = before.after(&self.doc, late, &keys);
        let operations = match message.what.as_str() {
            "create" | "desired" | "overrides" | "policy" | "scope" | "pick" | "delete" | "join" => Vec::new(),
            _ => self.added(late, next),
        };
        let roots: Vec<_> = [
            ("policy", &before.policy, &after.policy),
            ("desired", &before.desired, &after.desired),
            ("overrides", &before.overrides, &after.overrides),
            ("made", &before.made, &after.made),
            ("ended", &before.ended, &after.ended),
        ]
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(root, before, after)| {
            let now = Contents::root(&next.doc, None, root, &keys);
            let keys: &[String] = if root == "policy" { &[] } else { &keys };
            let mut wanted = three_way(Some(before), &now, after, keys);
            if root == "overrides" {
                whole_patches(&mut wanted, before, after);
            }
            (root, Reader::merging(&next.doc, None, keys).root(root), wanted)
        })
        .collect();
        let wholes = [
            ("kind", &before.kind, &after.kind),
            ("scope", &before.scope, &after.scope),
            ("placement", &before.placement, &after.placement),
            ("deleted", &before.deleted, &after.deleted),
        ];
        let operations_map = next.doc.get(ROOT, "operations")?.map(|(_, id)| id);
        let change = next.make_as(&actor, &message, |tx| {
            let mut editor = Editor { tx, keys: &keys };
            for (root, slot, wanted) in &roots {
                let keys: &[String] = if *root == "policy" { &[] } else { &keys };
                let mut editor = Editor { tx: &mut *editor.tx, keys };
                editor.field(&[ROOT], root, slot.as_ref().map(|slot| &slot.node), slot.as_ref(), wanted)?;
            }
            for (root, before, after) in wholes {
                if before != after && !after.is_null() {
                    editor.write_field(&[ROOT], root, None, after)?;
                }
            }
            if let Some(map) = &operations_map {
                for (id, value) in &operations {
                    editor.write_field(std::slice::from_ref(map), id.as_str(), None, value)?;
                }
            }
            Ok(())
        })?;
        *last = Some((late.hash, keys, after));
        Ok(change)
    }

    /// The operation that a change added, as one. None if the change did anything else.
    fn carry_operation(
        &self,
        late: &Late,
        id: &OperationId,
        next: &mut Self,
        actor: &ActorId,
        message: &Message,
    ) -> Result<Option<Change>, EditError> {
        let Some(from) = self.operations_at(late.hash) else { return Ok(None) };
        let Some((_, to)) = next.doc.get(ROOT, "operations")? else { return Ok(None) };
        // As this change wrote it: somebody else may have given the same id, and not everybody who carries this over knows.
        let Some(operation) = operation(&self.doc, Some(&[late.hash]), &from, id) else { return Ok(None) };
        let value = write_operation(&operation);
        if size(&value) != late.length {
            return Ok(None);
        }
        let known = next.closing().is_some_and(|closing| closing.has_operation(id));
        let change = next.make_as(actor, message, |tx| {
            if known {
                return Ok(());
            }
            Editor { tx, keys: &[] }.write_field(&[to], id.as_str(), None, &value)
        })?;
        Ok(Some(change))
    }

    /// The choice between the values of a conflict, if `next` has that conflict.
    fn carry_pick(
        &self,
        late: &Late,
        next: &mut Self,
        actor: &ActorId,
        message: &Message,
    ) -> Result<Option<Change>, EditError> {
        let before = self.at_heads(&late.deps)?.conflicts();
        let then = self.at_heads(&[late.hash])?;
        let left: BTreeSet<String> = then.conflicts().iter().map(super::Conflict::pointer).collect();
        let Some(settled) = before.iter().map(super::Conflict::pointer).find(|pointer| !left.contains(pointer)) else {
            return Ok(None);
        };
        let Some(value) = then.value_at(&settled) else { return Ok(None) };
        let conflicts = next.conflicts();
        let Some(conflict) = conflicts.iter().find(|conflict| conflict.pointer() == settled) else { return Ok(None) };
        let Some(chosen) = conflict.values.iter().find(|known| known.value == value) else { return Ok(None) };
        next.pick_as(actor, message, &settled, &chosen.change)
    }

    /// The map of operations as a change saw it: another program may have put another in its place, and not everybody who
    /// carries the change over knows.
    fn operations_at(&self, hash: automerge::ChangeHash) -> Option<ObjId> {
        self.doc.get_at(ROOT, "operations", &[hash]).ok()?.map(|(_, id)| id)
    }

    /// The operations that a change added, the slow way.
    fn added(&self, late: &Late, next: &Self) -> Vec<(OperationId, Value)> {
        let Some(map) = self.operations_at(late.hash) else { return Vec::new() };
        let before: BTreeSet<String> = self.doc.keys_at(&map, &late.deps).collect();
        let after = self.doc.keys_at(&map, &[late.hash]);
        let known = |id: &OperationId| next.closing().is_some_and(|closing| closing.has_operation(id));
        after
            .filter(|id| !before.contains(id))
            .filter_map(|id| OperationId::new(id).ok())
            .filter(|id| !known(id))
            .filter_map(|id| Some((id.clone(), write_operation(&operation(&self.doc, Some(&[late.hash]), &map, &id)?))))
            .collect()
    }
}

/// The patches of sites that somebody has changed are theirs whole, whatever their steps have in common with others.
fn whole_patches(wanted: &mut Value, before: &Value, after: &Value) {
    let (Some(wanted), Some(after)) = (wanted.as_object_mut(), after.as_object()) else { return };
    for (site, patch) in after.iter().filter(|(site, patch)| patch.is_array() && before.get(site) != Some(patch)) {
        wanted.insert(site.clone(), patch.clone());
    }
}

/// How many edits it takes to write a value.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        _ => 1,
    }
}
