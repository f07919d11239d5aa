//! Many seeds on several threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::broken::Broken;
use super::counters::{Happened, Kind};
use super::plan::{Class, Plan};
use super::report::replay;
use super::run::{Outcome, run};

/// How often somebody who watches is told.
const PROGRESS: Duration = Duration::from_millis(500);
/// The most failures that are looked into; seeds after that are not tried.
const MAX_FAILURES: usize = 25;
/// A batch of so many seeds must have seen every kind of fault.
const ENOUGH: u64 = 1000;

/// Which seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The class of scenarios.
    pub class: Class,
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many at a time.
    pub threads: usize,
    /// No further seeds are begun after so long.
    pub time: Option<Duration>,
    /// No further seeds are begun after the first failure.
    pub stop: bool,
}

/// One seed that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The name of the invariant that broke.
    pub invariant: String,
    /// How.
    pub message: String,
    /// The command that does it again.
    pub replay: String,
    /// The last events, for people.
    pub timeline: String,
}

/// What came of a batch.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The class of scenarios.
    pub class: Class,
    /// The first seed.
    pub from: u64,
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// How often each kind of thing happened.
    pub happened: Happened,
    /// What should have happened in so many seeds and did not.
    pub missing: Vec<Kind>,
    /// Inputs that engines handled.
    pub steps: u64,
    /// Virtual time of all runs, in seconds.
    pub virtual_s: u64,
    /// The longest virtual time that a healed world needed to agree, in milliseconds.
    pub slowest_heal_ms: u64,
    /// Real time, in seconds.
    pub seconds: f64,
    /// The traces of all runs laid together: the same for the same seeds.
    pub trace: String,
}

impl Summary {
    /// Whether every promise was kept, and every kind of fault tried.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.missing.is_empty()
    }
}

/// How far a batch is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Seeds that are done.
    pub done: u64,
    /// Seeds in all.
    pub of: u64,
    /// Those that failed.
    pub failed: usize,
    /// Real time since the beginning.
    pub time: Duration,
    /// The seed that has been running longest, and since when.
    pub oldest: Option<(u64, Duration)>,
}

#[derive(Default)]
struct Shared {
    failures: Vec<Failure>,
    happened: Happened,
    steps: u64,
    time: Duration,
    slowest: Duration,
    trace: [u8; 32],
    done: u64,
    running: BTreeMap<u64, Instant>,
}

impl Shared {
    fn take(&mut self, outcome: &Outcome) {
        self.happened.merge(&outcome.happened);
        self.steps += outcome.steps;
        self.time += outcome.time;
        self.slowest = self.slowest.max(outcome.healed.unwrap_or_default());
        let pairs = outcome.trace.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
        for (all, pair) in self.trace.iter_mut().zip(pairs) {
            *all ^= u8::from_str_radix(pair, 16).unwrap_or(0);
        }
    }
}

impl Batch {
    /// Runs all seeds. `progress` is called now and then.
    #[must_use]
    pub fn run(&self, mut progress: impl FnMut(Progress)) -> Summary {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        let shared = Mutex::new(Shared::default());
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            let work = || {
                while !over.load(Ordering::Relaxed) && self.time.is_none_or(|time| begun.elapsed() < time) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= self.seeds {
                        break;
                    }
                    let seed = self.from.wrapping_add(number);
                    lock().running.insert(seed, Instant::now());
                    let outcome = run(&Plan::new(self.class, seed), false);
                    let failure =
                        outcome.broken.as_ref().map(|broken| look_into(self.class, seed, broken, &outcome.trace));
                    let mut shared = lock();
                    shared.take(&outcome);
                    shared.running.remove(&seed);
                    shared.done += 1;
                    shared.failures.extend(failure);
                    if shared.failures.len() >= if self.stop { 1 } else { MAX_FAILURES } {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            };
            let threads: Vec<_> = (0..self.threads.max(1)).map(|_| scope.spawn(work)).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                std::thread::park_timeout(PROGRESS);
                let shared = lock();
                let oldest = shared.running.iter().min_by_key(|(_, since)| **since);
                let oldest = oldest.map(|(seed, since)| (*seed, since.elapsed()));
                let (done, failed) = (shared.done, shared.failures.len());
                drop(shared);
                progress(Progress { done, of: self.seeds, failed, time: begun.elapsed(), oldest });
            }
        });
        let mut shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        shared.failures.sort_by_key(|failure| failure.seed);
        let missing = if shared.done >= ENOUGH { shared.happened.missing(self.class) } else { Vec::new() };
        Summary {
            class: self.class,
            from: self.from,
            seeds: shared.done,
            failures: shared.failures,
            happened: shared.happened,
            missing,
            steps: shared.steps,
            virtual_s: shared.time.as_secs(),
            slowest_heal_ms: u64::try_from(shared.slowest.as_millis()).unwrap_or(u64::MAX),
            seconds: begun.elapsed().as_secs_f64(),
            trace: shared.trace.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Runs a failing seed once more and keeps its events. It must fail in the very same way.
fn look_into(class: Class, seed: u64, broken: &Broken, trace: &str) -> Failure {
    let again = run(&Plan::new(class, seed), true);
    let other = Broken::NotRepeatable { first: trace.to_owned(), second: again.trace.clone() };
    let broken = if again.trace == trace && again.broken.as_ref() == Some(broken) { broken } else { &other };
    Failure {
        seed,
        invariant: broken.name(),
        message: broken.to_string(),
        replay: replay(class, seed),
        timeline: again.timeline.map(|timeline| timeline.text(60)).unwrap_or_default(),
    }
}
