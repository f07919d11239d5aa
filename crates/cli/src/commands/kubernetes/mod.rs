//! `khufu kubernetes`.

mod rbac;

use super::Context;
use crate::exit::{Exit, Failure};

/// What to do for clusters.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print the roles that a node needs for the kinds in use, and no other rights
    Rbac(rbac::Args),
}

/// Runs the subcommand.
pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Rbac(args) => rbac::run(args, context).await,
    }
}
