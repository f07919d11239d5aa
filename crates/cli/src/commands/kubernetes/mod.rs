//! `khufu kubernetes`.

mod kubeconfig;
mod rbac;

use super::Context;
use crate::exit::{Exit, Failure};

/// What to do for clusters.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print the roles that a node needs for the kinds in use, and no other rights
    Rbac(rbac::Args),
    /// Print a kubeconfig with which kubectl writes through the front of a node, to all sites of a scope
    Kubeconfig(kubeconfig::Args),
}

/// Runs the subcommand.
pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Rbac(args) => rbac::run(args, context).await,
        Command::Kubeconfig(args) => kubeconfig::run(args, context),
    }
}
