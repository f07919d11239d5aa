//! Closing an epoch: when it may be done, and the document that the next one begins with.
//!
//! An epoch is closed at a *cut*: a change that every other change comes before or after. All up to the cut is closed
//! over, all after it is carried over. Whoever closes at the same cut makes the same document, byte for byte: it is a
//! function of the changes up to the cut alone.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, ROOT, ReadDoc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::author::Message;
use super::closing::Closing;
use super::json::canonical;
use super::state::{read_ended, read_policy, write_placement};
use super::{Actor, Author, Carried, Change, ChangeHash, EditError, Replicant};
use crate::desired::edit::Editor;
use crate::desired::view::Reader;
use crate::{DocumentId, Hlc, Operation, Report, SiteName, Status};

/// When an epoch has become long enough to be closed. All sites of a replicant should have the same rule: who has a lower
/// one closes for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRule {
    /// From so many changes on. 500.
    pub changes: usize,
    /// From [`aged_changes`](Self::aged_changes) on, if these came about in no less than so many milliseconds, by the
    /// clocks written in them. 30 days.
    pub age_ms: u64,
    /// How many changes an epoch that is old must have. 100.
    pub aged_changes: usize,
}

impl Default for EpochRule {
    fn default() -> Self {
        Self { changes: 500, age_ms: 30 * 24 * 3600 * 1000, aged_changes: 100 }
    }
}

/// Whether an epoch may be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ripeness {
    /// It is not long enough yet.
    Young,
    /// It is long enough, and no change since then is one that all others come before or after: its sites write all the
    /// time without having seen each other's changes.
    Divided,
    /// It may be closed at this change once all sites have said that they have it, and all that they have is here.
    Waiting(ChangeHash),
    /// It may be closed.
    Ripe {
        /// At this change: as far on as it makes sense.
        cut: ChangeHash,
        /// The first change at which it may be closed. Mostly the same.
        first: ChangeHash,
    },
}

/// The document that follows another.
#[derive(Debug)]
pub struct Successor {
    /// It, with all that was carried over.
    pub replicant: Replicant,
    /// What was carried over.
    pub carried: Carried,
}

/// Part of the name under which an epoch is closed: whoever writes anything else in the same place writes under another.
const FORMAT: &[u8] = b"khufu-epoch-1";
/// An epoch is closed beyond the first change at which that may be done if so many times [`EpochRule::changes`] more can be
/// closed over.
const FAR: usize = 2;

impl Replicant {
    /// Whether this epoch may be closed, and where: at a change that is far enough, that all others come before or after,
    /// and that all other sites of the replica set have. `reported` are the heads that each of these has said that it has.
    ///
    /// What all have said that they have can have nothing beside it that is not here, so the first such change is the same
    /// for all, and so is for each further [`EpochRule::changes`] the first that has so many more before it. It is closed at
    /// the first, or, where so much may be closed over that several epochs would follow each other at once, at the last of
    /// these. Then sites that know different amounts may close at different changes: of the documents that they go on with,
    /// the one in which more is closed over has the higher number ([`DocumentId::next`]), and the others carry over into it.
    #[must_use]
    pub fn ripeness(&self, rule: &EpochRule, reported: &[Vec<ChangeHash>]) -> Ripeness {
        if self.changes < rule.changes.min(rule.aged_changes) {
            return Ripeness::Young;
        }
        // In an order in which none stands before those that it depends on.
        let metas = self.doc.get_changes_meta(&[]);
        let places: BTreeMap<_, usize> = metas.iter().enumerate().map(|(place, meta)| (meta.hash, place)).collect();
        let place = |hash: &automerge::ChangeHash| places.get(hash).copied().unwrap_or_default();
        // For each change, the earliest that any later one builds on: if it is before the change, not all come after it.
        let mut built_on = vec![usize::MAX; metas.len() + 1];
        for (number, meta) in metas.iter().enumerate().rev() {
            let newest = meta.deps.iter().map(place).max().unwrap_or_default();
            let later = built_on.get(number + 1).copied().unwrap_or(usize::MAX);
            if let Some(slot) = built_on.get_mut(number) {
                *slot = later.min(newest);
            }
        }
        let at = |number: usize| -> Hlc {
            let message = metas.get(number).and_then(|meta| meta.message.as_deref()).and_then(Message::parse);
            message.map(|message| message.author.at).unwrap_or_default()
        };
        let mut since: Option<u64> = None;
        let mut open: std::collections::BTreeSet<usize> = std::collections::BTreeSet::new();
        let mut far_enough = false;
        let every = rule.changes.max(1);
        // Where it may be closed, each with how many changes come before it and itself.
        let (mut first, mut last) = (None, None);
        for (number, meta) in metas.iter().enumerate() {
            for dep in &meta.deps {
                open.remove(&place(dep));
            }
            open.insert(number);
            let long = number >= rule.changes;
            let bottleneck = open.len() == 1 && built_on.get(number + 1).is_none_or(|newest| *newest >= number);
            let due = long
                || (number >= rule.aged_changes
                    && bottleneck
                    && at(number).ms().saturating_sub(*since.get_or_insert_with(|| self.begun().ms())) >= rule.age_ms);
            far_enough |= due;
            let another = last.is_none_or(|(before, _)| number / every > before / every);
            if !due || !bottleneck || !another {
                continue;
            }
            let cut = ChangeHash::from(meta.hash);
            let has = |heads: &Vec<ChangeHash>| {
                let places = heads.iter().map(|head| places.get(&automerge::ChangeHash(head.0)));
                // What is not before the cut is the cut or comes after it.
                places.clone().all(|place| place.is_some()) && places.flatten().max().is_some_and(|max| *max >= number)
            };
            if !reported.iter().all(has) {
                if first.is_none() {
                    return Ripeness::Waiting(cut);
                }
                break;
            }
            first = first.or(Some((number, cut)));
            last = Some((number, cut));
        }
        if let (Some((near, first)), Some((far, last))) = (first, last) {
            // Whoever looks a little later than others must not find another change for that.
            let cut = if far - near >= every.saturating_mul(FAR) { last } else { first };
            return Ripeness::Ripe { cut, first };
        }
        if far_enough { Ripeness::Divided } else { Ripeness::Young }
    }

    /// When this epoch was begun, by the clock written in its first change; 0 if nothing is written there.
    #[must_use]
    pub fn begun(&self) -> Hlc {
        let genesis = automerge::ChangeHash(self.genesis.hash.0);
        let metas = self.doc.get_changes_meta(&[]);
        let first = metas.iter().filter(|meta| meta.deps == [genesis]);
        let at = |meta: &automerge::ChangeMetadata<'_>| Message::parse(meta.message.as_deref()?).map(|m| m.author.at);
        first.filter_map(at).min().unwrap_or_default()
    }

    /// Brings several heads together in a change that edits nothing, so that there is one that all others come before.
    ///
    /// # Errors
    /// That it is not created.
    pub fn join(&mut self, author: &Author) -> super::Edit {
        if !self.is_created() {
            return Err(EditError::NotCreated(self.id.clone()));
        }
        if self.doc.get_heads().len() < 2 {
            return Ok(None);
        }
        author.check()?;
        let message = Message { author: author.clone(), what: "join".to_owned(), op: None, carried: Vec::new() };
        let actor = self.doc.get_actor().clone();
        Ok(Some(self.make_as(&actor, &message, |_| Ok(()))?))
    }

    /// The document of the next epoch: what this one said at `cut`, and all that came after carried over. This one stays
    /// as it is, to be kept elsewhere if its history is wanted. `actor` writes what is edited there from now on.
    ///
    /// # Errors
    /// [`EditError::UnknownBase`] if the cut is not known here, [`EditError::NotCreated`], or that it is too large.
    pub fn close(&self, cut: &ChangeHash, actor: &Actor) -> Result<Successor, EditError> {
        if !self.has(cut) {
            return Err(EditError::UnknownBase(*cut));
        }
        let then = self.at_heads(&[(*cut).into()])?;
        if !then.is_created() {
            return Err(EditError::NotCreated(self.id.clone()));
        }
        let id = self.id.next(then.changes);
        let wrong = |error: super::DocumentError| EditError::Automerge(error.to_string());
        let mut next = Self::genesis(id, actor).map_err(wrong)?.with_limits(self.limits.clone());
        next.begin(&then, cut)?;
        let carried = self.carry_into(&mut next, &[])?;
        Ok(Successor { replicant: next, carried })
    }

    /// Which document follows this one if it is closed at `cut`; none if that is not known here.
    #[must_use]
    pub fn next_at(&self, cut: &ChangeHash) -> Option<DocumentId> {
        let later = self.has(cut).then(|| self.doc.get_changes_meta(&[(*cut).into()]).len())?;
        Some(self.id.next(self.changes.saturating_sub(later)))
    }

    /// Whether a closing at `cut` would take from one of these sites an operation that it still needs: the one with which
    /// the next epoch's list begins must have succeeded there, or be needed no more, since nothing before it is kept; and
    /// without such a one, what was executed and is not in the list any more must have been taken back.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn is_needed_by(&self, cut: &ChangeHash, reports: &[&Report]) -> Result<bool, EditError> {
        if !self.has(cut) {
            return Err(EditError::UnknownBase(*cut));
        }
        let then = self.at_heads(&[(*cut).into()])?;
        let state = then.state();
        let (base, mut left_out) = state.base.close(&state.operations, &state.policy);
        left_out.extend(read_ended(&then.doc));
        let absolute = |operation: &&Operation| state.policy.is_absolute(&operation.op_type);
        let first = base.operations.first().filter(absolute);
        Ok(reports.iter().filter(|report| report.status != Status::NeedsAttention).any(|report| match first {
            Some(first) => {
                let status = report.operations.get(&first.id).map(|report| report.status);
                matches!(status, Some(Status::Pending | Status::Failed))
            }
            None => report.applied.iter().any(|id| left_out.contains(id)),
        }))
    }

    /// Writes the change with which an epoch begins.
    fn begin(&mut self, then: &Self, cut: &ChangeHash) -> Result<Change, EditError> {
        let (state, before) = (then.state(), then.closing());
        let metas = then.doc.get_changes_meta(&[]);
        let messages: Vec<_> = metas.iter().map(|meta| meta.message.as_deref().and_then(Message::parse)).collect();
        let changes = metas.iter().zip(&messages).map(|(meta, message)| {
            let origins = message.as_ref().map_or(&[][..], |message| &message.carried);
            (meta.actor.to_hex_string(), meta.seq, origins)
        });
        let past = Closing::remember(before, then.id.epoch, cut, changes);
        let (base, mut left_out) = state.base.close(&state.operations, &state.policy);
        left_out.extend(read_ended(&then.doc));
        let kept = then.conflicts().into_iter().filter(|conflict| conflict.can_be_kept());
        let closing = Closing {
            cut: cut.to_string(),
            change: *cut,
            changes: u64::try_from(then.changes).unwrap_or(u64::MAX),
            base,
            left_out: Closing::remember_left_out(before, left_out),
            past,
            conflicts: kept.map(|conflict| (conflict.pointer(), conflict.values)).collect(),
        };
        let whole = |root: &str, keys: &[String]| {
            Reader::merging(&then.doc, None, keys).root(root).map_or(Value::Null, |slot| slot.node.json())
        };
        let keys = then.list_keys();
        let (policy, overrides, made) = (whole("policy", &[]), whole("overrides", &keys), whole("made", &[]));
        let placement = state.placement.as_ref().map(write_placement);
        let deleted = state.deleted.as_ref().map(|deleted| json!(deleted));
        let closed = closing.write(then.id.epoch);
        let content = json!({
            "kind": state.kind, "scope": state.scope, "placement": placement, "policy": policy, "desired": state.desired,
            "overrides": overrides, "made": made, "deleted": deleted, "closed": closed,
        });
        let mut text = String::new();
        canonical(&content, &mut text);
        // Another content, which only another version of this program can make, is written under another name.
        let digest = Sha256::new().chain_update(FORMAT).chain_update(self.id.to_string()).chain_update(text).finalize();
        let actor = ActorId::from(digest.split_at(16).0);
        let last = messages.last().cloned().flatten().map(|message| message.author);
        let author = Author {
            site: last.as_ref().map_or_else(unnamed, |author| Ok(author.site.clone()))?,
            at: last.map(|author| author.at).unwrap_or_default(),
            who: "khufu".to_owned(),
            why: format!("epoch {} closed", then.id.epoch),
        };
        let message = Message { author, what: "epoch".to_owned(), op: None, carried: Vec::new() };
        let roots: Vec<_> = [("policy", policy), ("desired", state.desired.clone()), ("overrides", overrides)]
            .into_iter()
            .map(|(key, value)| (key, Reader::merging(&self.doc, None, &keys).root(key), value))
            .collect();
        let (kind, scope) = (state.kind.clone(), state.scope.clone());
        let change = self.make_as(&actor, &message, |tx| {
            tx.put(ROOT, "kind", kind.as_str())?;
            tx.put(ROOT, "scope", scope.as_str())?;
            let map = tx.put_object(ROOT, "closed", automerge::ObjType::Map)?;
            let mut editor = Editor { tx, keys: &keys };
            if !made.is_null() {
                editor.write_field(&[ROOT], "made", None, &made)?;
            }
            if let Some(deleted) = &deleted {
                editor.write_field(&[ROOT], "deleted", None, deleted)?;
            }
            if let Some(placement) = &placement {
                editor.write_field(&[ROOT], "placement", None, placement)?;
            }
            for (key, slot, value) in &roots {
                let base = slot.as_ref().map(|slot| &slot.node);
                editor.field(&[ROOT], key, base, slot.as_ref(), value)?;
            }
            editor.write_field(&[map], &closing.cut, None, &closed)
        })?;
        if change.bytes.len() > self.limits.max_bytes {
            let (size, max) = (change.bytes.len(), self.limits.max_bytes);
            return Err(EditError::TooLarge { what: "the first change of the next epoch", size, max });
        }
        self.changed();
        Ok(change)
    }

    /// This document as it was at some heads, under another actor.
    pub(crate) fn at_heads(&self, heads: &[automerge::ChangeHash]) -> Result<Self, EditError> {
        let mut doc = if self.doc.get_heads() == heads { self.doc.clone() } else { self.doc.fork_at(heads)? };
        doc.set_actor(self.doc.get_actor().clone());
        Ok(self.beside(doc))
    }

    /// Another version of this document.
    pub(crate) fn beside(&self, doc: Automerge) -> Self {
        let changes = doc.get_changes_meta(&[]).len().saturating_sub(1);
        Self {
            id: self.id.clone(),
            doc,
            genesis: self.genesis.clone(),
            limits: self.limits.clone(),
            queue: BTreeMap::new(),
            bytes: self.bytes,
            changes,
            reading: OnceLock::new(),
            sequences: None,
            closing: OnceLock::new(),
        }
    }

    /// Makes one change under an actor that is used for nothing else, also one that edits nothing.
    pub(crate) fn make_as(
        &mut self,
        actor: &ActorId,
        message: &Message,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), automerge::AutomergeError>,
    ) -> Result<Change, EditError> {
        let text = serde_json::to_string(message).map_err(|error| EditError::Automerge(error.to_string()))?;
        let time = i64::try_from(message.author.at.ms() / 1000).unwrap_or(i64::MAX);
        let options = || CommitOptions::default().with_message(text.clone()).with_time(time);
        let own = self.doc.get_actor().clone();
        self.doc.set_actor(actor.clone());
        let mut tx = self.doc.transaction();
        let edited = edit(&mut tx);
        let hash = match &edited {
            Ok(()) => tx.commit_with(options()).0,
            Err(_) => {
                tx.rollback();
                None
            }
        };
        let hash = match (&edited, hash) {
            (Ok(()), None) => Some(self.doc.empty_commit(options())),
            (_, hash) => hash,
        };
        self.doc.set_actor(own);
        edited?;
        self.reading = OnceLock::new();
        self.changes += 1;
        let made = hash.and_then(|hash| self.doc.get_change_by_hash(&hash));
        let made = made.ok_or_else(|| EditError::Automerge("the change just made is missing".to_owned()))?;
        self.bytes = self.bytes.saturating_add(made.raw_bytes().len());
        Ok(Change::from(&made))
    }

    /// The merge keys of lists, as a document says now.
    pub(crate) fn keys_of(doc: &Automerge) -> Vec<String> {
        super::state::list_keys(&read_policy(doc))
    }
}

/// Where a program that does not say so made a change.
pub(crate) fn unnamed() -> Result<SiteName, EditError> {
    SiteName::new("unknown").map_err(|error| EditError::Automerge(error.to_string()))
}
