//! The fuzz command itself: what it says can be relied on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::process::Command;

use khufu_simulations::fuzz::{Batch, Class, Plan, SETTINGS, run};
use serde_json::Value;

/// A seed for each of the settings that engines are run with.
fn one_seed_for_each_setting() -> Vec<u64> {
    let seed = |setting| (0..).find(|seed| Plan::new(Class::Faults, *seed).setting == setting).expect("there are many");
    (0..SETTINGS.len()).map(seed).collect()
}

#[test]
fn a_run_is_the_same_for_the_same_seed_in_any_process() {
    for seed in one_seed_for_each_setting() {
        let plan = Plan::new(Class::Faults, seed);
        let (first, second) = (run(&plan, false), run(&plan, true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.happened, second.happened, "seed {seed}");
        assert_eq!(first.broken, None, "seed {seed}");
        let seed = seed.to_string();
        let other = Command::new(env!("CARGO_BIN_EXE_khufu-simulations"))
            .args(["fuzz", "--seed", &seed, "--output", "json"])
            .output()
            .expect("the command runs");
        let said: Value = serde_json::from_slice(&other.stdout).expect("JSON");
        assert_eq!(said["trace"], Value::String(first.trace), "seed {seed} in another process");
        assert!(other.status.success(), "{said}");
    }
}

/// The short form; thousands of seeds: `cargo run --release -p khufu-simulations -- fuzz --seeds 3000`.
#[test]
fn some_seeds_of_each_class_keep_every_promise() {
    for (class, seeds) in [(Class::Faults, 120), (Class::Disasters, 60)] {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let batch = Batch { class, from: 0, seeds, threads, time: None, stop: false };
        let summary = batch.run(|_| {});
        assert!(summary.failures.is_empty(), "{summary}");
        assert_eq!(summary.seeds, seeds);
    }
}

#[test]
fn a_batch_that_tried_too_little_is_not_good_and_says_what_is_missing() {
    let batch = Batch { class: Class::Faults, from: 0, seeds: 1, threads: 1, time: None, stop: false };
    let mut summary = batch.run(|_| {});
    summary.missing = summary.happened.missing(Class::Faults);
    assert!(!summary.missing.is_empty() && !summary.is_good());
    assert!(summary.to_string().contains("NEVER HAPPENED: "), "{summary}");
}
