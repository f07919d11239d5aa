//! What is known of every replicant without its document in memory.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{ChangeHash, Epoch, Placement, ReplicantId, Report, SiteName, Status};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
    #[serde(default)]
    pub(crate) cleaned: BTreeSet<SiteName>,
    /// Whether this site has nothing left to do for it.
    pub(crate) settled: bool,
    /// The document was given away: this site left the scope and has cleaned up.
    pub(crate) dropped: bool,
    /// The heads that were known of it when it was given away. A document without them is older than that.
    #[serde(default)]
    pub(crate) gone: Vec<ChangeHash>,
    /// Sites that have been seen without these heads since.
    #[serde(skip)]
    pub(crate) lost_at: BTreeSet<SiteName>,
    /// Whether it runs operations or has a desired state at sites that may come and go (see `place`).
    pub(crate) moving: bool,
    /// Storage was recovered from damage, and what this site did has not been looked at since.
    #[serde(default)]
    pub(crate) doubtful: bool,
    /// The number that the next stored change gets.
    pub(crate) next_change: u64,
    /// The number of the first change that is not in the snapshot.
    pub(crate) first_change: u64,
    /// How many changes the document has.
    #[serde(default)]
    pub(crate) changes: usize,
    /// When its epoch began and was last written to, in milliseconds by the clocks of those who did; 0 while it is short.
    #[serde(default)]
    pub(crate) begun_ms: u64,
    #[serde(default)]
    pub(crate) latest_ms: u64,
    /// The closed epochs that are kept beside it, ascending.
    #[serde(default)]
    pub(crate) archives: Vec<Epoch>,
    /// Whether it was seen that its epoch cannot be closed yet, and nothing has changed since.
    #[serde(skip)]
    pub(crate) looked: bool,
    /// When the document last changed, on the monotonic clock of this process; 0 before.
    #[serde(skip)]
    pub(crate) changed_us: u64,
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
