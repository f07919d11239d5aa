//! The command line.

pub(crate) mod values;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    apply, completions, conflicts, delete, demo, describe, diff, events, get, history, init, kubernetes, node, op,
    peers, policy, scope, sites, verify,
};
use crate::exit::EXIT_CODES;
use crate::output::Format;

/// Geo-distribute the resources of any service over sites that may be cut off from each other.
#[derive(Debug, Parser)]
#[command(name = "khufu", version, after_help = EXIT_CODES, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For all commands")]
pub(crate) struct Global {
    /// Where the API of the node to ask is [env: KHUFU_API] [default: http://127.0.0.1:7780]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The bearer token that the API demands [env: KHUFU_TOKEN, which other users cannot see in the list of processes]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// How to print results: tables for people, JSON or YAML for programs
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: serve one site
    Node(Box<node::Args>),
    /// Make identity, network key and configuration for a new site
    Init(init::Args),
    /// Show what Khufu does: several sites on this machine, a partition, and how they agree again
    Demo(demo::Args),
    /// Create a replicant from a manifest, or edit it to be like the manifest
    Apply(apply::Args),
    /// Ask for an operation on a replicant
    Op(op::Args),
    /// List replicants, or show one
    Get(get::Args),
    /// Tell all there is to know about one replicant
    Describe(describe::Args),
    /// Show how a manifest differs from what is desired now, and what each site has yet to do
    Diff(diff::Args),
    /// Show who changed a replicant, when and why
    History(history::Args),
    /// Show the fields that sites set differently while apart, and pick values
    Conflicts(conflicts::Args),
    /// Delete a replicant everywhere
    Delete(delete::Args),
    /// List the sites
    Sites(sites::Args),
    /// List the nodes and their connections
    Peers(peers::Args),
    /// Check that all sites hold the same
    Verify(verify::Args),
    /// Follow what happens
    Events(events::Args),
    /// Work with scopes
    #[command(subcommand)]
    Scope(scope::Command),
    /// Work with policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Prepare clusters
    #[command(subcommand)]
    Kubernetes(kubernetes::Command),
    /// Print completions for a shell
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn api_is_an_address_to_ask_or_to_serve_at() {
        let cli = Cli::parse_from(["khufu", "node", "--site", "paris", "--api", "127.0.0.1:0"]);
        let Command::Node(node) = cli.command else { unreachable!() };
        assert_eq!(node.api.as_deref(), Some("127.0.0.1:0"));
        let cli = Cli::parse_from(["khufu", "get", "--api", "http://a:1"]);
        assert_eq!(cli.global.api.as_deref(), Some("http://a:1"));
        let cli = Cli::parse_from(["khufu", "--api", "http://a:1", "get", "web"]);
        assert_eq!(cli.global.api.as_deref(), Some("http://a:1"));
    }
}
