//! Range-based set reconciliation (Meyer, 2023; the `negentropy` protocol): what two nodes share is compared in a few
//! messages whatever its number, and only documents that differ are looked at.

use std::collections::BTreeSet;

use khufu_crdt::ReplicantId;
use negentropy::Negentropy;
use serde_bytes::ByteBuf;

use super::shared::SharedDigest;
use crate::replicant::ItemPrefix;
use crate::timers::Due;
use crate::wire::Frame;
use crate::{Engine, NodeId};

/// The most bytes of one message of a comparison.
const MESSAGE_BYTES: u64 = 60_000;
/// The most items in one request for what is lacking; the rest is found by the next comparison.
const MAX_WANTED: usize = 4096;

/// The most steps of one comparison: far more than any number of replicants needs.
const MAX_STEPS: u32 = 4096;
/// The most differences that are noted of one comparison; the rest is found by the next.
const MAX_DIFFERENCES: usize = 65_536;

/// What this node and another have last said of what they share. What differs is said again and again; what is the same
/// is said once by each.
#[derive(Debug, Default)]
pub(crate) struct Said {
    here: Option<SharedDigest>,
    there: Option<SharedDigest>,
}

/// A comparison that this node began.
#[derive(Debug)]
pub(crate) struct Round {
    number: u64,
    ours: BTreeSet<ItemPrefix>,
    theirs: BTreeSet<ItemPrefix>,
    steps: u32,
}

fn prefix(id: &[u8]) -> Option<ItemPrefix> {
    id.first_chunk::<16>().copied()
}

impl Engine {
    /// Which of two nodes begins comparisons: one is enough.
    fn begins_with(&self, node: &NodeId) -> bool {
        self.config.node < *node
    }

    /// Compares with a node very soon, if it is this node's turn to begin.
    pub(crate) fn reconcile_soon(&mut self, node: &NodeId) {
        if self.members.is_connected(node) {
            let soon = self.now.monotonic_us;
            let at = if self.begins_with(node) { soon } else { self.about(&node.0, self.config.reconcile) };
            self.timers.set_by(Due::Reconcile(node.clone()), at);
        }
    }

    /// Tells a node what is shared with it, in a few bytes, unless both have said the same of it.
    pub(crate) fn reconcile_with(&mut self, node: &NodeId) {
        if !self.members.is_connected(node) {
            return;
        }
        let again = self.about(&node.0, self.config.reconcile);
        self.timers.set(Due::Reconcile(node.clone()), again);
        let Some(site) = self.members.site_of(node) else { return };
        let digest = self.replicants.index.sum(site).digest();
        let said = self.sync.said.entry(node.clone()).or_default();
        if said.there == Some(digest) {
            self.sync.shared.is_same(site);
            if said.here == Some(digest) {
                return;
            }
        }
        said.here = Some(digest);
        self.counters.reconciles += 1;
        self.send(node, &Frame::Shared { digest: ByteBuf::from(digest) });
    }

    /// Another node has told what it shares with this one. If that is not what is shared here, one of the two compares.
    pub(crate) fn told_shared(&mut self, from: &NodeId, theirs: &[u8]) {
        let begins = self.begins_with(from);
        let Some(site) = self.members.site_of(from) else { return };
        let digest = self.replicants.index.sum(site).digest();
        self.sync.said.entry(from.clone()).or_default().there = theirs.try_into().ok();
        if digest == theirs {
            return self.sync.shared.is_same(site);
        }
        if !begins {
            return self.reconcile_with(from);
        }
        let Some(items) = self.sync.shared.with(&self.replicants.index, site) else { return };
        let message = Negentropy::borrowed(items, MESSAGE_BYTES).and_then(|mut state| state.initiate());
        let Ok(message) = message else { return };
        self.sync.next_round += 1;
        let number = self.sync.next_round;
        self.sync
            .rounds
            .insert(from.clone(), Round { number, ours: BTreeSet::new(), theirs: BTreeSet::new(), steps: 0 });
        self.send(from, &Frame::Reconcile { round: number, reply: false, message: ByteBuf::from(message) });
    }

    pub(crate) fn reconcile_step(&mut self, from: &NodeId, round: u64, reply: bool, message: &[u8]) {
        if reply { self.compare(from, round, message) } else { self.compare_for(from, round, message) }
    }

    /// Answers the comparison of another node. Nothing of it is kept.
    fn compare_for(&mut self, from: &NodeId, round: u64, message: &[u8]) {
        let Some(site) = self.members.site_of(from) else { return };
        let Some(items) = self.sync.shared.with(&self.replicants.index, site) else { return };
        let answer = Negentropy::borrowed(items, MESSAGE_BYTES).and_then(|mut state| state.reconcile(message));
        match answer {
            Ok(answer) => {
                self.send(from, &Frame::Reconcile { round, reply: true, message: ByteBuf::from(answer) });
            }
            Err(error) => self.refuse(from, format!("a comparison that makes no sense: {error}")),
        }
    }

    /// Goes on with an own comparison.
    fn compare(&mut self, from: &NodeId, number: u64, message: &[u8]) {
        let Some(round) = self.sync.rounds.get_mut(from).filter(|round| round.number == number) else { return };
        let Some(site) = self.members.site_of(from) else { return };
        // What has changed since the comparison began may show as a difference, or not: the next one will tell.
        let Some(items) = self.sync.shared.with(&self.replicants.index, site) else { return };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let next = Negentropy::borrowed(items, MESSAGE_BYTES).and_then(|mut state| {
            state.set_initiator();
            state.reconcile_with_ids(message, &mut ours, &mut theirs)
        });
        round.ours.extend(ours.iter().filter_map(|id| prefix(&id[..])));
        round.theirs.extend(theirs.iter().filter_map(|id| prefix(&id[..])));
        round.steps += 1;
        let enough = round.steps >= MAX_STEPS || round.ours.len().saturating_add(round.theirs.len()) >= MAX_DIFFERENCES;
        match next {
            Ok(Some(_)) if enough => self.compared(from),
            Ok(Some(message)) => {
                self.send(from, &Frame::Reconcile { round: number, reply: false, message: ByteBuf::from(message) });
            }
            Ok(None) => self.compared(from),
            Err(error) => {
                self.sync.rounds.remove(from);
                self.refuse(from, format!("a comparison that makes no sense: {error}"));
            }
        }
    }

    fn compared(&mut self, from: &NodeId) {
        let Some(round) = self.sync.rounds.remove(from) else { return };
        let mut wanted = Vec::new();
        let mut meet = BTreeSet::new();
        for prefix in round.ours.union(&round.theirs) {
            match self.replicants.by_prefix.get(prefix) {
                Some(id) if self.is_shared_with(id, from) => {
                    meet.insert(id.clone());
                }
                // Of what was given away there is no document here to talk about; and whoever shares what is not shared
                // with it here may know more of it, a later epoch perhaps.
                _ if wanted.len() < MAX_WANTED => wanted.push(ByteBuf::from(prefix.to_vec())),
                _ => {}
            }
        }
        let found = meet.len();
        meet.retain(|id| !self.is_fresh(id));
        let fresh = meet.len() < found;
        self.meet_all(meet, from);
        if !wanted.is_empty() {
            self.send(from, &Frame::Want { items: wanted });
        }
        if fresh {
            // What changed just now is on its way; look again when it should have arrived.
            self.timers.set_by(Due::Reconcile(from.clone()), self.now.plus(self.config.quiet));
        }
    }

    /// Whether a document changed so recently that others are probably being told right now.
    fn is_fresh(&self, id: &ReplicantId) -> bool {
        let missing = self.replicants.resident.get(id).is_some_and(|resident| !resident.doc.missing().is_empty());
        !missing
            && self
                .replicants
                .index
                .get(id)
                .is_some_and(|entry| entry.changed_us > 0 && self.now.since(entry.changed_us) < self.config.quiet)
    }

    /// Another node lacks these.
    pub(crate) fn wanted(&mut self, from: &NodeId, items: &[ByteBuf]) {
        if items.len() > MAX_WANTED {
            return self.refuse(from, format!("a request for {} items, {MAX_WANTED} are allowed", items.len()));
        }
        let mut meet = Vec::new();
        for item in items {
            let Some(id) = prefix(item).and_then(|prefix| self.replicants.by_prefix.get(&prefix)).cloned() else {
                continue;
            };
            // What was compared is what both hold. Nothing else is read from disk for it.
            if self.is_shared_with(&id, from) {
                meet.push(id);
            } else {
                self.counters.ignored += 1;
            }
        }
        self.meet_all(meet, from);
    }
}
