//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use khufu_simulations::fuzz::Class;

/// Simulates sites with the real engine and in virtual time. Without a command: how changes spread between them.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) study: StudyArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tries to break what is promised: random faults of every kind, and then everything must come true
    Fuzz(FuzzArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct StudyArgs {
    /// How many sites
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=100))]
    pub(super) sites: u64,
    /// How many edits, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) changes: u64,
    /// The least time that a message is on its way, in milliseconds
    #[arg(long, default_value_t = 10)]
    pub(super) delay_ms: u64,
    /// What is added to it at most, in milliseconds
    #[arg(long, default_value_t = 40)]
    pub(super) jitter_ms: u64,
    /// Gossip that is lost, in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(super) gossip_loss: u64,
    /// Cut the first site off for so many seconds, edit on both sides, and heal
    #[arg(long, default_value_t = 0)]
    pub(super) cut_s: u64,
    /// How many runs, each with a seed of its own
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, ClapArgs)]
pub(super) struct FuzzArgs {
    /// How many scenarios, each with a seed of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(super) from: u64,
    /// Only this seed, and all that can be said of it
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    pub(super) seed: Option<u64>,
    /// Which faults there may be; each class has seeds of its own
    #[arg(long, value_enum, default_value_t)]
    pub(super) class: Class,
    /// How many at a time; as many as there are processors if not given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
    /// Begin no further seeds after so many minutes
    #[arg(long)]
    pub(super) minutes: Option<u64>,
    /// Begin no further seeds after the first failure
    #[arg(long)]
    pub(super) stop: bool,
    /// With --seed: leave out what is not needed to break the same promise
    #[arg(long, requires = "seed")]
    pub(super) shrink: bool,
    /// With --seed: print all events, also where nothing broke
    #[arg(long, requires = "seed")]
    pub(super) timeline: bool,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Format,
}
