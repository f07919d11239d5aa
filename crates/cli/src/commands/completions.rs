//! `khufu completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Context;
use crate::args::Cli;
use crate::exit::{Exit, Failure};

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: khufu completions bash > /etc/bash_completion.d/khufu")]
pub(crate) struct Args {
    /// The shell to print completions for
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "khufu", &mut script);
    context.out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
