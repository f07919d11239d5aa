//! Finding who can answer, and asking them.

use std::collections::BTreeSet;
use std::time::Duration;

use khufu_crdt::{ReplicantId, SiteName};

use super::{Pending, Purpose};
use crate::engine::Task;
use crate::origin::Origin;
use crate::timers::Due;
use crate::wire::{Ask, Frame, Reply};
use crate::{Engine, Liveness, NodeId, Operate, Put, Request, RequestError, RequestId};

/// The most nodes that are asked whether they hold a replicant.
const MAX_ASKED: usize = 64;

/// A replicant that is not held here and is looked for.
#[derive(Debug)]
pub(crate) struct Search {
    origin: Origin,
    who: String,
    request: Request,
    left: BTreeSet<u64>,
}

impl Engine {
    /// A user of this node asks.
    pub(crate) fn user_request(&mut self, id: RequestId, who: String, request: Request) {
        self.counters.requests += 1;
        let here = self.config.site.clone();
        self.request(Origin::User(id), who, &here, request);
    }

    /// Somebody asks; `here` is the site whose node the user talks to.
    fn request(&mut self, origin: Origin, who: String, here: &SiteName, request: Request) {
        if !self.has_place_for(&origin) || self.outbox.outstanding() > 4096 {
            let message = "too many requests wait at this node: ask again later".to_owned();
            return self.answer(&origin, Err(RequestError::Busy { message }));
        }
        if let Some(refusal) = self.refusal(&request) {
            return self.answer(&origin, Err(refusal));
        }
        match request {
            Request::List(query) => {
                let page = self.list(&query);
                self.answer(&origin, Ok(page));
            }
            Request::Sites => {
                let sites = self.site_views();
                self.answer(&origin, Ok(sites));
            }
            Request::Explain { scope } => {
                let explanation = self.explain(&scope, here);
                self.answer(&origin, explanation);
            }
            Request::Verify { id: None } => self.verify(origin, None),
            request => {
                let Some(id) = request.replicant().cloned() else { return };
                if self.replicants.held(&id).is_some() {
                    self.run(id, Task::Request { origin, who, request });
                } else if matches!(origin, Origin::User(_)) {
                    self.search(origin, who, request);
                } else {
                    self.not_found(origin, who, here, request);
                }
            }
        }
    }

    /// Whether one more can wait. Other nodes cannot take the places of all who ask here, nor one of them those of all
    /// others.
    pub(super) fn has_place_for(&self, origin: &Origin) -> bool {
        let (waiting, places) = (self.asks.waiting(), self.config.requests);
        match origin {
            Origin::User(_) => waiting < places,
            Origin::Node(node, _) => waiting < places / 2 && self.asks.waiting_for(node) < (places / 8).max(1),
        }
    }

    /// Asks all nodes that can be reached who holds a replicant.
    fn search(&mut self, origin: Origin, who: String, request: Request) {
        let Some(id) = request.replicant().cloned() else { return };
        let nodes: Vec<_> = self.members.connected().take(MAX_ASKED).cloned().collect();
        let number = self.asks.number();
        let mut left = BTreeSet::new();
        for node in nodes {
            let ask = Ask::Locate(id.clone());
            let purpose = Purpose::Locate { search: number };
            left.extend(self.ask(
                &node,
                String::new(),
                self.config.site.clone(),
                ask,
                purpose,
                self.config.search_timeout,
            ));
        }
        self.asks.searches.insert(number, Search { origin, who, request, left });
        self.search_ended(number);
    }

    /// Sends a question. Its number, if the node could be asked.
    pub(super) fn ask(
        &mut self,
        to: &NodeId,
        who: String,
        here: SiteName,
        ask: Ask,
        purpose: Purpose,
        patience: Duration,
    ) -> Option<u64> {
        let nonce = self.asks.number();
        if !self.send(to, &Frame::Ask { nonce, who, here, ask }) {
            return None;
        }
        self.asks.pending.insert(nonce, Pending { to: to.clone(), purpose });
        self.timers.set(Due::Ask(nonce), self.now.plus(patience));
        Some(nonce)
    }

    /// Another node asks.
    pub(crate) fn asked(&mut self, from: &NodeId, nonce: u64, who: String, here: &SiteName, ask: Ask) {
        let origin = Origin::Node(from.clone(), nonce);
        match ask {
            Ask::Locate(id) => {
                let held = self.replicants.held(&id).is_some();
                self.send(from, &Frame::Reply { nonce, reply: Box::new(Reply::Located(held)) });
            }
            Ask::Request(request) => self.request(origin, who, here, request),
            Ask::Plan(id) => {
                if self.is_shared_with(&id, from) {
                    self.run(id, Task::Side(crate::work::Side::Diff(origin)));
                } else {
                    let error = RequestError::NotFound { id, unreachable: Vec::new() };
                    self.send(from, &Frame::Reply { nonce, reply: Box::new(Reply::Plan(Err(error))) });
                }
            }
            Ask::Holdings(ids) => self.begin_job(Some(origin), None, ids),
        }
    }

    /// Another node answers. Only the one that was asked is listened to.
    pub(crate) fn replied(&mut self, from: &NodeId, nonce: u64, reply: Reply) {
        if self.asks.pending.get(&nonce).is_none_or(|pending| pending.to != *from) {
            self.counters.ignored += 1;
            return;
        }
        let Some(pending) = self.asks.pending.remove(&nonce) else { return };
        self.timers.cancel(&Due::Ask(nonce));
        match (pending.purpose, reply) {
            (Purpose::Locate { search }, Reply::Located(held)) => {
                if held {
                    self.found(search, from);
                } else {
                    self.search_without(search, nonce);
                }
            }
            (Purpose::Forward { origin }, Reply::Answer(answer)) => self.answer(&origin, answer),
            (Purpose::Gather { gather, site }, Reply::Plan(plan)) => self.gathered_plan(gather, site, plan),
            (Purpose::Gather { gather, site }, Reply::Holdings(holdings)) => self.gathered(gather, &site, holdings),
            (purpose, _) => {
                self.refuse(from, "an answer to another question".into());
                self.give_up(nonce, purpose, from);
            }
        }
    }

    pub(crate) fn ask_timed_out(&mut self, nonce: u64) {
        if let Some(pending) = self.asks.pending.remove(&nonce) {
            self.give_up(nonce, pending.purpose, &pending.to);
        }
    }

    pub(crate) fn asks_peer_gone(&mut self, node: &NodeId) {
        let lost: Vec<_> =
            self.asks.pending.iter().filter(|(_, pending)| pending.to == *node).map(|(nonce, _)| *nonce).collect();
        for nonce in lost {
            self.timers.cancel(&Due::Ask(nonce));
            self.ask_timed_out(nonce);
        }
        self.end_jobs_of(node);
        self.end_waits_of(node);
    }

    fn give_up(&mut self, nonce: u64, purpose: Purpose, node: &NodeId) {
        match purpose {
            Purpose::Locate { search } => self.search_without(search, nonce),
            Purpose::Forward { origin } => {
                let site = self.members.site_of(node).map_or_else(|| node.to_string(), ToString::to_string);
                let message = format!(
                    "site {site} was asked and has not answered: whether it has done what was asked is not known, ask again"
                );
                self.answer(&origin, Err(RequestError::Unreachable { message }));
            }
            Purpose::Gather { gather, site } => self.gather_without(gather, &site),
        }
    }

    fn search_without(&mut self, number: u64, nonce: u64) {
        if let Some(search) = self.asks.searches.get_mut(&number) {
            search.left.remove(&nonce);
        }
        self.search_ended(number);
    }

    /// Somebody holds it: let them answer.
    fn found(&mut self, number: u64, node: &NodeId) {
        let Some(search) = self.asks.searches.remove(&number) else { return };
        for nonce in search.left {
            self.asks.pending.remove(&nonce);
            self.timers.cancel(&Due::Ask(nonce));
        }
        let here = self.config.site.clone();
        self.forward(search.origin, search.who, here, search.request, node);
    }

    fn forward(&mut self, origin: Origin, who: String, here: SiteName, request: Request, to: &NodeId) {
        let extra = match &request {
            Request::Operate(Operate { wait_ms, .. }) => Duration::from_millis(*wait_ms),
            // These ask others in turn.
            Request::Plan { .. } | Request::Verify { .. } => self.config.ask_timeout,
            _ => Duration::ZERO,
        };
        let purpose = Purpose::Forward { origin: origin.clone() };
        if self.ask(to, who, here, Ask::Request(request), purpose, self.config.ask_timeout + extra).is_none() {
            let message = format!("node {to} cannot be reached any more: ask again");
            self.answer(&origin, Err(RequestError::Unreachable { message }));
        }
    }

    fn search_ended(&mut self, number: u64) {
        if self.asks.searches.get(&number).is_none_or(|search| !search.left.is_empty()) {
            return;
        }
        let Some(search) = self.asks.searches.remove(&number) else { return };
        let here = self.config.site.clone();
        self.not_found(search.origin, search.who, &here, search.request);
    }

    /// Nobody that could be asked holds it.
    fn not_found(&mut self, origin: Origin, who: String, here: &SiteName, request: Request) {
        if let Some(id) = request.replicant().filter(|id| self.replicants.held(id).is_some()).cloned() {
            // It has come in the meantime.
            return self.run(id, Task::Request { origin, who, request });
        }
        match request {
            Request::Put(put) => self.put_new(origin, who, here, put),
            request => {
                let Some(id) = request.replicant().cloned() else { return };
                let unreachable = self.unreachable();
                self.answer(&origin, Err(RequestError::NotFound { id, unreachable }));
            }
        }
    }

    fn unreachable(&self) -> Vec<SiteName> {
        self.members.sites().into_iter().filter(|site| self.members.reachable(site).is_empty()).collect()
    }

    /// Makes a replicant here, or at the nearest of the sites where it shall live.
    fn put_new(&mut self, origin: Origin, who: String, here: &SiteName, put: Put) {
        let Some(kind) = put.kind.clone() else {
            let id: ReplicantId = put.id;
            let unreachable = self.unreachable();
            let message = format!(
                "there is no replicant {id}{}: to make one, say of which kind it is",
                if unreachable.is_empty() { "" } else { " at the sites that can be reached" }
            );
            return self.answer(&origin, Err(RequestError::Invalid { message }));
        };
        let scope = put.scope.clone().unwrap_or_else(|| "here".into());
        let placement = match self.decide(&scope, here, &kind) {
            Ok(placement) => placement,
            Err(error) => return self.answer(&origin, Err(error)),
        };
        if placement.sites.contains(&self.config.site) {
            if let Some(refusal) = self.refusal(&Request::Put(put.clone())) {
                return self.answer(&origin, Err(refusal));
            }
            return self.create(&origin, &who, put, &kind, scope, placement);
        }
        if matches!(origin, Origin::Node(..)) {
            let message = format!("site {} is not one of those that {scope:?} names", self.config.site);
            return self.answer(&origin, Err(RequestError::Conflict { message }));
        }
        let mut sites: Vec<_> = placement.sites.iter().collect();
        sites.sort_by(|a, b| {
            let far = |site: &SiteName| self.members.rtt_ms(site).unwrap_or(f64::MAX);
            self.liveness(a).cmp(&self.liveness(b)).then(far(a).total_cmp(&far(b))).then(a.cmp(b))
        });
        let target = sites.iter().find_map(|site| self.members.reachable(site).into_iter().next());
        match target {
            Some(node) => self.forward(origin, who, here.clone(), Request::Put(put), &node),
            None => {
                let names: Vec<_> = placement.sites.iter().map(SiteName::as_str).collect();
                let down = placement.sites.iter().all(|site| self.liveness(site) == Liveness::Down);
                let state = if down { "down" } else { "not connected" };
                let message = format!(
                    "none of the sites {} can be reached from here ({state}), and {} is not one of them: ask there, or later",
                    names.join(", "),
                    self.config.site
                );
                self.answer(&origin, Err(RequestError::Unreachable { message }));
            }
        }
    }
}
