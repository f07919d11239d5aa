//! Puts a node together and sets it going.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use khufu_crdt::SiteName;
use khufu_engine::{Config as EngineConfig, Engine, NodeId, Record};
use khufu_p2p::{Config as NetworkConfig, Identity, Network};
use khufu_store::{Options, SledStore, Store, StoreError};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use crate::book::{self, Book};
use crate::builder::{Builder, Preset};
use crate::calls::Calls;
use crate::clock::Clock;
use crate::disk::{self, Disk};
use crate::events::EventLog;
use crate::faults::Switch;
use crate::forward::Forward;
use crate::handle::{Handle, Inner};
use crate::holds::Holds;
use crate::keys::NodeKeys;
use crate::metrics::Metrics;
use crate::runner::{Runner, State};
use crate::{Node, StartError, Stopped, api};

/// Requests that wait for the runner; further ones wait in their tasks.
const COMMANDS: usize = 256;
/// An address to listen on shows up within so long.
const LISTENING: Duration = Duration::from_secs(5);
/// What the store keeps of its pages, as sled counts them: it takes three times as much, since each record is a piece of its
/// own. The system keeps the files in memory that are read often.
const CACHE_BYTES: u64 = 4 << 20;

pub(crate) async fn start(builder: Builder) -> Result<Node, StartError> {
    let site = SiteName::new(builder.site.clone())
        .map_err(|error| StartError::Setting { what: "site", reason: error.to_string() })?;
    let registry_of_drivers = drivers(&builder)?;
    let tokens = builder.tokens.clone().filter(|tokens| !tokens.is_empty());
    if let Some(address) = builder.api
        && tokens.is_none()
        && !address.ip().is_loopback()
    {
        return Err(StartError::TokensNeeded { address });
    }

    // The store first: it finds out whether another process works here.
    let (store, doubtful) = store(&builder).await?;
    let identity = identity(&builder)?;
    let server = match builder.api {
        Some(address) => Some(api::bind(address).await.map_err(|source| StartError::Api { address, source })?),
        None => None,
    };
    #[cfg(feature = "kubernetes")]
    let front = match &builder.front {
        Some(front) => Some(crate::front::listen(front, builder.data.as_deref()).await?),
        None => None,
    };
    #[cfg(feature = "shell")]
    let cheops = match &builder.cheops {
        Some(cheops) => Some(crate::cheops::listen(cheops, tokens.clone()).await?),
        None => None,
    };
    #[cfg(feature = "http")]
    let http_fronts = crate::http_front::listen(&builder.http_fronts).await?;
    let (restore, book) = {
        let store = store.clone();
        tokio::task::spawn_blocking(move || restore(store.as_ref(), doubtful))
            .await
            .map_err(|error| StartError::Thread(std::io::Error::other(error)))??
    };

    let node = NodeId(identity.peer_id());
    let mut engine_config = match builder.preset {
        Preset::Production => EngineConfig::new(site.clone(), node.clone()),
        Preset::Fast => EngineConfig::fast(site.clone(), node.clone()),
    };
    engine_config.doubtful = doubtful;
    engine_config.labels = builder.labels;
    engine_config.kinds = registry_of_drivers.capabilities();
    let watched: Vec<_> = registry_of_drivers
        .iter()
        .map(|(kind, driver)| (kind.to_owned(), driver.watch(), driver.reachable()))
        .collect();
    let unsure = watched.iter().filter(|(_, _, reachable)| reachable.is_some());
    engine_config.unsure = unsure.map(|(kind, _, _)| kind.clone()).collect();
    if let Some(tune) = builder.engine {
        tune(&mut engine_config);
    }
    let mut network_config = match builder.preset {
        Preset::Production => NetworkConfig::new(identity.clone()),
        Preset::Fast => NetworkConfig::fast(identity.clone()),
    };
    network_config.psk = builder.psk;
    network_config.listen = builder.listen;
    network_config.announce = builder.announce;
    network_config.bootstrap = builder.bootstrap;
    network_config.known = book.addresses();
    network_config.mdns = builder.mdns;
    network_config.open_network = builder.open_network;
    if let Some(tune) = builder.network {
        tune(&mut network_config);
    }
    let listens = !network_config.listen.is_empty();

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let clock = Clock::new();
    let actor: [u8; 16] = rand::random();
    let (engine, first) = Engine::new(engine_config, Box::new(NodeKeys(identity)), actor, restore, clock.now())?;
    let (network, from_network) = start_network(network_config, &mut registry)?;

    let (commands, commands_of_runner) = mpsc::channel(COMMANDS);
    let (inputs, inputs_of_runner) = mpsc::unbounded_channel();
    let events = EventLog::new(started_at());
    let closed = watch::Sender::new(false);
    let (addresses, addresses_of_handle) = watch::channel(Vec::new());
    let disk = Disk::start(store, doubtful, metrics.clone(), inputs.clone()).map_err(StartError::Thread)?;
    let holds = Holds::default();
    let handle = Handle::new(Inner {
        site,
        node,
        commands,
        events: events.clone(),
        closed: closed.clone(),
        stopped: watch::Sender::new(None),
        network: network.clone(),
        faults: builder.allow_faults.then(Switch::default),
        registry,
        drivers: registry_of_drivers.clone(),
        #[cfg(feature = "kubernetes")]
        holds: holds.clone(),
        metrics: metrics.clone(),
        addresses: addresses_of_handle.clone(),
        listens,
    });
    let calls = Calls::new(registry_of_drivers, builder.driver_timeout, metrics, inputs, holds);
    let runner = Runner {
        engine,
        clock,
        handle: handle.clone(),
        network,
        from_network,
        commands: commands_of_runner,
        inputs: inputs_of_runner,
        disk,
        calls,
        events,
        book,
        listening: std::collections::BTreeSet::new(),
        addresses,
        closed: closed.subscribe(),
        state: State::default(),
    };
    tokio::spawn(supervise(runner, first, handle.clone()));
    let forward = Forward::start(handle.clone());
    for (kind, changes, reachable) in watched {
        if let Some(reachable) = reachable {
            tokio::spawn(crate::drift::follow(handle.clone(), kind.clone(), reachable));
        }
        tokio::spawn(crate::drift::look(handle.clone(), kind, changes, builder.observe_every));
    }
    if handle.faults().is_some() {
        tokio::spawn(handle.clone().keep_cut());
    }
    if listens {
        let mut addresses = addresses_of_handle;
        // A node that cannot listen right now goes on trying, and says in /readyz that it does not listen.
        let _ = tokio::time::timeout(LISTENING, addresses.wait_for(|addresses| !addresses.is_empty())).await;
    }
    let api_address = server.as_ref().map(api::Server::address);
    let api = server.map(|server| {
        let router = api::router(handle.clone(), server.address(), tokens);
        tokio::spawn(server.serve(router, closed.subscribe()))
    });
    #[cfg(feature = "kubernetes")]
    let front = front.map(|front| (front.address(), front.serve(handle.clone())));
    #[cfg(feature = "shell")]
    let cheops =
        cheops.map(|cheops| (cheops.address(), cheops.serve(handle.clone(), forward.clone(), closed.subscribe())));
    #[cfg(feature = "http")]
    let http_fronts = http_fronts.into_iter().map(|front| front.serve(handle.clone(), forward.clone())).collect();
    Ok(Node {
        handle,
        api_address,
        api,
        forward,
        #[cfg(feature = "kubernetes")]
        front,
        #[cfg(feature = "shell")]
        cheops,
        #[cfg(feature = "http")]
        http_fronts,
    })
}

fn start_network(
    mut config: NetworkConfig,
    registry: &mut Registry,
) -> Result<(Network, mpsc::Receiver<khufu_p2p::Event>), StartError> {
    match Network::start_with_metrics(config.clone(), registry) {
        Err(khufu_p2p::StartError::Address { setting: "known", source }) => {
            // What an earlier version wrote down is a help, and must not keep this one from starting.
            tracing::warn!(%source, "starting without the addresses of nodes that were met before");
            config.known.clear();
            Ok(Network::start_with_metrics(config, registry)?)
        }
        other => Ok(other?),
    }
}

/// Tells everybody when the runner has ended, also by a defect of ours.
async fn supervise(runner: Runner, first: Vec<khufu_engine::Output>, handle: Handle) {
    let ended = tokio::spawn(runner.run(first)).await;
    let stopped = ended.unwrap_or_else(|error| Stopped::Failed(format!("a defect of this program: {error}")));
    handle.has_stopped(stopped);
}

fn drivers(builder: &Builder) -> Result<khufu_drivers::Registry, StartError> {
    let mut registry = khufu_drivers::Registry::new();
    for driver in &builder.drivers {
        if registry.insert(driver.clone()).is_some() {
            return Err(StartError::Driver { kind: driver.kind().to_owned() });
        }
    }
    Ok(registry)
}

/// The store, and whether what is in it may be older than what was acknowledged.
async fn store(builder: &Builder) -> Result<(Arc<dyn Store>, bool), StartError> {
    if let Some(store) = &builder.store {
        return Ok((store.clone(), false));
    }
    let dir = builder.data.clone().ok_or(StartError::NoData)?;
    make_dir(&dir)?;
    let opened = tokio::task::spawn_blocking(move || open(&dir.join("store"))).await;
    let (store, doubtful) = opened.map_err(|error| StartError::Thread(std::io::Error::other(error)))??;
    Ok((Arc::new(store), doubtful))
}

/// Opens the store; where its files are damaged, with all of it that can be read. What is missing comes back from other
/// sites. Always in this way: opened in the other, sled would overwrite what follows a damaged place before anybody knew.
fn open(dir: &Path) -> Result<(SledStore, bool), StoreError> {
    let (store, recovery) = SledStore::open_or_recover(dir, Options::default().cache_bytes(CACHE_BYTES))?;
    for damaged in &recovery.damaged {
        let (key, reason) = (damaged.key.escape_ascii(), &damaged.reason);
        tracing::error!(%key, reason, "a record is damaged");
    }
    let doubtful = !recovery.reason.is_empty() || recovery.rolled_back.is_some();
    if !doubtful && recovery.unconfirmed {
        tracing::warn!(dir = %dir.display(), "an earlier process recovered the store, and ended before all had been looked at");
    }
    if doubtful {
        tracing::error!(
            dir = %dir.display(),
            reason = recovery.reason,
            moved_to = ?recovery.moved_to,
            salvaged = recovery.salvaged,
            stale = recovery.stale.len(),
            damaged = recovery.damaged.len(),
            rolled_back = ?recovery.rolled_back,
            "the store was damaged and is recovered as far as possible: replicas are made anew, and what is missing \
             comes back from other sites; changes that no other site has seen may be lost"
        );
    }
    Ok((store, doubtful || recovery.unconfirmed))
}

fn make_dir(dir: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Data { path: dir.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(failed)
}

fn identity(builder: &Builder) -> Result<Identity, StartError> {
    if let Some(identity) = &builder.identity {
        return Ok(identity.clone());
    }
    let Some(dir) = &builder.data else { return Ok(Identity::generate()) };
    make_dir(dir)?;
    Ok(Identity::load_or_create(dir.join("identity.key"))?)
}

fn restore(store: &dyn Store, doubtful: bool) -> Result<(Vec<Record>, Book), StoreError> {
    Ok((disk::restore(store, doubtful)?, Book::restore(store.scan(book::PREFIX)?.records)))
}

/// Tells the events of this process apart from those of earlier ones.
fn started_at() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
