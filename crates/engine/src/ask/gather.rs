//! Asking all sites of a replicant at once, and answering with what has come when time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use khufu_crdt::{ReplicantId, SiteName};

use super::Purpose;
use super::verify::Verification;
use crate::origin::Origin;
use crate::timers::Due;
use crate::wire::{Ask, Frame, Reply};
use crate::{DriverDone, DriverFailure, Engine, Holding, RequestError, Response, SitePlan};

/// What is gathered.
#[derive(Debug)]
pub(super) enum Kind {
    Plan(Vec<SitePlan>),
    Verify(Verification),
}

/// A question to several sites.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) origin: Origin,
    pub(super) left: BTreeSet<SiteName>,
    pub(super) kind: Kind,
}

impl Engine {
    pub(super) fn begin_gather(
        &mut self,
        origin: Origin,
        left: BTreeSet<SiteName>,
        kind: Kind,
        extra: Duration,
    ) -> u64 {
        let number = self.asks.number();
        self.asks.gathers.insert(number, Gather { origin, left, kind });
        self.timers.set(Due::Gather(number), self.now.plus(self.config.ask_timeout + extra));
        number
    }

    /// Asks a site, or notes that it cannot be asked.
    pub(super) fn gather_from(&mut self, number: u64, site: &SiteName, ask: Ask, extra: Duration) {
        let node = self.members.reachable(site).into_iter().next();
        let here = self.config.site.clone();
        let purpose = Purpose::Gather { gather: number, site: site.clone() };
        let asked =
            node.and_then(|node| self.ask(&node, String::new(), here, ask, purpose, self.config.ask_timeout + extra));
        if asked.is_none() {
            self.gather_without(number, site);
        }
    }

    /// What each site would do now.
    pub(super) fn plan_everywhere(&mut self, id: &ReplicantId, origin: Origin) {
        let Some(entry) = self.replicants.held(id) else { return };
        let sites = entry.holders();
        let others: Vec<_> = sites.iter().filter(|site| **site != self.config.site).cloned().collect();
        let here = sites.contains(&self.config.site);
        let number = self.begin_gather(origin, sites, Kind::Plan(Vec::new()), Duration::ZERO);
        for site in others {
            self.gather_from(number, &site, Ask::Plan(id.clone()), Duration::ZERO);
        }
        if here {
            // The own plan comes the same way, under the number of the question.
            self.plan_here(id, Origin::Node(self.config.node.clone(), number));
        } else {
            self.gather_ended(number);
        }
    }

    /// The driver has said what would change here.
    pub(crate) fn planned(&mut self, id: &ReplicantId, origin: &Origin, result: Result<DriverDone, DriverFailure>) {
        let plan = self.site_plan(id, result);
        match origin {
            Origin::Node(node, number) if *node == self.config.node => {
                let site = self.config.site.clone();
                self.gathered_plan(*number, site, plan);
            }
            Origin::Node(node, nonce) => {
                self.send(node, &Frame::Reply { nonce: *nonce, reply: Box::new(Reply::Plan(plan)) });
            }
            Origin::User(_) => {}
        }
    }

    pub(super) fn gathered_plan(&mut self, number: u64, site: SiteName, plan: Result<SitePlan, RequestError>) {
        if let Some(gather) = self.asks.gathers.get_mut(&number)
            && gather.left.remove(&site)
            && let Kind::Plan(plans) = &mut gather.kind
        {
            plans.push(plan.unwrap_or_else(|error| unknown(site, error.to_string())));
        }
        self.gather_ended(number);
    }

    pub(super) fn gathered(&mut self, number: u64, site: &SiteName, holdings: BTreeMap<ReplicantId, Holding>) {
        if let Some(gather) = self.asks.gathers.get_mut(&number)
            && gather.left.remove(site)
            && let Kind::Verify(verification) = &mut gather.kind
        {
            verification.holds(site, holdings);
        }
        self.gather_ended(number);
    }

    /// A site does not answer.
    pub(super) fn gather_without(&mut self, number: u64, site: &SiteName) {
        if let Some(gather) = self.asks.gathers.get_mut(&number)
            && gather.left.remove(site)
        {
            match &mut gather.kind {
                Kind::Plan(plans) => plans.push(unknown(site.clone(), "the site does not answer".into())),
                Kind::Verify(verification) => verification.silent(site),
            }
        }
        self.gather_ended(number);
    }

    pub(crate) fn gather_timed_out(&mut self, number: u64) {
        let left = self.asks.gathers.get(&number).map(|gather| gather.left.clone()).unwrap_or_default();
        for site in left {
            self.gather_without(number, &site);
        }
    }

    pub(super) fn gather_ended(&mut self, number: u64) {
        if self.asks.gathers.get(&number).is_none_or(|gather| !gather.left.is_empty()) {
            return;
        }
        let Some(gather) = self.asks.gathers.remove(&number) else { return };
        self.timers.cancel(&Due::Gather(number));
        let response = match gather.kind {
            Kind::Plan(mut plans) => {
                plans.sort_by(|a, b| a.site.cmp(&b.site));
                Response::Plan(plans)
            }
            Kind::Verify(verification) => Response::Verify(verification.report()),
        };
        self.answer(&gather.origin, Ok(response));
    }
}

fn unknown(site: SiteName, why: String) -> SitePlan {
    SitePlan {
        site,
        unknown: Some(why),
        rule: 0,
        rebuild: false,
        steps: Vec::new(),
        needs_attention: None,
        diff: String::new(),
    }
}
