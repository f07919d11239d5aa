//! `khufu node`.

mod cheops;
mod drivers;
mod front;
mod http_fronts;
mod log;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use khufu_node::{Builder, CheopsError, FrontError, HttpFrontError, Node, Preset, StartError, Stopped, Tokens};
use khufu_p2p::Psk;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::args::values;
use crate::config::{self, Effective, Layer, Pace, Settings};
use crate::exit::{Exit, Failure};
use crate::output::remark;

/// The node's configuration. Each value can also stand in khufu.toml or in the environment.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each value is taken from the first of: the command line, the environment, the file, the default; a list or a table
replaces the one below it as a whole. The file is khufu.toml in the current directory, or what --config names; a key
that is not known is refused. What is in force, and where it came from, is printed at the start.

Once it serves, one line on standard output says where; with -o json as JSON."
)]
pub(crate) struct Args {
    /// The configuration file [default: khufu.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "KHUFU_CONFIG")]
    config: Option<PathBuf>,
    /// The site that this node serves [env: KHUFU_SITE]
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Where its data is kept: one process at a time [env: KHUFU_DATA] [default: khufu-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where other nodes reach it; repeatable [env: KHUFU_LISTEN, with commas] [default: /ip4/127.0.0.1/tcp/7700]
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Where the API is served [env: KHUFU_API_LISTEN] [default: 127.0.0.1:7780]
    #[arg(long, value_name = "ADDR", id = "api")]
    pub(crate) api: Option<String>,
    /// The key of the private network, a swarm.key [env: KHUFU_PSK_FILE]
    #[arg(long, value_name = "FILE")]
    psk_file: Option<PathBuf>,
    /// A node to connect to, with or without /p2p/PEER; repeatable [env: KHUFU_BOOTSTRAP, with commas]
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<String>,
    /// A driver and its option, such as files=DIR; repeatable [env: KHUFU_DRIVERS, with commas]
    #[arg(long, value_name = "KIND=OPTION", value_parser = values::key_value)]
    driver: Vec<(String, String)>,
    /// A label of the site, which scopes can speak of; repeatable [env: KHUFU_LABELS, with commas]
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::key_value)]
    label: Vec<(String, String)>,
    /// The tokens that the API accepts; needed to serve it beyond loopback [env: KHUFU_TOKENS]
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Where kubectl is served: a front of the API server of the driver kubernetes [env: KHUFU_KUBERNETES_FRONT]
    #[arg(long, value_name = "ADDR")]
    kubernetes_front: Option<String>,
    /// Its certificate with its chain; without, one is made [env: KHUFU_KUBERNETES_FRONT_CERT]
    #[arg(long, value_name = "FILE")]
    kubernetes_front_cert: Option<PathBuf>,
    /// The key of that [env: KHUFU_KUBERNETES_FRONT_KEY]
    #[arg(long, value_name = "FILE")]
    kubernetes_front_key: Option<PathBuf>,
    /// Serve the API of Cheops at this address; its own port is 8079 [env: KHUFU_CHEOPS_API] [default: not served]
    #[arg(long, value_name = "ADDR")]
    cheops_api: Option<String>,
    /// Serve it beyond this machine without tokens: whoever gets there can run commands [env: KHUFU_CHEOPS_OPEN]
    #[arg(long)]
    cheops_open: bool,
    /// Serve a front of this site's HTTP service at URL, for requests with and without a scope; repeatable
    /// [env: KHUFU_HTTP_FRONTS, with semicolons]
    #[arg(long, value_name = "NAME=ADDR,URL", value_parser = values::key_value)]
    http_front: Vec<(String, String)>,
    /// Serve fronts beyond this machine, too: whoever gets there can ask the services of all sites [env: KHUFU_HTTP_FRONT_OPEN]
    #[arg(long)]
    http_front_open: bool,
    /// Find other nodes on the local network by multicast [env: KHUFU_MDNS]
    #[arg(long)]
    mdns: bool,
    /// Serve /v1/faults, for drills and tests [env: KHUFU_ALLOW_FAULTS]
    #[arg(long)]
    allow_faults: bool,
    /// Listen beyond loopback although there is no key: anybody can join [env: KHUFU_OPEN_NETWORK]
    #[arg(long)]
    open_network: bool,
    /// How patient it is: fast suits sites on one machine or in one building [env: KHUFU_PACE] [default: production]
    #[arg(long, value_enum, value_name = "PACE")]
    pace: Option<Pace>,
    /// Stop when standard input ends, so that it never outlives the program that started it
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

impl Args {
    fn layer(self) -> Layer {
        let given = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        let pairs = |list: Vec<(String, String)>| {
            Some(list.into_iter().collect()).filter(|map: &std::collections::BTreeMap<_, _>| !map.is_empty())
        };
        let on = |switch: bool| switch.then_some(true);
        Layer {
            site: self.site,
            data: self.data,
            listen: given(self.listen),
            api: self.api,
            psk_file: self.psk_file,
            bootstrap: given(self.bootstrap),
            drivers: pairs(self.driver),
            labels: pairs(self.label),
            tokens: self.tokens,
            kubernetes_front: self.kubernetes_front,
            kubernetes_front_cert: self.kubernetes_front_cert,
            kubernetes_front_key: self.kubernetes_front_key,
            cheops_api: self.cheops_api,
            cheops_open: on(self.cheops_open),
            http_fronts: pairs(self.http_front),
            http_front_open: on(self.http_front_open),
            mdns: on(self.mdns),
            allow_faults: on(self.allow_faults),
            open_network: on(self.open_network),
            pace: self.pace,
        }
    }
}

/// Starts the node, says where it serves, and waits until it is told to stop.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let stop_with_stdin = args.stop_with_stdin;
    let file = config::read_file(args.config.as_deref())?;
    let environment = config::read_environment(|name| std::env::var(name).ok())?;
    let Effective { settings, .. } = &config::merge(args.layer(), environment, file).inspect(announce)?;
    log::start();

    // Before anything is started, so that no signal finds the process without an answer.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signal)?;

    let node = start(settings).await?;
    say_where(&node, context)?;
    let reason = tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "asked to stop",
        () = end_of_stdin(stop_with_stdin) => "standard input ended",
        stopped = node.stopped() => return ended(stopped),
    };
    tracing::info!(reason, "stopping");
    tokio::select! {
        stopped = node.shutdown() => ended(stopped),
        _ = interrupt.recv() => Err(Failure::Failed("stopped at once; what was acknowledged is safe".into())),
    }
}

fn announce(effective: &Effective) {
    remark("khufu: the configuration in force, and where each value came from:");
    effective.lines().iter().for_each(|line| remark(&format!("  {line}")));
}

async fn start(settings: &Settings) -> Result<Node, Failure> {
    let api: SocketAddr = settings.api.parse().map_err(|_| {
        Failure::Usage(format!("api: {:?} is no address: write IP:PORT, such as 127.0.0.1:7780", settings.api))
    })?;
    let mut builder = Node::builder(&settings.site)
        .data(&settings.data)
        .api(api)
        .mdns(settings.mdns)
        .open_network(settings.open_network)
        .allow_faults(settings.allow_faults)
        .preset(match settings.pace {
            Pace::Production => Preset::Production,
            Pace::Fast => Preset::Fast,
        });
    if let Some(path) = &settings.psk_file {
        let psk = Psk::load(path).map_err(|error| Failure::Usage(format!("psk_file: {error}")))?;
        remark(&format!("khufu: private network, key with fingerprint {}", psk.fingerprint()));
        builder = builder.psk(psk);
    }
    if let Some(path) = &settings.tokens {
        builder = builder.tokens(Tokens::load(path).map_err(|error| Failure::Usage(error.to_string()))?);
    }
    if let Some(front) = front::config(settings)? {
        builder = builder.kubernetes_front(front);
    }
    builder = http_fronts::configs(settings)?.into_iter().fold(builder, Builder::http_front);
    for address in &settings.listen {
        builder = builder.listen(address);
    }
    for address in &settings.bootstrap {
        builder = builder.bootstrap(address);
    }
    for (key, value) in &settings.labels {
        builder = builder.label(key, value);
    }
    for (kind, option) in &settings.drivers {
        builder = match kind.as_str() {
            "shell" => {
                let shell = drivers::shell(option).await?;
                let cheops = cheops::config(settings, &shell)?;
                cheops.into_iter().fold(builder.driver(shell), Builder::cheops)
            }
            _ => builder.driver(drivers::make(kind, option).await?),
        };
    }
    if settings.cheops_api.is_some() && !settings.drivers.contains_key("shell") {
        return Err(Failure::Usage(cheops::NO_DRIVER.to_owned()));
    }
    builder.start().await.map_err(refused)
}

/// What keeps a node from starting, as the exit code tells it apart.
fn refused(error: StartError) -> Failure {
    let message = error.to_string();
    match error {
        StartError::Setting { .. }
        | StartError::NoData
        | StartError::Driver { .. }
        | StartError::TokensNeeded { .. } => Failure::Usage(message),
        // Something else has what this node needs: the data directory, or a port.
        StartError::Api { .. }
        | StartError::Store(_)
        | StartError::Network(_)
        | StartError::Front(FrontError::Address { .. })
        | StartError::Cheops(CheopsError::Address { .. })
        | StartError::HttpFront(HttpFrontError::Address { .. }) => Failure::Refused(message),
        StartError::Front(_) | StartError::Cheops(_) | StartError::HttpFront(_) => Failure::Usage(message),
        _ => Failure::Failed(message),
    }
}

/// The one line on standard output.
fn say_where(node: &Node, context: &Context) -> Result<(), Failure> {
    let api = node.api_address().map(|address| format!("http://{address}"));
    let listen = node.addresses();
    let mut json = json!({"site": node.site(), "node": node.id(), "api": api, "listen": listen});
    let front = node.front_address().map(|address| format!("https://{address}"));
    if let Some(front) = &front {
        json["kubernetes_front"] = json!(front);
    }
    let cheops = node.cheops_address().map(|address| format!("http://{address}"));
    if let Some(cheops) = &cheops {
        json["cheops_api"] = json!(cheops);
    }
    let fronts: BTreeMap<_, _> =
        node.http_fronts().into_iter().map(|(name, address)| (name, format!("http://{address}"))).collect();
    if !fronts.is_empty() {
        json["http_fronts"] = json!(fronts);
    }
    context.out.print_item(&json, |_| {
        let api = api.as_deref().unwrap_or("no API");
        let front = front.as_ref().map(|front| format!(", {front} for kubectl")).unwrap_or_default();
        let cheops = cheops.as_ref().map(|cheops| format!(", {cheops} for clients of Cheops")).unwrap_or_default();
        let fronts: String = fronts.iter().map(|(name, url)| format!(", {url} for {name}")).collect();
        format!("khufu: site {} serves {api}{front}{cheops}{fronts}, listens on {}", node.site(), listen.join(" "))
    })?;
    Ok(())
}

/// Ends when standard input does, if that is wanted.
async fn end_of_stdin(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    // A read that fails means as much as one that ends. The thread is left behind when the process ends.
    let _ = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())).await;
}

fn ended(stopped: Stopped) -> Result<Exit, Failure> {
    match stopped {
        Stopped::Asked => Ok(Exit::Ok),
        Stopped::Failed(reason) => Err(Failure::Failed(format!("the node stopped: {reason}"))),
        other => Err(Failure::Failed(format!("the node stopped: {other:?}"))),
    }
}
