//! What scenarios can look at behind the back of the engines: what is really on the disks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{
    Actor, ChangeHash, DocumentId, Epoch, OperationId, Placement, Replicant, ReplicantId, SiteName, Status,
};

use super::World;
use crate::record::{Part, part, replicant_prefix, report_key};
use crate::replicant::Placed;
use crate::{Liveness, wire};

/// One document on a disk.
#[derive(Debug, Default, PartialEq)]
struct Stored {
    snapshot: Option<Vec<u8>>,
    changes: Vec<Vec<u8>>,
}

fn read(replicant: &ReplicantId, epoch: Epoch, stored: &Stored) -> Option<Replicant> {
    let document = DocumentId { replicant: replicant.clone(), epoch };
    let read = Replicant::load(document, &Actor::new([0xee; 16]), stored.snapshot.as_deref(), &stored.changes);
    read.ok().map(|loaded| loaded.replicant)
}

/// What was last read of each document on each disk. Scenarios look after every step, and mostly at what they have seen.
#[derive(Debug, Default)]
pub(super) struct Readings(RefCell<BTreeMap<(String, ReplicantId), Reading>>);

/// The epoch, the records, and the document that they come to.
type Reading = (Epoch, Stored, Replicant);

impl Readings {
    /// The document of these records. Where they are those of the last time and more changes, only these are taken in.
    fn read(&self, site: &str, replicant: &ReplicantId, epoch: Epoch, stored: Stored) -> Option<Replicant> {
        let mut known = self.0.borrow_mut();
        let place = (site.to_owned(), replicant.clone());
        if let Some((of, before, document)) = known.get_mut(&place)
            && (*of, &before.snapshot) == (epoch, &stored.snapshot)
            && let Some(more) = stored.changes.strip_prefix(before.changes.as_slice())
        {
            let taken = more.is_empty() || document.apply(more).is_ok_and(|received| received.rejected.is_empty());
            if taken {
                *before = stored;
                return Some(document.clone());
            }
        }
        let document = read(replicant, epoch, &stored)?;
        known.insert(place, (epoch, stored, document.clone()));
        Some(document)
    }
}

/// All operations that a document tells of, also those that it only knows were replaced.
fn operations_of(document: &Replicant) -> Vec<OperationId> {
    document.state().all_operations().keys().cloned().chain(document.left_out()).collect()
}

/// What the index of a running site says of a replicant.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// Which of its documents.
    pub epoch: Epoch,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Whether it was given away.
    pub dropped: bool,
    /// Where it lives.
    pub placement: Option<Placement>,
    /// The heads of its document.
    pub heads: &'a [ChangeHash],
    /// Whether the site has nothing left to do for it.
    pub settled: bool,
    /// What the site itself last said, if that is about these heads.
    pub says: Option<Status>,
}

/// A document in the memory of a running site.
#[derive(Debug, Clone, Copy)]
pub struct InMemory<'a> {
    /// The document.
    pub document: &'a Replicant,
    /// It came from others and is not known to live there.
    pub provisional: bool,
    /// A driver is at work on it.
    pub busy: bool,
    /// The list of operations that the site works by, if it has worked one out.
    pub list: Option<&'a [OperationId]>,
}

impl World {
    /// What the index of a running site says of a replicant.
    #[must_use]
    pub fn known(&self, site: &str, replicant: &ReplicantId) -> Option<Known<'_>> {
        let engine = self.sites.get(site)?.engine()?;
        let entry = engine.replicants.index.get(replicant)?;
        let here = &engine.config.site;
        let says = entry.reports.get(here).filter(|_| entry.current.contains(here)).map(|(_, status, _)| *status);
        Some(Known {
            epoch: entry.epoch,
            deleted: entry.deleted,
            dropped: entry.dropped,
            placement: entry.placement.as_ref().map(Placed::whole),
            heads: &entry.heads,
            settled: entry.settled,
            says,
        })
    }

    /// The document of a replicant in the memory of a running site, if it is there and says anything.
    #[must_use]
    pub fn in_memory(&self, site: &str, replicant: &ReplicantId) -> Option<InMemory<'_>> {
        let resident = self.sites.get(site)?.engine()?.replicants.resident.get(replicant)?;
        resident.doc.is_created().then(|| InMemory {
            document: &resident.doc,
            provisional: resident.provisional,
            busy: resident.call.is_some(),
            list: resident.known_list(),
        })
    }

    /// The number of the newest report of a site on a replicant that a running site knows.
    #[must_use]
    pub fn reported(&self, site: &str, replicant: &ReplicantId, about: &str) -> Option<u64> {
        let entry = self.sites.get(site)?.engine()?.replicants.index.get(replicant)?;
        entry.reports.iter().find(|(of, _)| of.as_str() == about).map(|(_, (seq, ..))| *seq)
    }

    /// The number of the newest report of a site on a replicant that its own disk holds.
    #[must_use]
    pub fn stored_report(&self, site: &str, replicant: &ReplicantId) -> Option<u64> {
        let name = SiteName::new(site).ok()?;
        let bytes = self.sites.get(site)?.disk.get(&report_key(replicant, &name))?;
        wire::decode::<khufu_crdt::Report>(bytes).ok().map(|report| report.seq)
    }

    /// How sure a running site is that another works.
    #[must_use]
    pub fn liveness(&self, site: &str, other: &SiteName) -> Liveness {
        let engine = self.sites.get(site).and_then(|site| site.engine());
        engine.map_or(Liveness::Down, |engine| engine.liveness(other))
    }

    /// The newest document of a replicant on the disk of a site, whether the site runs or not.
    #[must_use]
    pub fn stored_document(&self, site: &str, replicant: &ReplicantId) -> Option<Replicant> {
        let (epoch, stored) = self.stored(site, replicant.as_str()).pop_last()?;
        self.readings.read(site, replicant, epoch, stored)
    }

    /// Whether any contents of a replicant are on the disk of a site.
    #[must_use]
    pub fn stores(&self, site: &str, name: &str) -> bool {
        let (Some(site), Ok(replicant)) = (self.sites.get(site), ReplicantId::new(name)) else { return false };
        let prefix = replicant_prefix(&replicant);
        site.disk.keys(&prefix).any(|key| {
            let part = key.strip_prefix(prefix.as_slice()).and_then(part);
            matches!(part, Some(Part::Snapshot { .. } | Part::Change { .. }))
        })
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
        let Some((epoch, stored)) = ours.last_key_value() else { return true };
        let Some((newest, others)) = theirs.last_key_value() else { return false };
        match (read(&replicant, *epoch, stored), read(&replicant, *newest, others)) {
            (Some(ours), Some(mut theirs)) if newest > epoch && theirs.is_successor() => {
                ours.carry_into(&mut theirs, &[]).is_ok_and(|carried| carried.made.is_empty())
            }
            _ if newest > epoch => true,
            (Some(ours), Some(theirs)) if newest == epoch => ours.heads().iter().all(|head| theirs.has(head)),
            _ => false,
        }
    }

    /// The operations in all documents of a replicant on the disk of a site, whether the site runs or not.
    #[must_use]
    pub fn stored_operations(&self, site: &str, name: &str) -> BTreeSet<OperationId> {
        let Ok(replicant) = ReplicantId::new(name) else { return BTreeSet::new() };
        let documents = self.stored(site, name);
        let documents = documents.iter().filter_map(|(epoch, stored)| read(&replicant, *epoch, stored));
        documents.flat_map(|document| operations_of(&document)).collect()
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
            let placement = entry.placement.as_ref().map(|at| (at.sites(), at.leaving()));
            let resident = engine.replicants.resident.get(&id).map(|resident| resident.provisional);
            lines.push_str(&format!(
                "{site}: epoch {} heads {heads:?} at {placement:?} deleted {} dropped {} settled {} cleaned {:?} provisional \
                 {resident:?} current {:?} reports {:?}\n",
                entry.epoch, entry.deleted, entry.dropped, entry.settled, entry.cleaned, entry.current, entry.reports,
            ));
        }
        lines
    }

    fn stored(&self, site: &str, name: &str) -> BTreeMap<u64, Stored> {
        let mut documents = BTreeMap::<u64, Stored>::new();
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
