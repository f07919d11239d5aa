//! What must hold at any moment: looked at after every step at the site where it happened, and all of it after every deed.

use khufu_crdt::{Replicant, ReplicantId, SiteName, Status};
use khufu_engine::harness::Effect;
use khufu_engine::{Event, Happening, Liveness, Request, RequestError, RequestId, Response};

use super::broken::Broken;
use super::contents::{contents, cuts, has_seen};
use super::counters::Kind;
use super::model::{Asked, Write};
use super::plan::{Class, NAMES};
use super::run::Run;

/// The field that a request writes, and its value.
fn written(request: &Request) -> Option<(String, u64)> {
    let value = match request {
        Request::Put(put) => put.desired.as_ref()?,
        Request::Patch { patch, .. } => patch,
        _ => return None,
    };
    value.as_object()?.iter().find_map(|(field, value)| Some((field.clone(), value.as_u64()?)))
}

/// The most batches on their way to a disk: far more than a small scenario can need.
const MAX_UNSTORED: u64 = 1_000;

impl Run<'_> {
    fn at(&self, site: &str) -> Option<(usize, &'static str)> {
        let at = self.plan.sites.iter().position(|known| *known == site)?;
        Some((at, self.plan.sites[at]))
    }

    /// Looks at all sites.
    pub(super) fn look_everywhere(&mut self) -> Result<(), Broken> {
        for site in &self.plan.sites {
            self.look_at(site)?;
        }
        Ok(())
    }

    /// Looks at what a site has said and done since it was last looked at.
    pub(super) fn look_at(&mut self, site: &str) -> Result<(), Broken> {
        let Some((at, site)) = self.at(site) else { return Ok(()) };
        let Some(here) = self.world.sites.get_mut(site) else { return Ok(()) };
        let running = here.engine().is_some();
        let events = std::mem::take(&mut here.events);
        let effects = std::mem::take(&mut here.platform.effects);
        let answered: Vec<RequestId> = here.answers.keys().copied().collect();
        for event in events {
            self.said(at, site, event)?;
        }
        for (id, effect) in effects {
            self.did(at, site, &id, effect)?;
        }
        for request in answered {
            if self.model.asked.get(&request).is_some_and(|asked| asked.awaited) {
                continue;
            }
            let answer = self.world.answer(site, request);
            if let (Some(asked), Some(answer)) = (self.model.asked.remove(&request), answer) {
                self.answered(&asked, answer)?;
            }
        }
        let fell = self.model.seen.get_mut(site).is_some_and(|seen| std::mem::replace(&mut seen.running, running));
        if fell && !running {
            self.fell(site)?;
        }
        Ok(())
    }

    /// A site told of an event.
    fn said(&mut self, at: usize, site: &'static str, event: Event) -> Result<(), Broken> {
        match event.what {
            Happening::Reported { replicant, site: about, seq, .. } => {
                let Some(seen) = self.model.seen.get_mut(site) else { return Ok(()) };
                let before = seen.reports.insert((replicant.to_string(), about.to_string()), seq).unwrap_or(0);
                if before > seq {
                    let (listener, site, name) = (site.to_owned(), about.to_string(), replicant.to_string());
                    return Err(Broken::ReportWentBack { listener, site, name, before, now: seq });
                }
            }
            Happening::Conflicted { replicant, fields } => {
                self.happened.note(Kind::Conflicts);
                self.note(&[at], 'C', || format!("{fields} fields of {replicant} have several values"));
            }
            Happening::Placed { replicant, sites } => {
                self.note(&[at], 'P', || {
                    let sites: Vec<&str> = sites.iter().map(SiteName::as_str).collect();
                    format!("{replicant} lives at {}", sites.join(", "))
                });
                let Some(seen) = self.model.seen.get_mut(site) else { return Ok(()) };
                let before = seen.placed.insert(replicant.to_string(), sites.clone()).unwrap_or_default();
                seen.placing = Some((replicant.to_string(), before, sites));
            }
            Happening::Changed { replicant, local, .. } => return self.placed(site, &replicant, local),
            Happening::Site { site: other, state } => {
                let Some(seen) = self.model.seen.get_mut(site) else { return Ok(()) };
                seen.heard.insert(other, state != Liveness::Down);
            }
            Happening::Warning { message, .. } => self.note(&[at], '?', || message),
            Happening::Deleted { .. } => {}
        }
        Ok(())
    }

    /// Where a replicant lives was said just before this change: if the site itself decided that, it took nobody out that
    /// it did not hear. Users may, by another scope and by what they pick.
    fn placed(&mut self, site: &'static str, replicant: &ReplicantId, local: bool) -> Result<(), Broken> {
        let Some(seen) = self.model.seen.get_mut(site) else { return Ok(()) };
        let Some((name, before, now)) = seen.placing.take() else { return Ok(()) };
        let asked = self.model.told.get(name.as_str()).is_some_and(|told| told.rescoped || told.deleted);
        // Of two placements that were decided apart somebody may pick one, which takes out whom only the other names. The
        // answer to that comes after the change.
        let picks = |asked: &Asked| matches!(&asked.what, Request::Pick { id, path, .. } if id == replicant && path == "/placement");
        let picked = self.model.asked.values().any(picks);
        if name != replicant.as_str() || !local || asked || picked {
            return Ok(());
        }
        let mut out = before.iter().filter(|old| !now.contains(old) && old.as_str() != site);
        // What it said last counts: it may think otherwise by now, since events come when all is stored.
        let silent = |old: &&SiteName| {
            let said = seen.heard.get(*old).copied();
            !said.unwrap_or_else(|| self.world.liveness(site, old) != Liveness::Down)
        };
        match out.find(silent) {
            Some(silent) => Err(Broken::SilenceRemoved { site: site.to_owned(), silent: silent.to_string(), name }),
            None => Ok(()),
        }
    }

    /// A driver did something at a site.
    fn did(&mut self, at: usize, site: &'static str, id: &ReplicantId, effect: Effect) -> Result<(), Broken> {
        let (letter, words) = match &effect {
            Effect::Wrote => ('v', "desired state"),
            Effect::Ran { .. } => ('a', "operation"),
            Effect::TookBack(_) => ('t', "taken back"),
            Effect::Reset => ('r', "reset"),
            Effect::Removed => ('-', "removed"),
        };
        if self.timeline.is_some() {
            let holds = self.world.text(site, id.as_str());
            self.note(&[at], letter, || format!("{id} at {site}: {words}, holds {holds:?}"));
        }
        let Some(seen) = self.model.seen.get_mut(site) else { return Ok(()) };
        let ran = seen.ran.entry(id.to_string()).or_default();
        match effect {
            Effect::Wrote | Effect::Reset => ran.clear(),
            Effect::Ran { operation, anew } => {
                if anew {
                    ran.clear();
                }
                if !ran.insert(operation.clone()) {
                    return Err(Broken::RunTwice { site: site.to_owned(), name: id.to_string(), operation });
                }
            }
            Effect::TookBack(operation) => {
                ran.remove(&operation);
            }
            Effect::Removed => {
                ran.clear();
                let told = self.model.told.get(id.as_str());
                if told.is_some_and(|told| !told.deleted && !told.rescoped && !told.moving) {
                    return Err(Broken::RemovedUnasked { site: site.to_owned(), name: id.to_string() });
                }
            }
        }
        Ok(())
    }

    /// A user got an answer.
    fn answered(&mut self, asked: &Asked, answer: Result<Response, RequestError>) -> Result<(), Broken> {
        let Some(id) = asked.what.replicant().cloned() else { return Ok(()) };
        let Some(name) = NAMES.into_iter().find(|name| *name == id.as_str()) else { return Ok(()) };
        let changes = matches!(
            asked.what,
            Request::Put(_) | Request::Patch { .. } | Request::Pick { .. } | Request::Delete { .. }
        );
        match answer {
            Ok(Response::Operation(answer)) => {
                self.happened.note(Kind::Acknowledged);
                let operation = answer.operation.id;
                let document = self.durable(asked.site, &id, |document| has_seen(document, &operation))?;
                if let (Some(_), Some(told)) = (document, self.model.told.get_mut(name)) {
                    told.operations.insert(operation);
                }
            }
            Ok(ref answer @ (Response::Replicant(ref view) | Response::Created(ref view))) => {
                let made = matches!(answer, Response::Created(_));
                let has = |document: &Replicant| {
                    document.id().epoch > view.epoch
                        || (document.id().epoch == view.epoch && view.heads.iter().all(|head| document.has(head)))
                };
                let document = self.durable(asked.site, &id, has)?;
                if changes && let Some(told) = self.model.told.get_mut(name) {
                    self.happened.note(Kind::Acknowledged);
                    told.changes.extend(view.heads.iter().map(|head| (view.epoch, *head)));
                    if let [change] = view.heads[..] {
                        let field = written(&asked.what);
                        told.writes.push(Write { epoch: view.epoch, change, field, made });
                    }
                    told.documents.extend(document.filter(|_| self.limits.epochs));
                }
            }
            Ok(Response::Conflicts(conflicts)) => {
                let values =
                    || conflicts.iter().flat_map(|conflict| conflict.values.iter().map(move |at| (conflict, at)));
                let picked = asked.pick.and_then(|nth| values().nth(nth % values().count().max(1)));
                if let Some((conflict, value)) = picked {
                    self.happened.note(Kind::Picks);
                    self.ask(asked.site, Request::Pick { id, path: conflict.pointer(), change: value.change });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What was acknowledged is on a disk now. The document there; none if the disk may have been lost since.
    fn durable(
        &self,
        asked: &'static str,
        id: &ReplicantId,
        has: impl Fn(&Replicant) -> bool,
    ) -> Result<Option<Replicant>, Broken> {
        // Mostly it is where it was asked for.
        let others = self.plan.sites.iter().filter(|site| **site != asked);
        for site in std::iter::once(&asked).chain(others) {
            if let Some(document) = self.world.stored_document(site, id).filter(&has) {
                return Ok(Some(document));
            }
        }
        match self.plan.class {
            Class::Disasters => Ok(None),
            Class::Faults => Err(Broken::AcknowledgedBeforeStored { site: asked.to_owned(), name: id.to_string() }),
        }
    }

    /// A process ended: whatever others have of it is on its disk, too.
    fn fell(&mut self, site: &'static str) -> Result<(), Broken> {
        self.happened.note(Kind::Crashes);
        let Some(here) = self.world.sites.get_mut(site) else { return Ok(()) };
        (here.next_call, here.power_for) = (None, None);
        let stopped = here.stopped.take().filter(|_| !here.disk.broken);
        self.model.asked.retain(|_, asked| asked.site != site);
        if let Some(seen) = self.model.seen.get_mut(site) {
            seen.heard.clear();
            seen.placing = None;
            seen.looked.clear();
        }
        if let Some(reason) = stopped {
            return Err(Broken::Stopped { site: site.to_owned(), reason });
        }
        let (at, _) = self.at(site).unwrap_or_default();
        self.note(&[at], '.', || format!("{site} is down"));
        if self.plan.class == Class::Faults {
            for (name, id) in NAMES.into_iter().zip(&self.ids) {
                self.told_before_stored(site, name, id)?;
            }
        }
        Ok(())
    }

    fn told_before_stored(&self, site: &str, name: &str, id: &ReplicantId) -> Result<(), Broken> {
        let stored = self.world.stored_document(site, id);
        let reported = self.world.stored_report(site, id).unwrap_or(0);
        for other in self.plan.sites.iter().filter(|other| **other != site) {
            if let Some(seq) = self.world.reported(other, id, site)
                && seq > reported
            {
                let (site, other, name) = (site.to_owned(), (*other).to_owned(), name.to_owned());
                return Err(Broken::ReportedBeforeStored { site, other, name, seq, stored: reported });
            }
            let (Some(stored), Some(theirs)) = (&stored, self.world.in_memory(other, id)) else { continue };
            if stored.id().epoch != theirs.document.id().epoch {
                continue;
            }
            let own = theirs.document.state().operations.values().filter(|operation| operation.by.as_str() == site);
            let mut own = own;
            if let Some(lost) = own.find(|operation| !has_seen(stored, &operation.id)) {
                let (site, other, name) = (site.to_owned(), (*other).to_owned(), name.to_owned());
                return Err(Broken::ToldBeforeStored { site, other, name, operation: lost.id.clone() });
            }
        }
        Ok(())
    }

    /// Looks at everything.
    pub(super) fn check(&mut self) -> Result<(), Broken> {
        for site in &self.plan.sites {
            for of in 0..NAMES.len() {
                self.check_disk(site, of)?;
                self.check_memory(site, of)?;
            }
            let Some(engine) = self.world.sites.get(*site).and_then(|site| site.engine()) else { continue };
            let metrics = engine.metrics();
            let sites = u64::try_from(self.plan.sites.len()).unwrap_or(0);
            let documents = u64::try_from(NAMES.len()).unwrap_or(0);
            for (what, now, most) in [
                ("sync sessions", metrics.sessions, sites * documents),
                // The last that is taken in may ask all others.
                ("waiting requests", metrics.waiting, self.limits.requests + sites + 2),
                ("batches on their way to the disk", metrics.unstored, MAX_UNSTORED),
            ] {
                if now > most {
                    return Err(Broken::OverBound { site: (*site).to_owned(), what, now, most });
                }
            }
        }
        Ok(())
    }

    fn check_disk(&mut self, site: &'static str, of: usize) -> Result<(), Broken> {
        let name = NAMES[of];
        let stores = self.world.stores(site, name);
        let Some(told) = self.model.told.get_mut(name) else { return Ok(()) };
        if !told.allowed.contains(site) {
            let what = if stores {
                "a document on disk"
            } else if self.world.text(site, name).is_some() {
                "a replica"
            } else if self.world.in_memory(site, &self.ids[of]).is_some() {
                "a document in memory"
            } else {
                return Ok(());
            };
            return Err(Broken::Outsider { site: site.to_owned(), name: name.to_owned(), what });
        }
        if stores {
            told.stored.insert(site);
        } else if told.stored.remove(site) {
            self.happened.note(Kind::GivenAway);
            if !told.deleted && !told.rescoped && !told.moving {
                return Err(Broken::DocumentGone { site: site.to_owned(), name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn check_memory(&mut self, site: &'static str, of: usize) -> Result<(), Broken> {
        let (name, id) = (NAMES[of], &self.ids[of]);
        let Some(here) = self.world.in_memory(site, id) else { return Ok(()) };
        let (Some(told), Some(seen)) = (self.model.told.get_mut(name), self.model.seen.get_mut(site)) else {
            return Ok(());
        };
        let (owner, named) = (site.to_owned(), name.to_owned());
        let document = here.document;
        let key = (document.id().epoch, document.heads());
        if seen.looked.get(name).is_none_or(|(looked, _)| *looked != key) {
            let Ok(place) = SiteName::new(site) else { return Ok(()) };
            let state = document.state();
            let list = state.resolved().list;
            if here.list.is_some_and(|used| used != list) {
                return Err(Broken::StaleList { site: owner, name: named });
            }
            // What an operation of a later epoch has seen is not all in the document.
            let whole = !told.repolicied && !document.is_successor();
            for operation in state.operations.values() {
                let new = told.cuts.insert(operation.id.clone()) && whole;
                let rules = cuts(operation, &state.operations, &state.policy);
                if new && rules.is_some_and(|cut| cut != operation.cut) {
                    let (operation, cut) = (operation.id.clone(), operation.cut);
                    return Err(Broken::WrongCut { site: owner, name: named, operation, cut });
                }
            }
            let now = (owner.clone(), document.digest(), list);
            let known = told.lists.entry(key.clone()).or_insert_with(|| now.clone());
            if (&known.1, &known.2) != (&now.1, &now.2) {
                return Err(Broken::SameChangesOtherList { site: owner, other: known.0.clone(), name: named });
            }
            seen.looked.insert(name.to_owned(), (key.clone(), contents(document, &place)));
        }
        // Whoever says that it is done holds what the list says. What failed left the contents as they were.
        let Some(known) = self.world.known(site, id) else { return Ok(()) };
        let placed = known.placement.is_some_and(|at| site.parse().is_ok_and(|site| at.has_replica(&site)));
        let claims = known.settled
            && matches!(known.says, Some(Status::Applied | Status::Failed))
            && !known.dropped
            && !known.deleted;
        let same = known.epoch == key.0 && known.heads == key.1;
        if claims && placed && same && !here.provisional && !here.busy && self.plan.class == Class::Faults {
            let holds = self.world.text(site, name).unwrap_or_default();
            if let Some((_, wanted)) = seen.looked.get(name)
                && *wanted != holds
            {
                return Err(Broken::FalseReport { site: owner, name: named, holds, wanted: wanted.clone() });
            }
        }
        Ok(())
    }
}
