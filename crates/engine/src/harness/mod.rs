//! Any number of engines in one thread, on a simulated network, disk, clock and platform, in virtual time.
//!
//! A run is a function of its seed: the same seed gives the same trace (see [`World::trace`]). Scenarios read like
//! prose:
//!
//! ```
//! use khufu_engine::harness::World;
//! use serde_json::json;
//!
//! let mut world = World::new(7);
//! world.sites(&["paris", "rennes"]);
//! world.put("paris", "web", "paris & rennes", json!({"replicas": 1}));
//! world.settle();
//! assert_eq!(world.text("paris", "web"), world.text("rennes", "web"));
//! ```

mod clock;
mod disk;
mod inspect;
mod keys;
mod network;
mod platform;
mod site;
mod tally;
mod user;

use std::collections::BTreeMap;
use std::time::Duration;

pub use disk::SimulatedDisk;
pub use inspect::{InMemory, Known};
pub use keys::SimulatedKeys;
use khufu_crdt::ReplicantId;
pub use network::{Recorded, Weather};
pub use platform::{Effect, SimulatedPlatform, SimulatedReplica, capabilities};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
pub use site::{CallFault, Site};
pub use tally::Tally;

use self::network::Network;
use crate::time::micros;
use crate::{CallId, Config, Input, NodeId};

/// Something that will happen at a site.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a simulation holds few of them at a time")]
enum Next {
    /// An input arrives, if the site is in the life that it was meant for.
    Arrive { life: u64, input: Input },
    /// The timer of the engine, if no other was set since.
    Timer { life: u64, number: u64 },
    /// The disk is done with the oldest batch.
    Sync { life: u64 },
    /// The records of a replicant are read.
    Read { life: u64, replicant: ReplicantId, prefix: Vec<u8> },
    /// The machine loses power.
    PowerFails { life: u64 },
    /// The disk, which was full, is looked at again.
    Room { life: u64 },
    /// A driver does its work now; its answer comes later.
    Drive { life: u64, call: CallId },
    /// Frames from one node to the next arrive.
    Frame { from: String, from_life: u64, link: u64, bytes: Vec<u8> },
    /// A connection on which one direction has carried nothing for long is given up, if that is still so.
    GiveUp { other: String, link: u64 },
}

/// Several sites and all that is between them.
#[derive(Debug)]
pub struct World {
    seed: u64,
    rng: ChaCha8Rng,
    now_us: u64,
    /// Sites by name.
    pub sites: BTreeMap<String, Site>,
    queue: BTreeMap<(u64, u64), (String, Next)>,
    queued: u64,
    network: Network,
    /// How the network treats what is sent.
    pub weather: Weather,
    /// What is sent from now on, if somebody records it; also what is lost on its way.
    pub recorded: Option<Vec<Recorded>>,
    /// How often a site closed a connection because the other broke the rules.
    pub disconnected: u64,
    /// What really happened so far.
    pub tally: Tally,
    trace: Sha256,
    steps: u64,
    requests: u64,
    config: fn(&mut Config),
    readings: inspect::Readings,
}

/// Gives a site the settings of real nodes, with the drivers of the simulation; for [`World::configured`].
pub fn deployed(config: &mut Config) {
    let real = Config::new(config.site.clone(), config.node.clone());
    let kinds = std::mem::take(&mut config.kinds);
    *config = Config { kinds, ..real };
}

impl World {
    /// An empty world. The seed is printed, so that a failing run can be repeated.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::configured(seed, |_| {})
    }

    /// The same with settings of its own for every engine.
    #[must_use]
    pub fn configured(seed: u64, config: fn(&mut Config)) -> Self {
        #[allow(clippy::print_stderr, reason = "whoever sees a failure needs the seed")]
        {
            eprintln!("seed {seed}");
        }
        Self::silent(seed, config)
    }

    /// The same for whoever says the seed himself where it is needed.
    #[must_use]
    pub fn silent(seed: u64, config: fn(&mut Config)) -> Self {
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now_us: 1_000_000,
            sites: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            network: Network::default(),
            weather: Weather::default(),
            recorded: None,
            disconnected: 0,
            tally: Tally::default(),
            trace: Sha256::new(),
            steps: 0,
            requests: 0,
            config,
            readings: inspect::Readings::default(),
        }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A hash over all that has happened.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.now_us)
    }

    /// How many inputs were handled.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A random number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn at(&mut self, after_us: u64, site: &str, next: Next) {
        self.queued += 1;
        self.queue.insert((self.now_us + after_us, self.queued), (site.to_owned(), next));
    }

    fn node(site: &str) -> NodeId {
        NodeId(format!("node-{site}"))
    }

    fn site_of(node: &NodeId) -> &str {
        node.0.strip_prefix("node-").unwrap_or(&node.0)
    }

    /// Adds running sites, all connected to each other, and waits until they know each other.
    pub fn sites(&mut self, names: &[&str]) {
        for name in names {
            self.sites.insert((*name).to_owned(), Site::new(name));
            self.start(name);
        }
        self.run_for(Duration::from_secs(1));
        self.until("the sites have met", Duration::from_secs(60), |world| world.have_met());
    }

    /// Whether all running sites that are connected know each other.
    #[must_use]
    pub fn have_met(&self) -> bool {
        let engines = || self.sites.values().filter_map(Site::engine);
        engines().all(|engine| engine.members.connected().all(|node| engine.members.site_of(node).is_some()))
    }

    /// Handles what is next. Whether there was anything.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), (site, next))) = self.queue.pop_first() else { return false };
        self.now_us = self.now_us.max(at);
        self.steps += 1;
        self.happen(&site, next);
        true
    }

    /// Handles what is next before a moment, counted as [`now`](Self::now) is. The site at which it happened; none if
    /// nothing is left before that moment, which has then come.
    pub fn step_before(&mut self, end: Duration) -> Option<String> {
        let end = micros(end);
        if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > end) {
            self.now_us = self.now_us.max(end);
            return None;
        }
        let ((at, _), (site, next)) = self.queue.pop_first()?;
        self.now_us = self.now_us.max(at);
        self.steps += 1;
        self.happen(&site, next);
        Some(site)
    }

    /// Lets time go by.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.step_before(end).is_some() {}
    }

    /// Lets time go by until something is true, at most `limit`.
    ///
    /// # Panics
    /// If it does not come true. The message names `what` and the seed.
    #[allow(clippy::panic, reason = "this is how a scenario fails")]
    pub fn until(&mut self, what: &str, limit: Duration, mut is_true: impl FnMut(&mut Self) -> bool) {
        let end = self.now_us + micros(limit);
        while !is_true(self) {
            if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > end) {
                panic!(
                    "{what}: not within {limit:?} of virtual time (seed {}); {:?}\n{}",
                    self.seed,
                    self.disagreement(),
                    self.summary()
                );
            }
            self.step();
        }
    }

    /// Lets time go by until nothing is left to do and all sites agree, at most two minutes.
    pub fn settle(&mut self) {
        self.until("all sites agree", Duration::from_secs(120), |world| world.disagreement().is_none());
    }
}
