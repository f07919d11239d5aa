//! What is known of every replicant without its document in memory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use khufu_crdt::{ChangeHash, Epoch, Placement, ReplicantId, Report, SiteName, Status};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::place::{Placed, Shared, text};
use super::small::{SmallMap, SmallSet};
use super::sum::Sum;
use crate::wire::is_default;

/// Names one version of one replicant in a reconciliation: the first half names the replicant, the second its version.
pub(crate) type ItemId = [u8; 32];
/// The half of an [`ItemId`] that names the replicant.
pub(crate) type ItemPrefix = [u8; 16];

/// One replicant that this node holds, or held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) epoch: Epoch,
    #[serde(with = "text")]
    pub(crate) kind: Arc<str>,
    #[serde(with = "text")]
    pub(crate) scope: Arc<str>,
    pub(crate) placement: Option<Placed>,
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) deleted: bool,
    pub(crate) operations: usize,
    pub(crate) conflicts: usize,
    /// The number and status of the newest report of each site, with its epoch.
    pub(crate) reports: SmallMap<SiteName, (u64, Status, Epoch)>,
    /// Whether each report speaks of the heads that the document has.
    pub(crate) current: SmallSet<SiteName>,
    /// The sites that have cleaned up, as the last decision on where it lives wants it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) cleaned: SmallSet<SiteName>,
    /// Whether this site has nothing left to do for it.
    pub(crate) settled: bool,
    /// The document was given away: this site left the scope and has cleaned up.
    pub(crate) dropped: bool,
    /// The heads that were known of it when it was given away. A document without them is older than that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) gone: Vec<ChangeHash>,
    /// Sites that have been seen without these heads since.
    #[serde(skip)]
    pub(crate) lost_at: SmallSet<SiteName>,
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

/// Each change of an entry looks at the sums of so many sites at most. Somebody may go by one name after the other, and more
/// sites than that do not share replicants with one node.
const MAX_SUMS: usize = 4096;
/// So many entries may have been touched before they are looked at again.
const MAX_TOUCHED: usize = 64;

/// The entries of all replicants.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Boxed, because a map keeps places free.
    entries: BTreeMap<ReplicantId, Box<Entry>>,
    version: u64,
    /// What many of them say.
    shared: Shared,
    /// Entries that may have changed, and are not counted in the following until they are looked at again.
    touched: BTreeSet<ReplicantId>,
    /// How many are held.
    held: usize,
    /// What is shared with each site that was asked for.
    sums: BTreeMap<SiteName, Sum>,
}

impl Deref for Index {
    type Target = BTreeMap<ReplicantId, Box<Entry>>;

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
        self.touch(id);
        self.entries.get_mut(id).map(Box::as_mut)
    }

    /// The entry of a replicant; `make` if there is none yet.
    pub(crate) fn get_or_insert_with(&mut self, id: &ReplicantId, make: impl FnOnce() -> Entry) -> &mut Entry {
        self.touch(id);
        // What is new is not counted either before it is looked at.
        self.touched.insert(id.clone());
        self.version += 1;
        self.entries.entry(id.clone()).or_insert_with(|| Box::new(make()))
    }

    pub(crate) fn insert(&mut self, id: ReplicantId, mut entry: Entry) {
        self.touch(&id);
        entry.share(&mut self.shared);
        entry.item.0.set(None);
        self.touched.insert(id.clone());
        self.version += 1;
        self.entries.insert(id, Box::new(entry));
    }

    /// A text as others have it.
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        self.shared.text(text)
    }

    /// A placement that shares what it says with those of others.
    pub(crate) fn placed(&mut self, placement: &Placement) -> Placed {
        self.shared.placed(placement.clone().into())
    }

    /// How many replicants are held.
    pub(crate) fn held(&self) -> usize {
        let touched = self.touched.iter().filter_map(|id| self.entries.get(id)).filter(|entry| !entry.dropped);
        self.held.saturating_add(touched.count())
    }

    /// What is shared with a site, summed up: no list is made where little has changed.
    pub(crate) fn sum(&mut self, site: &SiteName) -> Sum {
        self.look();
        if let Some(sum) = self.sums.get(site) {
            return *sum;
        }
        let mut sum = Sum::default();
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.is_shared_with(site)) {
            sum.add(&entry.item(id));
        }
        if self.sums.len() >= MAX_SUMS {
            self.sums.clear();
        }
        self.sums.insert(site.clone(), sum);
        sum
    }

    /// An entry may be about to change. Until it is looked at again it counts for nothing.
    fn touch(&mut self, id: &ReplicantId) {
        if self.touched.len() >= MAX_TOUCHED {
            self.look();
        }
        let Some(entry) = self.entries.get(id) else { return };
        self.version += 1;
        if self.touched.insert(id.clone()) {
            self.held -= usize::from(!entry.dropped);
            for (_, sum) in self.sums.iter_mut().filter(|(site, _)| entry.is_shared_with(site)) {
                sum.remove(&entry.item(id));
            }
        }
        entry.item.0.set(None);
    }

    /// Counts what was touched as it is now.
    fn look(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let Some(entry) = self.entries.get(&id) else { continue };
            self.held += usize::from(!entry.dropped);
            for (_, sum) in self.sums.iter_mut().filter(|(site, _)| entry.is_shared_with(site)) {
                sum.add(&entry.item(&id));
            }
        }
    }
}

impl Entry {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            kind: Arc::default(),
            scope: Arc::default(),
            placement: None,
            heads: Vec::new(),
            deleted: false,
            operations: 0,
            conflicts: 0,
            reports: SmallMap::default(),
            current: SmallSet::default(),
            cleaned: SmallSet::default(),
            settled: true,
            dropped: false,
            gone: Vec::new(),
            lost_at: SmallSet::default(),
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

    /// Has it share what others have, too.
    fn share(&mut self, shared: &mut Shared) {
        self.kind = shared.text(&self.kind);
        self.scope = shared.text(&self.scope);
        self.placement = self.placement.take().map(|placed| shared.placed(placed));
        let Some(placement) = &self.placement else { return };
        let name = |site: &SiteName| placement.name(site).unwrap_or(site).clone();
        self.reports.rename(name);
        self.current.rename(name);
        self.cleaned.rename(name);
    }

    /// A name as the placement has it, so that there is one copy of it.
    pub(crate) fn name(&self, site: &SiteName) -> SiteName {
        self.placement.as_ref().and_then(|placement| placement.name(site)).unwrap_or(site).clone()
    }

    /// Notes a report.
    pub(crate) fn reported(&mut self, report: &Report) {
        self.reports.insert(self.name(&report.site), (report.seq, report.status, report.epoch));
    }

    /// Notes that the newest report of a site speaks of the heads that the document has. Whether that is new.
    pub(crate) fn add_current(&mut self, site: &SiteName) -> bool {
        self.current.insert(self.name(site))
    }

    /// Whether it is compared with what a site has.
    pub(crate) fn is_shared_with(&self, site: &SiteName) -> bool {
        !self.dropped && self.holds(site)
    }

    /// Whether a site has said that its replica is gone, and knows that it is to be.
    pub(crate) fn has_removed(&self, site: &SiteName) -> bool {
        self.cleaned.contains(site)
    }

    /// The sites that hold the document: those of the placement, and those that leave and have yet to clean up.
    pub(crate) fn holders(&self) -> BTreeSet<SiteName> {
        self.placement.iter().flat_map(Placed::holders).filter(|site| self.holds(site)).cloned().collect()
    }

    /// Whether a site is one of the holders.
    pub(crate) fn holds(&self, site: &SiteName) -> bool {
        self.placement.as_ref().is_some_and(|placement| {
            placement.sites().contains(site) || (placement.leaving().contains(site) && !self.has_removed(site))
        })
    }

    /// The rolled-up status: the worst of all sites of the placement.
    pub(crate) fn status(&self) -> Status {
        let Some(placement) = &self.placement else { return Status::Pending };
        let mut worst = if self.deleted { Status::Removed } else { Status::Applied };
        for site in placement.sites() {
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
    use proptest::prelude::*;

    use super::*;

    fn heads(n: u8) -> Vec<ChangeHash> {
        vec![ChangeHash([n; 32])]
    }

    #[test]
    fn who_goes_by_one_name_after_the_other_costs_no_more() {
        let site = |number: usize| SiteName::new(format!("site-{number}")).unwrap();
        let id = ReplicantId::new("web").unwrap();
        let mut index = Index::default();
        index.insert(id.clone(), Entry::new(0));
        let first = index.sum(&site(0));
        for number in 0..=MAX_SUMS {
            index.sum(&site(number));
        }
        assert!(index.sums.len() <= MAX_SUMS);
        assert_eq!(index.sum(&site(0)).digest(), first.digest());
    }

    #[test]
    fn an_item_follows_its_entry_through_every_way_to_change_it() {
        let id = ReplicantId::new("web").unwrap();
        let mut index = Index::default();
        index.insert(id.clone(), Entry::new(0));
        let item = |index: &Index| index.get(&id).unwrap().item(&id);
        let (mut items, mut versions) = (vec![item(&index)], vec![index.version()]);
        index.get_mut(&id).unwrap().heads = heads(1);
        items.push(item(&index));
        versions.push(index.version());
        index.get_or_insert_with(&id, || unreachable!()).heads = heads(2);
        items.push(item(&index));
        versions.push(index.version());
        let kept = Entry { heads: heads(3), ..Entry::clone(index.get(&id).unwrap()) };
        index.insert(id.clone(), kept);
        items.push(item(&index));
        versions.push(index.version());
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), 4);
        assert_eq!(item(&index), item(&index));
    }

    fn placement(sites: &[&SiteName], leaving: &SiteName) -> Placement {
        Placement {
            sites: sites.iter().map(|site| (*site).clone()).collect(),
            leaving: [leaving.clone()].into(),
            mode: khufu_crdt::Mode::Replicate,
            prime: None,
            expression: "all".into(),
            decided_at: khufu_crdt::Hlc(7),
            decided_by: leaving.clone(),
        }
    }

    #[test]
    fn what_entries_say_alike_is_kept_once() {
        let sites = ["paris", "rennes", "lyon"].map(|name| SiteName::new(name).unwrap());
        let mut entry = Entry::new(0);
        entry.placement = Some(placement(&[&sites[0], &sites[1]], &sites[2]).into());
        (entry.kind, entry.scope) = ("files".into(), "all".into());
        entry.reports = sites.iter().map(|site| (site.clone(), (1, Status::Applied, 0))).collect();
        entry.current = sites.iter().cloned().collect();
        entry.cleaned = [sites[2].clone()].into_iter().collect();
        let stored = crate::wire::encode(&entry);
        let mut index = Index::default();
        let ids = ["web", "log"].map(|name| ReplicantId::new(name).unwrap());
        for id in &ids {
            index.insert(id.clone(), crate::wire::decode(&stored).unwrap());
        }
        // As it comes from the network: another copy of each name.
        let id = &ids[1];
        let other = SiteName::new("rennes").unwrap();
        index.get_mut(id).unwrap().current.remove(&other);
        assert!(index.get_mut(id).unwrap().add_current(&other));
        let texts = |id: &ReplicantId| {
            let entry = index.get(id).unwrap();
            let names =
                entry.reports.iter().map(|(site, _)| site).chain(entry.current.iter()).chain(entry.cleaned.iter());
            let names = names.map(|site| site.as_str().as_ptr());
            names.chain([entry.kind.as_ptr(), entry.scope.as_ptr()]).collect::<Vec<_>>()
        };
        assert_eq!(texts(&ids[0]), texts(&ids[1]));
        assert_eq!(texts(&ids[0])[..3], texts(&ids[0])[3..6]);
        assert_eq!(crate::wire::encode(&**index.get(id).unwrap()), stored);
        assert!(size_of::<Entry>() <= 384, "{} bytes", size_of::<Entry>());
    }

    proptest! {
        #[test]
        fn what_is_counted_on_the_way_is_what_there_is(
            steps in proptest::collection::vec((0..90_u8, 0..9_u8, any::<u8>()), 1..400),
        ) {
            let mut index = Index::default();
            let sites = ["paris", "rennes", "lyon"].map(|name| SiteName::new(name).unwrap());
            for (number, step, value) in steps {
                let id = ReplicantId::new(format!("web{number}")).unwrap();
                let chosen: Vec<_> = sites.iter().enumerate().filter(|(nth, _)| value >> nth & 1 == 1).map(|(_, site)| site).collect();
                let placed = index.placed(&placement(&chosen, &sites[2]));
                match step {
                    0 => index.insert(id, Entry { placement: Some(placed), heads: heads(value), ..Entry::new(1) }),
                    1 => index.get_or_insert_with(&id, || Entry::new(2)).heads = heads(value),
                    2 => drop(index.sum(&sites[usize::from(value % 3)])),
                    _ => {
                        let Some(entry) = index.get_mut(&id) else { continue };
                        match step {
                            3 => entry.dropped = value % 2 == 0,
                            4 => entry.placement = Some(placed),
                            5 => drop(entry.cleaned.insert(sites[2].clone())),
                            _ => entry.epoch += 1,
                        }
                    }
                }
                prop_assert_eq!(index.held(), index.values().filter(|entry| !entry.dropped).count());
            }
            for site in &sites {
                let mut all = Sum::default();
                for (id, entry) in index.iter().filter(|(_, entry)| !entry.dropped && entry.holds(site)) {
                    all.add(&entry.item(id));
                }
                prop_assert_eq!(index.sum(site), all);
            }
        }
    }
}
