//! How a node is put together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use khufu_drivers::Driver;
use khufu_engine::Config as EngineConfig;
use khufu_p2p::{Config as NetworkConfig, Identity, Psk};
use khufu_store::Store;

use crate::{Node, StartError, Tokens};

/// The pace of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// Sites some tens of milliseconds apart.
    #[default]
    Production,
    /// Shorter patience everywhere, for tests, demonstrations and drills on one machine.
    Fast,
}

type EngineTuning = Box<dyn FnOnce(&mut EngineConfig) + Send>;
type NetworkTuning = Box<dyn FnOnce(&mut NetworkConfig) + Send>;

/// Collects the settings of a node. Nothing happens before [`Builder::start`].
#[must_use]
pub struct Builder {
    pub(crate) site: String,
    pub(crate) data: Option<PathBuf>,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) psk: Option<Psk>,
    pub(crate) listen: Vec<String>,
    pub(crate) announce: Vec<String>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) mdns: bool,
    pub(crate) open_network: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) drivers: Vec<Arc<dyn Driver>>,
    pub(crate) driver_timeout: Duration,
    pub(crate) observe_every: Duration,
    pub(crate) api: Option<SocketAddr>,
    pub(crate) tokens: Option<Tokens>,
    #[cfg(feature = "kubernetes")]
    pub(crate) front: Option<crate::FrontConfig>,
    #[cfg(feature = "shell")]
    pub(crate) cheops: Option<crate::CheopsConfig>,
    #[cfg(feature = "http")]
    pub(crate) http_fronts: Vec<crate::HttpFrontConfig>,
    pub(crate) allow_faults: bool,
    pub(crate) preset: Preset,
    pub(crate) engine: Option<EngineTuning>,
    pub(crate) network: Option<NetworkTuning>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("site", &self.site)
            .field("data", &self.data)
            .field("listen", &self.listen)
            .field("bootstrap", &self.bootstrap)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(site: String) -> Self {
        Self {
            site,
            data: None,
            store: None,
            identity: None,
            psk: None,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            mdns: false,
            open_network: false,
            labels: BTreeMap::new(),
            drivers: Vec::new(),
            driver_timeout: Duration::from_secs(60),
            observe_every: Duration::from_secs(300),
            api: None,
            tokens: None,
            #[cfg(feature = "kubernetes")]
            front: None,
            #[cfg(feature = "shell")]
            cheops: None,
            #[cfg(feature = "http")]
            http_fronts: Vec::new(),
            allow_faults: false,
            preset: Preset::default(),
            engine: None,
            network: None,
        }
    }

    /// Keeps everything in this directory, which is made if it is missing: `identity.key`, readable by its owner only,
    /// and `store/`. One process at a time can use it.
    pub fn data(mut self, dir: impl AsRef<Path>) -> Self {
        self.data = Some(dir.as_ref().to_owned());
        self
    }

    /// Keeps data in this store instead of one in the data directory. With an identity of its own such a node needs no
    /// directory; what is in a [`khufu_store::MemoryStore`] is gone with it.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Who the node is. Without, a key is made in the data directory at the first start.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The key of the private network: only nodes with the same one can connect.
    pub fn psk(mut self, psk: Psk) -> Self {
        self.psk = Some(psk);
        self
    }

    /// Accepts connections of other nodes at this multiaddress, such as `/ip4/0.0.0.0/tcp/7000`. Repeatable. Beyond
    /// loopback a PSK is needed.
    pub fn listen(mut self, multiaddr: impl Into<String>) -> Self {
        self.listen.push(multiaddr.into());
        self
    }

    /// Tells others this address too, for a node behind address translation. Repeatable.
    pub fn announce(mut self, multiaddr: impl Into<String>) -> Self {
        self.announce.push(multiaddr.into());
        self
    }

    /// Looks for other nodes at this multiaddress, with or without `/p2p/<peer id>`, for ever. Repeatable. Nodes that
    /// were met once are found again without.
    pub fn bootstrap(mut self, multiaddr: impl Into<String>) -> Self {
        self.bootstrap.push(multiaddr.into());
        self
    }

    /// Finds other nodes on the local network by multicast. Off unless switched on.
    pub fn mdns(mut self, on: bool) -> Self {
        self.mdns = on;
        self
    }

    /// Listens beyond loopback although there is no PSK: anybody who reaches the port can join. Off unless switched on.
    pub fn open_network(mut self, on: bool) -> Self {
        self.open_network = on;
        self
    }

    /// A label of the site, which scopes can speak of: `[region=west]`. Repeatable; the last value of a key counts.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Applies replicants of this driver's kind to this site's platform. Repeatable, one for each kind.
    pub fn driver(mut self, driver: Arc<dyn Driver>) -> Self {
        self.drivers.push(driver);
        self
    }

    /// A driver's call that takes longer is given up and counts as failed. 60 s unless set.
    pub fn driver_timeout(mut self, limit: Duration) -> Self {
        self.driver_timeout = limit;
        self
    }

    /// How often replicas are looked at for changes made by hand, where the driver cannot watch for them itself.
    /// 5 minutes unless set.
    pub fn observe_every(mut self, interval: Duration) -> Self {
        self.observe_every = interval.max(Duration::from_millis(100));
        self
    }

    /// Serves the HTTP API at this address; port 0 takes a free one. Without, there is no API. Beyond loopback tokens
    /// are needed.
    pub fn api(mut self, address: SocketAddr) -> Self {
        self.api = Some(address);
        self
    }

    /// Only bearers of these tokens may use the API, also on loopback.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Serves a front of the API server of this site's cluster: a way in for kubectl. The node needs the driver `kubernetes`
    /// for the same cluster.
    #[cfg(feature = "kubernetes")]
    pub fn kubernetes_front(mut self, front: crate::FrontConfig) -> Self {
        self.front = Some(front);
        self
    }

    /// Serves the API of Cheops, whose resources are replicants of kind `shell`.
    #[cfg(feature = "shell")]
    pub fn cheops(mut self, cheops: crate::CheopsConfig) -> Self {
        self.cheops = Some(cheops);
        self
    }

    /// Serves a front of an HTTP service of this site. Repeatable, one for each service.
    #[cfg(feature = "http")]
    pub fn http_front(mut self, front: crate::HttpFrontConfig) -> Self {
        self.http_fronts.push(front);
        self
    }

    /// Lets the API inject faults, for drills and tests. Off unless switched on.
    pub fn allow_faults(mut self, on: bool) -> Self {
        self.allow_faults = on;
        self
    }

    /// The pace of engine and network.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.preset = preset;
        self
    }

    /// Changes settings of the engine that have no method here.
    pub fn tune_engine(mut self, tune: impl FnOnce(&mut EngineConfig) + Send + 'static) -> Self {
        self.engine = Some(Box::new(tune));
        self
    }

    /// Changes settings of the network that have no method here.
    pub fn tune_network(mut self, tune: impl FnOnce(&mut NetworkConfig) + Send + 'static) -> Self {
        self.network = Some(Box::new(tune));
        self
    }

    /// Starts the node. When this returns, it listens, its API serves, and what was on disk is there.
    ///
    /// # Errors
    /// [`StartError`] says which setting, file or address is in the way. Nothing is left running.
    pub async fn start(self) -> Result<Node, StartError> {
        crate::start::start(self).await
    }
}
