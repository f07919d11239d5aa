//! What is known of every replicant without its document in memory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use khufu_crdt::{ChangeHash, Epoch, Placement, ReplicantId, Report, SiteName, Status};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::wire::is_default;

/// Names one version of one replicant in a reconciliation: the first half names the replicant, the second its version.
pub(crate) type ItemId = [u8; 32];
/// The half of an [`ItemId`] that names the replicant.
pub(crate) type ItemPrefix = [u8; 16];

/// One replicant that this node holds, or held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) epoch: Epoch,
    pub(crate) kind: String,
    pub(crate) scope: String,
    pub(crate) placement: Option<Placement>,
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) deleted: bool,
    pub(crate) operations: usize,
    pub(crate) conflicts: usize,
    /// The number and status of the newest report of each site, with its epoch.
    pub(crate) reports: BTreeMap<SiteName, (u64, Status, Epoch)>,
    /// Whether each report speaks of the heads that the document has.
    pub(crate) current: BTreeSet<SiteName>,
    /// The sites that have cleaned up, as the last decision on where it lives wants it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) cleaned: BTreeSet<SiteName>,
    /// Whether this site has nothing left to do for it.
    pub(crate) settled: bool,
    /// The document was given away: this site left the scope and has cleaned up.
    pub(crate) dropped: bool,
    /// The heads that were known of it when it was given away. A document without them is older than that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) gone: Vec<ChangeHash>,
    /// Sites that have been seen without these heads since.
    #[serde(skip)]
    pub(crate) lost_at: BTreeSet<SiteName>,
    /// Whether it runs operations or has a desired state at sites that may come and go (see `place`).
    pub(crate) moving: bool,
    /// Storage was recovered from damage, and what this site did has not been looked at since.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) doubtful: bool,
    /// The number that the next stored change gets.
    pub(crate) next_change: u64,
    /// The number of the first change that is not in the snapshot.
    pub(crate) first_change: u64,
    /// How many changes the document has.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) changes: usize,
    /// When its epoch began and was last written to, in milliseconds by the clocks of those who did; 0 while it is short.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) begun_ms: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) latest_ms: u64,
    /// The closed epochs that are kept beside it, ascending.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) archives: Vec<Epoch>,
    /// Whether it was seen that its epoch cannot be closed yet, and nothing has changed since.
    #[serde(skip)]
    pub(crate) looked: bool,
    /// When the document last changed, on the monotonic clock of this process; 0 before.
    #[serde(skip)]
    pub(crate) changed_us: u64,
    /// What [`Entry::item`] came to since the entry was last touched.
    #[serde(skip)]
    item: Known,
}

/// Kept because it takes two digests to find out. No part of what an entry says.
#[derive(Debug, Clone, Default)]
struct Known(Cell<Option<ItemId>>);

impl PartialEq for Known {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The entries of all replicants.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<ReplicantId, Entry>,
    version: u64,
}

impl Deref for Index {
    type Target = BTreeMap<ReplicantId, Entry>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

impl Index {
    /// Grows whenever an entry may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get_mut(&mut self, id: &ReplicantId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id)?;
        self.version += 1;
        entry.item.0.set(None);
        Some(entry)
    }

    /// The entry of a replicant; `make` if there is none yet.
    pub(crate) fn get_or_insert_with(&mut self, id: &ReplicantId, make: impl FnOnce() -> Entry) -> &mut Entry {
        self.version += 1;
        let entry = self.entries.entry(id.clone()).or_insert_with(make);
        entry.item.0.set(None);
        entry
    }

    pub(crate) fn insert(&mut self, id: ReplicantId, entry: Entry) {
        self.version += 1;
        entry.item.0.set(None);
        self.entries.insert(id, entry);
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.version += 1;
        self.entries.values_mut().inspect(|entry| entry.item.0.set(None))
    }
}

impl Entry {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            kind: String::new(),
            scope: String::new(),
            placement: None,
            heads: Vec::new(),
            deleted: false,
            operations: 0,
            conflicts: 0,
            reports: BTreeMap::new(),
            current: BTreeSet::new(),
            cleaned: BTreeSet::new(),
            settled: true,
            dropped: false,
            gone: Vec::new(),
            lost_at: BTreeSet::new(),
            moving: false,
            doubtful: false,
            next_change: 0,
            first_change: 0,
            changes: 0,
            begun_ms: 0,
            latest_ms: 0,
            archives: Vec::new(),
            looked: false,
            changed_us: 0,
            item: Known::default(),
        }
    }

    /// Notes a report.
    pub(crate) fn reported(&mut self, report: &Report) {
        self.reports.insert(report.site.clone(), (report.seq, report.status, report.epoch));
    }

    /// Whether a site has said that its replica is gone, and knows that it is to be.
    pub(crate) fn has_removed(&self, site: &SiteName) -> bool {
        self.cleaned.contains(site)
    }

    /// The sites that hold the document: those of the placement, and those that leave and have yet to clean up.
    pub(crate) fn holders(&self) -> BTreeSet<SiteName> {
        self.placement.iter().flat_map(Placement::holders).filter(|site| self.holds(site)).cloned().collect()
    }

    /// Whether a site is one of the holders.
    pub(crate) fn holds(&self, site: &SiteName) -> bool {
        self.placement.as_ref().is_some_and(|placement| {
            placement.sites.contains(site) || (placement.leaving.contains(site) && !self.has_removed(site))
        })
    }

    /// The rolled-up status: the worst of all sites of the placement.
    pub(crate) fn status(&self) -> Status {
        let Some(placement) = &self.placement else { return Status::Pending };
        let mut worst = if self.deleted { Status::Removed } else { Status::Applied };
        for site in &placement.sites {
            let status = match self.reports.get(site) {
                Some((_, status, epoch)) if *epoch == self.epoch || self.current.contains(site) => *status,
                _ => Status::Pending,
            };
            // A finished report about older heads says nothing yet of what is new.
            let finished = matches!(status, Status::Applied | Status::Skipped);
            let status =
                if finished && (self.deleted || !self.current.contains(site)) { Status::Pending } else { status };
            worst = worse(worst, status);
        }
        worst
    }

    /// Names this version among those of all nodes.
    pub(crate) fn item(&self, id: &ReplicantId) -> ItemId {
        if let Some(item) = self.item.0.get() {
            return item;
        }
        let mut version = Sha256::new();
        version.update(self.epoch.to_be_bytes());
        for head in &self.heads {
            version.update(head.0);
        }
        // Only of sites that the document names: what others once said is not kept everywhere.
        let named = |site: &SiteName| self.placement.as_ref().is_some_and(|placement| placement.holds(site));
        for (site, (seq, _, _)) in self.reports.iter().filter(|(site, _)| named(site)) {
            version.update(site.as_str().as_bytes());
            version.update([0]);
            version.update(seq.to_be_bytes());
        }
        let mut item = [0; 32];
        let (first, second) = item.split_at_mut(16);
        first.copy_from_slice(&item_prefix(id));
        second.copy_from_slice(version.finalize().split_at(16).0);
        self.item.0.set(Some(item));
        item
    }
}

/// The half of an item id that names the replicant.
pub(crate) fn item_prefix(id: &ReplicantId) -> ItemPrefix {
    let digest = Sha256::digest(id.as_str().as_bytes());
    let mut prefix = [0; 16];
    prefix.copy_from_slice(digest.split_at(16).0);
    prefix
}

/// The one of two that an operator must know of first.
fn worse(a: Status, b: Status) -> Status {
    let rank = |status: Status| match status {
        Status::NeedsAttention => 5,
        Status::Failed => 4,
        Status::Pending => 3,
        Status::Removed => 2,
        Status::Applied => 1,
        Status::Skipped => 0,
    };
    if rank(b) > rank(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_follows_its_entry_through_every_way_to_change_it() {
        let id = ReplicantId::new("web").unwrap();
        let mut index = Index::default();
        index.insert(id.clone(), Entry::new(0));
        let item = |index: &Index| index.get(&id).unwrap().item(&id);
        let heads = |n: u8| vec![ChangeHash([n; 32])];
        let (mut items, mut versions) = (vec![item(&index)], vec![index.version()]);
        index.get_mut(&id).unwrap().heads = heads(1);
        items.push(item(&index));
        versions.push(index.version());
        index.get_or_insert_with(&id, || unreachable!()).heads = heads(2);
        items.push(item(&index));
        versions.push(index.version());
        index.values_mut().for_each(|entry| entry.heads = heads(3));
        items.push(item(&index));
        versions.push(index.version());
        let kept = Entry { heads: heads(4), ..index.get(&id).unwrap().clone() };
        index.insert(id.clone(), kept);
        items.push(item(&index));
        versions.push(index.version());
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), 5);
        assert_eq!(item(&index), item(&index));
    }
}
