//! One site of a simulation: its engine while it runs, and what outlives it.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{ReplicantId, SiteName};
use sha2::Digest;

use super::clock::{Clocks, RIGHT_PPM};
use super::{Next, SimulatedDisk, SimulatedKeys, SimulatedPlatform, World, capabilities};
use crate::engine::Task;
use crate::{
    CallId, Config, DriverCall, DriverDone, DriverFailure, Engine, Event, Input, Output, Record, ReplicaRef,
    RequestError, RequestId, Response, Time, Token, Write,
};

/// How long a driver may take before whoever runs the engine gives it up.
const DRIVER_LIMIT_US: u64 = 10_000_000;

/// What goes wrong with a driver call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFault {
    /// It hangs until it is given up, and has done nothing.
    HangsBefore,
    /// It hangs until it is given up, and has done its work.
    HangsAfter,
    /// The process dies before the driver has done anything.
    DiesBefore,
    /// The process dies when the driver has done its work, and before anybody hears of it.
    DiesAfter,
}

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
    timer_at_us: u64,
    clocks: Clocks,
    /// Answers to users that nobody has taken.
    pub answers: BTreeMap<RequestId, Result<Response, RequestError>>,
    /// Events of this life.
    pub events: Vec<Event>,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: i64,
    /// The machine loses power about when this many more batches have been handed to the disk.
    pub power_for: Option<u32>,
    /// What goes wrong with the next driver call that changes something.
    pub next_call: Option<CallFault>,
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
            timer_at_us: 0,
            clocks: Clocks::default(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            skew_ms: 0,
            power_for: None,
            next_call: None,
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

    /// How often it was started.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// How many batches are on their way to the disk.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.disk.queued()
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
        self.sites.get(site).map_or(Time::default(), |site| site.clocks.at(self.now_us, site.skew_ms))
    }

    /// From now on the clocks of a site run at so many parts per million of the right speed.
    pub fn set_speed(&mut self, site: &str, speed_ppm: u64) {
        let now_us = self.now_us;
        let Some(here) = self.sites.get_mut(site) else { return };
        here.clocks.set_speed(now_us, speed_ppm);
        if here.engine.is_some() {
            let at_us = here.timer_at_us;
            self.set_timer(site, at_us);
        }
    }

    /// From now on the clocks of a site run at the right speed.
    pub fn set_right_speed(&mut self, site: &str) {
        self.set_speed(site, RIGHT_PPM);
    }

    fn set_timer(&mut self, site: &str, at_us: u64) {
        let Some(here) = self.sites.get_mut(site) else { return };
        here.timer += 1;
        here.timer_at_us = at_us;
        let (life, number) = (here.life, here.timer);
        let after = here.clocks.when(at_us).saturating_sub(self.now_us).max(1);
        self.at(after, site, Next::Timer { life, number });
    }

    /// Starts a site, from what is on its disk.
    ///
    /// # Panics
    /// If there is no such site, or its disk holds what no engine can start from.
    pub fn start(&mut self, site: &str) {
        self.start_with(site);
    }

    /// Starts a site whose disk was recovered from damage.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_doubtful(&mut self, site: &str) {
        if let Some(here) = self.sites.get_mut(site) {
            here.disk.doubtful = true;
        }
        self.start_with(site);
    }

    #[allow(clippy::expect_used, reason = "this is how a scenario fails")]
    fn start_with(&mut self, site: &str) {
        let mut actor = [0; 16];
        for chunk in actor.chunks_mut(8) {
            let random = self.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
        }
        // A monotonic clock starts anywhere with every process.
        let boot_us = self.below(1 << 40);
        if let Some(here) = self.sites.get_mut(site) {
            here.clocks.boot_us = boot_us;
        }
        let now = self.time(site);
        let configure = self.config;
        self.tally.lives += 1;
        let here = self.sites.get_mut(site).expect("a site of this world");
        let name = SiteName::new(site).expect("a name for a site");
        let mut config = Config::fast(name, Self::node(site));
        config.kinds.insert("text".into(), capabilities());
        configure(&mut config);
        here.doubtful = here.disk.doubtful;
        config.doubtful = here.doubtful;
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
            if let Some(engine) = here.engine.take() {
                self.tally.add(&engine.metrics());
            }
            let lost = here.disk.crash(survive);
            self.tally.unsynced_crashes += u64::from(queued > 0);
            self.tally.torn_crashes += u64::from(lost > 0 && survive > 0);
            self.tally.batches_lost += u64::try_from(lost).unwrap_or(0);
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

    /// Has a site write a snapshot of a replicant now, as it does of those that have grown.
    pub fn compact(&mut self, site: &str, replicant: &ReplicantId) {
        let now = self.time(site);
        let Some(engine) = self.sites.get_mut(site).and_then(|site| site.engine.as_mut()) else { return };
        if engine.replicants.held(replicant).is_some() && !engine.is_full() {
            let outputs = engine.handle_task(now, replicant, Task::Compact);
            self.do_all(site, outputs);
        }
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
                let lies = self.sites.get(site).is_some_and(|site| site.disk.broken) && self.chance(50);
                let synced = self.sites.get_mut(site).and_then(|site| site.disk.sync_one(lies));
                match synced {
                    Some((token, true)) => self.hand(site, Input::Stored { token }),
                    Some((token, false)) => {
                        self.tally.store_lies += u64::from(lies);
                        self.not_stored(site, token);
                    }
                    None => {}
                }
            }
            Next::Room { life: meant } if meant == life => self.look_for_room(site),
            Next::Read { life: meant, replicant, prefix } if meant == life => self.read(site, replicant, prefix),
            Next::PowerFails { life: meant }
                if meant == life && self.sites.get(site).is_some_and(|site| site.power_for == Some(0)) =>
            {
                self.crash(site);
            }
            Next::Drive { life: meant, call } if meant == life => self.drive(site, call),
            Next::Frame { from, from_life, link, bytes }
                if self.life(&from) == Some(from_life) && self.is_same_link(site, &from, link) =>
            {
                self.hand(site, Input::Frame { from: Self::node(&from), bytes });
            }
            Next::GiveUp { other, link } => self.give_up(site, &other, link),
            _ => {}
        }
    }

    fn read(&mut self, site: &str, replicant: ReplicantId, prefix: Vec<u8>) {
        // What is read may be of a batch that is applied and not synced yet.
        let queued = self.sites.get(site).map_or(0, |site| site.disk.queued());
        let ahead = usize::try_from(self.below(u64::try_from(queued).unwrap_or(0) + 1)).unwrap_or(0);
        let Some(here) = self.sites.get(site) else { return };
        if here.disk.unreadable {
            self.tally.unread += 1;
            return self.hand(site, Input::Unread { replicant, prefix, error: "input/output error".into() });
        }
        let (records, early) = here.disk.read(&prefix, ahead);
        let damaged = here.disk.damaged(&prefix);
        self.tally.early_reads += u64::from(early);
        self.hand(site, Input::Loaded { replicant, prefix, records, damaged });
    }

    fn not_stored(&mut self, site: &str, token: Token) {
        let Some(here) = self.sites.get(site) else { return };
        let error = "no space left".to_owned();
        if here.disk.broken {
            self.tally.store_failures += 1;
            return self.hand(site, Input::StoreFailed { token, error });
        }
        self.tally.full_disks += 1;
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
        let slow = self.below(self.weather.driver_us);
        let after = 500 + slow + self.below(2_000);
        let Some(here) = self.sites.get_mut(site) else { return };
        let Some((replica, work)) = here.calls.remove(&call) else { return };
        let changes = !matches!(work, DriverCall::Observe | DriverCall::Diff(_));
        let (fault, hangs) = match changes {
            true => (here.next_call.take(), std::mem::take(&mut here.hang_next_call)),
            false => (None, false),
        };
        let life = here.life;
        let answer = |world: &mut Self, after_us, result| {
            world.at(after_us, site, Next::Arrive { life, input: Input::Driver { call, result } });
        };
        match fault {
            Some(CallFault::HangsBefore) => {
                self.tally.driver_hangs += 1;
                return answer(self, DRIVER_LIMIT_US, no_answer());
            }
            Some(CallFault::DiesBefore) => return self.crash(site),
            _ if fails => {
                self.tally.driver_failures += 1;
                return answer(self, after, busy());
            }
            _ => {}
        }
        let result = here.platform.carry_out(&replica, &work);
        match fault {
            Some(CallFault::HangsAfter) => {
                self.tally.driver_hangs += 1;
                answer(self, DRIVER_LIMIT_US, no_answer());
            }
            Some(CallFault::DiesAfter) => {
                self.tally.driver_deaths += 1;
                self.crash(site);
            }
            _ if hangs => {}
            _ if silent => {
                self.tally.driver_silences += 1;
                answer(self, after, no_answer());
            }
            _ => answer(self, after, result),
        }
    }

    fn do_all(&mut self, site: &str, outputs: Vec<Output>) {
        for output in outputs {
            self.do_one(site, output);
        }
    }

    fn do_one(&mut self, site: &str, output: Output) {
        let Some(life) = self.life(site) else { return };
        match output {
            Output::Persist { token, writes, .. } => {
                for write in &writes {
                    match write {
                        Write::Put { key, value } => {
                            self.trace.update(key);
                            self.trace.update(value);
                        }
                        Write::Delete { key } => self.trace.update(key),
                    }
                }
                let slow = self.below(self.weather.disk_us);
                let after = 100 + slow + self.below(2_000);
                let mut fails = false;
                if let Some(here) = self.sites.get_mut(site) {
                    here.disk.submit(token, writes);
                    fails = here.power_for == Some(1);
                    here.power_for = here.power_for.map(|left| left.saturating_sub(1));
                }
                if fails {
                    let when = self.below(2 * after);
                    self.at(when, site, Next::PowerFails { life });
                }
                self.at(after, site, Next::Sync { life });
            }
            Output::Load { replicant, prefix } => {
                let after = 50 + self.below(500);
                self.at(after, site, Next::Read { life, replicant, prefix });
            }
            Output::Send { to, frame } => {
                self.trace.update(&frame);
                self.send(site, &to, frame);
            }
            Output::Publish { topic, frame } => {
                self.trace.update(&frame);
                self.publish(site, &topic, &frame);
            }
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
            Output::SetTimer { at_us } => self.set_timer(site, at_us),
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

fn no_answer() -> Result<DriverDone, DriverFailure> {
    let message = "no answer in time".to_owned();
    Err(DriverFailure { message, permanent: false, retry_after_ms: None, unknown: true, lost: false })
}

fn busy() -> Result<DriverDone, DriverFailure> {
    let message = "the platform is busy".to_owned();
    Err(DriverFailure { message, permanent: false, retry_after_ms: None, unknown: false, lost: false })
}
