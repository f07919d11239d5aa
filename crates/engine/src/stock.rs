//! What the records on disk come to, at the start and whenever memory must be no more than what is stored.

use std::collections::BTreeMap;

use khufu_crdt::{Hlc, ReplicantId};

use crate::record::{INDEX, clock_key, is_node, owner};
use crate::replicant::{Entry, Replicants};
use crate::{Record, RestoreError, wire};

/// All that an engine starts from.
#[derive(Debug)]
pub(crate) struct Stock {
    /// The clock when it was last written.
    pub(crate) clock: Hlc,
    /// The index; no documents.
    pub(crate) replicants: Replicants,
    /// Signed records of the nodes that were known.
    pub(crate) members: Vec<Vec<u8>>,
    /// What was damaged.
    pub(crate) warnings: Vec<String>,
}

impl Stock {
    /// Reads all records whose keys start with one of [`crate::Engine::RESTORE_PREFIXES`]; if `doubtful`, of
    /// [`crate::Engine::RECOVERY_PREFIX`] too.
    pub(crate) fn take(restore: Vec<Record>, doubtful: bool) -> Result<Self, RestoreError> {
        let mut clock = Hlc::default();
        let mut replicants = Replicants::default();
        let mut warnings = Vec::new();
        let mut members = Vec::new();
        let mut found = BTreeMap::<ReplicantId, Option<u64>>::new();
        for record in restore {
            if let Some((id, epoch)) = owner(&record.key) {
                let newest = found.entry(id).or_default();
                *newest = epoch.max(*newest);
            } else if record.key == clock_key() {
                let bytes = record.value.as_slice().try_into().map_err(|_| RestoreError::Clock)?;
                clock = Hlc(u64::from_be_bytes(bytes));
            } else if is_node(&record.key) {
                members.push(record.value);
            } else if let Some(name) = record.key.strip_prefix(INDEX) {
                let name = String::from_utf8_lossy(name).into_owned();
                match (ReplicantId::new(&name), wire::decode::<Entry>(&record.value)) {
                    (Ok(id), Ok(entry)) => replicants.insert(id, entry),
                    (Ok(id), Err(_)) => {
                        warnings
                            .push(format!("the index entry of {name} is damaged: it is made anew from its records"));
                        let mut entry = Entry::new(0);
                        (entry.doubtful, entry.settled) = (true, false);
                        replicants.insert(id, entry);
                    }
                    (Err(_), _) => warnings.push(format!("an index entry is damaged, that of {name:?}")),
                }
            }
        }
        if doubtful {
            replicants.doubt(&found);
        }
        Ok(Self { clock, replicants, members, warnings })
    }
}
