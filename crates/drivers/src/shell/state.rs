//! The directory with what the driver has to know after a crash, and with the files of operations while they run.
//!
//! `notes/ID.json` says of each replica which operation ran last, and which has begun; `run/NAME/` is the private directory
//! of one run; `lock` is locked while a driver uses all this.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use khufu_crdt::{OperationId, ReplicantId};
use serde::{Deserialize, Serialize};

use super::leftover;
use super::user::Identity;
use crate::DriverError;
use crate::notes::{Notes, entries, make_dir};

/// What is known of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The operation that ran last, with success.
    pub(super) marker: Option<OperationId>,
    /// What was begun and has not ended, as far as is known.
    pub(super) begun: Option<Begun>,
}

/// Something that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// Which operation; none if the replica was to be reset or removed.
    pub(super) operation: Option<OperationId>,
    /// The name of the run, by which its processes are known.
    pub(super) run: String,
}

#[derive(Debug)]
pub(super) struct State {
    notes: Notes,
    runs: PathBuf,
}

impl State {
    /// Opens a directory, which is made if it is missing. What a crash left running is ended, and private directories
    /// are removed.
    pub(super) fn open(root: &Path) -> Result<Self, DriverError> {
        // Whom commands run as must get to the directories of runs, and sees nothing else on the way.
        make_dir(root, 0o711)?;
        let root = root.canonicalize().map_err(|source| DriverError::io("find", root, source))?;
        let notes = Notes::open(&root)?;
        let runs = root.join("run");
        make_dir(&runs, 0o711)?;
        let state = Self { notes, runs };
        state.sweep()?;
        Ok(state)
    }

    /// Ends what runs, and removes all private directories: whoever began that is no more.
    fn sweep(&self) -> Result<(), DriverError> {
        let left = entries(&self.runs)?;
        let names: Vec<String> = left.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        leftover::end(&names, &self.runs);
        for path in left {
            tracing::info!(path = %path.display(), "removing what a run left behind");
            match fs::remove_dir_all(&path) {
                // Whoever had it may be removing it just now.
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DriverError::io("remove", &path, source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where private directories are.
    pub(super) fn runs(&self) -> &Path {
        &self.runs
    }

    /// Makes the private directory of a run, with files in it.
    pub(super) fn make_private<'a>(
        &self,
        run: &str,
        identity: Option<Identity>,
        files: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Private, DriverError> {
        let private = Private(self.runs.join(run));
        let dir = &private.0;
        DirBuilder::new().mode(0o700).create(dir).map_err(|source| DriverError::io("make", dir, source))?;
        for (name, contents) in files {
            let path = dir.join(name);
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(|source| DriverError::io("make", &path, source))?;
            file.write_all(contents).map_err(|source| DriverError::io("write", &path, source))?;
            give(&path, identity)?;
        }
        give(dir, identity)?;
        Ok(private)
    }

    /// What is known of a replica; nothing if there is no note.
    pub(super) fn note(&self, id: &ReplicantId) -> Result<Note, DriverError> {
        self.notes.read(id)
    }

    /// Writes down what is known, durably.
    pub(super) fn write_note(&self, id: &ReplicantId, note: &Note) -> Result<(), DriverError> {
        self.notes.write(id, note)
    }

    /// Forgets all of a replica.
    pub(super) fn forget(&self, id: &ReplicantId) -> Result<(), DriverError> {
        self.notes.forget(id)
    }
}

/// The private directory of a run. It goes when this is dropped.
#[derive(Debug)]
pub(super) struct Private(PathBuf);

impl Private {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            // A process that is just being ended may put something there still: then it goes at the next start.
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove the files of a run now");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn give(path: &Path, identity: Option<Identity>) -> Result<(), DriverError> {
    let Some(Identity { uid, gid }) = identity else { return Ok(()) };
    chown(path, Some(uid), Some(gid)).map_err(|source| DriverError::io("give away", path, source))
}
