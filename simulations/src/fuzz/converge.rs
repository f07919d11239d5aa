//! The second phase: nothing goes wrong any more, and within a bounded time all that was asked for has come true.

use std::collections::BTreeSet;
use std::time::Duration;

use khufu_crdt::Replicant;
use khufu_engine::harness::Weather;
use khufu_engine::{Request, Response};

use super::broken::Broken;
use super::contents::contents;
use super::counters::Kind;
use super::plan::{Class, NAMES};
use super::run::Run;

/// The virtual time within which all must agree once all has healed.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// How long a question may take then.
const PATIENCE: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Everything works again: all that was asked for comes true, and nobody goes on talking.
    pub(super) fn converge(&mut self) -> Result<(), Broken> {
        self.note(&[], '+', || "all heals".into());
        self.heal()?;
        let healed = self.world.now();
        self.settle(LIMIT)?;
        self.healed = Some(self.world.now() - healed);
        // Placements are decided anew a while after somebody came back.
        self.advance(Duration::from_secs(6))?;
        self.settle(LIMIT)?;
        if self.plan.class == Class::Disasters {
            // Damage is seen, and mended, where a document is looked at.
            for site in self.plan.sites.clone() {
                for id in self.ids.clone() {
                    // Whether it is held there is looked at below.
                    let _ = self.request(site, Request::Get { id }, PATIENCE)?;
                }
            }
            self.settle(LIMIT)?;
        }
        let excused = self.excused();
        self.drivers_end(&excused)?;
        self.check()?;
        self.happened.add(Kind::Excused, u64::try_from(excused.len()).unwrap_or(0));
        for of in (0..NAMES.len()).filter(|of| !excused.contains(NAMES[*of])) {
            self.check_replicant(of)?;
        }
        if excused.is_empty() { self.falls_silent() } else { Ok(()) }
    }

    fn excused(&self) -> BTreeSet<String> {
        self.model.told.iter().filter(|(_, told)| told.excused).map(|(name, _)| (*name).to_owned()).collect()
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.world.weather = Weather::default();
        for (at, site) in self.plan.sites.clone().into_iter().enumerate() {
            if let Some(here) = self.world.sites.get_mut(site) {
                here.disk.full = false;
                here.disk.broken = false;
                here.disk.unreadable = false;
                (here.next_call, here.power_for) = (None, None);
            }
            self.start(at, false);
        }
        self.world.heal();
        self.look_everywhere()
    }

    /// Waits until nothing is left to do and all sites agree.
    pub(super) fn settle(&mut self, limit: Duration) -> Result<(), Broken> {
        let end = self.world.now() + limit;
        let excused = self.excused();
        while let Some(why) = self.world.disagreement_but(&excused) {
            if self.world.now() >= end {
                return Err(Broken::NotConverged { limit, why });
            }
            self.advance(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Nobody waits for what is excused to be done. But a call that hangs there may take the only driver of a site, and then
    /// the other replicas cannot be looked at before it is given up, which is answered truly with no answer.
    fn drivers_end(&mut self, excused: &BTreeSet<String>) -> Result<(), Broken> {
        let end = self.world.now() + LIMIT;
        loop {
            let busy = self.plan.sites.iter().find_map(|site| {
                let of = self.ids.iter().filter(|id| excused.contains(id.as_str()));
                let mut calls = of.filter(|id| self.world.in_memory(site, id).is_some_and(|here| here.busy));
                Some((site, calls.next()?))
            });
            let Some((site, id)) = busy else { return Ok(()) };
            if self.world.now() >= end {
                let why = format!("a driver of {site} is at work on {id} all the time");
                return Err(Broken::NotConverged { limit: LIMIT, why });
            }
            self.advance(Duration::from_millis(50))?;
        }
    }

    /// All sites of a replicant hold what was asked for, and no other site holds anything.
    fn check_replicant(&mut self, of: usize) -> Result<(), Broken> {
        let name = NAMES[of];
        let id = self.ids[of].clone();
        let sites = self.plan.sites.clone();
        let documents: Vec<Option<Replicant>> =
            sites.iter().map(|site| self.world.stored_document(site, &id)).collect();
        let newest = documents.iter().flatten().max_by_key(|document| document.id().epoch);
        let told = self.model.told.get(name).cloned().unwrap_or_default();
        let Some(newest) = newest else {
            // A document that was deleted is forgotten where it does not live any more.
            let may = told.deleted || self.plan.class == Class::Disasters;
            return if may { Ok(()) } else { Err(Broken::Gone { name: name.to_owned() }) };
        };
        self.check_acknowledged(of, newest)?;
        let state = newest.state();
        let placed: BTreeSet<&str> =
            state.placement.iter().flat_map(|placement| &placement.sites).map(|site| site.as_str()).collect();
        let deleted = state.deleted.is_some();
        for (site, document) in sites.iter().zip(&documents) {
            let here = placed.contains(site);
            let text = self.world.text(site, name);
            let left = |what| Err(Broken::LeftBehind { site: (*site).to_owned(), name: name.to_owned(), what });
            if !here && document.is_some() {
                return left("a document on disk");
            }
            if !here && self.world.in_memory(site, &id).is_some_and(|here| !here.provisional) {
                return left("a document in memory");
            }
            // Of what spans sites there is one replica.
            let has = |site: &str| {
                state.placement.as_ref().zip(site.parse().ok()).is_some_and(|(at, site)| at.has_replica(&site))
            };
            if deleted || !has(site) {
                if text.is_some() {
                    return left("a replica");
                }
                continue;
            }
            let (Some(document), Ok(place)) = (document, site.parse()) else {
                return Err(Broken::Gone { name: format!("{name} at {site}") });
            };
            let (holds, wanted) = (text.unwrap_or_default(), contents(document, &place));
            if holds != wanted {
                let (site, name) = ((*site).to_owned(), name.to_owned());
                return Err(Broken::WrongContents { site, name, holds, wanted });
            }
        }
        let holder = sites.iter().find(|site| placed.contains(*site)).copied();
        let Some(holder) = holder.filter(|_| !deleted) else { return Ok(()) };
        match self.request(holder, Request::Verify { id: Some(id) }, PATIENCE)? {
            // What failed everywhere is said to differ from what was asked for, and overrides differ on purpose.
            Ok(Response::Verify(report)) => {
                let words = |difference: &&String| !difference.ends_with("is not done: failed");
                let other: Vec<_> =
                    report.replicants.iter().flat_map(|entry| &entry.differences).filter(words).cloned().collect();
                if !other.is_empty() || !report.unknown.is_empty() {
                    let differences = format!("{other:?}, no answer of {:?}", report.unknown);
                    return Err(Broken::VerifyWrong { name: name.to_owned(), differences });
                }
                self.happened.note(Kind::Verified);
                Ok(())
            }
            other => {
                let what = format!("verify {name}, but {other:?}");
                Err(Broken::NoAnswer { site: holder.to_owned(), what, limit: PATIENCE })
            }
        }
    }

    /// Nothing is left over, and nobody goes on talking of what is settled.
    fn falls_silent(&mut self) -> Result<(), Broken> {
        self.advance(Duration::from_secs(12))?;
        let engines = |run: &Self| -> Vec<_> {
            let engine = |site: &&'static str| Some((*site, run.world.sites.get(*site)?.engine()?.metrics()));
            run.plan.sites.iter().filter_map(engine).collect()
        };
        let syncs = |run: &Self| engines(run).iter().map(|(_, metrics)| metrics.syncs).sum::<u64>();
        let before = syncs(self);
        let time = Duration::from_secs(5);
        self.advance(time)?;
        let more = syncs(self) - before;
        if more > 0 {
            return Err(Broken::EndlessTalk { syncs: more, time });
        }
        for (site, metrics) in engines(self) {
            for (what, now, most) in [
                ("sync sessions", metrics.sessions, 0),
                ("waiting requests", metrics.waiting, 0),
                ("batches to store", metrics.unstored, 0),
                ("replicants to work on", metrics.unsettled, 0),
                ("documents in memory", metrics.resident, self.limits.resident),
            ] {
                if now > most {
                    return Err(Broken::Unfinished { site: site.to_owned(), what, now });
                }
            }
        }
        match self.model.asked.values().find(|asked| !asked.awaited) {
            Some(asked) => {
                let what = format!("{} asked at {:.3}", super::acts::words(&asked.what), asked.at.as_secs_f64());
                Err(Broken::Unanswered { site: asked.site.to_owned(), what })
            }
            None => Ok(()),
        }
    }
}
