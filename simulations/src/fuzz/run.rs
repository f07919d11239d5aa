//! One run of a scenario: faults first, and all that must never happen is watched for; then all heals, and what must
//! happen is waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use khufu_crdt::{ReplicantId, SiteName};
use khufu_engine::harness::World;
use khufu_engine::{Config, NodeId, Put, Request, RequestError, RequestId, Response};
use serde_json::json;

use super::broken::Broken;
use super::counters::Happened;
use super::model::{Asked, Model, Seen};
use super::plan::{NAMES, Plan, SETTINGS, policy};
use super::timeline::Timeline;

/// How long a request may take that is made while all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The invariant that broke, if one did.
    pub broken: Option<Broken>,
    /// What happened.
    pub happened: Happened,
    /// A hash over all that happened: the same for the same scenario.
    pub trace: String,
    /// Inputs that engines handled.
    pub steps: u64,
    /// Virtual time.
    pub time: Duration,
    /// Virtual time from the healing of all faults until all sites agreed, if they came to.
    pub healed: Option<Duration>,
    /// The events, if they were asked for.
    pub timeline: Option<Timeline>,
    /// What each site knew in the end, if an invariant broke and the events were asked for.
    pub details: String,
}

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) world: World,
    pub(super) ids: Vec<ReplicantId>,
    pub(super) model: Model,
    pub(super) happened: Happened,
    pub(super) timeline: Option<Timeline>,
    pub(super) copies: std::collections::BTreeMap<&'static str, khufu_engine::harness::SimulatedDisk>,
    pub(super) healed: Option<Duration>,
    pub(super) limits: Limits,
}

/// Bounds that the settings give.
pub(super) struct Limits {
    pub(super) requests: u64,
    pub(super) resident: u64,
    /// Whether epochs are closed in so short a time.
    pub(super) epochs: bool,
}

impl Limits {
    fn of(setting: fn(&mut Config)) -> Self {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let Ok(site) = SiteName::new("any") else { return Self { requests: 0, resident: 0, epochs: false } };
        let mut config = Config::fast(site, NodeId("any".into()));
        setting(&mut config);
        Self { requests: count(config.requests), resident: count(config.resident), epochs: config.epochs.changes < 100 }
    }
}

/// Runs a scenario. `watched`: its events are kept, which costs time.
#[must_use]
pub fn run(plan: &Plan, watched: bool) -> Outcome {
    let setting = SETTINGS.get(plan.setting).copied().unwrap_or(|_| {});
    let mut run = Run {
        plan,
        world: World::silent(plan.seed, setting),
        ids: NAMES.iter().filter_map(|name| ReplicantId::new(*name).ok()).collect(),
        model: Model::default(),
        happened: Happened::default(),
        timeline: watched.then(|| Timeline::new(&plan.sites)),
        copies: std::collections::BTreeMap::new(),
        healed: None,
        limits: Limits::of(setting),
    };
    // A panic in an engine is a failure like any other. The world is only looked at afterwards, not gone on with.
    let caught = catch_unwind(AssertUnwindSafe(|| run.play()));
    let broken = match caught {
        Ok(played) => played.err(),
        Err(payload) => Some(Broken::Panicked { message: super::panics::message(&*payload) }),
    };
    if let Some(broken) = &broken {
        run.note(&[], '!', || broken.to_string());
    }
    let mut details = String::new();
    if let (Some(broken), true) = (&broken, watched)
        && !matches!(broken, Broken::Panicked { .. })
    {
        for name in NAMES {
            details.push_str(&format!("{name}\n{}", run.world.describe(name)));
        }
        details.push_str(&run.world.summary());
    }
    let lives: Vec<_> = run.world.sites.keys().cloned().collect();
    let trace = run.world.trace();
    for site in lives {
        // What the engines counted is added up when they end. After a panic they are left alone.
        if !matches!(broken, Some(Broken::Panicked { .. })) {
            run.world.crash(&site);
        }
    }
    run.happened.add_tally(&run.world.tally);
    Outcome {
        broken,
        happened: run.happened,
        trace,
        steps: run.world.steps(),
        time: run.world.now(),
        healed: run.healed,
        timeline: run.timeline,
        details,
    }
}

impl Run<'_> {
    fn play(&mut self) -> Result<(), Broken> {
        self.begin()?;
        for step in &self.plan.steps {
            self.act(&step.deed)?;
            self.look_everywhere()?;
            self.advance(Duration::from_micros(step.pause_us))?;
            self.check()?;
        }
        self.converge()
    }

    /// The sites meet, and the replicants are made.
    fn begin(&mut self) -> Result<(), Broken> {
        for site in &self.plan.sites {
            self.model.seen.insert(site, Seen { running: true, ..Seen::default() });
        }
        for name in NAMES {
            self.model.told.insert(name, super::model::Told::default());
        }
        self.world.sites(&self.plan.sites);
        self.look_everywhere()?;
        self.advance(Duration::from_secs(2))?;
        for (of, (scope, at, rules)) in self.plan.begin.iter().enumerate() {
            self.allow(of, scope);
            let site = self.plan.sites[*at];
            let desired = (NAMES[of] == "web").then(|| json!({"a": 0}));
            let put = Put {
                id: self.ids[of].clone(),
                kind: Some("text".into()),
                scope: Some(scope.text.clone()),
                policy: Some(policy(*rules)),
                desired,
                overrides: None,
                base: None,
            };
            self.note(&[*at], 'n', || format!("{} at {site}: {:?}", NAMES[of], scope.text));
            let what = format!("the first put of {}", NAMES[of]);
            match self.request(site, Request::Put(put), PATIENCE)? {
                Ok(_) => {}
                Err(error) => {
                    let what = format!("{what} but: {error}");
                    return Err(Broken::NoAnswer { site: site.to_owned(), what, limit: PATIENCE });
                }
            }
        }
        if self.plan.calm {
            self.settle(Duration::from_secs(120))?;
        }
        self.check()
    }

    /// Lets time go by, and looks at each site where something happens.
    pub(super) fn advance(&mut self, time: Duration) -> Result<(), Broken> {
        let end = self.world.now() + time;
        while let Some(site) = self.world.step_before(end) {
            self.look_at(&site)?;
        }
        Ok(())
    }

    /// Makes a request and does not wait.
    pub(super) fn ask(&mut self, site: &'static str, what: Request) -> RequestId {
        let request = self.world.ask(site, what.clone());
        if self.world.sites.get(site).is_some_and(|site| site.engine().is_some()) {
            let at = self.world.now();
            self.model.asked.insert(request, Asked { site, at, what, awaited: false, pick: None });
        }
        request
    }

    /// Makes a request while all is well, and waits for the answer.
    pub(super) fn request(
        &mut self,
        site: &'static str,
        what: Request,
        limit: Duration,
    ) -> Result<Result<Response, RequestError>, Broken> {
        let words = super::acts::words(&what);
        let request = self.ask(site, what);
        if let Some(asked) = self.model.asked.get_mut(&request) {
            asked.awaited = true;
        }
        let end = self.world.now() + limit;
        loop {
            self.look_everywhere()?;
            if let Some(answer) = self.world.answer(site, request) {
                self.model.asked.remove(&request);
                return Ok(answer);
            }
            if self.world.now() >= end {
                return Err(Broken::NoAnswer { site: site.to_owned(), what: words, limit });
            }
            self.advance(Duration::from_millis(5))?;
        }
    }

    /// Notes an event for people.
    pub(super) fn note(&mut self, sites: &[usize], letter: char, words: impl FnOnce() -> String) {
        if let Some(timeline) = &mut self.timeline {
            let running = |site: &&str| self.world.sites.get(*site).is_some_and(|site| site.engine().is_some());
            let up = self.plan.sites.iter().map(running).collect();
            timeline.note(self.world.now(), sites, letter, words(), up);
        }
    }
}
