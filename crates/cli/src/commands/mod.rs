//! One module for each command.

pub(crate) mod apply;
pub(crate) mod completions;
pub(crate) mod conflicts;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod kubernetes;
pub(crate) mod node;
pub(crate) mod op;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod scope;
pub(crate) mod settle;
pub(crate) mod sites;
pub(crate) mod verify;
pub(crate) mod words;

use crate::args::{Cli, Command, Global};
use crate::client::{Client, ClientError, DEFAULT_API};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// What a command gets besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    global: Global,
    /// Where results go.
    pub(crate) out: Output,
}

impl Context {
    /// A client of the node that `--api` or the environment names.
    ///
    /// # Errors
    /// If the address or the token cannot be used.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let or_env = |given: &Option<String>, name: &str| {
            given.clone().or_else(|| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        let api = or_env(&self.global.api, "KHUFU_API").unwrap_or_else(|| DEFAULT_API.to_owned());
        Client::new(&api, or_env(&self.global.token, "KHUFU_TOKEN").as_deref())
    }
}

/// Runs the command that was asked for.
///
/// # Errors
/// Why it could not; [`Failure::exit`] is the code to end with.
pub(crate) async fn run(cli: Cli) -> Result<Exit, Failure> {
    let context = Context { out: Output::new(cli.global.output), global: cli.global };
    match cli.command {
        Command::Node(args) => node::run(*args, &context).await,
        Command::Init(args) => init::run(args, &context),
        Command::Demo(args) => demo::run(args, &context).await,
        Command::Apply(args) => apply::run(args, &context).await,
        Command::Op(args) => op::run(args, &context).await,
        Command::Get(args) => get::run(args, &context).await,
        Command::Describe(args) => describe::run(args, &context).await,
        Command::Diff(args) => diff::run(args, &context).await,
        Command::History(args) => history::run(args, &context).await,
        Command::Conflicts(args) => conflicts::run(args, &context).await,
        Command::Delete(args) => delete::run(args, &context).await,
        Command::Sites(args) => sites::run(args, &context).await,
        Command::Peers(args) => peers::run(args, &context).await,
        Command::Verify(args) => verify::run(args, &context).await,
        Command::Events(args) => events::run(args, &context).await,
        Command::Scope(command) => scope::run(command, &context).await,
        Command::Policy(command) => policy::run(command, &context),
        Command::Kubernetes(command) => kubernetes::run(command, &context).await,
        Command::Completions(args) => completions::run(args, &context),
    }
}
