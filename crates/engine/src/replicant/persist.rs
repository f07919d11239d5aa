//! Writing documents down, and what follows from a change.

use khufu_crdt::{Author, Change, DocumentId, Hlc, Replicant, ReplicantId, Report, SiteName};

use super::{Entry, LeftOver};
use crate::record::{change_key, index_key, report_key, snapshot_key, work_key};
use crate::wire;
use crate::{Engine, Happening, Write};

/// The most authors of what is lost that are named.
const MAX_NAMED: usize = 8;

impl Engine {
    /// Puts changes of a resident document on disk, brings its index entry up to date, and says so.
    pub(crate) fn persist_changes(&mut self, id: &ReplicantId, changes: &[Change], local: bool) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.touched();
        if changes.is_empty() || resident.provisional {
            return;
        }
        // Who said that this site is out did not know of this.
        resident.work.expelled.clear();
        let document = resident.doc.id().clone();
        let entry = self.replicants.index.get_or_insert_with(id, || Entry::new(document.epoch));
        // Most of the document at once is smaller as a snapshot, and one record.
        let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        let whole = count >= self.config.compact_after && changes.len() >= resident.doc.change_count() / 2;
        for change in changes.iter().filter(|_| !whole) {
            self.outbox
                .write(Write::Put { key: change_key(&document, entry.next_change), value: change.bytes.clone() });
            entry.next_change += 1;
        }
        entry.changed_us = self.now.monotonic_us;
        entry.latest_ms = self.clock.last().ms();
        entry.settled = false;
        if local {
            self.counters.changes_local += count;
        } else {
            self.counters.changes_remote += count;
        }
        let conflicts_before = entry.conflicts;
        if whole {
            self.compact(id);
        }
        self.refresh_index(id);
        let Some(entry) = self.replicants.index.get(id) else { return };
        let (heads, conflicts) = (entry.heads.iter().map(ToString::to_string).collect(), entry.conflicts);
        self.event(Happening::Changed { replicant: id.clone(), local, heads });
        if conflicts > conflicts_before {
            self.event(Happening::Conflicted { replicant: id.clone(), fields: conflicts });
        }
        self.close_soon(id);
    }

    /// Brings the index entry of a resident document up to date and writes it.
    pub(crate) fn refresh_index(&mut self, id: &ReplicantId) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let cleaned_now = resident.cleaned();
        let aged = self.config.epochs.aged_changes;
        let state = resident.doc.state();
        let index = &mut self.replicants.index;
        let (kind, scope) = (index.text(&state.kind), index.text(&state.scope));
        let placement = state.placement.as_ref().map(|placement| index.placed(placement));
        let Some(entry) = index.get_mut(id) else { return };
        let was_deleted = entry.deleted;
        let placed = entry.placement != placement;
        entry.placement = placement;
        let cleaned_now = cleaned_now.iter().map(|site| entry.name(site)).collect();
        let cleaned = std::mem::replace(&mut entry.cleaned, cleaned_now);
        let shared = placed || cleaned != entry.cleaned;
        entry.epoch = resident.doc.id().epoch;
        entry.kind = kind;
        if entry.scope != scope {
            entry.scope = scope;
            entry.moving = crate::place::is_moving(&state.scope);
        }
        entry.deleted = state.deleted.is_some();
        entry.operations = state.operations.len().saturating_add(state.base.operations.len());
        entry.changes = resident.doc.change_count();
        if entry.begun_ms == 0 && entry.changes >= aged {
            entry.begun_ms = resident.doc.begun().ms();
        }
        entry.heads = resident.doc.heads();
        entry.conflicts = resident.doc.conflicts().len();
        let current = resident.reports.values().filter(|report| resident.is_current(report));
        entry.current = current.map(|report| entry.name(&report.site)).collect();
        let newest = state.operations.values().map(|operation| operation.at).max().max(state.base.clock);
        let (deleted, sites) = (
            entry.deleted && !was_deleted,
            entry.placement.as_ref().map(|placement| placement.sites().iter().cloned().collect::<Vec<_>>()),
        );
        self.write_index(id);
        self.follow_clock(newest);
        if deleted {
            self.event(Happening::Deleted { replicant: id.clone() });
        }
        if placed && let Some(sites) = sites {
            self.event(Happening::Placed { replicant: id.clone(), sites });
        }
        if shared {
            self.update_topic(id);
        }
    }

    fn follow_clock(&mut self, seen: Option<Hlc>) {
        if let Some(seen) = seen
            && self.clock.follow(seen, self.now.wall_ms).is_err()
        {
            self.counters.clocks_ahead += 1;
        }
    }

    /// Writes the index entry as it is.
    pub(crate) fn write_index(&mut self, id: &ReplicantId) {
        if let Some(entry) = self.replicants.index.get(id) {
            self.outbox.write(Write::Put { key: index_key(id), value: wire::encode(entry) });
        }
    }

    /// Writes what this site has done.
    pub(crate) fn write_work(&mut self, id: &ReplicantId) {
        if let Some(resident) = self.replicants.resident.get(id) {
            self.outbox.write(Write::Put { key: work_key(id), value: wire::encode(&resident.work) });
        }
    }

    /// Writes a report.
    pub(crate) fn write_report(&mut self, report: &Report) {
        self.outbox.write(Write::Put { key: report_key(&report.replicant, &report.site), value: wire::encode(report) });
    }

    /// A document that was just made here (`local`), or known from others only, turns out to live here: from now on it is
    /// kept.
    pub(crate) fn adopt(&mut self, id: &ReplicantId, local: bool) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.provisional = false;
        resident.told_by = None;
        // It is newer than what this site was told when it was out.
        resident.work.expelled.clear();
        let state = resident.doc.state();
        let wanted = state.placement.as_ref().is_some_and(|placement| placement.sites.contains(&self.config.site));
        if (!wanted || state.deleted.is_some()) && !resident.work.removed && self.config.kinds.contains_key(&state.kind)
        {
            // Whoever waits for this site to clean up knows it as one that held a replica, though its disk does not: the
            // platform may.
            resident.work.touched = true;
            resident.work.kind.clone_from(&state.kind);
        }
        let document = resident.doc.id().clone();
        let kept = self.take_left_over(id);
        let known = self.replicants.index.get(id);
        let older = known
            .filter(|known| !known.dropped && known.epoch != document.epoch)
            .map(|known| DocumentId { replicant: id.clone(), epoch: known.epoch });
        if let Some(older) = &older {
            // Nothing of it could be read, unless it waits.
            if !kept {
                self.delete_document(older);
            }
            self.delete_archives(id);
        }
        let known = self.replicants.index.get(id);
        let known_reports = known.map(|known| known.reports.clone()).unwrap_or_default();
        let mut entry = Entry::new(document.epoch);
        entry.next_change = known.map_or(0, |entry| entry.next_change);
        // Records that could not be read any more go, too, when this one is written.
        entry.first_change = known.map_or(entry.next_change, |entry| entry.first_change);
        entry.changed_us = self.now.monotonic_us;
        entry.settled = false;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        // What a stranger said while nobody knew where it lives is left out. Whoever was known before it was given away is not:
        // what has come since took the place of what was known then, and reports never go back.
        let placement = resident.doc.state().placement.clone();
        let named = |site: &SiteName| placement.as_ref().is_some_and(|placement| placement.holds(site));
        resident.reports.retain(|site, _| named(site) || known_reports.contains_key(site));
        let reports: Vec<_> = resident.reports.values().cloned().collect();
        for report in &reports {
            entry.reported(report);
        }
        self.replicants.insert(id.clone(), entry);
        for report in &reports {
            self.write_report(report);
        }
        self.compact(id);
        self.refresh_index(id);
        self.write_work(id);
        let Some(entry) = self.replicants.index.get(id) else { return };
        let (heads, conflicts) = (entry.heads.iter().map(ToString::to_string).collect(), entry.conflicts);
        self.event(Happening::Changed { replicant: id.clone(), local, heads });
        if conflicts > 0 {
            self.event(Happening::Conflicted { replicant: id.clone(), fields: conflicts });
        }
    }

    /// What waits on disk for what is lost goes on waiting in the same document. Where an epoch was closed without it, nobody
    /// can bring that any more, and it goes. Where there is just another document, it stays on the disk, since that is
    /// easily made: whether it does.
    fn take_left_over(&mut self, id: &ReplicantId) -> bool {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return false };
        let Some(LeftOver { document: left, changes, by }) = resident.left_over.take() else { return false };
        let here = resident.doc.id().clone();
        if left == here {
            let waits = resident.doc.queued().into_iter().map(|change| change.bytes).chain(changes).collect::<Vec<_>>();
            let saved = resident.doc.save();
            // As when it is read from disk: what was accepted once is not refused for its size.
            match Replicant::load(here, &self.actors.next(), Some(&saved), &waits) {
                Ok(loaded) => {
                    resident.doc = loaded.replicant.with_limits(self.config.limits.clone());
                    resident.touched();
                }
                Err(error) => {
                    let message = format!("changes that were accepted here do not fit any more: {error}");
                    self.warn(Some(id.clone()), message);
                }
            }
            return false;
        }
        let doc = &resident.doc;
        let closed = left.epoch < here.epoch && doc.is_successor() && doc.remembers(left.epoch);
        if closed {
            self.delete_document(&left);
        }
        self.name_lost(
            id,
            &by,
            if closed { "the other sites have closed that epoch" } else { "others have made another" },
        );
        !closed
    }

    /// Nobody can bring any more what changes wait for.
    pub(crate) fn name_lost(&mut self, id: &ReplicantId, by: &[Author], since: &str) {
        let named = by.iter().take(MAX_NAMED).map(|author| format!("{} at {}", author.site, author.at.ms()));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = by.len().checked_sub(MAX_NAMED).filter(|more| *more > 0);
        let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
        self.warn(
            Some(id.clone()),
            format!(
                "changes that were accepted here are lost with what they were made from, since {since} ({named}{more}, in \
                 milliseconds since 1970): make them again where they are missing"
            ),
        );
    }

    /// Writes a snapshot in place of all changes so far.
    pub(crate) fn compact(&mut self, id: &ReplicantId) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        if resident.provisional {
            return;
        }
        let document = resident.doc.id().clone();
        let snapshot = resident.doc.save();
        let queued = resident.doc.queued();
        let Some(entry) = self.replicants.index.get_mut(id) else { return };
        self.counters.compactions += 1;
        self.outbox.write(Write::Put { key: snapshot_key(&document), value: snapshot });
        for number in entry.first_change..entry.next_change {
            self.outbox.write(Write::Delete { key: change_key(&document, number) });
        }
        // What waits for changes that have not come is not part of a snapshot.
        entry.first_change = entry.next_change;
        for change in queued {
            self.outbox.write(Write::Put { key: change_key(&document, entry.next_change), value: change.bytes });
            entry.next_change += 1;
        }
        self.write_index(id);
    }

    /// Takes a document off the disk. What was done for it, and the reports, stay.
    pub(crate) fn delete_document(&mut self, document: &DocumentId) {
        self.outbox.write(Write::Delete { key: snapshot_key(document) });
        let Some(entry) = self.replicants.index.get_mut(&document.replicant) else { return };
        for number in entry.first_change..entry.next_change {
            self.outbox.write(Write::Delete { key: change_key(document, number) });
        }
        entry.first_change = entry.next_change;
    }

    /// This site has left the scope and has cleaned up: the document is given away.
    pub(crate) fn give_away(&mut self, id: &ReplicantId) {
        let Some(resident) = self.replicants.resident.remove(id) else { return };
        let document = resident.doc.id().clone();
        self.delete_document(&document);
        self.delete_archives(id);
        if let Some(entry) = self.replicants.index.get_mut(id) {
            entry.dropped = true;
            entry.settled = true;
            entry.gone = std::mem::take(&mut entry.heads);
            entry.gone.extend(resident.work.expelled.iter().copied());
        }
        self.write_index(id);
        self.update_topic(id);
    }
}
