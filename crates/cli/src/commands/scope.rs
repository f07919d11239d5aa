//! `khufu scope`.

use std::collections::BTreeMap;
use std::time::Duration;

use khufu_scope::{Mode, SiteView, State, View};
use serde::Deserialize;
use serde_json::{Value, json};

use khufu_engine::{ExplainedPlace, Explanation};

use super::{Context, words};
use crate::client::Ask;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{self, Output, Tone};

/// What to do with a scope.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Say what a scope means, for the sites a node knows or those in a file
    Explain(Explain),
}

/// Which scope, and for which sites.
#[derive(Debug, clap::Args)]
#[command(after_help = "The file of --sites, YAML or JSON; only the names of the sites are needed:

  here: paris                     # the site that is asked; the first one if not given
  sites:
    paris:  {labels: {zone: west}, load: 0.5}
    rennes: {labels: {zone: west}, rtt_ms: {paris: 12.5}}
    nantes: {state: down}         # alive, suspect or down

Ends with 2 if the scope makes no sense or names a site that nobody knows.")]
pub(crate) struct Explain {
    /// The scope, such as 'paris & rennes | nantes'
    expression: String,
    /// The sites to work it out for; no node is asked then
    #[arg(long, value_name = "FILE")]
    sites: Option<String>,
}

/// The file of `--sites`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sites {
    here: Option<String>,
    sites: BTreeMap<String, Option<Site>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Site {
    labels: BTreeMap<String, String>,
    state: State,
    load: f64,
    rtt_ms: BTreeMap<String, f64>,
}

/// Runs the subcommand.
pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    let Command::Explain(args) = command;
    let colour = output::colour_on_stderr();
    // Mistakes in the text are shown with carets here, before anybody is asked.
    let scope = khufu_scope::parse(&args.expression)
        .map_err(|errors| Failure::Usage(picture(&errors.render(&args.expression, colour))))?;
    let explanation = match &args.sites {
        Some(file) => {
            let view = view(file)?;
            let evaluation = khufu_scope::evaluate(&scope, &view)
                .map_err(|errors| Failure::Usage(picture(&errors.render(&args.expression, colour))))?;
            let place = |place: khufu_scope::Place| ExplainedPlace {
                service: place.service,
                sites: place.sites,
                cross: place.mode == Mode::Cross,
                prime: place.prime,
                reasons: place.reasons,
            };
            Explanation { canonical: scope.to_string(), places: evaluation.places.into_iter().map(place).collect() }
        }
        None => {
            let ask = Ask::get("/v1/scope/explain").query("scope", Some(&args.expression));
            let (explanation, _): (Explanation, Value) = context.client()?.ask_for(ask).await?;
            explanation
        }
    };
    context.out.print(&json!(explanation), |out| people(out, &explanation))?;
    Ok(Exit::Ok)
}

/// A picture starts on a line of its own.
fn picture(text: &str) -> String {
    format!("the scope makes no sense\n{}", text.trim_end())
}

fn view(file: &str) -> Result<View, Failure> {
    let Sites { here, sites } = input::read_as(file)?;
    let here = here.or_else(|| sites.keys().next().cloned()).unwrap_or_default();
    let sites = sites.into_iter().map(|(name, site)| Ok((name, known(site.unwrap_or_default(), file)?)));
    Ok(View { here, sites: sites.collect::<Result<_, Failure>>()? })
}

fn known(site: Site, file: &str) -> Result<SiteView, Failure> {
    let Site { labels, state, load, rtt_ms } = site;
    let time = |(other, ms): (String, f64)| match Duration::try_from_secs_f64(ms / 1000.0) {
        Ok(time) => Ok((other, time)),
        Err(error) => Err(Failure::Usage(format!("{file}: rtt_ms to {other} is {ms}: {error}"))),
    };
    let rtt = rtt_ms.into_iter().map(time).collect::<Result<_, Failure>>()?;
    Ok(SiteView { labels, state, load, rtt, held: false })
}

fn people(out: Output, explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.canonical);
    for place in &explanation.places {
        let name = place.service.as_ref().map_or(String::new(), |service| format!("{service}: "));
        let sites = out.paint(Tone::Good, &words::list(&place.sites));
        let how = match (&place.prime, place.cross) {
            (Some(prime), true) => format!(" (one resource spans them, {prime} holds it)"),
            _ => String::new(),
        };
        text.push_str(&format!("\n{name}{sites}{how}\n"));
        for reason in &place.reasons {
            text.push_str(&format!("  {reason}\n"));
        }
    }
    text
}
