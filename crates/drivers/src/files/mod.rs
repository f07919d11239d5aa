//! Replicas as files: the embedded default.

mod change;
mod checkpoint;
mod journal;
mod latest;
mod note;
mod old;
mod opening;
mod place;
mod record;
mod recover;
mod replicas;
mod step;
mod watch;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use khufu_crdt::Capabilities;

use crate::{Changes, Done, Driver, DriverError, Observed, Replica, Work};
use opening::Opening;
use replicas::Replicas;
use step::Hook;
pub use step::Step;
use watch::Watcher;

/// The most bytes of text that one operation writes or appends: 1 MiB.
pub const MAX_OPERATION_BYTES: usize = 1 << 20;
/// The most bytes that a file may come to: 16 MiB.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// The most bytes of contents that `observe` shows.
const CONTENTS_SHOWN_BYTES: usize = 64 << 10;
/// The most bytes of a difference that a dry run shows.
const DIFF_SHOWN_BYTES: usize = 64 << 10;
/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps each replica as the file `<dir>/<id>`.
///
/// The desired state is written as YAML with sorted keys. Operations carry `{"write": text}`, which replaces the
/// contents, or `{"append": text}`. A file is always replaced whole (and keeps its permissions), so no reader sees half a
/// change; an `append` runs exactly once, also when the process is killed in the middle and asks again. A change that was
/// answered outlives a power loss. What the driver remembers is in `<dir>/.khufu/`, which one driver works in at a time.
///
/// Nothing outside of the directory is ever read or written: symbolic links are refused.
#[derive(Debug)]
pub struct FilesDriver {
    opening: Arc<Opening>,
    watcher: OnceLock<Watcher>,
    look_every: Duration,
}

impl FilesDriver {
    /// A driver for a directory, which is made (0755) if it is missing. What a crash left behind is cleaned up, and what
    /// was answered and did not come to the disk is done again. While another driver works in the directory, all that is
    /// asked of this one is refused as [`DriverError::Unavailable`]. Dropping the driver waits for the disk, at most some
    /// seconds.
    ///
    /// # Errors
    /// [`DriverError::Io`] if the directory cannot be made or written to, and names it.
    pub fn new(dir: impl AsRef<Path>) -> Result<Self, DriverError> {
        Self::with_hook(dir.as_ref(), Hook::default())
    }

    /// A driver that crashes where it is told to.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[doc(hidden)]
    pub fn crashing(
        dir: impl AsRef<Path>,
        crash: impl Fn(Step, &Path) -> bool + Send + Sync + 'static,
    ) -> Result<Self, DriverError> {
        Self::with_hook(dir.as_ref(), Hook::new(crash))
    }

    fn with_hook(dir: &Path, hook: Hook) -> Result<Self, DriverError> {
        let opening = Arc::new(Opening::new(dir, hook)?);
        Ok(Self { opening, watcher: OnceLock::new(), look_every: LOOK_EVERY })
    }

    /// Changes how often files are looked at by [`watch`](Driver::watch): every 2 seconds unless set.
    #[must_use]
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.look_every = interval;
        self
    }

    /// The directory, as a full path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.opening.dir()
    }

    /// Brings all to the disk now, in its place.
    ///
    /// # Errors
    /// [`DriverError::Io`] if that fails; what was answered is then durable none the less.
    #[doc(hidden)]
    pub async fn checkpoint(&self) -> Result<(), DriverError> {
        self.run(|replicas| replicas.checkpoint(None)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Replicas) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let opening = self.opening.clone();
        tokio::task::spawn_blocking(move || work(opening.replicas()?))
            .await
            .map_err(|error| DriverError::Unavailable { reason: error.to_string(), retry_after: None })?
    }
}

#[async_trait]
impl Driver for FilesDriver {
    fn kind(&self) -> &str {
        "files"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { operations: true, undo: false, reset: true, reset_is_loss: false, observe: true, dry_run: true }
    }

    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let replica = replica.clone();
        self.run(move |replicas| replicas.observe(&replica)).await
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        let replica = replica.clone();
        self.run(move |replicas| replicas.apply(&replica, &work)).await
    }

    async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        self.apply(replica, Work::Reset).await
    }

    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        let replica = replica.clone();
        self.run(move |replicas| replicas.delete(&replica)).await
    }

    async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let (replica, work) = (replica.clone(), work.to_vec());
        self.run(move |replicas| replicas.diff(&replica, &work)).await
    }

    fn watch(&self) -> Option<Changes> {
        Some(self.watcher.get_or_init(|| Watcher::start(&self.opening, self.look_every)).subscribe())
    }
}
