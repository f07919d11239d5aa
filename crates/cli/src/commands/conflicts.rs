//! `khufu conflicts`.

use khufu_crdt::{Hlc, ReplicantId};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, apply, words};
use crate::client::{Ask, Client};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, Tone, utc};

/// Of what, and which value to pick.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: khufu conflicts web --pick /desired/spec/replicas=3f9c21d0")]
pub(crate) struct Args {
    /// The replicant
    id: ReplicantId,
    /// Let the value of this change stand, for everybody: a path and a change as the table shows them (the first digits
    /// of the change are enough)
    #[arg(long, value_name = "PATH=CHANGE")]
    pick: Option<String>,
}

/// A field with several values.
#[derive(Debug, Deserialize)]
pub(crate) struct Conflict {
    /// JSON pointer from the root of the document.
    pub(crate) path: String,
    /// The one that counts, then the others.
    pub(crate) values: Vec<Candidate>,
}

/// One of its values.
#[derive(Debug, Deserialize)]
pub(crate) struct Candidate {
    /// The value.
    pub(crate) value: Value,
    /// Whether it counts.
    #[serde(default)]
    pub(crate) winner: bool,
    /// Where it was set.
    pub(crate) by: Option<String>,
    /// By whom.
    #[serde(default)]
    who: String,
    /// When.
    at: Hlc,
    /// The change that set it.
    change: String,
}

/// Shows the conflicts, or settles one.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let (conflicts, json) = read(&client, &args.id).await?;
    let Some(pick) = &args.pick else {
        context.out.print(&json, |out| people(out, &conflicts))?;
        return Ok(Exit::Ok);
    };
    let (path, change) = chosen(&conflicts, pick)?;
    let ask = Ask::new(Method::POST, format!("{}/conflicts", apply::path(&args.id)));
    let json = client.ask(ask.body(json!({"path": path, "change": change}))).await?;
    context.out.print(&json, |_| format!("{}: {path} is settled", args.id))?;
    Ok(Exit::Ok)
}

/// The conflicts of a replicant, typed and as they came.
pub(crate) async fn read(client: &Client, id: &ReplicantId) -> Result<(Vec<Conflict>, Value), Failure> {
    Ok(client.ask_for(Ask::get(format!("{}/conflicts", apply::path(id)))).await?)
}

/// Finds what `--pick` means among the conflicts there are.
fn chosen<'a>(conflicts: &'a [Conflict], pick: &str) -> Result<(&'a str, &'a str), Failure> {
    let wrong = |why: String| Failure::Usage(format!("--pick {pick}: {why}"));
    // A change has no `=`, a path may.
    let Some((path, change)) = pick.rsplit_once('=').filter(|(_, change)| change.len() >= 4) else {
        return Err(wrong("write PATH=CHANGE, with at least four digits of the change".into()));
    };
    let Some(conflict) = conflicts.iter().find(|conflict| conflict.path == path) else {
        let paths: Vec<&str> = conflicts.iter().map(|conflict| conflict.path.as_str()).collect();
        let there =
            if paths.is_empty() { "nothing is in conflict".into() } else { format!("there are {}", paths.join(", ")) };
        return Err(Failure::NotFound(format!("--pick {pick}: {path} is not in conflict; {there}")));
    };
    let mut matching = conflict.values.iter().filter(|candidate| candidate.change.starts_with(change));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok((&conflict.path, &one.change)),
        (Some(_), Some(_)) => Err(wrong(format!("several changes begin with {change}: give more digits"))),
        (None, _) => Err(Failure::NotFound(format!("--pick {pick}: no value of {path} was set by a change {change}"))),
    }
}

/// The conflicts as a table.
pub(crate) fn people(out: Output, conflicts: &[Conflict]) -> String {
    let mut table = Table::new(out, &["FIELD", "VALUE", "COUNTS", "SET AT", "BY", "WHEN", "CHANGE"]);
    for conflict in conflicts {
        for candidate in &conflict.values {
            let tone = if candidate.winner { Tone::Good } else { Tone::Dim };
            table.row([
                (conflict.path.clone(), Tone::Plain),
                (words::short(&candidate.value.to_string()), tone),
                (if candidate.winner { "yes" } else { "no" }.to_owned(), tone),
                (candidate.by.clone().unwrap_or_else(|| "-".into()), Tone::Plain),
                (candidate.who.clone(), Tone::Plain),
                (utc(candidate.at.ms()), Tone::Plain),
                (candidate.change.chars().take(12).collect(), Tone::Plain),
            ]);
        }
    }
    table.or("No conflicts.")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn conflicts() -> Vec<Conflict> {
        serde_json::from_value(json!([{"path": "/desired/a=b", "values": [
            {"value": 1, "winner": true, "by": "paris", "who": "local", "at": 1, "change": "aaaa1"},
            {"value": 2, "winner": false, "by": "nantes", "who": "local", "at": 2, "change": "aaaa2"}]}]))
        .unwrap()
    }

    #[test]
    fn a_pick_names_one_value_by_the_first_digits_of_its_change() {
        let conflicts = conflicts();
        assert_eq!(chosen(&conflicts, "/desired/a=b=aaaa2").unwrap(), ("/desired/a=b", "aaaa2"));
        for (pick, exit, word) in [
            ("/desired/a=b=aaaa", Exit::Usage, "several"),
            ("/desired/a=b=bbbb", Exit::NotFound, "no value"),
            ("/desired/c=aaaa1", Exit::NotFound, "/desired/a=b"),
            ("/desired/c", Exit::Usage, "PATH=CHANGE"),
        ] {
            let failure = chosen(&conflicts, pick).unwrap_err();
            assert_eq!(failure.exit(), exit, "{pick}");
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }
}
