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
  khufu apply -f shop.yaml --id shop --kind kubernetes --scope 'paris & rennes'    # several objects in one file
  khufu apply -f - --id notes --policy policy.yaml < notes.yaml")]
pub(crate) struct Args {
    /// The manifest, YAML or JSON: the desired state as a whole; - reads standard input. Several documents are the objects of one
    /// replicant of kind kubernetes
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
    let mut documents = input::read_values(&args.file)?;
    documents.retain(|document| !document.is_null());
    let file = input::name_of(&args.file);
    let Some(first) = documents.first() else {
        return Err(Failure::Usage(format!("{file} is empty: a manifest is needed")));
    };
    let id = match (args.id, documents.len()) {
        (None, 2..) => {
            return Err(Failure::Usage(format!("{file} has several documents: say with --id what they are called")));
        }
        (id, _) => id_of(id, first, &args.file)?,
    };
    let policy = args.policy.as_deref().map(input::read_value).transpose()?;
    let client = context.client()?;

    let mut body = Map::new();
    let known = match args.kind {
        Some(_) => None,
        None => kind_of(&client, &id).await?,
    };
    let desired = desired(documents, args.kind.as_ref().or(known.as_ref()).map(String::as_str), file)?;
    // A kind is needed to create and never changes, so it has a default only for what is not there yet.
    let kind = args.kind.or_else(|| known.is_none().then(|| "files".to_owned()));
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

/// The kind of the replicant, if the node knows it, or finds it in time. Sites that are cut off must not hold up what is new
/// here.
async fn kind_of(client: &Client, id: &ReplicantId) -> Result<Option<String>, Failure> {
    match tokio::time::timeout(LOOKUP, client.ask(Ask::get(path(id)))).await {
        Ok(Ok(view)) => Ok(view.get("kind").and_then(Value::as_str).map(str::to_owned)),
        Ok(Err(error)) if !error.is_not_found() => Err(error.into()),
        _ => Ok(None),
    }
}

/// The desired state that documents are. Several objects of Kubernetes get names that stay, so that two sites which add some
/// while apart both win.
fn desired(mut documents: Vec<Value>, kind: Option<&str>, file: &str) -> Result<Value, Failure> {
    if documents.len() == 1 {
        return Ok(documents.remove(0));
    }
    if kind != Some("kubernetes") {
        let message =
            format!("{file} has several documents, which only --kind kubernetes takes: give each a file of its own");
        return Err(Failure::Usage(message));
    }
    let mut objects = Map::new();
    for (number, document) in documents.into_iter().enumerate() {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
            let message = format!("document {} of {file} has no kind, or no metadata.name", number + 1);
            return Err(Failure::Usage(message));
        };
        let group = text("/apiVersion").and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
        let parts = [kind, group, text("/metadata/namespace").unwrap_or_default(), name];
        let called = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        if objects.insert(called.clone(), document).is_some() {
            return Err(Failure::Usage(format!("{file} has {called} twice")));
        }
    }
    Ok(Value::Object(Map::from_iter([("objects".to_owned(), Value::Object(objects))])))
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
