//! Studies in virtual time, before anything is deployed: how long a change takes to reach all sites, and whether what is
//! promised holds whatever goes wrong.
//!
//! `cargo run --release -p khufu-simulations -- --sites 20 --seeds 5`; with `--json` for programs.
//! `cargo run --release -p khufu-simulations -- fuzz --seeds 3000`; with `-o json` for programs.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use khufu_simulations::fuzz::{self, Batch, Plan};
use khufu_simulations::{Spread, Study};

use self::args::{Args, Command, Format, FuzzArgs, StudyArgs};

/// A simulation does little but make small values and drop them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a promise that was broken.
const BROKEN: u8 = 1;
/// Runs that are spent on making a scenario smaller.
const SHRINKING: usize = 600;

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        Some(Command::Fuzz(args)) => fuzz(&args),
        None => study(&args.study),
    }
}

/// The value below which a share of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

fn study(args: &StudyArgs) -> ExitCode {
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
        return ExitCode::SUCCESS;
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
    ExitCode::SUCCESS
}

fn fuzz(args: &FuzzArgs) -> ExitCode {
    fuzz::keep_panics();
    match args.seed {
        Some(seed) if args.output == Format::Text => replay(args, seed),
        _ => batch(args),
    }
}

/// One seed, with all that can be said of it.
fn replay(args: &FuzzArgs, seed: u64) -> ExitCode {
    let plan = Plan::new(args.class, seed);
    let outcome = fuzz::run(&plan, true);
    let Some(broken) = outcome.broken else {
        println!("seed {seed}: no promise was broken; {:.1} virtual seconds", outcome.time.as_secs_f64());
        println!("trace {}", outcome.trace);
        if args.timeline {
            println!("{}", outcome.timeline.map(|timeline| timeline.text(usize::MAX)).unwrap_or_default());
        }
        return ExitCode::SUCCESS;
    };
    let (mut broken, mut timeline, mut details) = (broken, outcome.timeline, outcome.details);
    if args.shrink {
        let small = fuzz::shrink(&plan, &broken.name(), SHRINKING);
        println!("{} deeds of {} are enough:", small.steps.len(), plan.steps.len());
        let outcome = fuzz::run(&small, true);
        (timeline, details) = (outcome.timeline, outcome.details);
        broken = outcome.broken.unwrap_or(broken);
    }
    let most = if args.timeline || args.shrink { usize::MAX } else { 60 };
    println!("FAILED seed {seed}: {}: {broken}\n", broken.name());
    println!("{}", timeline.map(|timeline| timeline.text(most)).unwrap_or_default());
    println!("{details}");
    println!("trace {}", outcome.trace);
    ExitCode::from(BROKEN)
}

fn batch(args: &FuzzArgs) -> ExitCode {
    let batch = Batch {
        class: args.class,
        from: args.seed.unwrap_or(args.from),
        seeds: if args.seed.is_some() { 1 } else { args.seeds },
        threads: args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
        time: args.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        stop: args.stop,
    };
    let terminal = std::io::stderr().is_terminal();
    let mut failed = 0;
    let summary = batch.run(|progress| {
        let rate = progress.done as f64 / progress.time.as_secs_f64().max(0.001);
        let slow = progress.oldest.filter(|(_, since)| *since > Duration::from_secs(60));
        let slow = slow.map_or_else(String::new, |(seed, since)| {
            format!("; seed {seed} has been running for {} s", since.as_secs())
        });
        let line =
            format!("{} of {} seeds, {rate:.1} a second, {} failed{slow}", progress.done, progress.of, progress.failed);
        if terminal {
            eprint!("\r\x1b[K{line}");
        } else if progress.failed > failed || !slow.is_empty() {
            eprintln!("{line}");
        }
        failed = progress.failed;
    });
    if terminal {
        eprint!("\r\x1b[K");
    }
    match args.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&summary).unwrap_or_default()),
        Format::Text => println!("{summary}"),
    }
    if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) }
}
