//! `khufu apply`.

use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::ReplicantView;
use reqwest::Method;
use serde_json::{Map, Value};

use super::{Context, settle, words};
use crate::args::values;
use crate::client::{Ask, Client};
use crate::exit::{Exit, Failure};
use crate::input;

/// How long a node is given to look for a replicant that it does not hold.
const LOOKUP: Duration = Duration::from_secs(2);

/// What to create or edit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  khufu apply -f deployment.yaml --scope 'paris & rennes' --wait
  khufu apply -f - --id notes --policy policy.yaml < notes.yaml")]
pub(crate) struct Args {
    /// The manifest, YAML or JSON: the desired state as a whole; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// The replicant [default: metadata.name of the manifest]
    #[arg(long)]
    id: Option<ReplicantId>,
    /// Where it lives, such as 'paris & rennes' [default: as it is; here for a new one]
    #[arg(long, value_name = "EXPR")]
    scope: Option<String>,
    /// Which driver makes it [default: as it is; files for a new one]
    #[arg(long)]
    kind: Option<String>,
    /// How operations combine, a YAML or JSON file [default: as it is]
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
    /// Wait until every site has applied it, at most so long
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "30s", value_parser = values::duration)]
    wait: Option<Duration>,
}

/// Sends the manifest as the desired state.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let desired = input::read_value(&args.file)?;
    if desired.is_null() {
        return Err(Failure::Usage(format!("{} is empty: a manifest is needed", input::name_of(&args.file))));
    }
    let id = id_of(args.id, &desired, &args.file)?;
    let policy = args.policy.as_deref().map(input::read_value).transpose()?;
    let client = context.client()?;

    let mut body = Map::new();
    let kind = match args.kind {
        Some(kind) => Some(kind),
        // A kind is needed to create and never changes, so it has a default only for what is not there yet.
        None if exists(&client, &id).await? => None,
        None => Some("files".to_owned()),
    };
    body.extend(kind.map(|kind| ("kind".to_owned(), Value::from(kind))));
    body.extend(args.scope.map(|scope| ("scope".to_owned(), Value::from(scope))));
    body.extend(policy.map(|policy| ("policy".to_owned(), policy)));
    body.insert("desired".into(), desired);

    let ask = Ask::new(Method::PUT, path(&id)).body(Value::Object(body));
    let (new, mut json) = client.ask_whether_new(ask).await?;
    let mut view: ReplicantView = client.typed(&json)?;
    let mut exit = Exit::Ok;
    if let Some(wait) = args.wait {
        (view, json, exit) = settle::wait(&client, &id, wait).await?;
    }
    let verb = if new { "created" } else { "configured" };
    context.out.print(&json, |out| {
        let sites = words::list(view.placement.iter().flat_map(|placement| &placement.sites));
        let (status, tone) = words::status(view.status);
        let mut text = format!("{id} {verb}, scope {}, sites {sites}, {}", view.scope, out.paint(tone, &status));
        for warning in &view.warnings {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        text
    })?;
    Ok(exit)
}

/// The path of a replicant in the API. Ids hold nothing that would have to be encoded in a path.
pub(crate) fn path(id: &ReplicantId) -> String {
    format!("/v1/replicants/{id}")
}

/// Whether the node knows the replicant, or finds it in time. Sites that are cut off must not hold up what is new here.
async fn exists(client: &Client, id: &ReplicantId) -> Result<bool, Failure> {
    match tokio::time::timeout(LOOKUP, client.ask(Ask::get(path(id)))).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if !error.is_not_found() => Err(error.into()),
        _ => Ok(false),
    }
}

/// The id given, or the name that the manifest gives itself.
pub(crate) fn id_of(given: Option<ReplicantId>, manifest: &Value, file: &str) -> Result<ReplicantId, Failure> {
    if let Some(id) = given {
        return Ok(id);
    }
    let file = input::name_of(file);
    let Some(name) = manifest.pointer("/metadata/name").and_then(Value::as_str) else {
        return Err(Failure::Usage(format!("{file} has no metadata.name: say with --id what the replicant is called")));
    };
    ReplicantId::new(name).map_err(|error| Failure::Usage(format!("metadata.name of {file}: {error}; or use --id")))
}
