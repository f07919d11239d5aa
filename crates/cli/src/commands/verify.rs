//! `khufu verify`.

use khufu_crdt::ReplicantId;
use khufu_engine::VerifyReport;
use serde_json::Value;

use super::{Context, words};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, Tone};

/// What to compare.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 0 only if all sites answered and hold the same documents and contents.")]
pub(crate) struct Args {
    /// Only this replicant
    id: Option<ReplicantId>,
}

/// Asks all sites what they hold, and compares.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let ask = Ask::get("/v1/verify").query("id", args.id.as_ref());
    let (report, json): (VerifyReport, Value) = context.client()?.ask_for(ask).await?;
    context.out.print(&json, |out| people(out, &report))?;
    Ok(if report.same { Exit::Ok } else { Exit::Failed })
}

fn people(out: Output, report: &VerifyReport) -> String {
    let mut table = Table::new(out, &["REPLICANT", "SITE", "STATUS", "DOCUMENT", "CONTENTS"]);
    for entry in &report.replicants {
        for (site, holding) in &entry.sites {
            let contents = holding.observed.as_ref().and_then(|observed| observed.digest.as_deref());
            let none = if holding.unseen.is_some() { "not known" } else { "none" };
            let contents = contents.map_or(none.to_owned(), prefix);
            let contents = if holding.overridden { format!("{contents} (overridden)") } else { contents };
            table.row([
                (entry.id.to_string(), Tone::Plain),
                (site.to_string(), Tone::Plain),
                words::status(holding.status),
                (holding.document.as_deref().map_or("none".to_owned(), prefix), Tone::Plain),
                (contents, if entry.same { Tone::Good } else { Tone::Bad }),
            ]);
        }
    }
    let mut text = table.or("Nothing to compare.");
    for entry in &report.replicants {
        for difference in &entry.differences {
            text.push_str(&format!("\n{}: {difference}", entry.id));
        }
    }
    if !report.unknown.is_empty() {
        text.push_str(&format!("\nDid not answer: {}", words::list(&report.unknown)));
    }
    let (tone, verdict) = if report.same {
        (Tone::Good, "the same everywhere")
    } else {
        (Tone::Bad, "NOT known to be the same everywhere")
    };
    let replicants = if report.checked == 1 { "replicant" } else { "replicants" };
    format!("{text}\n{} {replicants}: {}", report.checked, out.paint(tone, verdict))
}

/// Enough of a digest to tell it from another.
fn prefix(digest: &str) -> String {
    digest.chars().take(12).collect()
}
