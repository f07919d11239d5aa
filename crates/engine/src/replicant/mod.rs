//! The replicants that this node holds: a small index entry each, and the documents that are in use.

mod index;
mod load;
mod persist;
mod place;
mod small;
mod sum;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(crate) use index::{Entry, Index, ItemPrefix, item_prefix};
use khufu_crdt::{
    Author, ChangeHash, DocumentId, Epoch, Operations, Replicant, ReplicantId, Report, Resolved, SiteName, State,
    Status,
};
pub(crate) use place::Placed;
use serde_bytes::ByteBuf;

use crate::engine::Task;
use crate::sync::Sent;
use crate::work::{Side, Work, says_nothing};
use crate::{CallId, NodeId};

/// The most changes of one document that wait to be applied.
pub(crate) const MAX_QUEUED_CHANGES: usize = 4096;
/// The most tasks that wait for one document to be read from disk.
pub(crate) const MAX_PARKED: usize = 1024;

/// Changes that were accepted here, of a document without those that they were made from.
#[derive(Debug)]
pub(crate) struct LeftOver {
    pub(crate) document: DocumentId,
    pub(crate) changes: Vec<Vec<u8>>,
    pub(crate) by: Vec<Author>,
}

impl LeftOver {
    /// What waits in a document; none if nothing does.
    pub(crate) fn of(doc: &Replicant) -> Option<Self> {
        let changes: Vec<_> = doc.queued().into_iter().map(|change| change.bytes).collect();
        (!changes.is_empty()).then(|| Self { document: doc.id().clone(), changes, by: doc.queued_by() })
    }
}

/// A document in memory, with what this site does about it.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) doc: Replicant,
    pub(crate) work: Work,
    pub(crate) reports: BTreeMap<SiteName, Report>,
    /// Changes that came in and are not applied yet.
    pub(crate) incoming: Vec<ByteBuf>,
    /// The driver call under way.
    pub(crate) call: Option<CallId>,
    /// Looks at the platform that somebody waits for.
    pub(crate) side: VecDeque<Side>,
    /// The last thing that the driver was called for was such a look: now it is the turn of what is to be done.
    pub(crate) looked_last: bool,
    /// Something of what was seen could not be told from what was done here: it is looked again as soon as it can.
    pub(crate) missed_drift: bool,
    /// Not before this moment is a driver tried again.
    pub(crate) retry_us: Option<u64>,
    /// Known from others, and not (yet) known to live here: nothing of it is on disk.
    pub(crate) provisional: bool,
    /// Who told of it, while it is provisional.
    pub(crate) told_by: Option<NodeId>,
    /// What was read from disk of a document and waits for what is lost.
    pub(crate) left_over: Option<LeftOver>,
    pub(crate) used_us: u64,
    /// A later epoch that is being fetched, and from whom.
    pub(crate) next: Option<(Replicant, NodeId)>,
    /// Documents of an earlier epoch that are being taken in, by whom they come from.
    pub(crate) earlier: BTreeMap<NodeId, Replicant>,
    /// To which nodes in a later epoch this document was offered in vain.
    pub(crate) offers: BTreeMap<NodeId, Offer>,
    /// When concurrent changes were last brought together here.
    pub(crate) joined_us: Option<u64>,
    /// What the other holders were last told of this site's replica.
    pub(crate) sent: Option<Sent>,
    /// What the changes of the epoch before are called in this one, for users who have seen them.
    pub(crate) renamed: BTreeMap<ChangeHash, ChangeHash>,
    /// Which epoch that was, where there was one since it was read from disk.
    pub(crate) renamed_of: Epoch,
    listed: Option<Arc<Listed>>,
    /// What was found out of reports of sites that have left: the number of the report, the decision, and whether it was
    /// known there.
    knew: BTreeMap<SiteName, (u64, Vec<ChangeHash>, bool)>,
    /// How often a history was walked to find that out.
    #[cfg(test)]
    walks: u64,
    /// What was executed was compared with what the document says of it.
    pub(crate) compared: bool,
}

/// The operations of a document.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) resolved: Resolved,
    /// With those of closed epochs, where there are any of these.
    all: Option<Operations>,
}

impl Listed {
    fn of(state: &State) -> Self {
        let all = match state.all_operations() {
            Cow::Owned(all) => Some(all),
            Cow::Borrowed(_) => None,
        };
        Self { resolved: state.resolved(), all }
    }

    /// All that are known, of the document that this was worked out of.
    pub(crate) fn operations<'a>(&'a self, state: &'a State) -> &'a Operations {
        self.all.as_ref().unwrap_or(&state.operations)
    }
}

/// What was offered to a node, and when it may be offered again.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) times: u32,
    pub(crate) again_us: u64,
}

impl Resident {
    pub(crate) fn new(doc: Replicant, work: Work, reports: BTreeMap<SiteName, Report>, provisional: bool) -> Self {
        Self {
            doc,
            work,
            reports,
            incoming: Vec::new(),
            call: None,
            side: VecDeque::new(),
            looked_last: false,
            missed_drift: false,
            retry_us: None,
            provisional,
            told_by: None,
            left_over: None,
            used_us: 0,
            next: None,
            earlier: BTreeMap::new(),
            offers: BTreeMap::new(),
            joined_us: None,
            sent: None,
            renamed: BTreeMap::new(),
            renamed_of: 0,
            listed: None,
            knew: BTreeMap::new(),
            #[cfg(test)]
            walks: 0,
            compared: false,
        }
    }

    /// All operations, and the list of them as they are to be run. Worked out once for each change of the document.
    pub(crate) fn listed(&mut self) -> Arc<Listed> {
        let doc = &self.doc;
        self.listed.get_or_insert_with(|| Arc::new(Listed::of(doc.state()))).clone()
    }

    /// That list, if it is worked out already.
    #[cfg(feature = "harness")]
    pub(crate) fn known_list(&self) -> Option<&[khufu_crdt::OperationId]> {
        self.listed.as_ref().map(|listed| listed.resolved.list.as_slice())
    }

    /// The document changed.
    pub(crate) fn touched(&mut self) {
        self.listed = None;
        self.compared = false;
    }

    /// Whether a report speaks of the very heads that the document has, or had when the epoch before was closed.
    pub(crate) fn is_current(&self, report: &Report) -> bool {
        let epoch = self.doc.id().epoch;
        let before = report.epoch == self.renamed_of && report.epoch < epoch;
        if report.epoch != epoch && !before {
            return false;
        }
        let name = |head: &String| {
            let head = head.parse::<ChangeHash>().ok()?;
            if before { self.renamed.get(&head).copied() } else { Some(head) }
        };
        let heads: Option<BTreeSet<ChangeHash>> = report.heads.iter().map(name).collect();
        heads.is_some_and(|heads| self.doc.heads().into_iter().eq(heads))
    }

    /// The sites that have said that they have cleaned up, and know where it lives as it is decided now. Whoever said so
    /// of an earlier decision may have been put back since, and whoever speaks of what is not known here, a deletion
    /// perhaps, has yet to be asked for it.
    pub(crate) fn cleaned(&mut self) -> BTreeSet<SiteName> {
        #[rustfmt::skip]
        let Self { doc, reports, knew, #[cfg(test)] walks, .. } = self;
        let epoch = doc.id().epoch;
        let removed = |report: &&Report| report.status == Status::Removed && report.epoch <= epoch;
        let mut cleaned = BTreeSet::new();
        if !reports.values().any(|report| removed(&report)) {
            return cleaned;
        }
        let placement = doc.state().placement.as_ref();
        let decided = doc.placement_changes();
        for report in reports.values().filter(removed) {
            if report.epoch < epoch {
                // It has given the document away, so it will not say so again in every epoch.
                let decision = placement.map(|placement| (placement.decided_at, &placement.decided_by));
                let said = report.decided_at.zip(report.decided_by.as_ref());
                if decision.is_some() && decision == said {
                    cleaned.insert(report.site.clone());
                }
                continue;
            }
            let heads: Result<Vec<ChangeHash>, _> = report.heads.iter().map(|head| head.parse()).collect();
            let Some(heads) = heads.ok().filter(|heads| heads.iter().all(|head| doc.has(head))) else { continue };
            // To find out takes time in proportion to all that came later.
            let found = knew.get(&report.site).filter(|(seq, of, _)| *seq == report.seq && *of == decided);
            let knows = found.map_or_else(|| doc.knew(&heads, &decided), |(_, _, knows)| *knows);
            if found.is_none() {
                #[cfg(test)]
                {
                    *walks += 1;
                }
                knew.insert(report.site.clone(), (report.seq, decided.clone(), knows));
            }
            if knows {
                cleaned.insert(report.site.clone());
            }
        }
        cleaned
    }

    /// Takes in what this site itself said, as others have kept it. Whether that was before it lost its disk, and says
    /// something of the replica.
    pub(crate) fn remember(&mut self, report: &Report) -> bool {
        let forgot = self.work.forgot(report);
        if forgot {
            let value = !self.doc.effective(&report.site).is_ok_and(|effective| says_nothing(&effective));
            let only_a_value = !self.doc.state().has_operations() && value;
            self.work.remember(report, only_a_value);
        }
        forgot
    }

    /// Takes over what was done for an older document of the same replicant.
    pub(crate) fn keep_work_of(&mut self, old: Self) {
        self.work = old.work;
        for (site, report) in old.reports {
            if self.reports.get(&site).is_none_or(|newer| report.supersedes(newer)) {
                self.reports.insert(site, report);
            }
        }
        self.call = old.call;
        self.side = old.side;
        self.retry_us = old.retry_us;
        self.left_over = old.left_over;
    }

    /// Whether it may leave memory, where it may be read again.
    pub(crate) fn may_leave(&self) -> bool {
        self.incoming.is_empty() && self.call.is_none() && self.side.is_empty()
    }

    /// Whether nothing is under way or to be tried again.
    pub(crate) fn is_idle(&self) -> bool {
        self.may_leave() && self.retry_us.is_none()
    }
}

/// All replicants of this node.
#[derive(Debug, Default)]
pub(crate) struct Replicants {
    pub(crate) index: Index,
    /// Boxed, because a document is some kilobytes wide, and a map keeps places free.
    pub(crate) resident: BTreeMap<ReplicantId, Box<Resident>>,
    /// What waits for documents that are being read.
    pub(crate) parked: BTreeMap<ReplicantId, Vec<Task>>,
    pub(crate) by_prefix: BTreeMap<ItemPrefix, ReplicantId>,
    /// With so many documents in memory it is time to see which of them nobody uses.
    pub(crate) crowded: usize,
}

impl Replicants {
    /// Whether this node holds the replicant's document.
    pub(crate) fn held(&self, id: &ReplicantId) -> Option<&Entry> {
        self.index.get(id).map(Box::as_ref).filter(|entry| !entry.dropped)
    }

    /// The documents that are in memory because somebody told of them.
    pub(crate) fn provisional(&self) -> impl Iterator<Item = &Resident> {
        self.resident.values().map(Box::as_ref).filter(|resident| resident.provisional)
    }

    /// The same, and those of other epochs that are being fetched.
    pub(crate) fn on_hearsay<'a>(&'a self) -> impl Iterator<Item = &'a Replicant> {
        let later = |resident: &'a Resident| resident.next.as_ref().map(|(next, _)| next);
        let others = self
            .resident
            .values()
            .flat_map(move |resident| later(resident).into_iter().chain(resident.earlier.values()));
        self.provisional().map(|resident| &resident.doc).chain(others)
    }

    /// Storage was recovered from damage: every index entry may be old, and some may be missing. `found` are the
    /// replicants of which there are records, with the newest epoch of a document.
    pub(crate) fn doubt(&mut self, found: &BTreeMap<ReplicantId, Option<u64>>) {
        for (id, epoch) in found {
            match (self.index.get_mut(id), *epoch) {
                (Some(entry), Some(epoch)) => {
                    // What was given away leaves no document: one of the two is old, and nobody knows which.
                    entry.epoch = if entry.dropped { epoch } else { entry.epoch.max(epoch) };
                    entry.dropped = false;
                }
                (None, Some(epoch)) => self.insert(id.clone(), Entry::new(epoch)),
                _ => {}
            }
        }
        let held = self.index.iter().filter(|(_, entry)| !entry.dropped);
        let held: Vec<_> = held.map(|(id, _)| id.clone()).collect();
        for id in held {
            if let Some(entry) = self.index.get_mut(&id) {
                entry.doubtful = true;
                entry.settled = false;
            }
        }
    }

    pub(crate) fn insert(&mut self, id: ReplicantId, entry: Entry) {
        self.by_prefix.insert(item_prefix(&id), id.clone());
        self.index.insert(id, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use khufu_crdt::ReplicantId;
    use serde_json::json;

    use crate::harness::World;
    use crate::{Put, Request};

    #[test]
    fn the_history_is_not_walked_for_every_change_after_a_site_has_left() {
        let id = ReplicantId::new("web").unwrap();
        let mut world = World::new(310);
        world.sites(&["paris", "rennes"]);
        world.put("paris", "web", "paris & rennes", json!({"a": 1}));
        world.settle();
        // What rennes says last is not of the change that has it leave, but of a later one.
        world.isolate("rennes");
        let scope = Some("paris".to_owned());
        let (kind, policy, desired, overrides, base) = (None, None, None, None, None);
        world
            .request("paris", Request::Put(Put { id: id.clone(), kind, scope, policy, desired, overrides, base }))
            .unwrap();
        world.patch("paris", "web", json!({"a": "one more"})).unwrap();
        world.heal();
        world.settle();
        let walks = |world: &World| world.sites["paris"].engine().unwrap().replicants.resident[&id].walks;
        world.until("it is found out whether rennes knew", Duration::from_secs(60), |world| walks(world) > 0);
        world.run_for(Duration::from_secs(10));
        let before = walks(&world);
        for number in 0..50 {
            world.patch("paris", "web", json!({"a": number})).unwrap();
        }
        world.settle();
        assert_eq!(walks(&world), before);
    }
}
