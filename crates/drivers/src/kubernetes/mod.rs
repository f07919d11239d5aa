//! Replicas as objects of a Kubernetes API server.

mod answer;
mod apply;
mod definitions;
mod diff;
mod fields;
mod follower;
mod health;
mod kinds;
mod look;
mod manifest;
mod merge_keys;
mod normal;
mod operate;
mod operation;
mod options;
mod own;
mod rbac;
mod remove;
mod replicas;
mod server;
mod shown;
mod source;
mod stamp;
mod strangers;
mod strategic;
mod survey;
mod used;
mod watching;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use khufu_crdt::Capabilities;
use kube::Config;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::{Changes, Done, Driver, DriverError, Observed, Replica, Work};
pub use own::{LABEL, MANAGER, Owner, check, cleaned, config, config_in_cluster, owner, taken};
pub use rbac::{Account, Needs, roles};
use replicas::Replicas;
use server::Server;
use source::{Source, Sourced};
use watching::Pace;

/// Makes of each replicant the objects of its manifest: one, a `List`, or several in `objects`.
///
/// Fields are owned by server-side apply under the manager `khufu`, and only those of the desired state; whatever else is
/// in an object is left alone. Objects are found again by a label and annotations (`khufu.dev/...`). What somebody else
/// has made is neither written nor removed unless the policy of the replicant says so (its `options`).
///
/// Applying several objects is not one step: where one fails, those before it stay as they were made, and the whole is
/// tried again.
pub struct KubernetesDriver {
    replicas: Replicas,
}

impl std::fmt::Debug for KubernetesDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesDriver").finish_non_exhaustive()
    }
}

impl KubernetesDriver {
    /// A driver for the API server of a file with clusters and credentials, and one of its contexts (the current one
    /// unless given). The server need not be there yet, and may move: the file is read again when it, or one that it names, has changed.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if the file cannot be read or has no such context.
    pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, DriverError> {
        let source = Source { path: path.to_owned(), context: context.map(str::to_owned) };
        let (config, sourced) = source.followed().await?;
        Self::new(config, Some(sourced), Pace::default())
    }

    /// A driver for the API server of the cluster that this process runs in, with its service account, and for no other.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if this process does not run in a cluster.
    pub fn in_cluster() -> Result<Self, DriverError> {
        let config = own::config_in_cluster()?;
        Self::new(config, None, Pace::default())
    }

    /// A driver for the API server that kubectl would use: that of `KUBECONFIG` or `~/.kube/config`, else that of the cluster
    /// that this process runs in.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if there is none.
    pub async fn from_environment() -> Result<Self, DriverError> {
        let config = Config::infer().await.map_err(|error| DriverError::invalid("kubeconfig", error.to_string()))?;
        Self::new(config, None, Pace::default())
    }

    fn new(config: Config, sourced: Option<Sourced>, pace: Pace) -> Result<Self, DriverError> {
        Ok(Self { replicas: Replicas::new(Server::new(config, sourced)?, pace) })
    }

    /// The same as [`from_kubeconfig`](Self::from_kubeconfig), with fewer watches and shorter pauses between attempts at them.
    ///
    /// # Errors
    /// As there.
    #[doc(hidden)]
    pub async fn hurried(path: &Path, watches: usize, longest: Duration) -> Result<Self, DriverError> {
        let source = Source { path: path.to_owned(), context: None };
        let (config, sourced) = source.followed().await?;
        let first = longest / 10;
        Self::new(config, Some(sourced), Pace { watches, first, longest, well: longest / 2, again: longest })
    }
}

#[async_trait]
impl Driver for KubernetesDriver {
    fn kind(&self) -> &str {
        "kubernetes"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { operations: true, undo: false, reset: true, reset_is_loss: true, observe: true, dry_run: true }
    }

    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        self.replicas.observe(replica).await
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        match work {
            Work::Desired(desired) => self.replicas.apply(replica, &desired).await,
            Work::Operation(operation) => self.replicas.operate(replica, &operation).await,
            Work::Reset => self.replicas.reset(replica).await,
        }
    }

    async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        self.replicas.reset(replica).await
    }

    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        self.replicas.delete(replica).await
    }

    async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        self.replicas.diff(replica, work).await
    }

    async fn list_keys(&self, desired: &Value, options: &Map<String, Value>) -> Vec<String> {
        self.replicas.list_keys(desired, options).await
    }

    fn watch(&self) -> Option<Changes> {
        Some(self.replicas.watcher.subscribe())
    }

    fn reachable(&self) -> Option<watch::Receiver<Option<bool>>> {
        let (server, watcher) = (self.replicas.server.clone(), self.replicas.watcher.clone());
        Some(self.replicas.pulse.subscribe(move || {
            let (server, watcher) = (server.clone(), watcher.clone());
            async move {
                // What is written anew of how it is reached is taken up first.
                if server.reload().await {
                    watcher.begin_anew(&server);
                }
                server.is_ready().await
            }
        }))
    }
}
