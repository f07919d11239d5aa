//! Replicas as objects of a Kubernetes API server.

mod answer;
mod diff;
mod fields;
mod health;
mod kinds;
mod manifest;
mod options;
mod replicas;
mod server;
mod stamp;
mod watch;

use std::path::Path;

use async_trait::async_trait;
use khufu_crdt::Capabilities;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::{Changes, Done, Driver, DriverError, Observed, Replica, Work};
pub use health::{Health as ObjectHealth, UnknownHealth, Verdict};
use replicas::Replicas;
use server::Server;

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
    /// unless given). The server need not be there yet.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if the file cannot be read or has no such context.
    pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, DriverError> {
        let wrong = |error: String| DriverError::invalid(path.display().to_string(), error);
        let file = Kubeconfig::read_from(path).map_err(|error| wrong(error.to_string()))?;
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(error.to_string()))?;
        Self::new(config)
    }

    /// A driver for the API server of the cluster that this process runs in, with its service account, and for no other.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if this process does not run in a cluster.
    pub fn in_cluster() -> Result<Self, DriverError> {
        let config = Config::incluster().map_err(|error| DriverError::invalid("in-cluster", error.to_string()))?;
        Self::new(config)
    }

    fn new(config: Config) -> Result<Self, DriverError> {
        Ok(Self { replicas: Replicas::new(Server::new(config)?) })
    }
}

#[async_trait]
impl Driver for KubernetesDriver {
    fn kind(&self) -> &str {
        "kubernetes"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: false,
            undo: false,
            reset: false,
            reset_is_loss: false,
            observe: true,
            dry_run: true,
        }
    }

    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        self.replicas.observe(replica).await
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        match work {
            Work::Desired(desired) => self.replicas.apply(replica, &desired).await,
            Work::Operation(_) => Err(self.cannot("run operations")),
            Work::Reset => Err(self.cannot("reset a replica")),
        }
    }

    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        self.replicas.delete(replica).await
    }

    async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let desired = work.iter().rev().find_map(|work| match work {
            Work::Desired(desired) => Some(desired),
            Work::Operation(_) | Work::Reset => None,
        });
        match desired {
            Some(desired) => self.replicas.diff(replica, desired).await,
            None => Ok(String::new()),
        }
    }

    fn watch(&self) -> Option<Changes> {
        Some(self.replicas.watcher.subscribe())
    }
}

impl KubernetesDriver {
    fn cannot(&self, what: &'static str) -> DriverError {
        DriverError::Unsupported { kind: self.kind().to_owned(), what }
    }
}
