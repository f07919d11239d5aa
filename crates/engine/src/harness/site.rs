//! One site of a simulation: its engine while it runs, and what outlives it.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::SiteName;
use sha2::Digest;

use super::{Next, SimulatedDisk, SimulatedKeys, SimulatedPlatform, World, capabilities};
use crate::{
    CallId, Config, DriverCall, DriverFailure, Engine, Event, Input, Output, Record, ReplicaRef, RequestError,
    RequestId, Response, Time, Token,
};

/// A site.
#[derive(Debug)]
pub struct Site {
    name: String,
    engine: Option<Engine>,
    life: u64,
    /// What survives.
    pub disk: SimulatedDisk,
    /// What is driven.
    pub platform: SimulatedPlatform,
    pub(super) topics: BTreeSet<String>,
    calls: BTreeMap<CallId, (ReplicaRef, DriverCall)>,
    timer: u64,
    /// Answers to users that nobody has taken.
    pub answers: BTreeMap<RequestId, Result<Response, RequestError>>,
    /// Events of this life.
    pub events: Vec<Event>,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: i64,
    /// The next driver call that changes something hangs: its effect happens and its answer never comes.
    pub hang_next_call: bool,
    /// The reason for which the process stopped itself.
    pub stopped: Option<String>,
    doubtful: bool,
}

impl Site {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            engine: None,
            life: 0,
            disk: SimulatedDisk::default(),
            platform: SimulatedPlatform::default(),
            topics: BTreeSet::new(),
            calls: BTreeMap::new(),
            timer: 0,
            answers: BTreeMap::new(),
            events: Vec::new(),
            skew_ms: 0,
            hang_next_call: false,
            stopped: None,
            doubtful: false,
        }
    }

    /// What an engine starts from.
    fn restore(&self) -> Vec<Record> {
        let wanted = Engine::RESTORE_PREFIXES.into_iter().chain(self.doubtful.then_some(Engine::RECOVERY_PREFIX));
        wanted.flat_map(|prefix| self.disk.scan(prefix)).collect()
    }

    /// Its engine, while it runs.
    #[must_use]
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }
}

impl World {
    pub(super) fn is_running(&self, site: &str) -> bool {
        self.sites.get(site).is_some_and(|site| site.engine.is_some())
    }

    pub(super) fn life(&self, site: &str) -> Option<u64> {
        self.sites.get(site).filter(|site| site.engine.is_some()).map(|site| site.life)
    }

    fn time(&self, site: &str) -> Time {
        let skew_ms = self.sites.get(site).map_or(0, |site| site.skew_ms);
        // The year 2026, so that clocks have plausible values.
        let wall_ms = (1_790_000_000_000 + self.now_us / 1000).saturating_add_signed(skew_ms);
        Time { monotonic_us: self.now_us, wall_ms }
    }

    /// Starts a site, from what is on its disk.
    ///
    /// # Panics
    /// If there is no such site, or its disk holds what no engine can start from.
    pub fn start(&mut self, site: &str) {
        self.start_with(site, false);
    }

    /// Starts a site whose disk was recovered from damage.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_doubtful(&mut self, site: &str) {
        self.start_with(site, true);
    }

    #[allow(clippy::expect_used, reason = "this is how a scenario fails")]
    fn start_with(&mut self, site: &str, doubtful: bool) {
        let mut actor = [0; 16];
        for chunk in actor.chunks_mut(8) {
            let random = self.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
        }
        let now = self.time(site);
        let configure = self.config;
        let here = self.sites.get_mut(site).expect("a site of this world");
        let name = SiteName::new(site).expect("a name for a site");
        let mut config = Config::fast(name, Self::node(site));
        config.kinds.insert("text".into(), capabilities());
        configure(&mut config);
        config.doubtful = doubtful;
        here.doubtful = doubtful;
        let records = here.restore();
        let keys = Box::new(SimulatedKeys(Self::node(site)));
        let (engine, outputs) = Engine::new(config, keys, actor, records, now).expect("a disk to start from");
        here.engine = Some(engine);
        here.life += 1;
        here.calls.clear();
        here.topics.clear();
        here.stopped = None;
        self.do_all(site, outputs);
        self.refresh_links();
    }

    /// The site loses power: what was not on disk is lost, and some of what was on its way too.
    pub fn crash(&mut self, site: &str) {
        let queued = self.sites.get(site).map_or(0, |site| site.disk.queued());
        let survive = usize::try_from(self.below(u64::try_from(queued).unwrap_or(0) + 1)).unwrap_or(0);
        if let Some(here) = self.sites.get_mut(site) {
            here.engine = None;
            here.disk.crash(survive);
        }
        self.refresh_links();
    }

    /// Crashes a site and starts it again.
    pub fn restart(&mut self, site: &str) {
        self.crash(site);
        self.start(site);
    }

    /// Hands an input to a site. What comes out is done.
    pub fn hand(&mut self, site: &str, input: Input) {
        let now = self.time(site);
        let Some(engine) = self.sites.get_mut(site).and_then(|site| site.engine.as_mut()) else { return };
        let outputs = engine.handle(now, input);
        self.do_all(site, outputs);
    }

    pub(super) fn happen(&mut self, site: &str, next: Next) {
        let Some(life) = self.life(site) else { return };
        self.trace.update(self.now_us.to_be_bytes());
        self.trace.update(site.as_bytes());
        match next {
            Next::Arrive { life: meant, input } if meant == life => {
                // A message from a connection that is no more is not delivered.
                self.hand(site, input);
            }
            Next::Timer { life: meant, number }
                if meant == life && self.sites.get(site).is_some_and(|site| site.timer == number) =>
            {
                self.hand(site, Input::Timer);
            }
            Next::Sync { life: meant } if meant == life => {
                let synced = self.sites.get_mut(site).and_then(|site| site.disk.sync_one());
                match synced {
                    Some((token, true)) => self.hand(site, Input::Stored { token }),
                    Some((token, false)) => self.not_stored(site, token),
                    None => {}
                }
            }
            Next::Room { life: meant } if meant == life => self.look_for_room(site),
            Next::Drive { life: meant, call } if meant == life => self.drive(site, call),
            Next::Frame { from, from_life, link, bytes }
                if self.life(&from) == Some(from_life) && self.is_same_link(site, &from, link) =>
            {
                self.trace.update(&bytes);
                self.hand(site, Input::Frame { from: Self::node(&from), bytes });
            }
            _ => {}
        }
    }

    fn not_stored(&mut self, site: &str, token: Token) {
        let Some(here) = self.sites.get(site) else { return };
        let error = "no space left".to_owned();
        if here.disk.broken {
            return self.hand(site, Input::StoreFailed { token, error });
        }
        let (life, restore) = (here.life, here.restore());
        self.hand(site, Input::StoreFull { error, restore });
        self.at(500_000, site, Next::Room { life });
    }

    fn look_for_room(&mut self, site: &str) {
        let Some(here) = self.sites.get(site) else { return };
        if here.disk.full {
            let life = here.life;
            return self.at(500_000, site, Next::Room { life });
        }
        let restore = here.restore();
        self.hand(site, Input::StoreRoom { restore });
    }

    /// A driver does its work; the answer comes a little later, if the node lives to see it.
    fn drive(&mut self, site: &str, call: CallId) {
        let fails = self.chance(self.weather.driver_failure);
        let silent = self.chance(self.weather.driver_silence);
        let after = 500 + self.below(2_000);
        let Some(here) = self.sites.get_mut(site) else { return };
        let Some((replica, work)) = here.calls.remove(&call) else { return };
        let result = if fails {
            Err(DriverFailure {
                message: "the platform is busy".into(),
                permanent: false,
                retry_after_ms: None,
                unknown: false,
            })
        } else {
            here.platform.carry_out(&replica, &work)
        };
        let result = if silent && !fails {
            let message = "no answer in time".to_owned();
            Err(DriverFailure { message, permanent: false, retry_after_ms: None, unknown: true })
        } else {
            result
        };
        if !matches!(work, DriverCall::Observe | DriverCall::Diff(_)) && std::mem::take(&mut here.hang_next_call) {
            return;
        }
        let life = here.life;
        self.at(after, site, Next::Arrive { life, input: Input::Driver { call, result } });
    }

    fn do_all(&mut self, site: &str, outputs: Vec<Output>) {
        for output in outputs {
            self.do_one(site, output);
        }
    }

    fn do_one(&mut self, site: &str, output: Output) {
        let Some(life) = self.life(site) else { return };
        match output {
            Output::Persist { token, writes } => {
                if let Some(here) = self.sites.get_mut(site) {
                    here.disk.submit(token, writes);
                }
                let after = 100 + self.below(2_000);
                self.at(after, site, Next::Sync { life });
            }
            Output::Load { replicant, prefix } => {
                let records = self.sites.get(site).map(|site| site.disk.scan(&prefix)).unwrap_or_default();
                let after = 50 + self.below(500);
                let unreadable = self.sites.get(site).is_some_and(|site| site.disk.unreadable);
                let input = if unreadable {
                    Input::Unread { replicant, prefix, error: "input/output error".into() }
                } else {
                    Input::Loaded { replicant, prefix, records, damaged: Vec::new() }
                };
                self.at(after, site, Next::Arrive { life, input });
            }
            Output::Send { to, frame } => self.send(site, &to, frame),
            Output::Publish { topic, frame } => self.publish(site, &topic, &frame),
            Output::Subscribe { topic } => {
                if let Some(here) = self.sites.get_mut(site) {
                    here.topics.insert(topic);
                }
            }
            Output::Unsubscribe { topic } => {
                if let Some(here) = self.sites.get_mut(site) {
                    here.topics.remove(&topic);
                }
            }
            Output::SetTimer { at_us } => {
                let Some(here) = self.sites.get_mut(site) else { return };
                here.timer += 1;
                let number = here.timer;
                let after = at_us.saturating_sub(self.now_us).max(1);
                self.at(after, site, Next::Timer { life, number });
            }
            Output::CallDriver { call, kind: _, replica, work } => {
                if let Some(here) = self.sites.get_mut(site) {
                    here.calls.insert(call, (replica, work));
                }
                let after = 200 + self.below(1_000);
                self.at(after, site, Next::Drive { life, call });
            }
            Output::Answer { request, answer } => {
                if let Some(here) = self.sites.get_mut(site) {
                    here.answers.insert(request, answer);
                }
            }
            Output::Event(event) => {
                if let Some(here) = self.sites.get_mut(site) {
                    here.events.push(event);
                }
            }
            Output::Disconnect { node, .. } => self.disconnect(site, &node),
            Output::Stop { reason } => {
                self.crash(site);
                if let Some(here) = self.sites.get_mut(site) {
                    here.stopped = Some(reason);
                }
            }
        }
    }

    /// A few lines about every site, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = String::new();
        for site in self.sites.values() {
            let metrics = site.engine.as_ref().map(Engine::metrics);
            lines.push_str(&format!("{}: {metrics:?}\n", site.name));
        }
        lines
    }
}
