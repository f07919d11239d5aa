//! Going on with a document that others have begun.

use khufu_crdt::{ChangeHash, DocumentId, Received, Replicant, ReplicantId};

use crate::{Engine, NodeId};

impl Engine {
    /// Whether another document is a later epoch of the one that is held here: nothing was deleted in between.
    pub(crate) fn is_later_epoch(&self, id: &ReplicantId, other: &DocumentId) -> bool {
        self.replicants.resident.get(id).is_some_and(|resident| {
            let ours = resident.doc.id();
            !resident.provisional && other.epoch > ours.epoch && other.life() == ours.life()
        })
    }

    /// A node has gone on with a later epoch than is here, which was closed at `cut` if it is the next. Whether this node
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
        let is_next = document.epoch == resident.doc.id().epoch.saturating_add(1);
        if let Some(cut) = cut.filter(|cut| by_holder && is_next && resident.doc.has(cut))
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
