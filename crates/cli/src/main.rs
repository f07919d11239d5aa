//! The `khufu` command: run a node, and talk to one.
//!
//! It knows how to read arguments, configuration and files, how to ask a node over its HTTP API, and how to show answers
//! to people and programs. It decides nothing about replicants: that is the node's to do, also for `khufu node`, which
//! only starts one. What works without a node (`policy resolve`, `scope explain --sites`) calls the same pure functions
//! that nodes call.

mod args;
mod client;
mod commands;
mod config;
mod demo;
mod exit;
mod input;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::exit::Exit;

/// A node makes and drops many small values: every sixth moment was spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // clap ends the process itself, with code 2, if the arguments make no sense.
    let cli = Cli::parse();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::remark(&format!("khufu: cannot start: {error}"));
            return Exit::Failed.into();
        }
    };
    let result = runtime.block_on(commands::run(cli));
    // A read of standard input that never ends must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_broken_pipe() => Exit::Ok.into(),
        Err(failure) => {
            output::remark(&format!("khufu: {failure}"));
            failure.exit().into()
        }
    }
}

/// The engine, the network and the API are tasks that hand little pieces of work to each other. Where each wakes a thread
/// for the next, that costs more than the work, so they share one thread where there are no more than two processors: the
/// other is for the store and the drivers, which have threads of their own.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = match processors {
        0..=2 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}
