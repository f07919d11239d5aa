//! `khufu describe`.

use std::fmt::Write as _;

use khufu_crdt::{Condition, Hlc, ReplicantId, Status};
use khufu_engine::{ReplicantView, SiteStatus};
use serde_json::{Value, json};

use super::{Context, apply, conflicts, get, words};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, Tone, age, now_ms, utc, yaml};

/// Which one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The replicant
    id: ReplicantId,
}

/// Tells all there is to know.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let (view, mut json): (ReplicantView, Value) = client.ask_for(Ask::get(apply::path(&args.id))).await?;
    let (found, found_json) =
        if view.conflicts > 0 { conflicts::read(&client, &args.id).await? } else { (Vec::new(), json!([])) };
    if let Some(fields) = json.as_object_mut() {
        fields.insert("conflicting_fields".into(), found_json);
    }
    context.out.print(&json, |out| people(out, &view, &found))?;
    Ok(Exit::Ok)
}

fn people(out: Output, view: &ReplicantView, found: &[conflicts::Conflict]) -> String {
    let mut text = String::new();
    head(out, view, &mut text);
    section(&mut text, "Sites", &sites(out, view));
    section(&mut text, "Desired state", &value(&view.desired));
    for (site, patch) in &view.overrides {
        section(&mut text, &format!("Laid over it at {site}"), &value(patch));
    }
    if !view.operations.is_empty() {
        section(&mut text, "Operations", &operations(out, view));
    }
    if !found.is_empty() {
        section(&mut text, "Conflicts (settle one with `khufu conflicts --pick`)", &conflicts::people(out, found));
    }
    if !view.warnings.is_empty() {
        let warnings: Vec<String> = view.warnings.iter().map(|warning| format!("- {warning}")).collect();
        section(&mut text, "Warnings", &warnings.join("\n"));
    }
    text
}

/// Names and values on lines of their own, so that `grep` finds them.
fn head(out: Output, view: &ReplicantView, text: &mut String) {
    let (status, tone) = words::status(view.status);
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<11} {value}");
    };
    line("Id", view.id.as_str());
    line("Kind", &view.kind);
    line("Status", &out.paint(tone, &status));
    if let Some(health) = &view.health {
        let (word, tone) = words::health(health.condition);
        let why =
            if health.message.is_empty() { String::new() } else { format!(" ({})", words::short(&health.message)) };
        line("Health", &format!("{}{why}, {} ago", out.paint(tone, &word), age(health.at, now_ms())));
    }
    line("Scope", &view.scope);
    if let Some(placement) = &view.placement {
        let prime = placement.prime.as_ref().map_or(String::new(), |prime| format!(", held by {prime}"));
        line("Placement", &format!("{}{prime}", words::list(&placement.sites)));
        if !placement.leaving.is_empty() {
            line("Leaving", &words::list(&placement.leaving));
        }
        line("Decided", &format!("{} at {}", moment(placement.decided_at), placement.decided_by));
    } else {
        line("Placement", "not decided yet");
    }
    if let Some(deleted) = &view.deleted {
        let keep = if deleted.keep { ", the replicas stay" } else { "" };
        line("Deleted", &out.paint(Tone::Bad, &format!("{} at {}{keep}", moment(deleted.at), deleted.by)));
    }
    line("Document", &format!("about {} bytes, epoch {}", view.bytes, view.epoch));
    let heads: Vec<String> = view.heads.iter().map(|head| head.to_string().chars().take(12).collect()).collect();
    line("Heads", &words::list(heads));
}

fn sites(out: Output, view: &ReplicantView) -> String {
    let now = now_ms();
    let mut table =
        Table::new(out, &["SITE", "STATUS", "HEALTH", "CURRENT", "LOOKED", "SITE STATE", "LOCAL ID", "REMARK"]);
    for (site, status) in &view.sites {
        let report = status.report.as_ref();
        let observed = report.and_then(|report| report.observed.as_ref());
        table.row([
            (site.to_string(), Tone::Plain),
            report.map_or(("silent".to_owned(), Tone::Waiting), |report| words::status(report.status)),
            status.health.as_ref().map_or(("-".to_owned(), Tone::Plain), |health| words::health(health.condition)),
            if status.current { ("yes".to_owned(), Tone::Good) } else { ("no".to_owned(), Tone::Waiting) },
            (observed.map_or("-".into(), |observed| age(observed.at, now)), Tone::Plain),
            words::liveness(status.state),
            (report.and_then(|report| report.local_id.clone()).unwrap_or_else(|| "-".into()), Tone::Plain),
            (remark(status), Tone::Plain),
        ]);
    }
    table.or("No site has it yet.")
}

/// What a person should know of one site, in a few words.
fn remark(status: &SiteStatus) -> String {
    let mut remarks = Vec::new();
    if status.leaving {
        remarks.push("leaving".to_owned());
    }
    if let Some(report) = &status.report {
        // What the platform said of something that worked is of no interest; `-o json` has it.
        let trouble = report.desired.as_ref().filter(|desired| desired.status != Status::Applied);
        remarks.extend(trouble.map(|desired| desired.output.clone()).filter(|text| !text.is_empty()));
        let drift = report.observed.as_ref().and_then(|observed| observed.drift.as_ref());
        remarks.extend(drift.map(|drift| format!("changed by hand: {drift}")));
        let health = status.health.as_ref().filter(|health| health.condition != Condition::Current);
        remarks.extend(health.map(|health| health.message.clone()).filter(|text| !text.is_empty()));
    }
    words::short(&remarks.join("; "))
}

fn operations(out: Output, view: &ReplicantView) -> String {
    let mut table =
        Table::new(out, &["RUN", "OPERATION", "TYPE", "ASKED AT", "WHEN", "FATE", "PAYLOAD", "AT THE SITES"]);
    let mut rows: Vec<_> = view.operations.iter().collect();
    rows.sort_by_key(|row| (row.operation.at, row.operation.by.clone(), row.operation.id.clone()));
    for row in rows {
        let operation = &row.operation;
        let place = view.resolved.iter().position(|id| *id == operation.id);
        let at_sites: Vec<String> = view
            .sites
            .iter()
            .filter_map(|(site, status)| Some((site, status.report.as_ref()?.operations.get(&operation.id)?)))
            .map(|(site, report)| format!("{site} {}", words::status(report.status).0))
            .collect();
        table.row([
            (place.map_or("-".into(), |place| (place + 1).to_string()), Tone::Plain),
            (operation.id.to_string(), Tone::Plain),
            (operation.op_type.clone(), Tone::Plain),
            (operation.by.to_string(), Tone::Plain),
            (moment(operation.at), Tone::Plain),
            words::fate(&row.fate),
            (words::payload(&operation.payload), Tone::Plain),
            (at_sites.join(", "), Tone::Plain),
        ]);
    }
    table.or("None.")
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        other => yaml(other).unwrap_or_default(),
    }
}

fn section(text: &mut String, title: &str, body: &str) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{title}\n{}\n", get::indent(body));
}

fn moment(at: Hlc) -> String {
    utc(at.ms())
}
