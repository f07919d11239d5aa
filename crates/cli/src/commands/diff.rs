//! `khufu diff`.

use std::collections::BTreeMap;

use khufu_crdt::{ReplicantId, SiteName, State};
use khufu_engine::{ReplicantView, SitePlan};
use serde_json::{Value, json};
use similar::TextDiff;

use super::{Context, apply};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{self, Output, Table, Tone};

/// What to compare.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 0 if there is no difference, with 1 if there is one. Nothing is changed.")]
pub(crate) struct Args {
    /// The manifest, YAML or JSON; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// The replicant [default: metadata.name of the manifest]
    #[arg(long)]
    id: Option<ReplicantId>,
}

/// Shows the difference, and what each site has yet to do as it is.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let manifest = input::read_value(&args.file)?;
    let id = apply::id_of(args.id, &manifest, &args.file)?;
    let client = context.client()?;
    let (view, _): (ReplicantView, Value) = client.ask_for(Ask::get(apply::path(&id))).await?;
    let (plans, plans_json): (Vec<SitePlan>, Value) =
        client.ask_for(Ask::get(format!("{}/plan", apply::path(&id)))).await?;

    let diff = unified(&view.desired, &manifest, &format!("{id} as desired now"), input::name_of(&args.file))?;
    let overridden = overridden(&view, &manifest)?;
    let json = json!({"id": id, "diff": diff, "overridden": overridden, "sites": plans_json});
    context.out.print(&json, |out| people(out, &diff, &overridden, &plans))?;
    Ok(if diff.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// What the manifest changes at the sites that have an override, which is laid over it.
fn overridden(view: &ReplicantView, manifest: &Value) -> Result<BTreeMap<SiteName, String>, Failure> {
    let with =
        |desired: &Value| State { desired: desired.clone(), overrides: view.overrides.clone(), ..State::default() };
    let (now, then) = (with(&view.desired), with(manifest));
    let holders: Vec<_> = view.placement.iter().flat_map(|placement| &placement.sites).collect();
    let sites = view.overrides.keys().filter(|site| holders.contains(site));
    sites
        .map(|site| {
            let text = match then.effective(site) {
                Ok(after) => {
                    // What does not fit now is shown as a whole.
                    let before = now.effective(site).unwrap_or_default();
                    unified(&before, &after, &format!("{site} as it is now"), &format!("{site} with its override"))?
                }
                Err(error) => format!("It would fail there: {error}\n"),
            };
            Ok((site.clone(), text))
        })
        .collect()
}

/// The difference between two values as YAML; empty if they are the same.
fn unified(from: &Value, to: &Value, from_name: &str, to_name: &str) -> Result<String, Failure> {
    if from == to {
        return Ok(String::new());
    }
    let (from, to) = (output::yaml(from)?, output::yaml(to)?);
    Ok(TextDiff::from_lines(&from, &to).unified_diff().context_radius(3).header(from_name, to_name).to_string())
}

fn coloured(out: Output, diff: &str) -> String {
    let mut text = String::new();
    for line in diff.lines() {
        let tone = match line.as_bytes().first() {
            Some(b'+') => Tone::Good,
            Some(b'-') => Tone::Bad,
            Some(b'@') => Tone::Dim,
            _ => Tone::Plain,
        };
        text.push_str(&out.paint(tone, &output::clean(line)));
        text.push('\n');
    }
    text
}

fn people(out: Output, diff: &str, overridden: &BTreeMap<SiteName, String>, plans: &[SitePlan]) -> String {
    let mut text = match diff.is_empty() {
        true => "The manifest is what is desired already.\n".to_owned(),
        false => coloured(out, diff),
    };
    for (site, diff) in overridden.iter().filter(|(_, diff)| !diff.is_empty()) {
        text.push_str(&format!("\nWith the override of {site}:\n{}", coloured(out, diff)));
    }
    text.push_str("\nWhat each site has yet to do, as it is now:\n");
    text.push_str(&plan_table(out, plans));
    for plan in plans.iter().filter(|plan| !plan.diff.is_empty()) {
        text.push_str(&format!("\n\nWhat that would change at {}:\n{}", plan.site, coloured(out, &plan.diff)));
    }
    text
}

/// What each site would do, a line for each.
pub(crate) fn plan_table(out: Output, plans: &[SitePlan]) -> String {
    let mut table = Table::new(out, &["SITE", "REBUILD", "STEPS"]);
    for plan in plans {
        let (steps, tone) = match (&plan.unknown, &plan.needs_attention) {
            (Some(reason), _) => (format!("not known: {reason}"), Tone::Waiting),
            (_, Some(reason)) => (format!("nothing, a person must look: {reason}"), Tone::Bad),
            _ if plan.steps.is_empty() => ("nothing".to_owned(), Tone::Good),
            _ => (plan.steps.join("; "), Tone::Plain),
        };
        let rebuild = if plan.rebuild { "yes" } else { "no" };
        table.row([(plan.site.to_string(), Tone::Plain), (rebuild.to_owned(), Tone::Plain), (steps, tone)]);
    }
    table.or("No site holds it.")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equal_values_have_no_difference_and_others_show_the_line() {
        let three = json!({"spec": {"replicas": 3}, "kind": "Deployment"});
        let five = json!({"spec": {"replicas": 5}, "kind": "Deployment"});
        assert_eq!(unified(&three, &three, "a", "b").unwrap(), "");
        let diff = unified(&three, &five, "a", "b").unwrap();
        assert!(diff.contains("-  replicas: 3\n+  replicas: 5\n"), "{diff}");
        assert!(diff.starts_with("--- a\n+++ b\n"), "{diff}");
    }
}
