//! What scenarios can look at behind the back of the engines: what is really on the disks.

use std::collections::BTreeSet;

use khufu_crdt::{Actor, DocumentId, OperationId, Replicant, ReplicantId};

use super::World;
use crate::record::{Part, part, replicant_prefix};

/// One document on a disk.
#[derive(Debug, Default)]
struct Stored {
    snapshot: Option<Vec<u8>>,
    changes: Vec<Vec<u8>>,
}

impl World {
    /// Whether any contents of a replicant are on the disk of a site.
    #[must_use]
    pub fn stores(&self, site: &str, name: &str) -> bool {
        !self.stored(site, name).is_empty()
    }

    /// How many documents of a replicant are on the disk of a site: one for each epoch that it has not left behind.
    #[must_use]
    pub fn stored_documents(&self, site: &str, name: &str) -> usize {
        self.stored(site, name).len()
    }

    /// Whether all that the disk of a site holds of a replicant is on that of another, too.
    #[must_use]
    pub fn covers(&self, other: &str, site: &str, name: &str) -> bool {
        let Ok(replicant) = ReplicantId::new(name) else { return true };
        let (ours, theirs) = (self.stored(site, name), self.stored(other, name));
        let read = |epoch: u64, stored: &Stored| {
            let document = DocumentId { replicant: replicant.clone(), epoch };
            Replicant::load(document, &Actor::new([0xee; 16]), stored.snapshot.as_deref(), &stored.changes).ok()
        };
        let Some((epoch, stored)) = ours.last_key_value() else { return true };
        let Some((newest, others)) = theirs.last_key_value() else { return false };
        match (read(*epoch, stored), read(*newest, others)) {
            (Some(ours), Some(mut theirs)) if newest > epoch && theirs.replicant.is_successor() => {
                ours.replicant.carry_into(&mut theirs.replicant, &[]).is_ok_and(|carried| carried.made.is_empty())
            }
            _ if newest > epoch => true,
            (Some(ours), Some(theirs)) if newest == epoch => {
                ours.replicant.heads().iter().all(|head| theirs.replicant.has(head))
            }
            _ => false,
        }
    }

    /// The operations in all documents of a replicant on the disk of a site, whether the site runs or not.
    #[must_use]
    pub fn stored_operations(&self, site: &str, name: &str) -> BTreeSet<OperationId> {
        let Ok(replicant) = ReplicantId::new(name) else { return BTreeSet::new() };
        let mut operations = BTreeSet::new();
        for (epoch, stored) in self.stored(site, name) {
            let document = DocumentId { replicant: replicant.clone(), epoch };
            let read = Replicant::load(document, &Actor::new([0xee; 16]), stored.snapshot.as_deref(), &stored.changes);
            if let Ok(loaded) = read {
                operations.extend(loaded.replicant.state().all_operations().keys().cloned());
                operations.extend(loaded.replicant.left_out());
            }
        }
        operations
    }

    /// What every running site knows of a replicant, a line each, for people.
    #[must_use]
    pub fn describe(&self, name: &str) -> String {
        let Ok(id) = ReplicantId::new(name) else { return String::new() };
        let mut lines = String::new();
        for (site, state) in &self.sites {
            let Some(engine) = state.engine() else { continue };
            let Some(entry) = engine.replicants.index.get(&id) else { continue };
            let heads: Vec<_> = entry.heads.iter().map(|head| head.to_string().chars().take(6).collect()).collect();
            let heads: Vec<String> = heads;
            let placement = entry.placement.as_ref().map(|at| (&at.sites, &at.leaving));
            let resident = engine.replicants.resident.get(&id).map(|resident| resident.provisional);
            lines.push_str(&format!(
                "{site}: epoch {} heads {heads:?} at {placement:?} deleted {} dropped {} settled {} cleaned {:?} provisional \
                 {resident:?} current {:?} reports {:?}\n",
                entry.epoch, entry.deleted, entry.dropped, entry.settled, entry.cleaned, entry.current, entry.reports,
            ));
        }
        lines
    }

    fn stored(&self, site: &str, name: &str) -> std::collections::BTreeMap<u64, Stored> {
        let mut documents = std::collections::BTreeMap::<u64, Stored>::new();
        let (Some(site), Ok(replicant)) = (self.sites.get(site), ReplicantId::new(name)) else { return documents };
        let prefix = replicant_prefix(&replicant);
        for record in site.disk.scan(&prefix) {
            match record.key.strip_prefix(prefix.as_slice()).and_then(part) {
                Some(Part::Snapshot { epoch }) => documents.entry(epoch).or_default().snapshot = Some(record.value),
                Some(Part::Change { epoch, .. }) => documents.entry(epoch).or_default().changes.push(record.value),
                _ => {}
            }
        }
        documents
    }
}
