//! Carrying out the deeds of a scenario.

use std::collections::BTreeSet;

use khufu_crdt::{OperationId, Replicant, SiteName};
use khufu_engine::{Operate, Put, Request};
use serde_json::{Value, json};

use super::broken::Broken;
use super::contents::has_seen;
use super::counters::Kind;
use super::deed::{At, Deed, Loss, Part, Question, Where};
use super::plan::{NAMES, policy};
use super::run::Run;

/// A request in a few words.
pub(super) fn words(request: &Request) -> String {
    let kind = match request {
        Request::Put(_) => "put",
        Request::Patch { .. } => "patch",
        Request::Operate(_) => "operate",
        Request::Get { .. } => "get",
        Request::Conflicts { .. } => "conflicts",
        Request::Pick { .. } => "pick",
        Request::Plan { .. } => "plan",
        Request::Delete { .. } => "delete",
        Request::Verify { .. } => "verify",
        Request::List(_) | Request::History { .. } | Request::Sites | Request::Explain { .. } => "another question",
    };
    request.replicant().map_or_else(|| kind.to_owned(), |id| format!("{kind} {id}"))
}

impl Run<'_> {
    fn site(&self, at: At) -> &'static str {
        self.plan.sites[at % self.plan.sites.len()]
    }

    /// A scope allows these sites to hold a replicant, from now on.
    pub(super) fn allow(&mut self, of: usize, scope: &Where) {
        let sites: BTreeSet<_> = scope.sites.iter().map(|at| self.site(*at)).collect();
        let told = self.model.told.entry(NAMES[of]).or_default();
        told.allowed.extend(sites);
        told.moving |= scope.moving;
    }

    fn put(&self, of: usize) -> Put {
        Put {
            id: self.ids[of].clone(),
            kind: None,
            scope: None,
            policy: None,
            desired: None,
            overrides: None,
            base: None,
        }
    }

    /// Any put makes a replicant anew that is deleted where it is asked for: under rules by which nothing is given up.
    fn rules_if_deleted(&mut self, of: usize) -> Option<khufu_crdt::Policy> {
        let told = self.model.told.entry(NAMES[of]).or_default();
        told.repolicied |= told.deleted;
        told.deleted.then(|| policy(of))
    }

    /// Does what a deed says.
    pub(super) fn act(&mut self, deed: &Deed) -> Result<(), Broken> {
        if !matches!(deed, Deed::Wait { .. }) {
            let sites = self.plan.sites.clone();
            self.note(&deed.sites(), deed.letter(), || deed.words(&sites, &NAMES));
        }
        match deed {
            Deed::Wait { ms } => return self.advance(std::time::Duration::from_millis(*ms)),
            Deed::Crash { at, restart } => {
                self.fall(*at)?;
                if *restart {
                    self.start(*at, false);
                }
            }
            Deed::Start { at } => self.start(*at, false),
            Deed::Lose { at, loss } => self.lose(*at, *loss)?,
            Deed::KeepCopy { at } => {
                let site = self.site(*at);
                if let Some(here) = self.world.sites.get(site) {
                    self.copies.insert(site, here.disk.clone());
                }
            }
            Deed::Operate { .. }
            | Deed::Again { .. }
            | Deed::Patch { .. }
            | Deed::Override { .. }
            | Deed::Pick { .. }
            | Deed::Rescope { .. }
            | Deed::Repolicy { .. }
            | Deed::Delete { .. }
            | Deed::Recreate { .. }
            | Deed::Ask { .. } => self.user(deed),
            Deed::Partition { .. }
            | Deed::Cut { .. }
            | Deed::CutOneWay { .. }
            | Deed::Mend { .. }
            | Deed::Heal
            | Deed::Weather(_) => self.network(deed),
            Deed::Skew { .. }
            | Deed::Speed { .. }
            | Deed::Fault { .. }
            | Deed::PowerFails { .. }
            | Deed::Full { .. }
            | Deed::Break { .. }
            | Deed::Unreadable { .. }
            | Deed::Compact { .. } => self.machine(deed),
        }
        Ok(())
    }

    fn user(&mut self, deed: &Deed) {
        match deed {
            Deed::Operate { at, of, op_type, payload, wait_ms, own } => {
                let own = own.then(|| OperationId::new(format!("own-{}", self.world.steps())).ok()).flatten();
                let request = Request::Operate(Operate {
                    id: self.ids[*of].clone(),
                    operation: own.clone(),
                    op_type: (*op_type).to_owned(),
                    payload: payload.clone(),
                    wait_ms: *wait_ms,
                });
                if own.is_some() {
                    self.model.own = Some(request.clone());
                }
                self.happened.note(Kind::Operations);
                self.ask(self.site(*at), request);
            }
            Deed::Again { at } => {
                if let Some(request) = self.model.own.clone() {
                    self.happened.note(Kind::AskedTwice);
                    self.ask(self.site(*at), request);
                }
            }
            Deed::Patch { at, of, field, value } => {
                self.happened.note(Kind::Edits);
                let patch = json!({format!("f{field}"): value});
                self.ask(self.site(*at), Request::Patch { id: self.ids[*of].clone(), patch });
            }
            Deed::Override { at, of, over } => {
                self.happened.note(Kind::Overrides);
                let over: Option<(SiteName, Value)> =
                    over.and_then(|(there, value)| Some((self.site(there).parse().ok()?, json!({"f0": value}))));
                let overrides = Some(over.into_iter().collect());
                let policy = self.rules_if_deleted(*of);
                self.ask(self.site(*at), Request::Put(Put { overrides, policy, ..self.put(*of) }));
            }
            Deed::Pick { at, of, nth } => {
                let request = self.ask(self.site(*at), Request::Conflicts { id: self.ids[*of].clone() });
                if let Some(asked) = self.model.asked.get_mut(&request) {
                    asked.pick = Some(*nth);
                }
            }
            Deed::Rescope { at, of, scope } => {
                self.happened.note(Kind::Rescopes);
                self.allow(*of, scope);
                self.model.told.entry(NAMES[*of]).or_default().rescoped = true;
                let (scope, policy) = (Some(scope.text.clone()), self.rules_if_deleted(*of));
                self.ask(self.site(*at), Request::Put(Put { scope, policy, ..self.put(*of) }));
            }
            Deed::Repolicy { at, of, policy: number } => {
                self.happened.note(Kind::Repolicies);
                self.model.told.entry(NAMES[*of]).or_default().repolicied = true;
                self.ask(self.site(*at), Request::Put(Put { policy: Some(policy(*number)), ..self.put(*of) }));
            }
            Deed::Delete { at, of } => {
                self.happened.note(Kind::Deletes);
                self.model.told.entry(NAMES[*of]).or_default().deleted = true;
                self.ask(self.site(*at), Request::Delete { id: self.ids[*of].clone(), keep: false, base: None });
            }
            Deed::Recreate { at, of, scope, value } => {
                // The next that holds it, and may know or not know that it is deleted.
                let name = NAMES[*of];
                let sites = (0..self.plan.sites.len()).map(|next| self.site(at + next));
                let holds = |site: &&'static str| {
                    let runs = self.world.sites.get(*site).is_some_and(|site| site.engine().is_some());
                    runs && self.world.stores(site, name)
                };
                let holder = sites.into_iter().find(holds);
                let told = self.model.told.entry(name).or_default();
                if told.deleted
                    && let Some(site) = holder
                {
                    (told.rescoped, told.repolicied) = (true, true);
                    self.happened.note(Kind::Recreations);
                    self.allow(*of, scope);
                    let put = Put {
                        kind: Some("text".into()),
                        scope: Some(scope.text.clone()),
                        policy: Some(policy(*of)),
                        desired: (name != "log").then(|| json!({"a": value})),
                        ..self.put(*of)
                    };
                    self.ask(site, Request::Put(put));
                }
            }
            Deed::Ask { at, of, question } => {
                let id = self.ids[*of].clone();
                let request = match question {
                    Question::Get => Request::Get { id },
                    Question::Plan => Request::Plan { id },
                    Question::Verify => Request::Verify { id: Some(id) },
                    Question::VerifyAll => Request::Verify { id: None },
                };
                self.ask(self.site(*at), request);
            }
            _ => {}
        }
    }

    fn network(&mut self, deed: &Deed) {
        match deed {
            Deed::Partition { groups } => {
                self.happened.note(Kind::Partitions);
                let mut parts = vec![Vec::new(); groups.iter().max().map_or(0, |most| most + 1)];
                for (at, group) in groups.iter().enumerate() {
                    parts[*group].push(self.site(at));
                }
                let parts: Vec<&[&str]> = parts.iter().map(Vec::as_slice).collect();
                self.world.partition(&parts);
            }
            Deed::Cut { a, b } => {
                self.happened.note(Kind::Cuts);
                self.world.cut(self.site(*a), self.site(*b));
            }
            Deed::CutOneWay { from, to } => {
                self.happened.note(Kind::OneWayCuts);
                self.world.cut_one_way(self.site(*from), self.site(*to));
            }
            Deed::Mend { a, b } => self.world.mend(self.site(*a), self.site(*b)),
            Deed::Heal => self.world.heal(),
            Deed::Weather(weather) => self.world.weather = *weather,
            _ => {}
        }
    }

    fn machine(&mut self, deed: &Deed) {
        match deed {
            Deed::Skew { at, ms } => {
                self.happened.note(Kind::ClockSkews);
                if let Some(here) = self.world.sites.get_mut(self.site(*at)) {
                    here.skew_ms = *ms;
                }
            }
            Deed::Speed { at, ppm } => {
                self.happened.note(Kind::ClockSpeeds);
                self.world.set_speed(self.site(*at), *ppm);
            }
            Deed::Fault { at, fault } => {
                if let Some(here) = self.world.sites.get_mut(self.site(*at)) {
                    here.next_call = here.engine().is_some().then_some(*fault);
                }
            }
            Deed::PowerFails { at, batches } => {
                if let Some(here) = self.world.sites.get_mut(self.site(*at)) {
                    here.power_for = here.engine().is_some().then_some(*batches);
                }
            }
            Deed::Full { at, full } => {
                if let Some(here) = self.world.sites.get_mut(self.site(*at)) {
                    here.disk.full = *full;
                }
            }
            Deed::Unreadable { at, unreadable } => {
                if let Some(here) = self.world.sites.get_mut(self.site(*at)) {
                    here.disk.unreadable = *unreadable;
                }
            }
            Deed::Break { at } => {
                if let Some(here) = self.world.sites.get_mut(self.site(*at)) {
                    here.disk.broken = here.engine().is_some();
                }
            }
            Deed::Compact { at, of } => self.world.compact(self.site(*at), &self.ids[*of]),
            _ => {}
        }
    }

    /// A machine loses power.
    pub(super) fn fall(&mut self, at: At) -> Result<(), Broken> {
        let site = self.site(at);
        let running = self.world.sites.get(site).is_some_and(|site| site.engine().is_some());
        if running {
            self.world.crash(site);
        }
        self.look_at(site)
    }

    /// A machine is started, if it does not run.
    pub(super) fn start(&mut self, at: At, doubtful: bool) {
        let site = self.site(at);
        let Some(here) = self.world.sites.get_mut(site).filter(|site| site.engine().is_none()) else { return };
        // What cannot be read or written is mended, or else nothing could be started.
        (here.disk.broken, here.disk.unreadable) = (false, false);
        if let Some(seen) = self.model.seen.get_mut(site) {
            seen.running = true;
        }
        if doubtful {
            self.world.start_doubtful(site);
        } else {
            self.world.start(site);
        }
    }

    /// A disk is damaged or lost, and its machine started again.
    fn lose(&mut self, at: At, loss: Loss) -> Result<(), Broken> {
        let site = self.site(at);
        let copy = self.copies.get(site).cloned();
        self.fall(at)?;
        self.excuse(site);
        let Some(here) = self.world.sites.get_mut(site) else { return Ok(()) };
        match loss {
            Loss::Everything => {
                self.happened.note(Kind::Wipes);
                here.disk.wipe();
            }
            Loss::Damaged(part) => {
                let damaged = match part {
                    Part::Index => here.disk.damage(part.key()),
                    _ => here.disk.spoil(|key| part.is(key)),
                };
                self.happened.add(Kind::Damages, u64::try_from(damaged).unwrap_or(0));
            }
            Loss::OldRecords(part) => {
                if let Some(copy) = copy {
                    self.happened.note(Kind::OldDisks);
                    here.disk.roll_back(&copy, part.key());
                }
            }
            Loss::NoIndex => {
                self.happened.note(Kind::OldDisks);
                here.disk.lose(b"i/");
            }
        }
        self.start(at, matches!(loss, Loss::OldRecords(_) | Loss::NoIndex));
        Ok(())
    }

    /// What only this disk holds, which is about to be lost, is not missed afterwards.
    fn excuse(&mut self, site: &'static str) {
        for (name, id) in NAMES.into_iter().zip(&self.ids) {
            // Who is about to give it away may do so before it hears of the loss.
            let stays = |other: &&str| {
                let place = other.parse::<SiteName>().ok();
                let document = place.zip(self.world.stored_document(other, id));
                let lives = |(place, document): (SiteName, Replicant)| {
                    document.state().placement.as_ref().is_some_and(|placement| placement.sites.contains(&place))
                };
                document.is_some_and(lives)
            };
            let others = || self.plan.sites.iter().copied().filter(|other| *other != site).filter(stays);
            let Some(told) = self.model.told.get_mut(name) else { continue };
            told.stored.remove(site);
            if !others().any(|other| self.world.covers(other, site, name)) && self.world.stores(site, name) {
                told.excused = true;
            }
            let elsewhere: Vec<_> = others().filter_map(|other| self.world.stored_document(other, id)).collect();
            told.operations.retain(|operation| elsewhere.iter().any(|document| has_seen(document, operation)));
            told.writes.retain(|write| elsewhere.iter().any(|document| document.has(&write.change)));
            told.changes.retain(|(_, change)| elsewhere.iter().any(|document| document.has(change)));
            // What a later epoch has of these cannot be told without them.
            told.documents.clear();
        }
        if let Some(seen) = self.model.seen.get_mut(site) {
            seen.reports.clear();
            seen.placed.clear();
        }
    }
}
