//! `khufu op`.

use std::time::Duration;

use khufu_crdt::{OperationId, ReplicantId, Status};
use khufu_engine::OperationAnswer;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, apply, words};
use crate::args::values;
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Output, Table, Tone};

/// What to do to which replicant.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  khufu op notes --type add --payload '{\"append\": \"one more line\\n\"}'
  khufu op notes --type set --payload @contents.json --wait 1m")]
pub(crate) struct Args {
    /// The replicant
    replicant: ReplicantId,
    /// The type of the operation, which the policy speaks of
    #[arg(long = "type", value_name = "TYPE")]
    op_type: String,
    /// What the driver gets: JSON, or @FILE with YAML or JSON
    #[arg(long, value_name = "JSON", default_value = "null", hide_default_value = true)]
    payload: String,
    /// Wait for the reports of all sites, at most so long (up to 10m)
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "30s", value_parser = values::duration)]
    wait: Option<Duration>,
    /// An id of your own for the operation: asking twice with the same one is asking once
    #[arg(long, value_name = "ID")]
    id: Option<OperationId>,
}

/// Asks for the operation and shows what each site makes of it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let wait = args.wait.unwrap_or_default();
    let mut body = json!({
        "type": args.op_type,
        "payload": input::read_payload(&args.payload)?,
        "wait": format!("{}ms", wait.as_millis()),
    });
    if let (Some(id), Some(body)) = (&args.id, body.as_object_mut()) {
        body.insert("id".into(), Value::from(id.as_str()));
    }
    let path = format!("{}/operations", apply::path(&args.replicant));
    let ask = Ask::new(Method::POST, path).body(body).wait(wait);
    let (answer, json): (OperationAnswer, Value) = context.client()?.ask_for(ask).await?;
    context.out.print(&json, |out| people(out, &answer))?;
    Ok(exit(&answer, args.wait.is_some()))
}

fn exit(answer: &OperationAnswer, waited: bool) -> Exit {
    let failed = |status| matches!(status, Status::Failed | Status::NeedsAttention);
    if answer.sites.values().any(|report| failed(report.status)) {
        Exit::Failed
    } else if waited && !answer.complete {
        Exit::Partial
    } else {
        Exit::Ok
    }
}

fn people(out: Output, answer: &OperationAnswer) -> String {
    let operation = &answer.operation;
    let place = answer.resolved.iter().position(|id| *id == operation.id);
    let place = match place {
        Some(at) => format!("number {} of {} in the list as it is run", at + 1, answer.resolved.len()),
        None => "not in the list as it is run: another operation replaces it".to_owned(),
    };
    let mut table = Table::new(out, &["SITE", "STATUS", "ATTEMPTS", "OUTPUT"]);
    for (site, report) in &answer.sites {
        table.row([
            (site.to_string(), Tone::Plain),
            words::status(report.status),
            (report.attempt.to_string(), Tone::Plain),
            (report.output.clone(), Tone::Plain),
        ]);
    }
    let more =
        if answer.complete { "" } else { "\nNot every site has said its last word; `khufu describe` shows it later." };
    format!("operation {} ({}), {place}\n{}{more}", operation.id, operation.op_type, table.or("(no site yet)"))
}
