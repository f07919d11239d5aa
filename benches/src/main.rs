//! What whole nodes cost: real processes on loopback, driven over HTTP and watched over `/v1/events`.
//!
//! ```text
//! cargo build --release -p khufu-cli -p khufu-benches
//! target/release/khufu-nodes                            # all but `many` and `kubernetes`, some half an hour
//! target/release/khufu-nodes latency floor              # some parts
//! target/release/khufu-nodes --quick --json out.json
//! ```
//! docs/performance.md says what each figure means. Nothing here fails because something is slow: it only measures.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, clippy::unwrap_used, missing_docs)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod http;
mod network;
mod parts;
mod table;
mod usage;
mod watch;

use std::path::PathBuf;

use clap::Parser;

/// What whole nodes cost.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Options {
    /// The parts to measure; all but `many` and `kubernetes` if none is named
    #[arg(value_enum)]
    parts: Vec<parts::Part>,
    /// Small sizes, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Write everything measured to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each part is run
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the nodes keep their data: a real disk, or the figures say nothing
    #[arg(long, value_name = "DIR", default_value_os_t = beside(""))]
    dir: PathBuf,
    /// The program to measure [default: the one beside this]
    #[arg(long, value_name = "FILE", default_value_os_t = beside("khufu"), hide_default_value = true)]
    khufu: PathBuf,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Edits per second where the rate is given
    #[arg(long, default_value_t = 50)]
    rate: u64,
    /// Seconds of measuring where the rate is given
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Edits where the rate is what is measured
    #[arg(long, default_value_t = 10_000)]
    edits: usize,
    /// Replicants that are edited in turn
    #[arg(long, default_value_t = 100)]
    replicants: usize,
    /// Changes of one replicant that a node missed
    #[arg(long, default_value_t = 10_000)]
    missed: usize,
    /// Replicants in the part `reconnect`
    #[arg(long, default_value_t = 10_000)]
    shared: usize,
    /// Objects in the part `kubernetes`
    #[arg(long, default_value_t = 1_000)]
    objects: usize,
    /// Replicants in the part `many`
    #[arg(long, default_value_t = 100_000)]
    known: usize,
}

/// A file in the directory of this program, where Cargo puts all that it builds.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name))).unwrap_or_else(|| name.into())
}

impl Options {
    fn small(mut self) -> Self {
        if self.quick {
            (self.runs, self.seconds, self.edits, self.missed) = (1, 2, 300, 300);
            (self.shared, self.known, self.replicants, self.objects) = (200, 500, 20, 50);
        }
        self
    }
}

fn main() {
    let mut options = Options::parse().small();
    // Nodes run in directories of their own.
    options.khufu = options.khufu.canonicalize().unwrap_or_else(|error| {
        panic!("there is no {}: build it, or name another with --khufu ({error})", options.khufu.display())
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let table = runtime.block_on(parts::run(&options));
    println!("{table}");
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", table.json())).expect("the file can be written");
    }
}
