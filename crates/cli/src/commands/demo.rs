//! `khufu demo`.

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::args::values;
use crate::demo::{self, DemoError, Network, Teller};
use crate::exit::{Exit, Failure};

/// How to show it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each site is a process of its own, in a private network of its own on 127.0.0.1, with its own data and its own
folder of files, all in a temporary directory. Ends with 0 only if everything it claims was checked and is true."
)]
pub(crate) struct Args {
    /// How many sites, 2 to 9
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = values::site_count)]
    sites: usize,
    /// Stay up until Ctrl-C, and say how to talk to the sites; the directory is left too
    #[arg(long)]
    keep: bool,
    /// Print the measurements as JSON; the story goes to standard error (the same as -o json)
    #[arg(long)]
    json: bool,
}

/// Starts the network, tells the story, and ends the network whatever happens.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signal)?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stop);
    let quiet = args.json || context.out.for_programs();
    let mut teller = Teller::new(context.out, quiet);

    teller
        .say(&format!("Start {} sites, each a process of its own, in a private network of their own.", args.sites))?;
    // Dropping what was started so far, as an interruption here does, kills it.
    let mut network = tokio::select! {
        network = Network::start(args.sites) => network?,
        () = &mut stop => return Ok(interrupted()),
    };
    let told = tokio::select! {
        told = meet_and_tell(&mut network, &mut teller) => told,
        () = &mut stop => {
            network.stop(false).await?;
            return Ok(interrupted());
        }
    };
    if let Err(error) = told {
        // What went wrong first is what counts.
        let _ = network.stop(false).await;
        return Err(error.into());
    }
    let exit = verdict(&teller)?;
    if quiet {
        print_json(context, args.json, &teller.json(&network))?;
    }
    if args.keep {
        how_to_talk(&network, &teller)?;
        stop.await;
    }
    if let Some(kept) = network.stop(args.keep).await? {
        teller.say(&format!("Everything is left in {}.", kept.display()))?;
    }
    Ok(exit)
}

async fn meet_and_tell(network: &mut Network, teller: &mut Teller) -> Result<(), DemoError> {
    let told = async {
        network.met().await?;
        for site in &network.sites {
            teller.say(&format!("{} serves its API at {} and listens on {}.", site.name, site.api, site.address))?;
        }
        demo::tell(network, teller).await
    }
    .await;
    // A process that ended explains everything that was waited for in vain.
    network.runs()?;
    told
}

/// The exit code that the claims deserve.
fn verdict(teller: &Teller) -> Result<Exit, DemoError> {
    let (checked, untrue) = (teller.checked(), teller.untrue());
    if untrue == 0 && checked > 0 {
        teller.say(&format!("All {checked} claims were checked and are true."))?;
        return Ok(Exit::Ok);
    }
    teller.say(&format!("{untrue} of {checked} claims are NOT true."))?;
    Ok(Exit::Failed)
}

fn print_json(context: &Context, json: bool, value: &Value) -> Result<(), Failure> {
    if json {
        context.out.text(&crate::output::json(value)?)?;
    } else {
        context.out.print(value, |_| String::new())?;
    }
    Ok(())
}

fn how_to_talk(network: &Network, teller: &Teller) -> Result<(), DemoError> {
    teller.say("The sites stay up. From another terminal, for example:")?;
    let first = network.sites.first().map(|site| site.api.as_str()).unwrap_or_default();
    let mut lines = vec![format!("export KHUFU_API={first}")];
    lines.extend(
        [
            "khufu sites",
            "khufu describe notes",
            "khufu op notes --type add --payload '{\"append\": \"hello\\n\"}' --wait",
            "khufu conflicts nginx",
            "khufu verify",
        ]
        .map(str::to_owned),
    );
    for site in &network.sites {
        lines.push(format!("# {}: --api {}, files in {}", site.name, site.api, site.replicas.display()));
    }
    teller.show(&lines.join("\n"))?;
    teller.say(&format!("Ctrl-C ends them; everything is in {}.", network.root().display()))
}

fn interrupted() -> Exit {
    crate::output::remark("khufu: interrupted; all sites are stopped");
    Exit::Failed
}
