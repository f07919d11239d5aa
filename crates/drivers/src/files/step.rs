//! The points that a change of a file reaches. For tests of crashes, and for counting syncs.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::DriverError;

/// A point that a change of a file has reached, or that opening a directory has.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something is about to be forced to the disk.
    Syncing,
    /// The new contents are in a file of their own, not on the disk yet.
    Written,
    /// The journal has the change, durably.
    Journaled,
    /// The file is what it is to be, for readers.
    Replaced,
    /// A file was brought to what the journal says, as the directory was opened.
    RolledForward,
    /// At a checkpoint: the files are on the disk.
    FilesSettled,
    /// At a checkpoint: the notes are on the disk.
    NotesSettled,
    /// A journal has nothing any more that is needed, and says so.
    Retired,
}

type Crash = dyn Fn(Step, &Path) -> bool + Send + Sync;

/// Told of each step and where it was made; answers whether the process is to crash there, as far as the files are concerned.
#[derive(Clone, Default)]
pub(super) struct Hook(Option<Arc<(Box<Crash>, AtomicBool)>>);

impl Hook {
    pub(super) fn new(crash: impl Fn(Step, &Path) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new((Box::new(crash), AtomicBool::new(false)))))
    }

    /// An error if the process is to crash here, or crashed before.
    fn reach(&self, step: Step, place: &Path) -> io::Result<()> {
        let Some((crash, crashed)) = self.0.as_deref() else { return Ok(()) };
        if crashed.load(SeqCst) || crash(step, place) {
            crashed.store(true, SeqCst);
            return Err(io::Error::other("a crash on purpose"));
        }
        Ok(())
    }

    /// [`reach`](Self::reach) after something was done at a place.
    pub(super) fn at(&self, step: Step, place: &Path) -> Result<(), DriverError> {
        self.reach(step, place).map_err(|source| DriverError::io("go on with", place, source))
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.0.as_ref().is_some_and(|both| both.1.load(SeqCst))
    }

    /// Every sync of this driver comes by here.
    pub(super) fn sync(&self, place: &Path, force: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.reach(Step::Syncing, place)?;
        force()
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
