//! Whether all sites hold the same: each looks at its document and at its platform, now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use khufu_crdt::{Placement, ReplicantId, SiteName, Status};

use super::Asks;
use super::gather::Kind;
use crate::engine::Task;
use crate::origin::Origin;
use crate::timers::Due;
use crate::wire::{Ask, Frame, Reply};
use crate::work::Side;
use crate::{Engine, Holding, NodeId, VerifyEntry, VerifyReport};

/// The most replicants that are compared at a time.
const MAX_VERIFIED: usize = 10_000;
/// The time that a site is given for each replica.
const LOOK: Duration = Duration::from_millis(20);
/// The most questions of one node at a time.
const MAX_JOBS_OF_ONE: usize = 16;
/// The most that are looked at at the same time.
const AT_ONCE: usize = 16;

/// Looking at some replicants of this site, for another site or for a comparison that began here.
#[derive(Debug)]
pub(super) struct Job {
    asked_by: Option<Origin>,
    gather: Option<u64>,
    waiting: VecDeque<ReplicantId>,
    under_way: BTreeSet<ReplicantId>,
    found: BTreeMap<ReplicantId, Holding>,
    /// The next are being begun right now: what is found at once does not begin them again.
    busy: bool,
}

impl Asks {
    /// What a node wants to have looked at.
    pub(super) fn jobs_of(&self, node: &NodeId) -> Vec<u64> {
        let is = |job: &Job| matches!(&job.asked_by, Some(Origin::Node(of, _)) if of == node);
        self.jobs.iter().filter(|(_, job)| is(job)).map(|(number, _)| *number).collect()
    }
}

/// A comparison of all sites.
#[derive(Debug)]
pub(super) struct Verification {
    expected: BTreeMap<ReplicantId, Placement>,
    found: BTreeMap<ReplicantId, BTreeMap<SiteName, Holding>>,
    unknown: BTreeSet<SiteName>,
}

impl Engine {
    pub(super) fn verify(&mut self, origin: Origin, only: Option<ReplicantId>) {
        let expected: BTreeMap<_, _> = self
            .replicants
            .index
            .iter()
            .filter(|(id, entry)| !entry.dropped && !entry.deleted && only.as_ref().is_none_or(|only| only == *id))
            .filter_map(|(id, entry)| Some((id.clone(), entry.placement.as_ref()?.whole())))
            .take(MAX_VERIFIED)
            .collect();
        let mut by_site = BTreeMap::<SiteName, Vec<ReplicantId>>::new();
        for (id, placement) in &expected {
            for site in &placement.sites {
                by_site.entry(site.clone()).or_default().push(id.clone());
            }
        }
        let left = by_site.keys().cloned().collect();
        // Every replica is looked at, which takes its time where there are many.
        let extra = LOOK * u32::try_from(expected.len()).unwrap_or(u32::MAX);
        let verification = Verification { expected, found: BTreeMap::new(), unknown: BTreeSet::new() };
        let number = self.begin_gather(origin, left, Kind::Verify(verification), extra);
        for (site, ids) in by_site {
            if site == self.config.site {
                self.begin_job(None, Some(number), ids);
            } else {
                self.gather_from(number, &site, Ask::Holdings(ids), extra);
            }
        }
        self.gather_ended(number);
    }

    /// Looks at some replicants of this site.
    pub(super) fn begin_job(&mut self, asked_by: Option<Origin>, gather: Option<u64>, mut ids: Vec<ReplicantId>) {
        ids.truncate(MAX_VERIFIED);
        let places = match &asked_by {
            Some(Origin::Node(node, _)) => self.asks.jobs_of(node).len() < MAX_JOBS_OF_ONE,
            _ => self.asks.waiting() < self.config.requests,
        };
        if !places {
            ids.clear();
        }
        let mut found = BTreeMap::new();
        if let Some(Origin::Node(node, _)) = &asked_by {
            // Only holders of a replicant compare it, so nothing is looked at for others.
            let strange;
            (ids, strange) = ids.into_iter().partition(|id| self.is_shared_with(id, node));
            found.extend(strange.into_iter().map(|id: ReplicantId| (id, Holding::default())));
        }
        let number = self.asks.number();
        // Whoever asked does not wait for longer, and the answer has to get there.
        let patience = self.config.ask_timeout / 4 * 3 + LOOK * u32::try_from(ids.len()).unwrap_or(u32::MAX);
        self.timers.set(Due::Job(number), self.now.plus(patience));
        let under_way = BTreeSet::new();
        let job = Job { asked_by, gather, waiting: ids.into(), under_way, found, busy: false };
        self.asks.jobs.insert(number, job);
        self.go_on(number);
    }

    fn go_on(&mut self, number: u64) {
        loop {
            let Some(job) = self.asks.jobs.get_mut(&number) else { return };
            job.busy = false;
            if job.under_way.len() >= AT_ONCE {
                return;
            }
            let Some(id) = job.waiting.pop_front() else { break };
            if job.found.contains_key(&id) || !job.under_way.insert(id.clone()) {
                continue;
            }
            job.busy = true;
            self.run(id, Task::Side(Side::Verify(number)));
        }
        let done = self.asks.jobs.get(&number).is_some_and(|job| job.under_way.is_empty() && job.waiting.is_empty());
        if !done {
            return;
        }
        let Some(job) = self.asks.jobs.remove(&number) else { return };
        self.timers.cancel(&Due::Job(number));
        if let Some(gather) = job.gather {
            let site = self.config.site.clone();
            self.gathered(gather, &site, job.found);
        } else if let Some(Origin::Node(node, nonce)) = job.asked_by {
            self.send(&node, &Frame::Reply { nonce, reply: Box::new(Reply::Holdings(job.found)) });
        }
    }

    /// Time is up: the answer is what was found by now, and of the rest what is known without a look at the platform.
    pub(crate) fn job_timed_out(&mut self, number: u64) {
        let Some(job) = self.asks.jobs.get_mut(&number) else { return };
        let mut late = std::mem::take(&mut job.under_way);
        late.extend(job.waiting.drain(..));
        for id in late {
            // Of what is not in memory nothing is known at once.
            if self.replicants.resident.get(&id).is_none_or(|resident| resident.provisional) {
                continue;
            }
            let holding = self.holding(&id, Some("its driver has not answered in time".to_owned()));
            if let Some(job) = self.asks.jobs.get_mut(&number) {
                job.found.insert(id, holding);
            }
        }
        self.go_on(number);
    }

    /// A node is gone, and nobody waits for what it asked.
    pub(super) fn end_jobs_of(&mut self, node: &NodeId) {
        for number in self.asks.jobs_of(node) {
            self.asks.jobs.remove(&number);
            self.timers.cancel(&Due::Job(number));
        }
    }

    /// One of them was looked at; none if it is not held here.
    pub(crate) fn held(&mut self, number: u64, id: &ReplicantId, holding: Option<Holding>) {
        if let Some(job) = self.asks.jobs.get_mut(&number)
            && job.under_way.remove(id)
        {
            job.found.insert(id.clone(), holding.unwrap_or_default());
            if !job.busy {
                self.go_on(number);
            }
        }
    }

    /// What this site holds of a resident document, as far as is known.
    pub(crate) fn holding(&self, id: &ReplicantId, failure: Option<String>) -> Holding {
        let Some(resident) = self.replicants.resident.get(id).filter(|resident| !resident.provisional) else {
            return Holding::default();
        };
        let here = &self.config.site;
        // That something has begun is not said at once, and yet what is seen now may be different in a moment.
        let settled = self.replicants.index.get(id).is_none_or(|entry| entry.settled);
        let status = match resident.reports.get(here).map(|report| report.status) {
            Some(Status::Applied) if !settled => Status::Pending,
            said => said.unwrap_or(Status::Pending),
        };
        // What was seen earlier says nothing of now.
        let observed = resident.work.observed.clone().filter(|_| failure.is_none());
        Holding {
            document: Some(resident.doc.digest().iter().map(|byte| format!("{byte:02x}")).collect()),
            status,
            overridden: resident.doc.state().overrides.contains_key(here),
            observed,
            unseen: failure,
        }
    }
}

impl Verification {
    pub(super) fn holds(&mut self, site: &SiteName, holdings: BTreeMap<ReplicantId, Holding>) {
        for (id, holding) in holdings {
            self.found.entry(id).or_default().insert(site.clone(), holding);
        }
    }

    pub(super) fn silent(&mut self, site: &SiteName) {
        self.unknown.insert(site.clone());
    }

    pub(super) fn report(mut self) -> VerifyReport {
        let mut report =
            VerifyReport { same: true, checked: self.expected.len(), unknown: self.unknown, ..Default::default() };
        for (id, placement) in self.expected {
            let mut found = self.found.remove(&id).unwrap_or_default();
            found.retain(|site, _| placement.sites.contains(site));
            let differences = differences(&placement, &found);
            let same = differences.is_empty();
            report.same &= same;
            report.replicants.push(VerifyEntry { id, same, differences, sites: found });
        }
        report
    }
}

fn differences(placement: &Placement, found: &BTreeMap<SiteName, Holding>) -> Vec<String> {
    let mut differences = Vec::new();
    for site in &placement.sites {
        match found.get(site) {
            None => differences.push(format!("{site} does not answer")),
            Some(Holding { document: None, .. }) => differences.push(format!("{site} does not hold it")),
            Some(holding) => {
                if holding.status != Status::Applied {
                    differences.push(format!("{site} is not done: {}", words(holding.status)));
                }
                if let Some(failure) = &holding.unseen {
                    differences.push(format!("the platform of {site} could not be looked at: {failure}"));
                }
                if let Some(drift) = holding.observed.as_ref().and_then(|seen| seen.drift.as_ref()) {
                    differences.push(format!("{site} was changed by hand: {drift}"));
                }
            }
        }
    }
    let documents: BTreeSet<_> = found.values().filter_map(|holding| holding.document.as_ref()).collect();
    if documents.len() > 1 {
        differences.push("the documents differ".to_owned());
    }
    // Contents are the same where nothing is laid over them.
    let comparable = |holding: &Holding| !holding.overridden && holding.unseen.is_none() && holding.document.is_some();
    let contents: BTreeSet<_> = found
        .iter()
        .filter(|(site, holding)| placement.has_replica(site) && comparable(holding))
        .map(|(_, holding)| holding.observed.as_ref().and_then(|seen| seen.digest.as_ref()))
        .collect();
    if contents.len() > 1 {
        differences.push("the contents on the platforms differ".to_owned());
    }
    differences
}

fn words(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Applied => "applied",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
        Status::NeedsAttention => "needs attention",
        Status::Removed => "removed",
    }
}
