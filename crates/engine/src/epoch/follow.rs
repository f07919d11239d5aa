//! Going on with a document that others have begun.

use khufu_crdt::{ChangeHash, DocumentId, Received, Replicant, ReplicantId};

use crate::replicant::Placed;
use crate::wire::{Frame, Push};
use crate::{Engine, NodeId};

/// The most nodes from which documents of an earlier epoch are taken in at once, for one replicant.
const MAX_EARLIER: usize = 4;
/// The most sites that have given a replicant away through which something comes to those who took over.
const MAX_PASSED: u8 = 4;

impl Engine {
    /// Whether another document is a later epoch of the one that is held here.
    pub(crate) fn is_later_epoch(&self, id: &ReplicantId, other: &DocumentId) -> bool {
        self.replicants.resident.get(id).is_some_and(|resident| {
            let ours = resident.doc.id();
            !resident.provisional && other.epoch > ours.epoch
        })
    }

    /// A node has gone on with a later epoch than is here, to which that led which was closed at `cut`. Whether this node
    /// has that epoch now; if not it is being fetched.
    pub(crate) fn follow(
        &mut self,
        id: &ReplicantId,
        from: &NodeId,
        document: &DocumentId,
        cut: Option<ChangeHash>,
    ) -> bool {
        self.flush(id);
        // Where an epoch ends is for holders to say. What others send is looked at, and believed if it fits.
        let by_holder = self.is_shared_with(id, from);
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        if let Some(cut) =
            cut.filter(|cut| by_holder && resident.doc.next_at(cut).is_some_and(|next| next == *document))
            && self.close_at(id, &cut)
        {
            return true;
        }
        let actor = self.actors.next();
        let source = self.replicants.resident.get(id).and_then(|resident| resident.next.as_ref());
        let of_holder = source.is_some_and(|(_, source)| self.is_shared_with(id, source));
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        // Of two claims that of a holder counts, and then the later.
        let stays = |next: &Replicant| (of_holder, next.id().epoch) >= (by_holder, document.epoch);
        match resident.next.as_mut().filter(|(next, _)| stays(next)) {
            Some((next, source)) if next.id() == document && by_holder => source.clone_from(from),
            Some(_) => {}
            None => match Replicant::genesis(document.clone(), &actor) {
                Ok(next) => {
                    resident.next = Some((next.with_limits(self.config.limits.clone()), from.clone()));
                }
                Err(error) => tracing::warn!(replicant = %id, %error, "refused a document"),
            },
        }
        false
    }

    /// A part of the later document has come. Goes on with it once it is known what it begins with.
    pub(crate) fn took_next(&mut self, id: &ReplicantId, received: &Received) -> bool {
        if !received.rejected.is_empty() {
            self.counters.changes_rejected += u64::try_from(received.rejected.len()).unwrap_or(u64::MAX);
            let message = format!("changes of another site were refused: {}", received.rejected.join("; "));
            self.warn(Some(id.clone()), message);
        }
        self.flush(id);
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        if resident.next.as_ref().is_none_or(|(next, _)| !next.is_successor()) {
            return false;
        }
        let Some((mut next, source)) = resident.next.take() else { return false };
        // What others say that they have was known to somebody who has carried it over.
        let epoch = resident.doc.id().epoch;
        let others =
            resident.reports.values().filter(|report| report.epoch == epoch && report.site != self.config.site);
        let shared: Vec<ChangeHash> =
            others.flat_map(|report| &report.heads).filter_map(|head| head.parse().ok()).collect();
        match resident.doc.carry_into(&mut next, &shared) {
            Ok(carried) => {
                self.begin_epoch(id, next, carried);
                true
            }
            Err(error) => {
                resident.next = Some((next, source));
                let message = format!("what only this site has cannot be carried over into the next epoch: {error}");
                self.warn(Some(id.clone()), message);
                false
            }
        }
    }

    /// Changes and reports of an earlier epoch came in: the sender has not heard that it was closed. If it counts as no
    /// holder here, what only it has can come into this epoch in no other way than that it is carried over here.
    pub(crate) fn pushed_earlier(&mut self, id: &ReplicantId, from: &NodeId, push: Push) {
        let shared = self.may_share(id, from);
        let gone = self.replicants.index.get(id).is_some_and(|entry| entry.dropped);
        let Some(resident) = self.replicants.resident.get(id) else { return };
        if gone && resident.provisional && !resident.doc.is_created() && !push.changes.is_empty() {
            return self.pass_on(id, from, push);
        }
        if shared || resident.provisional || push.changes.is_empty() {
            self.take_reports(id, from, push.reports);
            return self.meet(id, from);
        }
        let bytes: usize = push.changes.iter().map(|change| change.len()).sum();
        let taken = resident.earlier.get(from).map_or(0, Replicant::size).saturating_add(bytes);
        let crowded = resident.earlier.len() >= MAX_EARLIER && !resident.earlier.contains_key(from);
        if crowded
            || !resident.doc.remembers(push.document.epoch)
            || resident.doc.size().saturating_add(taken) > self.config.limits.remote_bytes()
            || !self.has_room_for(bytes)
        {
            self.counters.refused += 1;
            return;
        }
        let actor = self.actors.next();
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let known = resident.earlier.remove(from).filter(|earlier| *earlier.id() == push.document);
        let earlier = known.or_else(|| Replicant::genesis(push.document, &actor).ok());
        let Some(mut earlier) = earlier.map(|earlier| earlier.with_limits(self.config.limits.clone())) else { return };
        let changes: Vec<_> = push.changes.into_iter().map(serde_bytes::ByteBuf::into_vec).collect();
        if !earlier.apply(&changes).is_ok_and(|received| received.rejected.is_empty()) {
            self.counters.changes_rejected += 1;
            return;
        }
        if push.heads.is_empty() {
            // More of it comes.
            resident.earlier.insert(from.clone(), earlier);
            return;
        }
        if push.heads.iter().any(|head| !earlier.has(head)) {
            // Only all of it can be carried over.
            return self.say_not_holder(id, from);
        }
        self.flush(id);
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        match earlier.carry_into(&mut resident.doc, &[]) {
            Ok(carried) => {
                let made: Vec<_> = carried.made.into_iter().map(|(change, _)| change).collect();
                if !made.is_empty() {
                    let placement = self.replicants.held(id).and_then(|entry| entry.placement.clone());
                    self.persist_changes(id, &made, false);
                    let moved = self.replicants.held(id).is_none_or(|entry| entry.placement != placement);
                    self.tell_changes(id, &made, moved);
                    self.changed(id);
                }
                if !self.may_share(id, from) {
                    self.answer_not_holder(id, from, push.heads, &push.behalf);
                }
            }
            Err(error) => {
                let message = format!("what another site has of an earlier epoch cannot be carried over: {error}");
                self.warn(Some(id.clone()), message);
            }
        }
    }

    /// This site has given the replicant away: those who took over are told what others have.
    fn pass_on(&mut self, id: &ReplicantId, from: &NodeId, push: Push) {
        if push.passed >= MAX_PASSED {
            self.counters.refused += 1;
            return;
        }
        let Some(entry) = self.replicants.index.get(id).filter(|entry| entry.dropped) else { return };
        let sites = entry.placement.iter().flat_map(Placed::sites);
        let others: Vec<_> = sites
            .filter(|site| **site != self.config.site)
            .flat_map(|site| self.members.reachable(site))
            .filter(|node| node != from)
            .collect();
        for node in others {
            self.send(&node, &Frame::Push(Push { passed: push.passed + 1, ..push.clone() }));
        }
    }

    /// Drops later epochs of which nothing was heard for a while: while one is fetched there is a session. If there is
    /// anything to them, they are told of again.
    pub(crate) fn sweep_next(&mut self) {
        let (replicants, sync) = (&mut self.replicants, &self.sync);
        for resident in replicants.resident.values_mut() {
            resident.earlier.clear();
        }
        for (id, resident) in replicants.resident.iter_mut().filter(|(_, resident)| resident.next.is_some()) {
            if !sync.has_session(id) {
                resident.next = None;
            }
        }
    }

    /// The document of an epoch: the one that is held, or the later one that is being fetched.
    pub(crate) fn document_mut(&mut self, id: &ReplicantId, epoch: u64) -> Option<&mut Replicant> {
        let resident = self.replicants.resident.get_mut(id)?;
        if resident.doc.id().epoch == epoch {
            return Some(&mut resident.doc);
        }
        resident.next.as_mut().map(|(next, _)| next).filter(|next| next.id().epoch == epoch)
    }

    /// Which epoch there is to talk about with a node: a later one if it is fetched from there.
    pub(crate) fn epoch_with(&self, id: &ReplicantId, node: &NodeId) -> Option<u64> {
        let resident = self.replicants.resident.get(id)?;
        match &resident.next {
            Some((next, source)) if source == node => Some(next.id().epoch),
            _ => Some(resident.doc.id().epoch),
        }
    }
}
