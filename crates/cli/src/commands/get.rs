//! `khufu get`.

use khufu_crdt::{ReplicantId, SiteName};
use khufu_engine::{Page, ReplicantView, Summary};
use serde_json::{Value, json};

use super::{Context, apply, words};
use crate::client::{Ask, Client};
use crate::exit::{Exit, Failure};
use crate::output::{self, Output, Table, Tone};

/// How many lines are asked for at once.
const PAGE: usize = 500;

/// Which replicants.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The replicant; all if none is named
    id: Option<ReplicantId>,
    /// Only of this kind
    #[arg(long, conflicts_with = "id")]
    kind: Option<String>,
    /// Only those that live at this site
    #[arg(long, conflicts_with = "id")]
    site: Option<SiteName>,
    /// Only those with this status: pending, applied, failed, skipped, needs-attention or removed
    #[arg(long, conflicts_with = "id")]
    status: Option<String>,
    /// At most so many lines; all if not given
    #[arg(long, conflicts_with = "id", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Only those after this one, as the last line of a list with --limit says
    #[arg(long, conflicts_with = "id")]
    after: Option<ReplicantId>,
}

/// Shows one replicant or a list.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    if let Some(id) = &args.id {
        let (view, json): (ReplicantView, Value) = client.ask_for(Ask::get(apply::path(id))).await?;
        context.out.print(&json, |out| one(out, &view))?;
        return Ok(Exit::Ok);
    }
    let (items, next) = list(&client, &args).await?;
    let json = json!({"items": items, "next": next});
    context.out.print(&json, |out| many(out, &items, next.as_ref()))?;
    Ok(Exit::Ok)
}

/// Reads pages until there is no more, or as many lines as were asked for.
async fn list(client: &Client, args: &Args) -> Result<(Vec<Summary>, Option<ReplicantId>), Failure> {
    let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut items = Vec::new();
    let mut after = args.after.clone();
    loop {
        let ask = Ask::get("/v1/replicants")
            .query("kind", args.kind.as_ref())
            .query("site", args.site.as_ref())
            .query("status", args.status.as_ref())
            .query("after", after.as_ref())
            .query("limit", Some(PAGE.min(limit - items.len())));
        let (page, _): (Page, Value) = client.ask_for(ask).await?;
        items.extend(page.items);
        after = page.next;
        if after.is_none() || items.len() >= limit {
            return Ok((items, after));
        }
    }
}

fn many(out: Output, items: &[Summary], next: Option<&ReplicantId>) -> String {
    let mut table = Table::new(out, &["ID", "KIND", "STATUS", "SITES", "OPERATIONS", "CONFLICTS", "SCOPE"]);
    for item in items {
        let status = if item.deleted { ("deleted".to_owned(), Tone::Dim) } else { words::status(item.status) };
        let tone = if item.conflicts > 0 { Tone::Bad } else { Tone::Plain };
        table.row([
            (item.id.to_string(), Tone::Plain),
            (item.kind.clone(), Tone::Plain),
            status,
            (words::list(&item.sites), Tone::Plain),
            (item.operations.to_string(), Tone::Plain),
            (item.conflicts.to_string(), tone),
            (item.scope.clone(), Tone::Plain),
        ]);
    }
    let mut text = table.or("No replicants here.");
    if let Some(next) = next {
        text.push_str(&format!("\n(more: --after {next})"));
    }
    text
}

fn one(out: Output, view: &ReplicantView) -> String {
    let mut table = Table::new(out, &["SITE", "STATUS", "CURRENT", "SITE STATE", "LOCAL ID"]);
    for (site, status) in &view.sites {
        let report = status.report.as_ref();
        table.row([
            (site.to_string(), Tone::Plain),
            report.map_or(("silent".to_owned(), Tone::Waiting), |report| words::status(report.status)),
            if status.current { ("yes".to_owned(), Tone::Good) } else { ("no".to_owned(), Tone::Waiting) },
            words::liveness(status.state),
            (report.and_then(|report| report.local_id.clone()).unwrap_or_else(|| "-".into()), Tone::Plain),
        ]);
    }
    let (status, tone) = words::status(view.status);
    let status = if view.deleted.is_some() { out.paint(Tone::Dim, "deleted") } else { out.paint(tone, &status) };
    let desired = output::yaml(&view.desired).unwrap_or_default();
    let desired = if view.desired.is_null() { "none".to_owned() } else { format!("\n{}", indent(&desired)) };
    format!(
        "{} ({}), scope {}: {status}\n{}\ndesired: {desired}",
        view.id,
        view.kind,
        view.scope,
        table.or("No site has it yet.")
    )
}

/// Text set in by two spaces.
pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {}", output::clean(line))).collect::<Vec<_>>().join("\n")
}
