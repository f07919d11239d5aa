//! Changes that come from elsewhere, or from the disk.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, Automerge, ReadDoc};

use super::chunk::{self, Bounds, Kind};
use super::reading::written_by;
use super::replicant::guarded;
use super::{ApplyError, Change, ChangeHash, Replicant};

/// What came of changes from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Those that were not known and are now in the document, or wait for others: what must be stored. In an order
    /// that can be applied, those that wait last.
    pub new: Vec<Change>,
    /// Those that were refused, which one and why. Nothing of them is kept.
    pub rejected: Vec<String>,
}

/// Counters of edits may be ahead of what they depend on by so many, and no higher than so much: Automerge counts in 32
/// bits, and one change at the end of the range would leave no room for any other.
const MAX_COUNTER_GAP: u64 = 10_000_000;
const MAX_COUNTER: u64 = 1 << 31;

impl Replicant {
    /// Takes changes in any order, in any grouping, as often as you like. A batch costs about as much as one change.
    ///
    /// A change that depends on others waits until they are here. What cannot be read, is too large, is another
    /// document's or contradicts what is here (an actor used twice) is refused by name, and so is what depends on it
    /// within this batch; the rest is taken.
    ///
    /// # Errors
    /// None so far; the document is unharmed if there is one.
    pub fn apply(&mut self, changes: &[Vec<u8>]) -> Result<Received, ApplyError> {
        Ok(self.take(changes.iter().map(Vec::as_slice).enumerate().collect()))
    }

    /// What a chunk from elsewhere may unpack to.
    pub(crate) fn bounds(&self, kind: Kind) -> Bounds {
        let ops = self.limits.max_change_ops;
        match kind {
            Kind::Change => Bounds { bytes: self.limits.max_bytes, ops },
            // A document holds many changes, and unpacks to several times its bytes.
            Kind::Document => {
                Bounds { bytes: self.limits.remote_bytes().saturating_mul(8), ops: ops.saturating_mul(16) }
            }
        }
    }

    /// Reads one change that is alone in its bytes.
    fn parse(&self, bytes: &[u8]) -> Result<automerge::Change, String> {
        if bytes.len() > self.limits.max_bytes {
            return Err(format!("it has {} bytes and may have {}", bytes.len(), self.limits.max_bytes));
        }
        let chunks = chunk::split(bytes)?;
        let [only] = chunks.as_slice() else { return Err(format!("it is {} pieces, not one", chunks.len())) };
        if only.kind != Kind::Change {
            return Err("it is a document, not a change".to_owned());
        }
        only.measure(self.bounds(Kind::Change))?;
        let parsed = guarded(|| automerge::Change::from_bytes(bytes.to_vec()).map_err(|error| error.to_string()))?;
        // Automerge does not compare them here.
        if only.checksum() != parsed.hash().0.get(..4) {
            return Err("its checksum is wrong".to_owned());
        }
        Ok(parsed)
    }

    /// Reads what was saved, and takes it.
    pub(crate) fn take_snapshot(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let chunks = chunk::split(snapshot)?;
        let Some((first, rest)) = chunks.split_first() else { return Ok(()) };
        // What this process wrote is not measured, only proved to be what it wrote.
        if !first.is_intact() {
            return Err("its checksum is wrong".to_owned());
        }
        let doc = self.read_document(first)?;
        let adopted = self.adopt(doc)?;
        self.bytes = first.whole.len();
        let waiting = self.take(rest.iter().map(|chunk| chunk.whole).enumerate().collect());
        match waiting.rejected.first() {
            Some(reason) if adopted.is_empty() && waiting.new.is_empty() => Err(reason.clone()),
            Some(reason) => Err(format!("read, but for {} changes: {reason}", waiting.rejected.len())),
            None => Ok(()),
        }
    }

    /// A whole document, to be looked at; it may be another's.
    pub(crate) fn read_document(&self, chunk: &chunk::Chunk<'_>) -> Result<Automerge, String> {
        if chunk.kind != Kind::Document {
            return Err("it does not begin with a document".to_owned());
        }
        let doc = guarded(|| Automerge::load(chunk.whole).map_err(|error| error.to_string()))?;
        let genesis = automerge::ChangeHash(self.genesis.hash.0);
        if doc.get_change_by_hash(&genesis).is_none() {
            return Err("it begins with another first change: it is another document".to_owned());
        }
        Ok(doc)
    }

    /// Takes a whole document in place of one that has only its first change. Gives what was new.
    pub(crate) fn adopt(&mut self, mut doc: Automerge) -> Result<Vec<automerge::Change>, String> {
        doc.set_actor(self.doc.get_actor().clone());
        let genesis = automerge::ChangeHash(self.genesis.hash.0);
        let changes = guarded(|| Ok(doc.get_changes(&[genesis])))?;
        if let Some(other) = changes.iter().find(|change| change.deps().is_empty()) {
            return Err(format!("it holds a second first change, {}", ChangeHash::from(other.hash())));
        }
        let added: usize = changes.iter().map(|change| change.raw_bytes().len()).sum();
        self.check_room(added)?;
        self.doc = doc;
        self.sequences = None;
        self.changes = changes.len();
        self.bytes = self.bytes.saturating_add(added);
        self.changed();
        self.queue.retain(|hash, _| !changes.iter().any(|change| change.hash().0 == hash.0));
        Ok(changes)
    }

    pub(crate) fn check_room(&self, added: usize) -> Result<(), String> {
        let (size, max) = (self.bytes.saturating_add(added), self.limits.remote_bytes());
        if size > max {
            let hint = "raise max_bytes here to take it";
            return Err(format!("the document would have {size} bytes and may have {max}: {hint}"));
        }
        Ok(())
    }

    /// Takes changes; each comes with the number by which it is named if it cannot be read.
    pub(crate) fn take(&mut self, items: Vec<(usize, &[u8])>) -> Received {
        let mut received = Received::default();
        let mut fresh: BTreeMap<ChangeHash, automerge::Change> = BTreeMap::new();
        let mut bytes = 0_usize;
        for (i, item) in items {
            let parsed = match self.parse(item) {
                Ok(parsed) => parsed,
                Err(reason) => {
                    received.rejected.push(format!("change {} ({} bytes): {reason}", i + 1, item.len()));
                    continue;
                }
            };
            let hash = ChangeHash::from(parsed.hash());
            if fresh.contains_key(&hash) || self.queue.contains_key(&hash) || self.holds(&parsed.hash()) {
                continue;
            }
            match self.check_room(bytes.saturating_add(item.len())) {
                Ok(()) => {
                    bytes = bytes.saturating_add(item.len());
                    fresh.insert(hash, parsed);
                }
                Err(reason) => received.rejected.push(format!("change {hash}: {reason}")),
            }
        }
        self.take_parsed(fresh, &mut received);
        received
    }

    /// Takes changes that are not known yet.
    pub(crate) fn take_parsed(&mut self, fresh: BTreeMap<ChangeHash, automerge::Change>, received: &mut Received) {
        if fresh.is_empty() {
            return;
        }
        let was_queued: BTreeSet<ChangeHash> = self.queue.keys().copied().collect();
        let mut waiting = std::mem::take(&mut self.queue);
        waiting.extend(fresh);
        let mut sequences = self.sequences.take().unwrap_or_else(|| Sequences::new(&self.doc));
        let (mut ready, bad) = self.sort(&mut waiting, &mut sequences);
        if bad.is_empty() {
            self.sequences = Some(sequences);
        }
        for (hash, reason) in bad {
            received.rejected.push(format!("change {hash}: {reason}"));
        }
        if let Err(reason) = self.apply_all(&ready) {
            self.sequences = None;
            // One of them is bad. Automerge does not say which, and leaves a mess; so one by one, each on a copy.
            let mut good = Vec::new();
            let mut refused: BTreeSet<ChangeHash> = BTreeSet::new();
            for change in std::mem::take(&mut ready) {
                let hash = ChangeHash::from(change.hash());
                let result = if change.deps().iter().any(|dep| refused.contains(&ChangeHash::from(*dep))) {
                    Err("it depends on one that was refused".to_owned())
                } else {
                    self.apply_all(std::slice::from_ref(&change))
                };
                match result {
                    Ok(()) => good.push(change),
                    Err(why) => {
                        refused.insert(hash);
                        received.rejected.push(format!("change {hash}: {why}"));
                    }
                }
            }
            if refused.is_empty() {
                received.rejected.push(format!("a batch at first, taken one by one then: {reason}"));
            }
            ready = good;
        }
        for change in &ready {
            if !was_queued.contains(&ChangeHash::from(change.hash())) {
                received.new.push(Change::from(change));
            }
        }
        self.enqueue(waiting, &was_queued, received);
    }

    /// Keeps what waits for others, as far as there is room; what waited before comes first.
    fn enqueue(
        &mut self,
        waiting: BTreeMap<ChangeHash, automerge::Change>,
        was_queued: &BTreeSet<ChangeHash>,
        received: &mut Received,
    ) {
        let (old, new): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(hash, _)| was_queued.contains(hash));
        let mut bytes = 0_usize;
        for (hash, change) in old.into_iter().chain(new) {
            let length = change.raw_bytes().len();
            bytes = bytes.saturating_add(length);
            if self.queue.len() >= self.limits.max_queued || bytes > self.limits.max_bytes {
                bytes = bytes.saturating_sub(length);
                let reason = "it waits for others and there is no room for more such: synchronise instead";
                received.rejected.push(format!("change {hash}: {reason}"));
                continue;
            }
            if !was_queued.contains(&hash) {
                received.new.push(Change::from(&change));
            }
            self.queue.insert(hash, change);
        }
    }

    /// Takes out of `waiting` what can be applied now, in order, and what never can be, with the reason.
    fn sort(
        &self,
        waiting: &mut BTreeMap<ChangeHash, automerge::Change>,
        seqs: &mut Sequences,
    ) -> (Vec<automerge::Change>, Vec<(ChangeHash, String)>) {
        let mut counters: BTreeMap<ChangeHash, u64> = BTreeMap::new();
        let mut bad: BTreeMap<ChangeHash, String> = BTreeMap::new();
        // What waits for what, and how many each waits for.
        let mut dependents: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
        let mut waits: BTreeMap<ChangeHash, usize> = BTreeMap::new();
        for (hash, change) in waiting.iter() {
            let mut count = 0;
            for dep in change.deps() {
                match self.doc.get_change_meta_by_hash(dep) {
                    Some(meta) => _ = counters.insert((*dep).into(), meta.max_op),
                    None => {
                        count += 1;
                        dependents.entry((*dep).into()).or_default().push(*hash);
                    }
                }
            }
            waits.insert(*hash, count);
        }
        let mut next: BTreeSet<ChangeHash> = waits.iter().filter(|(_, count)| **count == 0).map(|(h, _)| *h).collect();
        let mut ready = Vec::new();
        while let Some(hash) = next.pop_first() {
            let Some(change) = waiting.remove(&hash) else { continue };
            let verdict = match change.deps().iter().find(|dep| bad.contains_key(&ChangeHash::from(**dep))) {
                Some(_) => Err("it depends on one that was refused".to_owned()),
                None => self.judge(&change, seqs, &counters),
            };
            for dependent in dependents.remove(&hash).unwrap_or_default() {
                if let Some(count) = waits.get_mut(&dependent) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        next.insert(dependent);
                    }
                }
            }
            match verdict {
                Ok(()) => {
                    counters
                        .insert(hash, change.start_op().get().saturating_add(change.len() as u64).saturating_sub(1));
                    ready.push(change);
                }
                Err(reason) => _ = bad.insert(hash, reason),
            }
        }
        (ready, bad.into_iter().collect())
    }

    /// Whether a change whose dependencies are here can be one of this document.
    fn judge(
        &self,
        change: &automerge::Change,
        seqs: &mut Sequences,
        counters: &BTreeMap<ChangeHash, u64>,
    ) -> Result<(), String> {
        if change.deps().is_empty() {
            return Err("it is the first change of another document".to_owned());
        }
        if change.actor_id() == self.doc.get_actor() {
            let actor = change.actor_id();
            return Err(format!("another process writes as {actor}, the actor of this one: restart with a new actor"));
        }
        let before = change.deps().iter().filter_map(|dep| counters.get(&ChangeHash::from(*dep))).max().copied();
        let before = before.unwrap_or_default();
        let start = change.start_op().get();
        let end = start.saturating_add(change.len() as u64);
        if start <= before || start - before > MAX_COUNTER_GAP || end > MAX_COUNTER {
            return Err(format!("its counter {start} does not follow {before}"));
        }
        seqs.follow(change)
    }

    /// Applies changes whose dependencies are here: all, or none and the document as it was.
    fn apply_all(&mut self, ready: &[automerge::Change]) -> Result<(), String> {
        if ready.is_empty() {
            return Ok(());
        }
        let mut next = self.doc.clone();
        let next = guarded(move || {
            let before = next.get_heads();
            next.apply_changes(ready.iter().cloned()).map_err(|error| error.to_string())?;
            // Automerge keeps edits, not changes, and makes the changes from them when it saves. One that was not
            // written as it writes them comes out as another, and a document saved with it cannot be loaded.
            let mut given: BTreeMap<_, _> = ready.iter().map(|change| (change.hash(), change.raw_bytes())).collect();
            for kept in next.get_changes(&before) {
                if given.remove(&kept.hash()) != Some(kept.raw_bytes()) {
                    return Err("it is not written as Automerge writes changes".to_owned());
                }
            }
            if given.is_empty() { Ok(next) } else { Err("it was not taken".to_owned()) }
        })?;
        // Nothing was read that could still be so, or it is found out what is.
        let written = self.reading.get().and_then(|_| guarded(|| Ok(written_by(&next, ready))).ok().flatten());
        self.doc = next;
        self.changes = self.changes.saturating_add(ready.len());
        self.bytes = self.bytes.saturating_add(ready.iter().map(|change| change.raw_bytes().len()).sum());
        match written {
            Some(written) => {
                let before = std::mem::take(&mut self.reading);
                self.read_again(before, &written);
            }
            None => self.changed(),
        }
        Ok(())
    }
}

/// The number of changes of each actor.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    last: BTreeMap<ActorId, u64>,
}

impl Sequences {
    fn new(doc: &Automerge) -> Self {
        let mut last = BTreeMap::new();
        for meta in doc.get_changes_meta(&[]) {
            let seq = last.entry(meta.actor.into_owned()).or_insert(0);
            *seq = meta.seq.max(*seq);
        }
        Self { last }
    }

    fn follow(&mut self, change: &automerge::Change) -> Result<(), String> {
        let last = self.last.entry(change.actor_id().clone()).or_insert(0);
        if change.seq() != last.saturating_add(1) {
            let (actor, seq) = (change.actor_id(), change.seq());
            return Err(format!("it is number {seq} of actor {actor} after number {last}: the actor was used twice"));
        }
        *last = change.seq();
        Ok(())
    }
}
