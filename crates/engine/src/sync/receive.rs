//! Taking in what others know: changes in batches, reports by number.

use khufu_crdt::{ChangeHash, DocumentId, Hlc, Received, Replicant, ReplicantId, Report, SiteName};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::replicant::{Entry, MAX_QUEUED_CHANGES, Placed, Resident};
use crate::timers::Due;
use crate::wire::{self, Push};
use crate::work::Work;
use crate::{Engine, Happening, NodeId, Status};

/// The most heads that are believed. Each is of somebody who wrote without knowing of the others.
pub(crate) const MAX_HEADS: usize = 1024;
/// The most reports that are kept of a document that is not known to live here.
const MAX_PROVISIONAL_REPORTS: usize = 256;
/// The most documents that are in memory only because somebody told of them, and of these because one node did.
const MAX_PROVISIONAL: usize = 1024;
const MAX_PROVISIONAL_OF_ONE: usize = 256;
/// How many of the largest documents they may come to together.
const MAX_PROVISIONAL_LARGEST: usize = 16;
/// How far ahead of this site's clock the number of a report may be, in milliseconds: a hundred years, more than any clock
/// that is merely wrong. Numbers are clock values, so the bound moves on, and there is a next one for whoever is at it.
const MAX_AHEAD_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
/// The highest epoch that is believed.
const MAX_EPOCH: u64 = 1 << 50;

impl Engine {
    /// Those of the reports that came from a node which can be true. Each is of any of the holders, and all come from one of
    /// them: whoever is no holder as far as is known here has nothing to say of replicas.
    fn believable(&mut self, id: &ReplicantId, from: &NodeId, mut reports: Vec<Report>) -> Vec<Report> {
        if !reports.is_empty() && !self.may_share(id, from) {
            self.counters.ignored += 1;
            return Vec::new();
        }
        let newest = Hlc::from_ms(self.now.wall_ms.saturating_add(MAX_AHEAD_MS)).0;
        let before = reports.len();
        reports.retain(|report| report.replicant == *id && report.seq <= newest && report.heads.len() <= MAX_HEADS);
        self.counters.refused += u64::try_from(before - reports.len()).unwrap_or(u64::MAX);
        reports
    }

    /// Changes and reports came in for a resident document.
    pub(crate) fn pushed(&mut self, id: &ReplicantId, from: &NodeId, push: Push) {
        if push.heads.len() > MAX_HEADS {
            return self.refuse(from, format!("{} heads of {id}, {MAX_HEADS} are allowed", push.heads.len()));
        }
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let epoch = resident.doc.id().epoch;
        if push.document.epoch < epoch {
            return self.pushed_earlier(id, from, push);
        }
        if self.is_later_epoch(id, &push.document) {
            if !self.follow(id, from, &push.document, push.cut) {
                self.take_reports(id, from, push.reports);
                return self.meet(id, from);
            }
        } else if push.document.epoch > epoch {
            self.shelve(id, push.document.clone(), from);
        }
        let Some(resident) = self.replicants.resident.get(id) else { return };
        if resident.doc.id().epoch != push.document.epoch {
            return;
        }
        if resident.provisional && !self.has_room_for(push.changes.iter().map(|change| change.len()).sum()) {
            self.counters.refused += 1;
            return;
        }
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        if resident.provisional && resident.told_by.is_none() {
            resident.told_by = Some(from.clone());
        }
        let room = MAX_QUEUED_CHANGES.saturating_sub(resident.incoming.len());
        let dropped = push.changes.len() > room;
        resident.incoming.extend(push.changes.into_iter().take(room));
        let (waiting, provisional) = (!resident.incoming.is_empty(), resident.provisional);
        let history = u64::try_from(resident.doc.change_count()).unwrap_or(u64::MAX);
        // Whoever reports on what is not known here knows more.
        let (mut heads, behalf) = (push.heads, push.behalf);
        let same = push.reports.iter().filter(|report| report.epoch == push.document.epoch);
        heads.extend(same.flat_map(|report| &report.heads).filter_map(|head| head.parse::<ChangeHash>().ok()));
        self.take_reports(id, from, push.reports);
        if waiting && provisional {
            // The timer is for what is held.
            self.flush(id);
        } else if waiting && !self.timers.is_set(&Due::Flush(id.clone())) {
            // The first comes in at once; what follows within the window is applied together. To apply a batch takes
            // the longer the more history there is: some 0.2 microseconds for each change, so a tenth of the time.
            let window = self.config.batch.saturating_add(Duration::from_micros(history.saturating_mul(2)));
            let quiet = |changed_us| self.now.since(changed_us) >= window;
            if self.replicants.index.get(id).is_none_or(|entry| quiet(entry.changed_us)) {
                self.flush(id);
            } else {
                self.timers.set(Due::Flush(id.clone()), self.now.plus(window));
            }
        }
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let lacking = heads.iter().any(|head| !resident.doc.has(head));
        let pending = !resident.incoming.is_empty();
        if self.may_share(id, from) {
            if dropped || (lacking && !pending) {
                self.meet(id, from);
            }
        } else if !lacking && !heads.is_empty() {
            // It thinks that it is a holder, and does not know what is known here.
            self.answer_not_holder(id, from, heads, &behalf);
        }
    }

    /// Something came in for a replicant that this node does not hold. It may have been placed here just now.
    pub(crate) fn unknown(&mut self, document: DocumentId, from: &NodeId) -> bool {
        let id = document.replicant.clone();
        let told = self.replicants.provisional().count();
        // What is on the disk was not made up by whoever speaks of it.
        let told_by_it = self.replicants.provisional().filter(|resident| resident.told_by.as_ref() == Some(from));
        let by_it =
            told_by_it.filter(|resident| !self.replicants.index.contains_key(&resident.doc.id().replicant)).count();
        if document.epoch > MAX_EPOCH || told >= MAX_PROVISIONAL || by_it >= MAX_PROVISIONAL_OF_ONE {
            self.counters.refused += 1;
            tracing::warn!(replicant = %id, epoch = document.epoch, told, by_it, node = %from, "refused a document");
            return false;
        }
        match Replicant::genesis(document, &self.actors.next()) {
            Ok(doc) => {
                let doc = doc.with_limits(self.config.limits.clone());
                let mut resident = Resident::new(doc, Work::default(), BTreeMap::new(), true);
                resident.used_us = self.now.monotonic_us;
                resident.told_by = Some(from.clone());
                self.replicants.resident.insert(id, Box::new(resident));
                true
            }
            Err(error) => {
                tracing::warn!(replicant = %id, %error, "refused a document");
                false
            }
        }
    }

    /// Whether documents that are in memory on hearsay may have so many bytes more.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let size = |doc: &Replicant| doc.size().saturating_add(doc.queued_bytes());
        let now: usize = self.replicants.on_hearsay().map(size).sum();
        now.saturating_add(bytes) <= self.config.limits.remote_bytes().saturating_mul(MAX_PROVISIONAL_LARGEST)
    }

    /// Sets an older document, of which nothing is held, aside for one of a later epoch.
    pub(crate) fn shelve(&mut self, id: &ReplicantId, document: DocumentId, from: &NodeId) {
        let Some(old) = self.replicants.resident.remove(id) else { return };
        if !self.unknown(document, from) {
            self.replicants.resident.insert(id.clone(), old);
            return;
        }
        self.end_sessions_of(id);
        if let Some(next) = self.replicants.resident.get_mut(id) {
            next.keep_work_of(*old);
        }
    }

    /// Applies the changes that have come in.
    pub(crate) fn flush(&mut self, id: &ReplicantId) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let changes: Vec<Vec<u8>> =
            std::mem::take(&mut resident.incoming).into_iter().map(serde_bytes::ByteBuf::into_vec).collect();
        match resident.doc.apply(&changes) {
            Ok(received) => {
                self.took(id, received);
            }
            Err(error) => {
                self.counters.changes_rejected += 1;
                self.warn(Some(id.clone()), format!("changes of another site were refused: {error}"));
            }
        }
    }

    /// What follows from changes that were applied. Whether there were any.
    pub(crate) fn took(&mut self, id: &ReplicantId, received: Received) -> bool {
        if !received.rejected.is_empty() {
            self.counters.changes_rejected += u64::try_from(received.rejected.len()).unwrap_or(u64::MAX);
            self.warn(
                Some(id.clone()),
                format!("changes of another site were refused: {}", received.rejected.join("; ")),
            );
        }
        if received.new.is_empty() {
            return false;
        }
        self.settle(id, &received.new);
        true
    }

    /// Keeps what came in, if the document lives here.
    fn settle(&mut self, id: &ReplicantId, new: &[khufu_crdt::Change]) {
        let here = self.config.site.clone();
        let held = self.replicants.held(id).is_some();
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        if !resident.provisional {
            self.persist_changes(id, new, false);
            return self.changed(id);
        }
        resident.touched();
        let Some(placement) = resident.doc.state().placement.as_ref().filter(|_| resident.doc.is_created()) else {
            return;
        };
        // A document that lacks what was given away does not know yet that this site has left, or went another way.
        let epoch = resident.doc.id().epoch;
        let gone = self.replicants.index.get(id).filter(|entry| entry.dropped && entry.epoch == epoch);
        let told = resident.work.expelled.iter().filter(|_| gone.is_some());
        if gone.iter().flat_map(|entry| &entry.gone).chain(told).any(|head| !resident.doc.has(head)) {
            return self.introduce(id);
        }
        if !placement.sites.contains(&here) && resident.work.removed && !held {
            // All that others wait for is to hear that.
            return self.report(id);
        }
        if placement.holds(&here) {
            self.adopt(id, false);
            self.changed(id);
        }
    }

    /// Two parts of a replica set that were apart have each moved away from here, and maybe nobody else knows of both:
    /// those who took over from this site are told what the others have. Until they have come together, none of the
    /// others hears that this site has cleaned up, so that they ask again.
    fn introduce(&mut self, id: &ReplicantId) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let Some(entry) = self.replicants.index.get(id).filter(|entry| entry.dropped) else { return };
        let known = resident.doc.state().placement.as_ref();
        let strangers: Vec<_> = entry
            .placement
            .iter()
            .flat_map(Placed::sites)
            .filter(|site| **site != self.config.site && !known.is_some_and(|placement| placement.holds(site)))
            .flat_map(|site| self.members.reachable(site))
            .collect();
        let changes = resident.doc.changes_since(&[]).into_iter().map(|change| ByteBuf::from(change.bytes));
        let (document, changes, heads) = (resident.doc.id().clone(), changes.collect::<Vec<_>>(), resident.doc.heads());
        let with = self.sync.with(id).chain(&resident.told_by).filter_map(|node| self.members.site_of(node));
        let behalf: BTreeSet<SiteName> = with.take(super::MAX_BEHALF).cloned().collect();
        for node in strangers {
            self.push_for(&node, &document, changes.clone(), heads.clone(), &behalf);
        }
    }

    /// A node answers what this one told it on behalf of others. What is left of that where this site has given the
    /// replicant away: those of them that are none of its holders either know nobody who could tell them.
    pub(crate) fn pass_on_answer(&self, from: &NodeId, document: &DocumentId, of: &BTreeSet<SiteName>) -> Vec<NodeId> {
        let gone = self.replicants.index.get(&document.replicant).map(Box::as_ref).filter(|entry| entry.dropped);
        let heir = |entry: &&Entry| {
            let site = self.members.site_of(from);
            site.is_some_and(|site| entry.placement.as_ref().is_some_and(|placement| placement.sites().contains(site)))
        };
        if gone.filter(|entry| document.epoch >= entry.epoch).filter(heir).is_none() {
            return Vec::new();
        }
        let of = of.iter().take(super::MAX_BEHALF).filter(|site| **site != self.config.site);
        of.flat_map(|site| self.members.reachable(site)).filter(|node| node != from).collect()
    }

    /// All that a node has of a replicant is here now. If this site once gave away what it lacks, and so lack all who took
    /// over, their disks have gone back, and what is left counts again: nobody will ever have the other.
    pub(crate) fn heard_all(&mut self, id: &ReplicantId, from: &NodeId) {
        let here = self.config.site.clone();
        let Some(site) = self.members.site_of(from).cloned() else { return };
        let Some(resident) = self.replicants.resident.get(id).filter(|resident| resident.provisional) else { return };
        let doc = &resident.doc;
        let lives = doc.state().placement.as_ref().is_some_and(|placement| placement.holds(&here));
        let Some(entry) = self.replicants.index.get_mut(id).filter(|entry| entry.dropped) else { return };
        if !doc.is_created() || !lives || entry.epoch != doc.id().epoch {
            return;
        }
        let site = entry.name(&site);
        entry.lost_at.insert(site);
        // A later report of no more than what is here says the same of one that has given it away itself since.
        let says_so = |site: &SiteName| {
            let known = entry.reports.get(site).map_or(0, |known| known.0);
            resident.reports.get(site).is_some_and(|report| {
                let mut heads = report.heads.iter().map(|head| head.parse::<ChangeHash>());
                report.seq > known
                    && report.epoch == entry.epoch
                    && heads.all(|head| head.is_ok_and(|head| doc.has(&head)))
            })
        };
        // Where it is not known who they are, nobody can have lost it.
        let heirs = entry.placement.iter().flat_map(Placed::sites).filter(|site| **site != here);
        let mut heirs = heirs.peekable();
        if heirs.peek().is_some() && heirs.all(|site| entry.lost_at.contains(site) || says_so(site)) {
            self.adopt(id, false);
            self.changed(id);
        }
    }

    /// Changes came in with reports. What this site said of its replica, before it lost its disk, counts before anything
    /// is done about them.
    pub(crate) fn recall(&mut self, id: &ReplicantId, from: &NodeId, reports: &[Report]) {
        let own = reports.iter().filter(|report| report.site == self.config.site).cloned().collect();
        let own = self.believable(id, from, own);
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        for report in &own {
            resident.remember(report);
        }
    }

    /// Reports came in for a resident document.
    pub(crate) fn take_reports(&mut self, id: &ReplicantId, from: &NodeId, reports: Vec<Report>) {
        let mut news = Vec::<SiteName>::new();
        for report in self.believable(id, from, reports) {
            let Some(resident) = self.replicants.resident.get_mut(id) else { return };
            if report.site == self.config.site {
                if resident.remember(&report) {
                    news.push(report.site.clone());
                }
                if report.seq > resident.work.seq {
                    resident.work.seq = report.seq;
                    let known = resident.reports.get(&report.site).is_some_and(|known| known.seq >= report.seq);
                    if !known {
                        resident.reports.remove(&report.site);
                    }
                    news.push(report.site);
                }
                continue;
            }
            if resident.reports.get(&report.site).is_some_and(|known| !report.supersedes(known)) {
                continue;
            }
            let room = resident.reports.len() < MAX_PROVISIONAL_REPORTS;
            let named = resident.doc.state().placement.as_ref().is_some_and(|placement| placement.holds(&report.site));
            if !(named || (resident.provisional && room)) {
                continue;
            }
            let size = wire::encode(&report).len();
            if size > self.config.report_bytes() {
                self.counters.refused += 1;
                tracing::warn!(replicant = %id, site = %report.site, size, "refused a report that could not be passed on");
                continue;
            }
            resident.reports.insert(report.site.clone(), report.clone());
            if resident.provisional {
                continue;
            }
            let current = resident.is_current(&report);
            let cleaned = resident.cleaned();
            self.write_report(&report);
            if let Some(entry) = self.replicants.index.get_mut(id) {
                entry.reported(&report);
                entry.cleaned = cleaned.iter().map(|site| entry.name(site)).collect();
                if current {
                    entry.add_current(&report.site);
                } else {
                    entry.current.remove(&report.site);
                }
            }
            let (replicant, site, seq, status) = (id.clone(), report.site.clone(), report.seq, report.status);
            self.event(Happening::Reported { replicant, site, status, seq });
            if report.status == Status::Removed {
                self.update_topic(id);
            }
            news.push(report.site);
        }
        if !news.is_empty() {
            self.write_index(id);
            self.close_soon(id);
            // A site whose replica is to go waits for another to have everything.
            let here = &self.config.site;
            let leaving = |entry: &Entry| entry.placement.as_ref().is_some_and(|at| !at.has_replica(here));
            if news.contains(here) || self.replicants.held(id).is_some_and(leaving) {
                self.work(id);
            }
            self.check_waits(id);
        }
    }

    /// The document changed: whoever waits is told and the driver set to work.
    pub(crate) fn changed(&mut self, id: &ReplicantId) {
        self.work(id);
        self.check_waits(id);
        self.place_if_stale(id);
    }
}
