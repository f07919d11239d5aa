//! `khufu delete`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::ReplicantView;
use reqwest::Method;
use serde_json::Value;

use super::{Context, apply, settle, words};
use crate::args::values;
use crate::client::Ask;
use crate::exit::{Exit, Failure};

/// What to delete, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The replicant
    id: ReplicantId,
    /// Leave the replicas on the platforms; only Khufu forgets them
    #[arg(long)]
    keep: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Wait until every site has removed its replica, at most so long
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "30s", value_parser = values::duration)]
    wait: Option<Duration>,
}

/// Asks the user, then the node.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    if !args.yes {
        let (view, _): (ReplicantView, Value) = client.ask_for(Ask::get(apply::path(&args.id))).await?;
        let sites = words::list(view.placement.iter().flat_map(|placement| placement.holders()));
        let what = if args.keep { "Forget" } else { "Delete" };
        if !confirmed(&format!("{what} {} at {sites}?", args.id))? {
            return Err(Failure::Failed(format!("{} is left as it is", args.id)));
        }
    }
    let ask = Ask::new(Method::DELETE, apply::path(&args.id)).query("keep", args.keep.then_some("true"));
    let mut json = client.ask(ask).await?;
    let mut exit = Exit::Ok;
    if let Some(wait) = args.wait {
        (_, json, exit) = settle::wait(&client, &args.id, wait).await?;
    }
    context.out.print(&json, |_| {
        if args.keep {
            format!("{} deleted; the replicas stay on the platforms", args.id)
        } else {
            format!(
                "{} deleted; each site removes its replica, also those that are cut off once they are back",
                args.id
            )
        }
    })?;
    Ok(exit)
}

/// Whether the person at the terminal says yes.
fn confirmed(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{question} Nobody can be asked here: use --yes")));
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "{question} [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
