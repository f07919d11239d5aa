//! Replicas as files: the embedded default.

mod change;
mod group;
mod note;
mod place;
mod replicas;
mod watch;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use khufu_crdt::Capabilities;

use crate::{Changes, Done, Driver, DriverError, Observed, Replica, Work};
use replicas::Replicas;
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

/// A point that a change of a file has reached. For tests of crashes.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    NextWritten,
    NoteWritten,
    Replaced,
    NoteClosed,
}

/// Told of each step; answers whether the process is to crash there, as far as the file is concerned.
#[derive(Clone, Default)]
struct Hook(Option<Arc<dyn Fn(Step) -> bool + Send + Sync>>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// Keeps each replica as the file `<dir>/<id>`.
///
/// The desired state is written as YAML with sorted keys. Operations carry `{"write": text}`, which replaces the
/// contents, or `{"append": text}`. A file is always replaced whole (and keeps its permissions), so no reader sees half a
/// change; an `append` runs exactly once, also when the process is killed in the middle and asks again. What the driver
/// remembers is in `<dir>/.khufu/`.
///
/// Nothing outside of the directory is ever read or written: symbolic links are refused.
#[derive(Debug)]
pub struct FilesDriver {
    replicas: Arc<Replicas>,
    watcher: OnceLock<Watcher>,
    look_every: Duration,
}

impl FilesDriver {
    /// A driver for a directory, which is made (0755) if it is missing. What a crash left behind is cleaned up.
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
        crash: impl Fn(Step) -> bool + Send + Sync + 'static,
    ) -> Result<Self, DriverError> {
        Self::with_hook(dir.as_ref(), Hook(Some(Arc::new(crash))))
    }

    fn with_hook(dir: &Path, hook: Hook) -> Result<Self, DriverError> {
        let replicas = Arc::new(Replicas::new(dir, hook)?);
        Ok(Self { replicas, watcher: OnceLock::new(), look_every: LOOK_EVERY })
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
        &self.replicas.place.dir
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Replicas) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let replicas = self.replicas.clone();
        tokio::task::spawn_blocking(move || work(&replicas))
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
        Capabilities { operations: true, undo: false, reset: true, observe: true, dry_run: true }
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
        Some(self.watcher.get_or_init(|| Watcher::start(&self.replicas, self.look_every)).subscribe())
    }
}
