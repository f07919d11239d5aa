//! Power losses: whatever was answered is there afterwards, and every operation ran exactly once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use khufu_crdt::OperationId;
use khufu_drivers::{Driver, DriverError, FilesDriver, Work, digest};
use proptest::prelude::*;
use serde_json::json;

use crate::disk::{Chance, Disk};
use crate::{append, cases, replica, wait, write};

#[derive(Debug, Clone)]
enum What {
    Append(String),
    Write(String),
    Desired(i64),
    Reset,
    Delete,
}

#[derive(Debug, Clone)]
enum Act {
    Change(usize, What),
    Checkpoint,
    Restart,
}

/// How the process ends in the middle of something: after how many steps, and whether the power is lost with it.
#[derive(Debug, Clone, Copy)]
struct End {
    after: i64,
    power: bool,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just("x".to_owned()), Just(String::new()), "[a-z\n]{0,9}", "[a-z]{900}"]
}

fn act() -> impl Strategy<Value = Act> {
    let what = prop_oneof![
        5 => text().prop_map(What::Append),
        2 => text().prop_map(What::Write),
        2 => (0_i64..3).prop_map(What::Desired),
        2 => Just(What::Reset),
        1 => Just(What::Delete),
    ];
    prop_oneof![
        12 => (0_usize..3, what).prop_map(|(nth, what)| Act::Change(nth, what)),
        2 => Just(Act::Checkpoint),
        1 => Just(Act::Restart),
    ]
}

fn end() -> impl Strategy<Value = End> {
    (0_i64..12, any::<bool>()).prop_map(|(after, power)| End { after, power })
}

/// Acts, and how each of them is interrupted: it, and then what comes after the interruption, and so on.
fn plan() -> impl Strategy<Value = Vec<(Act, Vec<End>)>> {
    let ends = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(end(), 1..4)];
    prop::collection::vec((act(), ends), 1..16)
}

fn follow(before: Option<&str>, what: &What) -> Option<String> {
    match what {
        What::Append(text) => Some(format!("{}{text}", before.unwrap_or_default())),
        What::Write(text) => Some(text.clone()),
        What::Desired(value) => Some(format!("value: {value}\n")),
        What::Reset | What::Delete => None,
    }
}

/// The disk is imagined here: a directory in memory, where there is one, is only faster.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

struct World {
    /// Only the last one is used; a power loss makes another.
    dirs: Vec<tempfile::TempDir>,
    disk: Arc<Mutex<Disk>>,
    steps: Arc<AtomicI64>,
    chance: Chance,
    driver: Option<FilesDriver>,
}

const IDS: [&str; 3] = ["web", "db", "log"];

impl World {
    fn new(seed: u64) -> Self {
        let dir = directory();
        let disk = Arc::new(Mutex::new(Disk::new(dir.path())));
        let steps = Arc::new(AtomicI64::new(-1));
        Self { dirs: vec![dir], disk, steps, chance: Chance(seed), driver: None }
    }

    fn dir(&self) -> PathBuf {
        self.dirs.last().unwrap().path().canonicalize().unwrap()
    }

    fn text(&self, nth: usize) -> Option<String> {
        std::fs::read_to_string(self.dir().join(IDS[nth])).ok()
    }

    fn start(&mut self) -> Result<(), DriverError> {
        let (disk, steps) = (self.disk.clone(), self.steps.clone());
        let driver = FilesDriver::crashing(self.dir(), move |step, path| {
            let crash = steps.fetch_sub(1, SeqCst) == 0;
            let mut disk = disk.lock().unwrap();
            if crash {
                disk.look()
            } else {
                disk.step(step, path)
            }
            crash
        })?;
        self.driver = Some(driver);
        Ok(())
    }

    /// The process is killed. The driver crashes with the first thing that it would still do.
    fn kill(&mut self, power: bool) {
        self.steps.store(0, SeqCst);
        self.driver = None;
        self.steps.store(-1, SeqCst);
        self.disk.lock().unwrap().look();
        if power {
            let to = directory();
            self.disk.lock().unwrap().lose_power(to.path(), &mut self.chance);
            self.disk = Arc::new(Mutex::new(Disk::new(to.path())));
            self.dirs.push(to);
        }
    }

    /// Starts again, interrupted as often as there are ends.
    fn start_again(&mut self, ends: &mut impl Iterator<Item = End>) {
        loop {
            let end = ends.next();
            self.steps.store(end.map_or(-1, |end| end.after), SeqCst);
            if self.start().is_ok() {
                self.steps.store(-1, SeqCst);
                return;
            }
            self.kill(end.is_some_and(|end| end.power));
        }
    }

    fn driver(&self) -> &FilesDriver {
        self.driver.as_ref().unwrap()
    }

    fn marker(&self, nth: usize) -> Result<Option<OperationId>, TestCaseError> {
        let seen = wait(self.driver().observe(&replica(IDS[nth]))).unwrap();
        prop_assert_eq!(seen.drift, None, "{}", IDS[nth]);
        prop_assert_eq!(seen.digest, self.text(nth).map(|text| digest(text.as_bytes())));
        Ok(seen.marker)
    }
}

/// Appends to replicas of its own until the process ends. How many were answered, for each.
fn append_on(driver: &FilesDriver, ids: &[String]) -> Vec<usize> {
    let mut answered = vec![0; ids.len()];
    for n in 0..200 * ids.len() {
        let nth = n % ids.len();
        let text = format!("{};", answered[nth]);
        if wait(driver.apply(&replica(&ids[nth]), append(&answered[nth].to_string(), &text))).is_err() {
            break;
        }
        answered[nth] += 1;
    }
    answered
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100), ..ProptestConfig::default() })]

    #[test]
    fn what_was_answered_is_there(plan in plan(), last in end(), seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.start().unwrap();
        let mut model: BTreeMap<usize, (Option<String>, Option<OperationId>)> =
            (0..IDS.len()).map(|nth| (nth, (None, None))).collect();
        let plan = plan.into_iter().chain([(Act::Checkpoint, vec![last])]);
        for (n, (act, ends)) in plan.enumerate() {
            let mut ends = ends.into_iter();
            let (nth, what) = match act {
                Act::Change(nth, what) => (nth, what),
                Act::Checkpoint | Act::Restart => {
                    let end = ends.next();
                    world.steps.store(end.map_or(-1, |end| end.after), SeqCst);
                    if matches!(act, Act::Checkpoint) {
                        let _ = wait(world.driver().checkpoint());
                    } else {
                        world.driver = None;
                    }
                    if end.is_some() || matches!(act, Act::Restart) {
                        world.kill(end.is_some_and(|end| end.power));
                        world.start_again(&mut ends);
                    }
                    for (nth, (text, marker)) in &model {
                        prop_assert_eq!(&world.marker(*nth)?, marker);
                        prop_assert_eq!(&world.text(*nth), text);
                    }
                    continue;
                }
            };
            let work = match &what {
                What::Append(text) => Some(append(&format!("op-{n}"), text)),
                What::Write(text) => Some(write(&format!("op-{n}"), text)),
                What::Desired(value) => Some(Work::Desired(json!({ "value": value }))),
                What::Reset => Some(Work::Reset),
                What::Delete => None,
            };
            let id = match &work {
                Some(Work::Operation(operation)) => Some(operation.id.clone()),
                _ => None,
            };
            let before = model[&nth].clone();
            let after = (follow(before.0.as_deref(), &what), id.clone());
            loop {
                let end = ends.next();
                world.steps.store(end.map_or(-1, |end| end.after), SeqCst);
                let replica = replica(IDS[nth]);
                let done = match &work {
                    Some(work) => wait(world.driver().apply(&replica, work.clone())).is_ok(),
                    None => wait(world.driver().delete(&replica)).is_ok(),
                };
                let mut known = if done { vec![&after] } else { vec![&before, &after] };
                if let Some(end) = end {
                    world.kill(end.power);
                    world.start_again(&mut ends);
                }
                let now = (world.text(nth), world.marker(nth)?);
                known.retain(|known| **known == now);
                prop_assert!(!known.is_empty(), "{:?} is not {:?}, nor {:?}, done: {}", now, before, after, done);
                if done || (id.is_some() && now.1 == id) {
                    break;
                }
            }
            model.insert(nth, after);
            for (nth, (text, marker)) in &model {
                prop_assert_eq!(&world.marker(*nth)?, marker);
                prop_assert_eq!(&world.text(*nth), text);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(40), ..ProptestConfig::default() })]

    #[test]
    fn what_was_answered_is_there_also_of_many_at_once(after in 5_i64..600, power in any::<bool>(), seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.start().unwrap();
        world.steps.store(after, SeqCst);
        let ids: Vec<Vec<String>> = (0..4).map(|t| (0..2).map(|n| format!("t{t}-{n}")).collect()).collect();
        let driver = world.driver();
        let answered = std::thread::scope(|scope| {
            let threads: Vec<_> = ids.iter().map(|ids| scope.spawn(move || append_on(driver, ids))).collect();
            while wait(driver.checkpoint()).is_ok() && !threads.iter().all(|thread| thread.is_finished()) {}
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        world.kill(power);
        world.start().unwrap();
        for (id, answered) in ids.iter().flatten().zip(answered) {
            let text = std::fs::read_to_string(world.dir().join(id)).unwrap_or_default();
            let count = text.matches(';').count();
            prop_assert!(count == answered || count == answered + 1, "{} of {}: {}", answered, id, text);
            prop_assert_eq!(text, (0..count).map(|n| format!("{n};")).collect::<String>());
            let seen = wait(world.driver().observe(&replica(id))).unwrap();
            prop_assert_eq!((seen.drift, seen.marker.map(String::from)), (None, count.checked_sub(1).map(|n| n.to_string())));
        }
    }
}
