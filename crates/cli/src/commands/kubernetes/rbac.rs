//! `khufu kubernetes rbac`.

use std::path::Path;

use khufu_crdt::{Payload, Policy, State};
use khufu_drivers::kubernetes::{Account, Needs, roles};
use khufu_drivers::{DriverError, KubernetesDriver};
use khufu_engine::{Page, ReplicantView};
use serde_json::{Map, Value, json};

use crate::client::{Ask, Client, ClientError};
use crate::commands::{Context, apply};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{self, Format, remark};

/// Of which kinds, and for whom.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Kinds are those of the replicants that the node at --api holds, and of the manifests given by -f; with -f no
node is needed. What they are called in roles is asked of an API server.

Examples:
  khufu kubernetes rbac --service-account khufu/khufu | kubectl apply -f -
  khufu kubernetes rbac -f shop.yaml --namespaced --kubeconfig edge.kubeconfig#paris"
)]
pub(crate) struct Args {
    /// A manifest, YAML (of several documents, too) or JSON; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: Vec<String>,
    /// The policy under which the manifests of -f will be put: its options name namespaces
    #[arg(long, value_name = "FILE", requires = "file")]
    policy: Option<String>,
    /// The API server to ask [default: as kubectl would]
    #[arg(long, value_name = "FILE[#CONTEXT]")]
    kubeconfig: Option<String>,
    /// What roles and bindings are called
    #[arg(long, default_value = "khufu")]
    name: String,
    /// Print this service account as well, and bind the roles to it
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = service_account)]
    service_account: Option<(String, String)>,
    /// Allow to touch single objects in the namespaces in use only; they are still found and watched in all
    #[arg(long)]
    namespaced: bool,
}

fn service_account(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("{text:?} is not of the form NAMESPACE/NAME")),
    }
}

/// Prints the roles.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut manifests = Vec::new();
    let policy = args.policy.as_deref().map(input::read_value).transpose()?.map(Policy::parse).transpose();
    let options = policy.map_err(|error| Failure::Usage(format!("--policy: {error}")))?.unwrap_or_default().options;
    for file in &args.file {
        manifests.extend(input::read_values(file)?.into_iter().map(|manifest| (manifest, options.clone())));
    }
    let client = context.client()?;
    match held(&client).await {
        Ok(held) => manifests.extend(held),
        Err(Failure::Client(error @ ClientError::Unreachable { .. })) if !manifests.is_empty() => {
            remark(&format!("only the files are looked at: {error}"));
        }
        Err(error) => return Err(error),
    }
    let driver = match args.kubeconfig.as_deref().map(|given| given.split_once('#').unwrap_or((given, ""))) {
        Some((file, "")) => KubernetesDriver::from_kubeconfig(Path::new(file), None).await,
        Some((file, context)) => KubernetesDriver::from_kubeconfig(Path::new(file), Some(context)).await,
        None => KubernetesDriver::from_environment().await,
    };
    let needs = driver.map_err(refused)?.needs(&manifests).await.map_err(refused)?;
    if needs.is_empty() {
        return Err(Failure::NotFound(
            "the node holds no replicants of kind kubernetes: hand in a manifest with -f".to_owned(),
        ));
    }
    warn(&needs);
    let account = Account { name: args.name, service_account: args.service_account, namespaced: args.namespaced };
    let made = roles(&needs, &account);
    match context.out.format() {
        Format::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": made});
            context.out.text(&output::json(&list)?)?;
        }
        Format::Table | Format::Yaml => {
            let documents = made.iter().map(output::yaml).collect::<Result<Vec<_>, _>>()?;
            context.out.text(&documents.join("---\n"))?;
        }
    }
    Ok(Exit::Ok)
}

fn refused(error: DriverError) -> Failure {
    if error.is_permanent() { Failure::Usage(error.to_string()) } else { Failure::Failed(error.to_string()) }
}

fn warn(needs: &Needs) {
    let giving = needs.give_rights();
    if !giving.is_empty() {
        remark(&format!(
            "warning: an API server lets a node make {} only with rights that it has itself: add these, or the verbs bind and \
             escalate, by hand",
            giving.join(", ")
        ));
    }
}

/// What each replicant of kind kubernetes asks for, at any site, with the options of its policy.
async fn held(client: &Client) -> Result<Vec<(Value, Map<String, Value>)>, Failure> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let ask = Ask::get("/v1/replicants").query("kind", Some("kubernetes")).query("after", after.as_ref());
        let (page, _): (Page, Value) = client.ask_for(ask).await?;
        for item in &page.items {
            let (view, _): (ReplicantView, Value) = client.ask_for(Ask::get(apply::path(&item.id))).await?;
            found.extend(asked_for(view));
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

fn asked_for(view: ReplicantView) -> Vec<(Value, Map<String, Value>)> {
    let made = view.operations.iter().filter_map(|view| match &view.operation.payload {
        Payload::Value(payload) => payload.get("manifest").cloned(),
        Payload::Blob(_) => None,
    });
    let mut all: Vec<_> = made.collect();
    let state = State { desired: view.desired, overrides: view.overrides, ..State::default() };
    all.extend(state.overrides.keys().filter_map(|site| state.effective(site).ok()));
    all.push(state.desired);
    let says = |value: &Value| value.as_object().is_some_and(|fields| !fields.is_empty());
    all.into_iter().filter(says).map(|desired| (desired, view.policy.options.clone())).collect()
}
