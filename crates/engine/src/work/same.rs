//! One id, two operations: what was executed is compared with what the document says of it by now.

use khufu_crdt::{Operation, OperationId, Operations, ReplicantId};
use sha2::{Digest, Sha256};

use super::Work;
use crate::Engine;

/// What the driver makes of an operation, in short. What else differs does not show in the contents.
pub(super) fn essence(operation: &Operation) -> u64 {
    let mut digest = Sha256::new();
    digest.update(operation.op_type.as_bytes());
    digest.update([0]);
    digest.update(serde_json::to_vec(&operation.payload).unwrap_or_default());
    digest.finalize().first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

impl Work {
    /// Disowns what was executed under ids that other operations have now. Which ids.
    fn disown_others(&mut self, operations: &Operations) -> Vec<OperationId> {
        let differs = |id: &OperationId, ran: u64| operations.get(id).is_some_and(|now| essence(now) != ran);
        let others: Vec<_> =
            self.ran.iter().filter(|(id, ran)| differs(id, **ran)).map(|(id, ran)| (id.clone(), *ran)).collect();
        for (id, ran) in &others {
            // As long as an id, and no id that anybody gives.
            let start: String = id.as_str().chars().take(OperationId::MAX_BYTES - 17).collect();
            if let Ok(other) = OperationId::new(format!("{start}:{ran:016x}")) {
                self.applied.disown(id, &other);
            }
            self.ran.remove(id);
            self.operations.remove(id);
        }
        others.into_iter().map(|(id, _)| id).collect()
    }
}

impl Engine {
    /// The document may have changed: see whether what was executed is still what it says.
    pub(super) fn compare_executed(&mut self, id: &ReplicantId) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        if resident.provisional || std::mem::replace(&mut resident.compared, true) {
            return;
        }
        let others = resident.work.disown_others(&resident.doc.state().operations);
        if others.is_empty() {
            return;
        }
        self.write_work(id);
        for operation in others {
            let message = format!(
                "the id of operation {operation} was given to two, at sites that did not see each other: one of them counts \
                 everywhere, and what was run here was the other; ask for that again under another id"
            );
            self.warn(Some(id.clone()), message);
        }
    }
}
