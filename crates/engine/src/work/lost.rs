//! What was made is gone when an operation is to change it.

use khufu_crdt::{ReplicantId, Status, Step};

use crate::{DriverFailure, Engine};

impl Engine {
    /// Somebody has taken away by hand what a step was to change. Run on what the desired state says of it, it would be without
    /// what the operations before have done, and another than at all other sites: so all is made anew, as where a replica is put
    /// back, and the operation is run in its turn. Whether that is so.
    pub(super) fn was_lost(&mut self, id: &ReplicantId, step: &Step, attempt: u32, failure: &DriverFailure) -> bool {
        let Step::Run(op) = step else { return false };
        if !failure.lost || !self.can_begin_anew(id) {
            return false;
        }
        let noted = self.noted(Status::Pending, &failure.message, attempt);
        self.note_operation(id, op.clone(), noted);
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.work.applied.abandon_intent();
        }
        // Whoever takes it away again and again is not raced against.
        if let Some((_, left)) = self.put_back(id) {
            self.work_later(id, left);
        }
        true
    }
}
