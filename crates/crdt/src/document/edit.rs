//! Edits made here.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ROOT, ReadDoc};
use serde_json::{Map, Value, json};

use super::author::Message;
use super::json::check;
use super::reading::Root;
use super::state::{
    list_keys, operation, placements, read_deleted, read_desired, read_overrides, read_policy, write_operation,
    write_placement, write_policy,
};
use super::{Author, Change, ChangeHash, Deleted, EditError, Replicant, Spec};
use crate::desired::edit::Editor;
use crate::desired::overlay::check_override;
use crate::desired::patch::merge_patch;
use crate::desired::view::{Reader, Slot};
use crate::{Operation, OperationId, Payload, Placement, Policy, SiteName};

/// What an edit gives: the change it made, none if it changed nothing.
pub type Edit = Result<Option<Change>, EditError>;

/// The most bytes of an operation's type, a kind or a scope.
const MAX_NAME_BYTES: usize = 4096;

fn short(what: &'static str, text: &str) -> Result<(), EditError> {
    if text.len() > MAX_NAME_BYTES {
        return Err(EditError::TooLong { what, len: text.len(), max: MAX_NAME_BYTES });
    }
    Ok(())
}

fn check_overrides<'v>(overrides: impl IntoIterator<Item = (&'v SiteName, &'v Value)>) -> Result<(), EditError> {
    overrides.into_iter().try_for_each(|(site, laid)| {
        check_override(laid).map_err(|error| EditError::BadOverride { site: site.clone(), error })
    })
}

impl Replicant {
    /// Writes everything about a new replicant, or one that was deleted, in one change. Done at two sites at once, the
    /// two merge field by field. A deletion that does not know of it does not undo it.
    ///
    /// # Errors
    /// [`EditError::AlreadyCreated`] for one that is there, [`EditError::BadOverride`], or that it is too large.
    pub fn create(&mut self, author: &Author, mut spec: Spec) -> Edit {
        if self.is_created() && self.deletion().is_none() {
            return Err(EditError::AlreadyCreated(self.id.clone()));
        }
        short("kind", &spec.kind)?;
        short("scope", &spec.scope)?;
        check_overrides(&spec.overrides)?;
        let known_made = Reader::merging(&self.doc, None, &[]).root("made");
        let overrides = object(&spec.overrides);
        let policy = write_policy(&spec.policy);
        if self.is_created() && spec.desired.is_null() {
            // What was written without knowing of the deletion goes, too.
            spec.desired = json!({});
        }
        let size = check("the desired state", &spec.desired, &self.limits)?
            .saturating_add(check("the overrides", &overrides, &self.limits)?)
            .saturating_add(check("the policy", &policy, &self.limits)?);
        let keys = list_keys(&spec.policy);
        let roots: Vec<_> = [("policy", policy), ("desired", spec.desired), ("overrides", overrides)]
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, Reader::merging(&self.doc, None, &keys).root(key), value))
            .collect();
        let placement = write_placement(&spec.placement);
        let made = json!({ format!("{}-{}-{}", author.site, author.at, self.doc.get_actor().to_hex_string()): true });
        self.make(author, "create", None, size, |tx| {
            add_to(tx, "made", known_made.as_ref(), &made)?;
            tx.put(ROOT, "kind", spec.kind.as_str())?;
            tx.put(ROOT, "scope", spec.scope.as_str())?;
            let mut editor = Editor { tx, keys: &keys };
            editor.write_field(&[ROOT], "placement", None, &placement)?;
            for (key, slot, value) in &roots {
                let base = slot.as_ref().map(|slot| &slot.node);
                editor.field(&[ROOT], key, base, slot.as_ref(), value)?;
            }
            Ok(())
        })
    }

    /// Brings the desired state to `new`, by the smallest change from what the author saw: the document at `base`
    /// (heads that they were shown), or as it is now. What others changed since, and this author did not, stays.
    ///
    /// # Errors
    /// [`EditError::UnknownBase`], or that it is too large, not created or deleted.
    pub fn set_desired(&mut self, author: &Author, new: &Value, base: Option<&[ChangeHash]>) -> Edit {
        self.set("desired", author, new, base)
    }

    /// Lays a JSON merge patch (RFC 7386) over the desired state as it is now.
    ///
    /// # Errors
    /// As [`set_desired`](Self::set_desired).
    pub fn patch_desired(&mut self, author: &Author, patch: &Value) -> Edit {
        self.editable()?;
        check("the patch", patch, &self.limits)?;
        let mut new = match self.known_state() {
            Some(state) => state.desired.clone(),
            None => read_desired(&self.doc, &self.list_keys()),
        };
        merge_patch(&mut new, patch);
        self.set("desired", author, &new, None)
    }

    /// Brings the overrides of all sites to `new`, by the smallest change.
    ///
    /// # Errors
    /// [`EditError::BadOverride`], or that it is too large, not created or deleted.
    pub fn set_overrides(&mut self, author: &Author, new: &BTreeMap<SiteName, Value>) -> Edit {
        check_overrides(new)?;
        self.set("overrides", author, &object(new), None)
    }

    /// Brings the override of one site to `new`, or removes it.
    ///
    /// # Errors
    /// [`EditError::BadOverride`], or that it is too large, not created or deleted.
    pub fn set_override(&mut self, author: &Author, site: &SiteName, new: Option<&Value>) -> Edit {
        check_overrides(new.map(|new| (site, new)))?;
        self.editable()?;
        let mut all = match self.known_state() {
            Some(state) => state.overrides.clone(),
            None => read_overrides(&self.doc, &self.list_keys()),
        };
        match new {
            Some(new) => all.insert(site.clone(), new.clone()),
            None => all.remove(site),
        };
        self.set("overrides", author, &object(&all), None)
    }

    /// Brings the policy to `new`, by the smallest change from what the author saw, as [`set_desired`](Self::set_desired) does.
    ///
    /// # Errors
    /// As there.
    pub fn set_policy(&mut self, author: &Author, new: &Policy, base: Option<&[ChangeHash]>) -> Edit {
        self.set("policy", author, &write_policy(new), base)
    }

    /// Writes a scope and what it was decided to mean. The placement is written as one new value, so that of two made
    /// at once one wins whole. A deleted replicant still has a placement, so this is allowed there too.
    ///
    /// # Errors
    /// That it is too large or not created.
    pub fn set_scope(&mut self, author: &Author, scope: &str, placement: &Placement) -> Edit {
        if !self.is_created() {
            return Err(EditError::NotCreated(self.id.clone()));
        }
        short("scope", scope)?;
        let value = write_placement(placement);
        let size = check("the placement", &value, &self.limits)?;
        let now = placements(&self.doc);
        let same = matches!(now.as_slice(), [only] if only == placement);
        self.make(author, "scope", None, size, |tx| {
            tx.put(ROOT, "scope", scope)?;
            if same { Ok(()) } else { Editor { tx, keys: &[] }.write_field(&[ROOT], "placement", None, &value) }
        })
    }

    /// Adds one operation, as one change. Its parents and whether it cuts are worked out by the caller from the
    /// operations that stand here.
    ///
    /// The same id with the same type and payload again changes nothing, so a request may be repeated.
    ///
    /// # Errors
    /// [`EditError::OperationExists`] for the same id with another content, [`EditError::UnknownParent`],
    /// [`EditError::TooManyOperations`], or that it is too large, not created or deleted.
    pub fn operate(
        &mut self,
        author: &Author,
        id: OperationId,
        op_type: &str,
        payload: Payload,
        mut parents: Vec<OperationId>,
        cut: bool,
    ) -> Edit {
        self.editable()?;
        short("type of the operation", op_type)?;
        if op_type.is_empty() {
            let hint = "give the type that the policy speaks of";
            return Err(EditError::BadOperation { what: "type", found: String::new(), hint });
        }
        if let Payload::Blob(hash) = &payload {
            let digits = hash.strip_prefix("sha256:").filter(|hex| hex.parse::<ChangeHash>().is_ok());
            if digits.is_none() {
                let hint = "write sha256: and 64 hexadecimal digits";
                return Err(EditError::BadOperation { what: "blob", found: hash.chars().take(100).collect(), hint });
            }
        }
        let operations = match self.doc.get(ROOT, "operations")? {
            Some((value, operations)) if value.is_object() => operations,
            _ => return Err(EditError::Automerge("the map of operations is missing".to_owned())),
        };
        // What was closed over counts as known, too.
        if let Some(closing) = self.closing() {
            let known = closing.base.get(&id);
            if known.is_some_and(|known| known.op_type == op_type && known.payload == payload) && !self.was_ended(&id) {
                return Ok(None);
            }
            if known.is_some() || closing.left_out.contains(&id) {
                return Err(EditError::OperationExists(id));
            }
            parents.retain(|parent| !closing.has_operation(parent));
        }
        if let Some(known) = operation(&self.doc, None, &operations, &id) {
            let same = known.op_type == op_type && known.payload == payload && !self.was_ended(&id);
            return if same { Ok(None) } else { Err(EditError::OperationExists(id)) };
        }
        parents.sort();
        parents.dedup();
        for parent in &parents {
            if self.doc.get(&operations, parent.as_str())?.is_none() {
                return Err(EditError::UnknownParent(parent.clone()));
            }
        }
        // There are no more operations than changes, mostly.
        let max = self.limits.max_operations;
        let closed = self.closing().map_or(0, |closing| closing.base.operations.len());
        if self.changes.saturating_add(closed) >= max
            && self.doc.keys(&operations).count().saturating_add(closed) >= max
        {
            return Err(EditError::TooManyOperations { max });
        }
        let op_type = op_type.to_owned();
        let operation = Operation { id, op_type, parents, cut, at: author.at, by: author.site.clone(), payload };
        let value = write_operation(&operation);
        let size = check("the operation", &value, &self.limits)?;
        let reading = std::mem::take(&mut self.reading);
        let change = self.make(author, "operation", Some(operation.id.clone()), size, |tx| {
            Editor { tx, keys: &[] }.write_field(&[operations], operation.id.as_str(), None, &value)
        });
        // The one edit that is made often: what was read stays good, with this operation added.
        if let Some(mut known) = reading.into_inner() {
            if matches!(change, Ok(Some(_))) {
                known.state.operations.insert(operation.id.clone(), operation);
            }
            self.reading = OnceLock::from(known);
        }
        change
    }

    /// Deletes the replicant; its replicas go too unless `keep`. A second deletion changes nothing, except that it may
    /// say to keep them, or no longer to.
    ///
    /// All that is known here of its desired state, overrides and operations ends, so that none of it comes back with
    /// what others put under that name without knowing of the deletion.
    ///
    /// # Errors
    /// [`EditError::NotCreated`].
    pub fn delete(&mut self, author: &Author, keep: bool) -> Edit {
        if !self.is_created() {
            return Err(EditError::NotCreated(self.id.clone()));
        }
        if self.deletion().is_some_and(|deleted| deleted.keep == keep) {
            return Ok(None);
        }
        let value = json!({"at": author.at, "by": author.site, "keep": keep});
        let keys = self.list_keys();
        let merging = |root: &str| Reader::merging(&self.doc, None, &keys).root(root);
        let (made, ended) = (merging("made"), merging("ended"));
        let contents = [("desired", merging("desired")), ("overrides", merging("overrides"))];
        let operations = Value::Object(self.operation_ids().map(|id| (id, Value::Bool(true))).collect());
        self.make(author, "delete", None, 0, |tx| {
            let mut editor = Editor { tx, keys: &keys };
            editor.write_field(&[ROOT], "deleted", None, &value)?;
            for (root, slot) in &contents {
                let base = slot.as_ref().map(|slot| &slot.node);
                editor.field(&[ROOT], root, base, slot.as_ref(), &json!({}))?;
            }
            for name in made.iter().filter_map(|slot| slot.node.as_map()).flat_map(|map| map.fields.values()) {
                editor.remove_field(name)?;
            }
            add_to(editor.tx, "ended", ended.as_ref(), &operations)
        })
    }

    /// The ids of all operations that are written here, or were closed over and still count.
    fn operation_ids(&self) -> impl Iterator<Item = String> {
        let map = self.doc.get(ROOT, "operations").ok().flatten().map(|(_, map)| map);
        let written: Vec<String> = map.map(|map| self.doc.keys(&map).collect()).unwrap_or_default();
        let closed = self.closing().into_iter().flat_map(|closing| &closing.base.operations);
        written.into_iter().chain(closed.map(|operation| operation.id.to_string()))
    }

    pub(crate) fn editable(&self) -> Result<(), EditError> {
        if !self.is_created() {
            return Err(EditError::NotCreated(self.id.clone()));
        }
        if self.deletion().is_some() {
            return Err(EditError::Deleted(self.id.clone()));
        }
        Ok(())
    }

    /// The tombstone, without reading all the document says.
    fn deletion(&self) -> Option<Deleted> {
        match self.known_state() {
            Some(state) => state.deleted.clone(),
            None => read_deleted(&self.doc),
        }
    }

    /// The merge keys of lists, without reading all the document says.
    pub(crate) fn list_keys(&self) -> Vec<String> {
        match self.known_state() {
            Some(state) => list_keys(&state.policy),
            None => list_keys(&read_policy(&self.doc)),
        }
    }

    /// Brings one of the root's values to `new`.
    fn set(&mut self, root: &'static str, author: &Author, new: &Value, base: Option<&[ChangeHash]>) -> Edit {
        self.editable()?;
        let what = match root {
            "desired" => "the desired state",
            "overrides" => "the set of overrides",
            _ => "the policy",
        };
        let size = check(what, new, &self.limits)?;
        let keys = if root == "policy" { Vec::new() } else { self.list_keys() };
        let now = Reader::merging(&self.doc, None, &keys).root(root);
        let saw = match base {
            Some(heads) => {
                if let Some(unknown) = heads.iter().find(|hash| !self.has(hash)) {
                    return Err(EditError::UnknownBase(*unknown));
                }
                let heads: Vec<automerge::ChangeHash> = heads.iter().map(|hash| (*hash).into()).collect();
                Some(Reader::merging(&self.doc, Some(&heads), &keys).root(root))
            }
            None => None,
        };
        let base = saw.as_ref().unwrap_or(&now).as_ref().map(|slot| &slot.node);
        let reading = std::mem::take(&mut self.reading);
        let change = self.make(author, root, None, size, |tx| {
            Editor { tx, keys: &keys }.field(&[ROOT], root, base, now.as_ref(), new)
        });
        match (&change, Root::named(root)) {
            (Ok(Some(_)), Some(root)) => self.read_again(reading, &[root].into()),
            (Ok(Some(_)), None) => {}
            // It is as it was.
            (Ok(None) | Err(_), _) => self.reading = reading,
        }
        change
    }

    /// Makes one change, or none if `edit` edits nothing. `size` is about what it adds.
    pub(crate) fn make(
        &mut self,
        author: &Author,
        what: &str,
        op: Option<OperationId>,
        size: usize,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), automerge::AutomergeError>,
    ) -> Edit {
        author.check()?;
        self.room_for(size)?;
        let message = Message { author: author.clone(), what: what.to_owned(), op, carried: Vec::new() };
        let message = serde_json::to_string(&message).map_err(|error| EditError::Automerge(error.to_string()))?;
        let time = i64::try_from(author.at.ms() / 1000).unwrap_or(i64::MAX);
        let mut tx = self.doc.transaction();
        edit(&mut tx)?;
        let (hash, _) = tx.commit_with(CommitOptions::default().with_message(message).with_time(time));
        let Some(hash) = hash else { return Ok(None) };
        self.reading = OnceLock::new();
        self.changes += 1;
        let made = self.doc.get_change_by_hash(&hash);
        let made = made.ok_or_else(|| EditError::Automerge("the change just made is missing".to_owned()))?;
        self.bytes = self.bytes.saturating_add(made.raw_bytes().len());
        Ok(Some(Change::from(&made)))
    }

    /// Refuses what would make the document too large, by the exact size once the estimate says so.
    fn room_for(&mut self, size: usize) -> Result<(), EditError> {
        let max = self.limits.max_bytes;
        if self.bytes.saturating_add(size) > max {
            self.bytes = self.doc.save().len();
            let size = self.bytes.saturating_add(size);
            if size > max {
                return Err(EditError::TooLarge { what: "the document", size, max });
            }
        }
        Ok(())
    }
}

/// Adds to a set that is a map of the root, whose keys are the elements.
fn add_to(
    tx: &mut Transaction<'_>,
    root: &str,
    now: Option<&Slot>,
    names: &Value,
) -> Result<(), automerge::AutomergeError> {
    if names.as_object().is_some_and(Map::is_empty) {
        return Ok(());
    }
    Editor { tx, keys: &[] }.field(&[ROOT], root, None, now, names)
}

fn object(sites: &BTreeMap<SiteName, Value>) -> Value {
    Value::Object(sites.iter().map(|(site, value)| (site.to_string(), value.clone())).collect::<Map<_, _>>())
}
