//! One document in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use serde_json::Value;

use super::apply::Sequences;
use super::author::Message;
use super::closing::{Closing, closing, cuts};
use super::reading::{Reading, Root};
use super::state::read_ended;
use super::{Actor, Author, Change, ChangeHash, DocumentError, State};
use crate::{DocumentId, Epoch, Limits, OperationId, OverrideError, SiteName};

/// The version of the layout described in the crate's documentation.
pub const SCHEMA: i64 = 1;

/// Makes first changes: always the same, so that all sites make the same one.
const GENESIS_ACTOR: [u8; 16] = *b"khufu-genesis-01";

/// One replicant's document in memory: what it says, its history, and edits as changes to be stored and sent.
///
/// Every edit gives back the one [`Change`] it made, or none if it changed nothing. The change is in the document
/// already; whoever calls stores it before it is acknowledged or sent.
#[derive(Debug, Clone)]
pub struct Replicant {
    pub(crate) id: DocumentId,
    pub(crate) doc: Automerge,
    pub(crate) genesis: Change,
    pub(crate) limits: Limits,
    /// Changes that wait for changes they depend on. Automerge's own queue stays empty: it has no bound and no list.
    pub(crate) queue: BTreeMap<ChangeHash, automerge::Change>,
    /// The estimated bytes of the document.
    pub(crate) bytes: usize,
    pub(crate) changes: usize,
    pub(crate) reading: OnceLock<Reading>,
    /// How many changes each actor made, once that was asked for.
    pub(crate) sequences: Option<Sequences>,
    /// What it says of the epochs before it, once that was asked for.
    pub(crate) closing: OnceLock<Option<Closing>>,
}

/// What came of loading a document.
#[derive(Debug)]
pub struct Loaded {
    /// The document, of all that was good.
    pub replicant: Replicant,
    /// What was left out and why; what it held has to be fetched from peers again.
    pub damaged: Vec<String>,
}

/// Runs what reads bytes from elsewhere. Automerge checks much, but some of its checks are assertions.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it breaks an assertion of Automerge".to_owned()))
}

fn first_change(id: &DocumentId) -> Result<(Automerge, Change), DocumentError> {
    let wrong = |reason: String| DocumentError::Genesis { id: id.clone(), reason };
    let mut doc = Automerge::new().with_actor(automerge::ActorId::from(GENESIS_ACTOR.as_slice()));
    let mut tx = doc.transaction();
    let mut write = || {
        tx.put(ROOT, "schema", SCHEMA)?;
        tx.put(ROOT, "id", id.replicant.as_str())?;
        // Signed, since JavaScript's Automerge reads other integers as big ones.
        tx.put(ROOT, "epoch", i64::try_from(id.epoch).unwrap_or(i64::MAX))?;
        for map in ["policy", "desired", "overrides", "operations"] {
            tx.put_object(ROOT, map, ObjType::Map)?;
        }
        Ok::<(), automerge::AutomergeError>(())
    };
    write().map_err(|error| wrong(error.to_string()))?;
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(0));
    let change = hash.and_then(|hash| doc.get_change_by_hash(&hash)).ok_or_else(|| wrong("it is empty".to_owned()))?;
    let change = Change::from(&change);
    Ok((doc, change))
}

impl Replicant {
    /// The document with nothing but its first change, which has the same bytes at every site.
    ///
    /// # Errors
    /// [`DocumentError::Genesis`], which is a defect.
    pub fn genesis(id: DocumentId, actor: &Actor) -> Result<Self, DocumentError> {
        let (mut doc, genesis) = first_change(&id)?;
        doc.set_actor(actor.id());
        let bytes = genesis.bytes.len();
        Ok(Self {
            id,
            doc,
            genesis,
            limits: Limits::default(),
            queue: BTreeMap::new(),
            bytes,
            changes: 0,
            reading: OnceLock::new(),
            sequences: None,
            closing: OnceLock::new(),
        })
    }

    /// The document as stored: the last [`save`](Self::save), and the changes stored since, in any order, also such as
    /// the snapshot holds.
    ///
    /// A snapshot or change that cannot be read, or is another document's, is named in [`Loaded::damaged`] and left
    /// out; what depends on it waits until it has been fetched again. Nothing is refused for its size here.
    ///
    /// # Errors
    /// [`DocumentError::Genesis`], which is a defect.
    pub fn load(
        id: DocumentId,
        actor: &Actor,
        snapshot: Option<&[u8]>,
        changes: &[Vec<u8>],
    ) -> Result<Loaded, DocumentError> {
        // Until all is read nothing is written, so no change that is read can be one of this process by mistake.
        let mut replicant = Self::genesis(id, &actor.derive(b"load"))?;
        let unlimited = Limits { max_bytes: usize::MAX, max_queued: usize::MAX, ..Limits::default() };
        replicant.limits = unlimited;
        let mut damaged = Vec::new();
        if let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.is_empty())
            && let Err(reason) = replicant.take_snapshot(snapshot)
        {
            damaged.push(format!("snapshot of {} ({} bytes): {reason}", replicant.id, snapshot.len()));
        }
        let taken = replicant.take(changes.iter().map(Vec::as_slice).enumerate().collect());
        damaged.extend(taken.rejected.into_iter().map(|reason| format!("{}: {reason}", replicant.id)));
        replicant.limits = Limits::default();
        replicant.choose_actor(actor, snapshot, changes, &damaged);
        Ok(Loaded { replicant, damaged })
    }

    /// An actor that no change was made under. Where something is missing, a change of this very actor may be what is
    /// missing, so it is not used either.
    fn choose_actor(&mut self, actor: &Actor, snapshot: Option<&[u8]>, changes: &[Vec<u8>], damaged: &[String]) {
        let mut chosen = actor.clone();
        if !damaged.is_empty() {
            chosen = chosen.derive(snapshot.unwrap_or_default());
            for change in changes {
                chosen = chosen.derive(change);
            }
        }
        let queued: Vec<&automerge::ActorId> = self.queue.values().map(automerge::Change::actor_id).collect();
        let metas = self.doc.get_changes_meta(&[]);
        let used = |actor: &Actor| {
            let id = actor.id();
            metas.iter().any(|meta| *meta.actor == id) || queued.contains(&&id)
        };
        while used(&chosen) {
            chosen = chosen.derive(b"again");
        }
        drop(metas);
        self.doc.set_actor(chosen.id());
    }

    /// The same document under other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits it is under.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Which document it is.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        &self.id
    }

    /// Whether it holds anything beyond its first change.
    #[must_use]
    pub fn is_created(&self) -> bool {
        self.changes > 0
    }

    /// The changes that no other depends on, sorted.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<ChangeHash> = self.doc.get_heads().into_iter().map(ChangeHash::from).collect();
        heads.sort_unstable();
        heads
    }

    /// Whether a change is in the document. One that waits for others is not.
    #[must_use]
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.holds(&(*hash).into())
    }

    pub(crate) fn holds(&self, hash: &automerge::ChangeHash) -> bool {
        self.doc.get_missing_deps(std::slice::from_ref(hash)).is_empty()
    }

    /// The changes that say where it lives, several where decisions compete.
    #[must_use]
    pub fn placement_changes(&self) -> Vec<ChangeHash> {
        super::state::placement_changes(&self.doc).into_iter().map(ChangeHash::from).collect()
    }

    /// Whether whoever had these heads, which this document has, knew these changes. The answer stays the same for ever. To
    /// find it takes time in proportion to what came after the heads.
    #[must_use]
    pub fn knew(&self, heads: &[ChangeHash], changes: &[ChangeHash]) -> bool {
        if changes.iter().all(|change| heads.contains(change)) {
            return true;
        }
        let heads: Vec<automerge::ChangeHash> = heads.iter().map(|head| (*head).into()).collect();
        let later = self.doc.get_changes(&heads);
        !later.iter().any(|change| changes.contains(&change.hash().into()))
    }

    /// The changes that others wait for, sorted: neither in the document nor waiting themselves.
    #[must_use]
    pub fn missing(&self) -> Vec<ChangeHash> {
        let mut missing: Vec<ChangeHash> = self
            .queue
            .values()
            .flat_map(|change| change.deps())
            .filter(|hash| !self.holds(hash))
            .map(|hash| ChangeHash::from(*hash))
            .filter(|hash| !self.queue.contains_key(hash))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The changes that wait for others, by hash. They are part of what is stored.
    #[must_use]
    pub fn queued(&self) -> Vec<Change> {
        self.queue.values().map(Change::from).collect()
    }

    /// Who made the changes that wait for others, as far as they say.
    #[must_use]
    pub fn queued_by(&self) -> Vec<Author> {
        let messages = self.queue.values().filter_map(|change| Message::parse(change.message()?));
        messages.map(|message| message.author).collect()
    }

    /// The bytes of the changes that wait for others.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.values().map(|change| change.raw_bytes().len()).sum()
    }

    /// What the document says. Computed after a change when first asked for, then kept.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.reading.get_or_init(|| Reading::of(&self.doc, self.closing())).state
    }

    /// What the document says, if it was read already.
    pub(crate) fn known_state(&self) -> Option<&State> {
        self.reading.get().map(|reading| &reading.state)
    }

    /// What it says of the epochs before it.
    pub(crate) fn closing(&self) -> Option<&Closing> {
        self.closing.get_or_init(|| closing(&self.doc)).as_ref()
    }

    /// Whether it begins with what closed the epoch before it.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        self.closing().is_some()
    }

    /// The change of the epoch before it at which that was closed; none for one that does not follow another.
    #[must_use]
    pub fn cut(&self) -> Option<ChangeHash> {
        self.closing().and_then(|closing| closing.cut.parse().ok())
    }

    /// Whether the last deletion, which may have been followed by another making, left the replicas on their platforms.
    #[must_use]
    pub fn was_kept(&self) -> bool {
        super::state::last_deletion(&self.doc).is_some_and(|deleted| deleted.keep)
    }

    /// Whether it is remembered which changes of an earlier epoch were closed over.
    #[must_use]
    pub fn remembers(&self, epoch: Epoch) -> bool {
        epoch < self.id.epoch && self.closing().is_some_and(|closing| closing.remembers(epoch))
    }

    /// The operations that were closed over and are not in the document any more, as far as that is remembered.
    #[must_use]
    pub fn left_out(&self) -> Vec<OperationId> {
        self.closing().map(|closing| closing.left_out.iter().cloned().collect()).unwrap_or_default()
    }

    /// Whether an operation was closed over and is not in the document any more, as far as that is remembered.
    #[must_use]
    pub fn was_left_out(&self, id: &OperationId) -> bool {
        self.closing().is_some_and(|closing| closing.left_out.contains(id))
    }

    /// Whether a deletion ended an operation, in this epoch. What was ended in one before was [left out](Self::was_left_out).
    #[must_use]
    pub fn was_ended(&self, id: &OperationId) -> bool {
        read_ended(&self.doc).contains(id)
    }

    /// Whether an operation is one of this document, also if a deletion has ended it or an epoch has left it out.
    #[must_use]
    pub fn knows_operation(&self, id: &OperationId) -> bool {
        self.state().operation(id).is_some() || self.was_ended(id) || self.was_left_out(id)
    }

    /// Whether there were operations that a deletion has ended or an epoch has left out.
    #[must_use]
    pub fn had_operations(&self) -> bool {
        !read_ended(&self.doc).is_empty() || self.closing().is_some_and(|closing| !closing.left_out.is_empty())
    }

    /// Something was written below these roots and nowhere else, so most of what was read before is so still.
    pub(crate) fn read_again(&mut self, before: OnceLock<Reading>, written: &BTreeSet<Root>) {
        let after = before.into_inner().and_then(|before| before.after(&self.doc, self.closing(), written));
        self.reading = after.map_or_else(OnceLock::new, OnceLock::from);
    }

    /// The document changed by more than an edit made here.
    pub(crate) fn changed(&mut self) {
        self.reading = OnceLock::new();
        // It is read anew only where there is another: it may be long.
        let known = match self.closing.get() {
            Some(Some(known)) => cuts(&self.doc) == [known.cut.as_str()],
            Some(None) => cuts(&self.doc).is_empty(),
            None => true,
        };
        if !known {
            self.closing = OnceLock::new();
        }
    }

    /// The desired state of one site; see [`State::effective`].
    ///
    /// # Errors
    /// As there.
    pub fn effective(&self, site: &SiteName) -> Result<Value, OverrideError> {
        self.state().effective(site)
    }

    /// SHA-256 of what the document says; see [`State::digest`].
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.state().digest()
    }

    /// One change by its name, also if it waits for others.
    #[must_use]
    pub fn change(&self, hash: &ChangeHash) -> Option<Change> {
        if let Some(change) = self.queue.get(hash) {
            return Some(change.into());
        }
        self.doc.get_change_by_hash(&(*hash).into()).as_ref().map(Change::from)
    }

    /// All changes that are not among `heads` and what these depend on, in an order that can be applied. Heads that
    /// are not known here are left out of account.
    #[must_use]
    pub fn changes_since(&self, heads: &[ChangeHash]) -> Vec<Change> {
        let known: Vec<automerge::ChangeHash> =
            heads.iter().map(|hash| (*hash).into()).filter(|hash| self.holds(hash)).collect();
        self.doc.get_changes(&known).iter().map(Change::from).collect()
    }

    /// The whole document in one compact piece, which any Automerge loads: the document, followed by the changes that
    /// wait for others. It replaces all that was stored before.
    pub fn save(&mut self) -> Vec<u8> {
        let mut bytes = self.doc.save();
        self.bytes = bytes.len();
        for change in self.queue.values() {
            bytes.extend_from_slice(change.raw_bytes());
        }
        bytes
    }

    /// How many changes it has, those that wait and the first one not counted.
    #[must_use]
    pub fn change_count(&self) -> usize {
        self.changes
    }

    /// About how many bytes the document has: its last snapshot and the changes since. Free of cost.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// Whether it is larger than [`Limits::warn_bytes`].
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.bytes > self.limits.warn_bytes
    }
}
