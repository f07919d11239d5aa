//! One session of the Automerge sync protocol for one document, with the reports beside it.
//!
//! The protocol needs a stream in order without gaps. Frames may be lost with a connection, so they are counted, and a
//! session with a gap is given up: the next comparison starts another.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{ChangeHash, ReplicantId, Report, SiteName, SyncState};
use serde_bytes::ByteBuf;

use super::parts::Parts;
use crate::engine::Task;
use crate::timers::Due;
use crate::wire::{self, Frame, SyncFrame};
use crate::{Engine, NodeId};

/// The most frames of one side of a session. Far more than any exchange needs: two documents come together in a few
/// messages, and the largest has some twenty parts.
const MAX_FRAMES: u32 = 256;

/// After so many offers that nobody has taken, users are told.
const MAX_OFFERS: u32 = 3;
/// The pause between two offers of the same doubles so often.
const MAX_DOUBLINGS: u32 = 6;

/// The most sites that another node knows reports of, and this one does not, that are remembered.
const MAX_STRANGE: usize = 256;

/// The most heads of another node that are remembered.
const MAX_HEADS: usize = 64;

/// A session under way.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    began_here: bool,
    /// The epoch of the document that it is about.
    epoch: u64,
    state: SyncState,
    next_in: u32,
    next_out: u32,
    pub(super) parts: Parts,
    /// The numbers of the reports that the other side has, once it has said so.
    theirs: Option<BTreeMap<SiteName, u64>>,
    /// The last frame sent said that there is nothing more to say.
    quiet: bool,
    /// The session has brought something that the other holders may lack.
    news: bool,
}

impl Session {
    fn new(number: u64, began_here: bool, epoch: u64) -> Self {
        Self {
            number,
            began_here,
            epoch,
            state: SyncState::default(),
            next_in: 0,
            next_out: 0,
            parts: Parts::default(),
            theirs: None,
            quiet: false,
            news: false,
        }
    }
}

impl Engine {
    /// Begins a session with a node, now or when one of the others with it is over.
    pub(crate) fn meet(&mut self, id: &ReplicantId, with: &NodeId) {
        if !self.members.is_connected(with) || self.sync.sessions.contains_key(&(with.clone(), id.clone())) {
            return;
        }
        if self.sync.sessions_with(with) >= self.config.sessions {
            self.queue_session(id, with);
            return;
        }
        self.run(id.clone(), Task::Meet { with: with.clone() });
    }

    /// Begins a session for a resident document.
    pub(crate) fn begin_session(&mut self, id: &ReplicantId, with: &NodeId) {
        let key = (with.clone(), id.clone());
        if !self.members.is_connected(with) || self.sync.sessions.contains_key(&key) {
            return;
        }
        if !self.may_share(id, with) {
            return self.say_not_holder(id, with);
        }
        if self.sync.sessions_with(with) >= self.config.sessions {
            self.queue_session(id, with);
            return;
        }
        let Some(epoch) = self.epoch_with(id, with) else { return };
        self.sync.next_session += 1;
        self.counters.syncs += 1;
        self.sync.sessions.insert(key, Session::new(self.sync.next_session, true, epoch));
        self.say(id, with);
    }

    /// Whether a node's site is one of the holders of a replicant that is held here, as far as is known here.
    pub(crate) fn is_shared_with(&self, id: &ReplicantId, node: &NodeId) -> bool {
        let site = self.members.site_of(node);
        site.is_some_and(|site| self.replicants.held(id).is_some_and(|entry| entry.holds(site)))
    }

    /// The same of a resident document. Of one that is only being fetched, nothing is known that the other does not have.
    pub(crate) fn may_share(&self, id: &ReplicantId, node: &NodeId) -> bool {
        let Some(resident) = self.replicants.resident.get(id) else { return false };
        if resident.provisional && !resident.doc.is_created() {
            return true;
        }
        if resident.provisional {
            // It has come from elsewhere just now, and not everybody may have it.
            let placement = resident.doc.state().placement.as_ref();
            let site = self.members.site_of(node);
            return site.is_some_and(|site| placement.is_some_and(|placement| placement.holds(site)));
        }
        self.is_shared_with(id, node)
    }

    /// Tells a node that it is none of the holders, as far as is known here.
    pub(crate) fn say_not_holder(&mut self, id: &ReplicantId, to: &NodeId) {
        self.answer_not_holder(id, to, Vec::new(), &BTreeSet::new());
    }

    /// The same to a node that has told of it, perhaps on behalf of others; `knows` are heads of its own that are known here
    /// all the same.
    pub(crate) fn answer_not_holder(
        &mut self,
        id: &ReplicantId,
        to: &NodeId,
        mut knows: Vec<ChangeHash>,
        behalf: &BTreeSet<SiteName>,
    ) {
        self.counters.ignored += 1;
        let Some(resident) = self.replicants.resident.get(id) else { return };
        // Which site an unknown node serves will be known soon.
        if self.members.site_of(to).is_none() {
            return;
        }
        let document = resident.doc.id().clone();
        let gone = self.replicants.index.get(id).filter(|entry| entry.dropped && entry.epoch == document.epoch);
        let heads = match gone {
            Some(entry) if resident.provisional => entry.gone.clone(),
            None if resident.provisional => return,
            _ => resident.doc.heads(),
        };
        if resident.provisional {
            // What is in memory only may be gone the next moment.
            knows.clear();
        }
        let held = self.replicants.held(id);
        let of = behalf
            .iter()
            .take(super::MAX_BEHALF)
            .filter(|site| held.is_some_and(|entry| !entry.holds(site)))
            .cloned()
            .collect();
        self.send(to, &Frame::NotHolder { document, heads, knows, of });
    }

    /// Another node thinks that this site is no holder. If this node knows better, it says so by what the other lacks;
    /// if the other knows all that is known here, it is right.
    pub(crate) fn catch_up(
        &mut self,
        id: &ReplicantId,
        node: &NodeId,
        heads: &[ChangeHash],
        knows: &[ChangeHash],
        epoch: u64,
    ) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let document = resident.doc.id().clone();
        let here = resident.doc.heads();
        let known_there = !knows.is_empty() && here.iter().all(|head| knows.contains(head));
        if resident.provisional || !self.may_share(id, node) {
            return;
        }
        if document.epoch > epoch {
            // It has not heard of this epoch, of which it is a holder.
            return self.meet(id, node);
        }
        if document.epoch < epoch {
            if known_there || self.has_reported_all(id, node) {
                // Its heads are none of this document.
                return self.expelled(id, &here);
            }
            return self.offer(id, node);
        }
        if here == heads {
            // Nothing is lacking there, and it counts this site as cleaned up already: it may go.
            return self.relieved(id, node);
        }
        if known_there {
            return self.expelled(id, heads);
        }
        // Who has given it away cannot say more than that, and would go on saying so.
        if !resident.work.expelled.is_empty() || self.offers(id, node).is_none() {
            return;
        }
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let known: Vec<_> = heads.iter().filter(|head| resident.doc.has(head)).copied().collect();
        let changes: Vec<_> =
            resident.doc.changes_since(&known).into_iter().map(|change| ByteBuf::from(change.bytes)).collect();
        let heads = resident.doc.heads();
        self.push_all(node, &document, changes, heads);
    }

    /// A node has the very document that is here, and waits for nothing more from this site. If that is to leave, and
    /// waited for somebody to take over, this is it.
    fn relieved(&mut self, id: &ReplicantId, node: &NodeId) {
        let Some(site) = self.members.site_of(node).cloned() else { return };
        let here = &self.config.site;
        let Some(entry) = self.replicants.index.get_mut(id) else { return };
        let takes_over = entry
            .placement
            .as_ref()
            .is_some_and(|placement| placement.sites().contains(&site) && !placement.sites().contains(here));
        if !takes_over {
            return;
        }
        let epoch = entry.epoch;
        let before = entry.reports.get_mut(&site).filter(|(_, _, of)| *of < epoch);
        let followed = before.map(|(_, _, of)| *of = epoch).is_some();
        if entry.add_current(&site) || followed {
            self.write_index(id);
            self.work(id);
        }
    }

    /// Whether the site of a node has said that it has all that is here.
    fn has_reported_all(&self, id: &ReplicantId, node: &NodeId) -> bool {
        let (Some(resident), Some(site)) = (self.replicants.resident.get(id), self.members.site_of(node)) else {
            return false;
        };
        let Some(report) = resident.reports.get(site) else { return false };
        let heads: Vec<ChangeHash> = report.heads.iter().filter_map(|head| head.parse().ok()).collect();
        resident.doc.changes_since(&heads).is_empty()
    }

    /// Gives all of a document to a node that is in a later epoch of it, in which this site does not count as a holder.
    fn offer(&mut self, id: &ReplicantId, node: &NodeId) {
        let Some(times) = self.offers(id, node) else { return };
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let (document, heads) = (resident.doc.id().clone(), resident.doc.heads());
        let changes = resident.doc.changes_since(&[]).into_iter().map(|change| ByteBuf::from(change.bytes)).collect();
        self.push_all(node, &document, changes, heads);
        if times > MAX_OFFERS {
            let message = format!(
                "site {} was taken out while it was away, or has put this without knowing of what others have under \
                 this id, and those cannot take in what was asked for here: name this site in the scope there",
                self.config.site
            );
            self.warn(Some(id.clone()), message);
        }
    }

    /// Whether a document as it is now may be given once more to a node that does not take it, and how often it was: the
    /// same again only after a while, and then less and less often.
    fn offers(&mut self, id: &ReplicantId, node: &NodeId) -> Option<u32> {
        let (now, pause) = (self.now, self.config.session_timeout);
        let resident = self.replicants.resident.get_mut(id)?;
        let heads = resident.doc.heads();
        let offer = resident.offers.entry(node.clone()).or_default();
        if offer.heads == heads && now.monotonic_us < offer.again_us {
            return None;
        }
        offer.times = if offer.heads == heads { offer.times.saturating_add(1) } else { 1 };
        offer.heads = heads;
        offer.again_us = now.plus(pause.saturating_mul(1 << offer.times.min(MAX_DOUBLINGS)));
        Some(offer.times)
    }

    /// This site was taken out while it knew nothing of it, and is not waited for: it cleans up by itself.
    fn expelled(&mut self, id: &ReplicantId, heads: &[ChangeHash]) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        if resident.incoming.is_empty() && resident.work.expelled.is_empty() {
            resident.work.expelled = heads.iter().take(MAX_HEADS).copied().collect();
            if let Some(entry) = self.replicants.index.get_mut(id) {
                entry.settled = false;
            }
            self.write_index(id);
            self.write_work(id);
            self.work(id);
        }
    }

    /// A step of a session came in for a resident document.
    pub(crate) fn sync_step(&mut self, id: &ReplicantId, from: &NodeId, frame: SyncFrame) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let epoch = resident.doc.id().epoch;
        if frame.document.epoch < epoch {
            if self.replicants.held(id).is_none() {
                // This site was taken out in a later epoch.
                return self.say_not_holder(id, from);
            }
            return self.begin_session(id, from);
        }
        let epoch = frame.document.epoch;
        if self.is_later_epoch(id, &frame.document) {
            self.follow(id, from, &frame.document, frame.cut);
        } else if self.replicants.resident.get(id).is_none_or(|resident| epoch > resident.doc.id().epoch) {
            self.shelve(id, frame.document.clone(), from);
        }
        let Some(document) = self.document_mut(id, epoch) else { return };
        // Of what is only being fetched, nothing is known that the other does not have.
        let fetched = !document.is_created();
        if !fetched && !self.may_share(id, from) {
            let provisional = self.replicants.resident.get(id).is_some_and(|resident| resident.provisional);
            if provisional && frame.initiator && frame.seq == 0 {
                // What others have told of it does not concern this site. Somebody who thinks that it lives here knows
                // more, perhaps, and must not be kept from telling.
                self.shelve(id, frame.document.clone(), from);
            }
            // There may be no room for another, and this one is none of theirs.
            if !self.may_share(id, from) {
                return self.say_not_holder(id, from);
            }
        }
        let key = (from.clone(), id.clone());
        if self.sync.sessions.get(&key).is_some_and(|session| session.epoch < epoch) {
            self.sync.sessions.remove(&key);
        }
        if frame.initiator && frame.seq == 0 {
            let ours_wins = self
                .sync
                .sessions
                .get(&key)
                .filter(|session| session.epoch == epoch)
                .is_some_and(|session| session.began_here && session.next_in == 0 && self.config.node < *from);
            if ours_wins {
                return;
            }
            let others = self.sync.sessions_with(from) - usize::from(self.sync.sessions.contains_key(&key));
            if others >= self.config.sessions.saturating_mul(4).max(16) {
                self.counters.ignored += 1;
                return;
            }
            self.sync.sessions.insert(key.clone(), Session::new(frame.session, false, epoch));
        }
        let room = self.has_room_for(frame.message.as_ref().map_or(0, |message| message.len()));
        let session = self.sync.sessions.get_mut(&key).filter(|session| {
            session.number == frame.session && session.epoch == epoch && session.began_here != frame.initiator
        });
        let Some(session) = session else {
            self.counters.ignored += 1;
            return;
        };
        if session.next_in != frame.seq || frame.seq >= MAX_FRAMES {
            return self.end_session(from, id);
        }
        session.next_in += 1;
        if let Some(mut have) = frame.have {
            let reports = self.replicants.resident.get(id).map(|resident| &resident.reports);
            let mut strange = 0;
            have.retain(|site, _| {
                let known = reports.is_some_and(|reports| reports.contains_key(site));
                strange += usize::from(!known);
                known || strange <= MAX_STRANGE
            });
            session.theirs = Some(have);
        }
        let over = frame.message.is_none() && frame.reports.is_empty() && frame.seq > 0;
        let message = match frame.message.map(|part| self.join(&key, part, frame.more)) {
            Some(Err(size)) => {
                self.counters.refused += 1;
                tracing::warn!(replicant = %id, node = %from, size, "a sync message that is too large was given up");
                return self.end_session(from, id);
            }
            Some(Ok(whole)) => whole,
            None => None,
        };
        if let Some(message) = message {
            let Some(resident) = self.replicants.resident.get_mut(id) else { return };
            let Some(session) = self.sync.sessions.get_mut(&key) else { return };
            let held = resident.doc.id().epoch == epoch;
            if (resident.provisional || !held) && !room {
                self.counters.refused += 1;
                return self.end_session(from, id);
            }
            let document = match &mut resident.next {
                Some((next, _)) if !held && next.id().epoch == epoch => next,
                _ => &mut resident.doc,
            };
            match document.receive_sync(&mut session.state, &message) {
                Ok(received) => {
                    self.recall(id, from, &frame.reports);
                    let news = if held { self.took(id, received) } else { self.took_next(id, &received) };
                    if news && let Some(session) = self.sync.sessions.get_mut(&key) {
                        session.news = true;
                    }
                }
                Err(error) => {
                    self.end_session(from, id);
                    return self.refuse(from, format!("a sync message for {id} that makes no sense: {error}"));
                }
            }
        }
        self.take_reports(id, from, frame.reports);
        let Some(session) = self.sync.sessions.get(&key) else { return };
        if frame.done {
            self.heard_all(id, from);
            return self.end_session(from, id);
        }
        if over && (session.quiet || !self.say(id, from)) {
            self.heard_all(id, from);
            self.end_session(from, id);
        } else if !over {
            self.say(id, from);
        }
    }

    /// Sends the next frame of a session, which may be the last. Whether it says anything.
    fn say(&mut self, id: &ReplicantId, to: &NodeId) -> bool {
        let key = (to.clone(), id.clone());
        let (Some(resident), Some(session)) = (self.replicants.resident.get(id), self.sync.sessions.get_mut(&key))
        else {
            return false;
        };
        let document = match &resident.next {
            Some((next, _)) if next.id().epoch == session.epoch => next,
            _ if resident.doc.id().epoch == session.epoch => &resident.doc,
            _ => return false,
        };
        // Both have the same documents, if so; what is left to be said are reports.
        let same = session.parts.all_sent() && session.parts.all_come() && document.is_same(&session.state);
        if session.parts.all_sent()
            && let Some(message) = document.sync_message(&mut session.state)
        {
            session.parts.cut(&message, self.config.part_bytes());
        }
        let (message, more) = session.parts.next();
        // Until it is known who the holders are, nobody is told what others have reported.
        let known = || resident.reports.iter().filter(|_| document.is_created());
        let mut reports = Vec::<Report>::new();
        if let Some(theirs) = &mut session.theirs {
            let mut room = self.config.part_bytes();
            for (site, report) in known() {
                if theirs.get(site).is_some_and(|seq| *seq >= report.seq) {
                    continue;
                }
                let size = wire::encode(report).len();
                let too_large = size > self.config.report_bytes();
                // The others go with the next frame.
                if !too_large && size > room && !reports.is_empty() {
                    break;
                }
                theirs.insert(site.clone(), report.seq);
                if !too_large {
                    room = room.saturating_sub(size);
                    reports.push(report.clone());
                }
            }
        }
        let lacks = session.theirs.as_ref().is_none_or(|theirs| {
            theirs.iter().any(|(site, seq)| resident.reports.get(site).is_none_or(|report| report.seq < *seq))
        });
        let have = (session.next_out == 0).then(|| known().map(|(site, report)| (site.clone(), report.seq)).collect());
        let done = same && !lacks && reports.is_empty();
        let message = message.filter(|_| !done);
        let says = message.is_some() || !reports.is_empty();
        session.quiet = !says;
        let frame = SyncFrame {
            document: document.id().clone(),
            session: session.number,
            seq: session.next_out,
            initiator: session.began_here,
            message,
            more,
            have,
            reports,
            cut: document.cut(),
            done,
        };
        session.next_out += 1;
        self.timers.set(Due::Session(to.clone(), id.clone()), self.now.plus(self.config.session_timeout));
        self.send(to, &Frame::Sync(frame));
        if done {
            self.heard_all(id, to);
            self.end_session(to, id);
        }
        // What is over has been said to be.
        says || done
    }

    pub(crate) fn session_timed_out(&mut self, node: &NodeId, id: &ReplicantId) {
        self.end_session(node, id);
        if self.begins_with_anyone(node) {
            self.timers.set_by(Due::Reconcile(node.clone()), self.now.plus(self.config.quiet));
        }
    }

    fn begins_with_anyone(&self, node: &NodeId) -> bool {
        self.config.node < *node && self.members.is_connected(node)
    }

    fn end_session(&mut self, node: &NodeId, id: &ReplicantId) {
        self.timers.cancel(&Due::Session(node.clone(), id.clone()));
        let Some(session) = self.sync.sessions.remove(&(node.clone(), id.clone())) else { return };
        if session.news {
            self.tell_heads(id, node);
        }
        self.forget_if_strange(id);
        self.next_queued(node);
    }

    /// Drops what was fetched only to see that it does not live here, or that it has been cleaned up here already.
    fn forget_if_strange(&mut self, id: &ReplicantId) {
        if self.sync.has_session(id) {
            return;
        }
        let strange =
            self.replicants.resident.get(id).is_some_and(|resident| resident.provisional && resident.is_idle());
        if strange {
            self.replicants.resident.remove(id);
        }
    }

    /// Sessions about epochs before this one are over.
    pub(crate) fn end_old_sessions(&mut self, id: &ReplicantId, epoch: u64) {
        let sessions = self.sync.sessions.iter();
        let old = sessions.filter(|((_, of), session)| of == id && session.epoch < epoch);
        let nodes: Vec<_> = old.map(|((node, _), _)| node.clone()).collect();
        for node in nodes {
            self.timers.cancel(&Due::Session(node.clone(), id.clone()));
            self.sync.sessions.remove(&(node.clone(), id.clone()));
            self.next_queued(&node);
        }
    }

    /// The document that the sessions of a replicant were about is set aside.
    pub(crate) fn end_sessions_of(&mut self, id: &ReplicantId) {
        let nodes: Vec<_> =
            self.sync.sessions.keys().filter(|(_, of)| of == id).map(|(node, _)| node.clone()).collect();
        for node in nodes {
            self.timers.cancel(&Due::Session(node.clone(), id.clone()));
            self.sync.sessions.remove(&(node.clone(), id.clone()));
            self.next_queued(&node);
        }
    }

    /// A connection was lost, and with it whatever was under way.
    pub(crate) fn sync_peer_gone(&mut self, node: &NodeId) {
        self.sync.rounds.remove(node);
        self.sync.queued.remove(node);
        let ids: Vec<_> =
            self.sync.sessions.keys().filter(|(with, _)| with == node).map(|(_, id)| id.clone()).collect();
        for id in ids {
            self.end_session(node, &id);
        }
    }
}
