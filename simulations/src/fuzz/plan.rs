//! What a scenario is made of: everything that chance decides about it, but for the network's own whims.

use khufu_crdt::{EpochRule, Policy};
use khufu_engine::Config;
use khufu_engine::harness::{CallFault, Weather, capabilities};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use serde_json::{Value, json};

use super::deed::{At, Deed, Loss, Part, Question, Where};

/// All sites there can be.
const SITES: [&str; 9] = ["brest", "lille", "lyon", "nantes", "nice", "paris", "quimper", "rennes", "tours"];
/// The replicants: one for operations only, one for both, one for a desired state only.
pub const NAMES: [&str; 3] = ["log", "mix", "web"];
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Which faults a scenario may have. Each class has seeds of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Whatever the engine must survive without any loss: disks keep what they confirmed.
    #[default]
    Faults,
    /// Disks are lost and damaged, too. What no other disk holds may then be gone; nothing else.
    Disasters,
}

/// One deed, and the time that goes by after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What happens.
    pub deed: Deed,
    /// The pause after it, in microseconds.
    pub pause_us: u64,
}

/// A whole scenario: a function of class and seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The class.
    pub class: Class,
    /// The seed.
    pub seed: u64,
    /// The sites.
    pub sites: Vec<&'static str>,
    /// Which of the [`SETTINGS`] the engines have.
    pub setting: usize,
    /// How each replicant begins: where, at which site it is put, and under which rules.
    pub begin: Vec<(Where, At, usize)>,
    /// Whether all have agreed before the first fault.
    pub calm: bool,
    /// What happens then, until all heals.
    pub steps: Vec<Step>,
}

/// Patience for a simulation: as [`Config::fast`], with fewer heartbeats, which cost the most.
fn patience(config: &mut Config) {
    let ms = std::time::Duration::from_millis;
    config.heartbeat = ms(900);
    config.look = ms(900);
    config.reconcile = ms(1_300);
}

/// Settings of engines, so that limits are met and paths taken that a small scenario would not come to.
pub const SETTINGS: [fn(&mut Config); 8] = [
    patience,
    |config| {
        patience(config);
        config.compact_after = 3;
        config.epochs = EpochRule { changes: 5, age_ms: 3_600_000, aged_changes: 3 };
        config.archives = 2;
    },
    |config| {
        patience(config);
        config.resident = 1;
        config.topics = 1;
    },
    |config| {
        patience(config);
        config.gossip_bytes = 0;
        config.sessions = 1;
        config.calls = 1;
        // Not the same at all sites, so that they close one epoch at different changes.
        let changes = 2 + config.site.as_str().len() % 3;
        config.epochs = EpochRule { changes, age_ms: u64::MAX, aged_changes: usize::MAX };
    },
    |config| {
        patience(config);
        let blind = khufu_crdt::Capabilities { observe: false, ..capabilities() };
        config.kinds.insert("text".into(), blind);
    },
    |config| {
        patience(config);
        let undoes = khufu_crdt::Capabilities { undo: true, ..capabilities() };
        config.kinds.insert("text".into(), undoes);
        config.compact_after = 2;
        config.epochs = EpochRule { changes: 2, age_ms: u64::MAX, aged_changes: usize::MAX };
    },
    |config| {
        patience(config);
        config.requests = 4;
        config.resident = 2;
    },
    |_| {},
];

/// The rules that replicants have. Each keeps its promises on the simulated platform.
///
/// # Panics
/// Never: the rules are part of this file, and a test reads them.
#[must_use]
pub fn policy(number: usize) -> Policy {
    let rules = match number % 4 {
        0 => json!([
            {"before": "set", "after": "set", "result": "take-one"},
            {"before": "set", "after": "add", "result": "take-both-keep-order"},
            {"before": "add", "after": "set", "result": "take-both-reverse-order"},
            {"before": "inc", "after": "inc", "result": "take-both-any-order"},
        ]),
        1 => json!([
            {"before": "add", "after": "add", "result": "take-both-keep-order"},
            {"before": "set", "after": "add", "result": "take-both-reverse-order"},
        ]),
        2 => json!([
            {"before": "add", "after": "add", "result": "take-both-reverse-order"},
            {"before": "set", "after": "set", "result": "take-both-keep-order"},
            {"before": "inc", "after": "inc", "result": "take-both-any-order"},
            {"before": "inc", "after": "add", "result": "take-one"},
        ]),
        _ => json!([]),
    };
    let types =
        json!({"set": {"absolute": true, "idempotent": true}, "add": {"undo": "drop"}, "inc": {"undo": "drop"}});
    // What fails now and then succeeds in the end, so that contents are the same.
    let retry = json!({"attempts": 1_000_000, "backoff_ms": 100, "backoff_max_ms": 2_000});
    serde_json::from_value(json!({"resolutions": rules, "types": types, "retry": retry})).unwrap_or_default()
}

/// Chance, as a function of the seed.
struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64().checked_rem(bound).unwrap_or(0)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap_or(0))).unwrap_or(0)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// The number of a weight, by weight.
    fn weighed(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (number, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return number,
            }
        }
        0
    }
}

/// Makes plans.
struct Planner {
    dice: Dice,
    class: Class,
    count: usize,
    word: u64,
    deletions: bool,
}

/// The kinds of deeds with their usual weights, and whether they may be left out of a scenario or come more often: a
/// scenario with few kinds of faults goes further in each.
const KINDS: [(Kind, u64, bool); 27] = [
    (Kind::Operate, 26, false),
    (Kind::Again, 2, true),
    (Kind::Patch, 8, false),
    (Kind::Override, 1, true),
    (Kind::Pick, 4, true),
    (Kind::Rescope, 5, true),
    (Kind::Repolicy, 1, true),
    (Kind::Delete, 3, true),
    (Kind::Recreate, 5, true),
    (Kind::Ask, 2, true),
    (Kind::Partition, 3, true),
    (Kind::Cut, 2, true),
    (Kind::CutOneWay, 3, true),
    (Kind::Mend, 3, true),
    (Kind::Heal, 2, true),
    (Kind::Weather, 3, true),
    (Kind::Crash, 4, true),
    (Kind::Start, 3, false),
    (Kind::Clock, 3, true),
    (Kind::Fault, 4, true),
    (Kind::PowerFails, 3, true),
    (Kind::Full, 2, true),
    (Kind::Break, 1, true),
    (Kind::Unreadable, 2, true),
    (Kind::Compact, 2, true),
    (Kind::Lose, 2, true),
    (Kind::Wait, 14, false),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operate,
    Again,
    Patch,
    Override,
    Pick,
    Rescope,
    Repolicy,
    Delete,
    Recreate,
    Ask,
    Partition,
    Cut,
    CutOneWay,
    Mend,
    Heal,
    Weather,
    Crash,
    Start,
    Clock,
    Fault,
    PowerFails,
    Full,
    Break,
    Unreadable,
    Compact,
    Lose,
    Wait,
}

impl Plan {
    /// The scenario of a seed.
    #[must_use]
    pub fn new(class: Class, seed: u64) -> Self {
        let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
        // Another stream than that of the world of the same seed.
        dice.0.set_stream(match class {
            Class::Faults => 1,
            Class::Disasters => 2,
        });
        // Small groups go further in the same time; large ones are tried too.
        let count = [2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 8, 9][dice.index(12)];
        let deletions = dice.chance(40);
        let mut planner = Planner { dice, class, count, word: 0, deletions };
        planner.plan(seed)
    }

    /// The same scenario with other deeds.
    #[must_use]
    pub fn with_steps(&self, steps: Vec<Step>) -> Self {
        Self { steps, ..self.clone() }
    }
}

impl Planner {
    fn plan(&mut self, seed: u64) -> Plan {
        let weights: Vec<u64> = KINDS
            .iter()
            .map(|(kind, weight, varies)| match kind {
                Kind::Delete | Kind::Recreate if !self.deletions => 0,
                Kind::Lose if self.class == Class::Faults => 0,
                Kind::Lose => *weight,
                _ if *varies => weight * [0, 1, 1, 3][self.dice.index(4)],
                _ => *weight,
            })
            .collect();
        let begin = NAMES.iter().map(|_| (self.scope(), self.site(), self.dice.index(4))).collect();
        let setting = self.dice.index(SETTINGS.len());
        let calm = self.dice.chance(50);
        let number = 10 + self.dice.index(70);
        let steps = (0..number)
            .map(|_| {
                let (kind, ..) = KINDS[self.dice.weighed(&weights)];
                let deed = self.deed(kind);
                Step { deed, pause_us: self.dice.below(20_000) }
            })
            .collect();
        Plan { class: self.class, seed, sites: SITES[..self.count].to_vec(), setting, begin, calm, steps }
    }

    fn site(&mut self) -> At {
        self.dice.index(self.count)
    }

    fn other(&mut self, than: At) -> At {
        (than + 1 + self.dice.index(self.count - 1)) % self.count
    }

    fn name(&mut self) -> usize {
        self.dice.index(NAMES.len())
    }

    fn scope(&mut self) -> Where {
        let everybody = (0..self.count).collect();
        match self.dice.below(13) {
            12 => {
                let (a, b) = (self.site(), self.site());
                let text = if a == b { SITES[a].to_owned() } else { format!("{} % {}", SITES[a], SITES[b]) };
                return Where { text, sites: [a, b].into(), moving: false };
            }
            0 => return Where { text: "all".into(), sites: everybody, moving: true },
            1 => {
                let text = format!("{} of (all)", 1 + self.site());
                return Where { text, sites: everybody, moving: true };
            }
            2 if self.count > 2 => {
                let (a, b, c) = (self.site(), self.site(), self.site());
                let text = format!("{} & ({} | {})", SITES[a], SITES[b], SITES[c]);
                return Where { text, sites: [a, b, c].into(), moving: true };
            }
            _ => {}
        }
        let chosen: std::collections::BTreeSet<At> = (0..=self.dice.below(3)).map(|_| self.site()).collect();
        let text = chosen.iter().map(|at| SITES[*at]).collect::<Vec<_>>().join(" & ");
        Where { text, sites: chosen, moving: false }
    }

    /// A number that nothing else has.
    fn number(&mut self) -> u64 {
        self.word += 1;
        self.word
    }

    fn operate(&mut self) -> Deed {
        self.word += 1;
        let (op_type, payload): (_, Value) = match self.dice.below(100) {
            0..=19 => ("set", json!(format!("<{}>", self.word))),
            20..=31 => ("inc", json!(1 + self.dice.below(5))),
            32..=35 => ("bad", json!("fails everywhere")),
            _ => ("add", json!(format!("<{}>", self.word))),
        };
        let wait_ms = if self.dice.chance(30) { self.dice.below(5_000) } else { 0 };
        let (at, of, own) = (self.site(), self.name(), self.dice.chance(15));
        Deed::Operate { at, of, op_type, payload, wait_ms, own }
    }

    fn weather(&mut self) -> Weather {
        let dice = &mut self.dice;
        let mut sometimes = |percent: u64, most: u64| if dice.chance(percent) { dice.below(most) } else { 0 };
        Weather {
            gossip_loss: sometimes(70, 100),
            gossip_twice: sometimes(50, 40),
            frame_loss: sometimes(30, 20),
            driver_failure: sometimes(50, 60),
            driver_silence: sometimes(30, 30),
            driver_us: sometimes(30, 2_000_000),
            disk_us: sometimes(40, 300_000),
            // Up to two seconds each way; mostly much less, so that something gets through while it lasts.
            delay_us: 500 + sometimes(80, 60_000) + sometimes(25, 1_000_000),
            jitter_us: 500 + sometimes(80, 60_000) + sometimes(25, 1_000_000),
        }
    }

    fn loss(&mut self) -> Loss {
        match self.dice.below(10) {
            0..=4 => Loss::Everything,
            5..=7 => Loss::Damaged(Part::ALL[self.dice.index(5)]),
            8 => Loss::OldRecords(Part::ALL[self.dice.index(5)]),
            _ => Loss::NoIndex,
        }
    }

    fn deed(&mut self, kind: Kind) -> Deed {
        let at = self.site();
        let of = self.name();
        match kind {
            Kind::Operate => self.operate(),
            Kind::Again => Deed::Again { at },
            Kind::Patch => {
                let of = 1 + self.dice.index(2);
                Deed::Patch { at, of, field: self.dice.below(4), value: self.number() }
            }
            Kind::Override => {
                let over = self.dice.chance(80).then(|| (self.site(), self.dice.below(1000)));
                Deed::Override { at, of: 1 + self.dice.index(2), over }
            }
            Kind::Pick => Deed::Pick { at, of, nth: self.dice.index(8) },
            Kind::Rescope => Deed::Rescope { at, of, scope: self.scope() },
            Kind::Repolicy => Deed::Repolicy { at, of, policy: self.dice.index(4) },
            Kind::Delete => Deed::Delete { at, of },
            Kind::Recreate => Deed::Recreate { at, of, scope: self.scope(), value: self.number() },
            Kind::Ask => {
                let questions = [Question::Get, Question::Plan, Question::Verify, Question::VerifyAll];
                Deed::Ask { at, of, question: questions[self.dice.index(4)] }
            }
            Kind::Partition => {
                let parts = 2 + usize::from(self.dice.chance(30));
                Deed::Partition { groups: (0..self.count).map(|_| self.dice.index(parts)).collect() }
            }
            Kind::Cut => Deed::Cut { a: at, b: self.other(at) },
            Kind::CutOneWay => Deed::CutOneWay { from: at, to: self.other(at) },
            Kind::Mend => Deed::Mend { a: at, b: self.other(at) },
            Kind::Heal => Deed::Heal,
            Kind::Weather => Deed::Weather(self.weather()),
            Kind::Crash => Deed::Crash { at, restart: self.dice.chance(70) },
            Kind::Start => Deed::Start { at },
            Kind::Clock if self.dice.chance(50) => {
                let range = [2_000, 900_000, 2 * DAY_MS][self.dice.index(3)];
                let ms = i64::try_from(self.dice.below(range)).unwrap_or(0) - i64::try_from(range / 2).unwrap_or(0);
                Deed::Skew { at, ms }
            }
            Kind::Clock => {
                Deed::Speed { at, ppm: [500_000, 900_000, 1_000_000, 1_100_000, 2_000_000][self.dice.index(5)] }
            }
            Kind::Fault => {
                let faults =
                    [CallFault::HangsBefore, CallFault::HangsAfter, CallFault::DiesBefore, CallFault::DiesAfter];
                Deed::Fault { at, fault: faults[self.dice.index(4)] }
            }
            Kind::PowerFails => Deed::PowerFails { at, batches: 1 + u32::try_from(self.dice.below(12)).unwrap_or(0) },
            Kind::Break => Deed::Break { at },
            Kind::Unreadable => Deed::Unreadable { at, unreadable: self.dice.chance(60) },
            Kind::Full => Deed::Full { at, full: self.dice.chance(60) },
            Kind::Compact => Deed::Compact { at, of },
            Kind::Lose if self.dice.chance(30) => Deed::KeepCopy { at },
            Kind::Lose => Deed::Lose { at, loss: self.loss() },
            Kind::Wait => {
                let most = if self.dice.chance(20) { 15_000 } else { 1_500 };
                Deed::Wait { ms: self.dice.below(most) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_function_of_class_and_seed() {
        assert_eq!(Plan::new(Class::Faults, 7), Plan::new(Class::Faults, 7));
        assert_ne!(Plan::new(Class::Faults, 7).steps, Plan::new(Class::Faults, 8).steps);
        assert_ne!(Plan::new(Class::Faults, 7).steps, Plan::new(Class::Disasters, 7).steps);
    }

    #[test]
    fn the_rules_can_be_read_and_contradict_nothing() {
        for number in 0..4 {
            let policy = policy(number);
            assert_eq!(policy.retry.attempts, 1_000_000, "rules {number}");
            assert!(policy.is_absolute("set"), "rules {number}");
        }
    }
}
