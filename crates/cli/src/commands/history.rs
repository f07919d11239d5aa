//! `khufu history`.

use khufu_crdt::{Hlc, OperationId, ReplicantId};
use serde::Deserialize;
use serde_json::Value;

use super::{Context, apply};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, utc};

/// Of what, and how much.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The replicant
    id: ReplicantId,
    /// At most so many entries, the newest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// What a table shows of an entry; `-o json` shows all of it.
#[derive(Debug, Deserialize)]
struct Entry {
    hash: String,
    author: Option<Author>,
    #[serde(default)]
    what: String,
    #[serde(default)]
    operation: Option<OperationId>,
    #[serde(default)]
    edits: u64,
}

#[derive(Debug, Deserialize)]
struct Author {
    site: String,
    at: Hlc,
    #[serde(default)]
    who: String,
    #[serde(default)]
    why: String,
}

/// Shows who changed what, the newest last.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let ask = Ask::get(format!("{}/history", apply::path(&args.id))).query("limit", Some(args.limit));
    let (entries, json): (Vec<Entry>, Value) = context.client()?.ask_for(ask).await?;
    context.out.print(&json, |out| people(out, &entries))?;
    Ok(Exit::Ok)
}

fn people(out: Output, entries: &[Entry]) -> String {
    let mut table = Table::new(out, &["WHEN", "SITE", "WHO", "WHAT", "EDITS", "CHANGE", "WHY"]);
    for entry in entries {
        let what = match &entry.operation {
            Some(operation) => format!("{} {operation}", entry.what),
            None => entry.what.clone(),
        };
        let (when, site, who, why) = match &entry.author {
            Some(author) => (utc(author.at.ms()), author.site.clone(), author.who.clone(), author.why.clone()),
            None => ("-".into(), "-".into(), "(another program)".into(), String::new()),
        };
        let change: String = entry.hash.chars().take(12).collect();
        table.plain([when, site, who, what, entry.edits.to_string(), change, why]);
    }
    table.or("No changes.")
}
