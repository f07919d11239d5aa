//! How long a change takes to reach all sites, before anything is deployed.
//!
//! `cargo run --release -p khufu-simulations -- --sites 20 --seeds 5`; with `--json` for programs.
#![allow(clippy::print_stdout)]

use clap::Parser;
use khufu_simulations::{Spread, Study};

/// Simulates how changes spread between sites, with the real engine and in virtual time.
#[derive(Debug, Parser)]
struct Args {
    /// How many sites
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=100))]
    sites: u64,
    /// How many edits, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    changes: u64,
    /// The least time that a message is on its way, in milliseconds
    #[arg(long, default_value_t = 10)]
    delay_ms: u64,
    /// What is added to it at most, in milliseconds
    #[arg(long, default_value_t = 40)]
    jitter_ms: u64,
    /// Gossip that is lost, in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    gossip_loss: u64,
    /// Cut the first site off for so many seconds, edit on both sides, and heal
    #[arg(long, default_value_t = 0)]
    cut_s: u64,
    /// How many runs, each with a seed of its own
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The value below which a share of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

fn main() {
    let args = Args::parse();
    let study = Study {
        sites: usize::try_from(args.sites).unwrap_or(usize::MAX),
        changes: usize::try_from(args.changes).unwrap_or(usize::MAX),
        delay_ms: args.delay_ms,
        jitter_ms: args.jitter_ms,
        gossip_loss: args.gossip_loss,
        cut_s: args.cut_s,
    };
    let runs: Vec<Spread> = (0..args.seeds).map(|number| study.run(args.seed.wrapping_add(number))).collect();
    if args.json {
        println!("{}", serde_json::json!({"study": study, "runs": runs}));
        return;
    }
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "seed", "p50 ms", "p99 ms", "max ms", "heal ms", "frames", "gossip"
    );
    for run in &runs {
        let mut times = run.times_ms.clone();
        times.sort_by(f64::total_cmp);
        let heal = run.heal_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
        println!(
            "{:>6} {:>9.1} {:>9.1} {:>9.1} {heal:>9} {:>8} {:>8}",
            run.seed,
            quantile(&times, 0.5),
            quantile(&times, 0.99),
            quantile(&times, 1.0),
            run.frames,
            run.gossiped
        );
    }
}
