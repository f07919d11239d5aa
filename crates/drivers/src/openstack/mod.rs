//! Replicas as resources of an OpenStack cloud.

mod answer;
mod api;
mod apply;
mod cloud;
mod compare;
mod desired;
mod identity;
mod kinds;
mod local;
mod look;
mod mark;
mod options;
mod remove;
mod replicas;
mod session;
mod status;

use std::path::Path;

use async_trait::async_trait;
use khufu_crdt::Capabilities;
use tokio::sync::watch;

use crate::{Done, Driver, DriverError, Observed, Replica, Work};
use cloud::Source;
use replicas::Replicas;

/// Makes of each replicant one resource of a cloud, or several: networks, images, servers and so on, in the words of the APIs.
///
/// Each site gives its own ids. References between resources are written with names and resolved to the ids of the site. A
/// resource carries a mark from the request on that makes it, so that one whose answer was lost is found again, and not
/// made twice.
///
/// Applying several resources is not one step: where one fails, those before it stay as they were made, and the whole is
/// tried again.
pub struct OpenStackDriver {
    replicas: Replicas,
}

impl std::fmt::Debug for OpenStackDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenStackDriver").finish_non_exhaustive()
    }
}

impl OpenStackDriver {
    /// A driver for one of the clouds of a `clouds.yaml` (the only one unless given). The cloud need not be there yet; the
    /// file is read again for each new token.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if the file has no such cloud, or what it says of it cannot be used, and [`DriverError::Io`] if
    /// it cannot be read.
    pub async fn from_file(path: &Path, cloud: Option<&str>) -> Result<Self, DriverError> {
        Self::new(Source::File { path: path.to_owned(), cloud: cloud.map(str::to_owned) }).await
    }

    /// A driver for the cloud that the client `openstack` would use: the one that `OS_CLOUD` names, or else the one that the
    /// other variables `OS_*` describe.
    ///
    /// # Errors
    /// As those of [`from_file`](Self::from_file).
    pub async fn from_environment() -> Result<Self, DriverError> {
        Self::new(Source::Environment).await
    }

    async fn new(source: Source) -> Result<Self, DriverError> {
        // What is wrong in it is said now, and not when the first resource is to be made.
        source.read().await?;
        Ok(Self { replicas: Replicas::new(source) })
    }
}

#[async_trait]
impl Driver for OpenStackDriver {
    fn kind(&self) -> &str {
        "openstack"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { operations: false, undo: false, reset: true, reset_is_loss: true, observe: true, dry_run: true }
    }

    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        self.replicas.observe(replica).await
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        match work {
            Work::Desired(desired) => self.replicas.apply(replica, &desired).await,
            Work::Operation(_) => Err(DriverError::Unsupported {
                kind: self.kind().to_owned(),
                what: "run operations: edit the desired state",
            }),
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

    fn reachable(&self) -> Option<watch::Receiver<Option<bool>>> {
        let session = self.replicas.session.clone();
        Some(self.replicas.pulse.subscribe(move || {
            let session = session.clone();
            async move { session.is_ready().await }
        }))
    }
}
