//! Replicas as what any REST service has.
//!
//! A [`Config`] says how a service is spoken to: where it is, and for each kind of resource the requests that create, read,
//! update, remove and find one. Operations are stored requests, of which the configuration says which are allowed.

mod answer;
mod asking;
mod config;
mod desired;
mod diff;
mod fields;
mod kinds;
mod look;
mod note;
mod operate;
mod options;
mod payload;
mod place;
mod replicas;
mod secrets;
mod service;
mod template;

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use khufu_crdt::{Capabilities, Operation};
use tokio::sync::watch;

use crate::notes::{Notes, make_dir};
use crate::pulse::Pulse;
use crate::{Done, Driver, DriverError, Observed, Replica, Work, digest};
pub use config::{Basic, Config, ConfigError, Find, Header, HealthField, Operations, Request, Resource, Secret};
use replicas::Replicas;
use service::Service;

/// Makes of each replicant one resource of a REST service, or replays requests to one.
///
/// What is created is created once wherever the service offers a way to find out whether it was; where it offers none, and the
/// answer was lost, nothing is sent again and a person is told.
pub struct HttpDriver {
    replicas: Replicas,
    pulse: Pulse,
    capabilities: Capabilities,
}

impl std::fmt::Debug for HttpDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDriver").finish_non_exhaustive()
    }
}

impl HttpDriver {
    /// A driver for a configuration. The service need not be there yet.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key: a request that makes no sense, a secret that is not there, a directory that another
    /// driver uses.
    pub async fn new(config: &Config) -> Result<Self, ConfigError> {
        let kinds = kinds::all(config)?;
        let pulse = Pulse::new();
        let service = Arc::new(Service::new(config, pulse.suspect()).await?);
        make_dir(&config.state, 0o700)?;
        let notes = Arc::new(Notes::open(&config.state)?);
        let capabilities = Capabilities {
            operations: kinds.values().any(|kind| !kind.operations.is_empty()),
            undo: kinds.values().flat_map(|kind| &kind.operations).any(|allowed| allowed.undo.is_some()),
            reset: kinds.values().all(|kind| kind.delete.is_some()),
            reset_is_loss: false,
            observe: true,
            dry_run: true,
        };
        Ok(Self { replicas: Replicas { service, kinds, notes }, pulse, capabilities })
    }

    /// A driver for the configuration in a file.
    ///
    /// # Errors
    /// As [`Config::read`] and [`new`](Self::new).
    pub async fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::new(&Config::read(path)?).await
    }
}

#[async_trait]
impl Driver for HttpDriver {
    fn kind(&self) -> &str {
        "http"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        self.replicas.observe(replica).await
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        match work {
            Work::Desired(desired) => self.replicas.desire(replica, desired).await,
            Work::Operation(operation) => self.replicas.operate(replica, &operation).await,
            Work::Reset => self.reset(replica).await,
        }
    }

    async fn undo(&self, replica: &Replica, operation: &Operation) -> Result<Done, DriverError> {
        self.replicas.undo(replica, operation).await
    }

    async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        let mut at = self.replicas.at(replica).await?;
        let removed = at.remove().await?;
        if at.may_be_lost() && !at.resource.create_again {
            return Err(at.maybe_created());
        }
        let output = if removed { "removed" } else { "there was none" };
        Ok(Done { output: output.to_owned(), ..Done::default() })
    }

    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        let mut at = self.replicas.at(replica).await?;
        let output = match () {
            () if at.options.retain => "kept, as the policy says",
            () if at.resource.delete.is_none() => "the driver's file has no request to remove it: what was made stays",
            () if at.remove().await? => "removed",
            () if at.may_be_lost() => {
                "its creation was sent and not answered, and the service offers no way to find out whether there is one: see \
                 to it"
            }
            () => "there was none",
        };
        at.forget().await?;
        Ok(Done { output: output.to_owned(), ..Done::default() })
    }

    async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        self.replicas.diff(replica, work).await
    }

    fn reachable(&self) -> Option<watch::Receiver<Option<bool>>> {
        let service = self.replicas.service.clone();
        Some(self.pulse.subscribe(move || {
            let service = service.clone();
            async move { service.is_there().await }
        }))
    }
}

/// The begin of something that somebody else wrote, for messages.
fn shorten(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}

/// A word that no other request has: not of this process, and not of another, at any site.
fn name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    // The keys of hashes are random.
    let random = RandomState::new().hash_one(now);
    let whole = format!("{} {now} {} {random}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    digest(whole.as_bytes()).chars().take(32).collect()
}
