//! What a driver has to know of its replicas after a crash: a small file for each, in a directory that one driver uses at a
//! time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use khufu_crdt::ReplicantId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::DriverError;

/// Notes on replicas: `notes/ID.json`; `lock` is locked while a driver uses them.
#[derive(Debug)]
pub(crate) struct Notes {
    dir: PathBuf,
    lock: File,
}

impl Drop for Notes {
    fn drop(&mut self) {
        // A process that is just being started has all open files of this one for a moment, and with them the lock.
        let _ = self.lock.unlock();
    }
}

impl Notes {
    /// Those below a directory that is there.
    ///
    /// # Errors
    /// If another driver uses them, of this or another process.
    pub(crate) fn open(root: &Path) -> Result<Self, DriverError> {
        let (dir, lock) = (root.join("notes"), root.join("lock"));
        make_dir(&dir, 0o700)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = file.map_err(|source| DriverError::io("open", &lock, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let reason = format!("another driver works in {}: stop it, or name another directory", root.display());
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
            Err(TryLockError::Error(source)) => return Err(DriverError::io("lock", lock, source)),
        }
        for path in entries(&dir)?.iter().filter(|path| path.extension().is_some_and(|end| end == "tmp")) {
            fs::remove_file(path).map_err(|source| DriverError::io("remove", path, source))?;
        }
        Ok(Self { dir, lock: file })
    }

    /// Where the note on a replica is.
    pub(crate) fn path(&self, id: &ReplicantId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// What is known of a replica; nothing if there is no note.
    pub(crate) fn read<N: Default + DeserializeOwned>(&self, id: &ReplicantId) -> Result<N, DriverError> {
        let path = self.path(id);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| DriverError::Refused {
                place: path.display().to_string(),
                reason: format!(
                    "what ran last is not known, as this note cannot be read ({error}): see to the replica, then remove \
                     the file"
                ),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(N::default()),
            Err(source) => Err(DriverError::io("read", path, source)),
        }
    }

    /// Writes down what is known, durably.
    pub(crate) fn write<N: Serialize>(&self, id: &ReplicantId, note: &N) -> Result<(), DriverError> {
        let path = self.path(id);
        let new = path.with_added_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(serde_json::to_string(note).map_err(io::Error::from)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| DriverError::io("write", &path, source))
    }

    /// Forgets all of a replica.
    pub(crate) fn forget(&self, id: &ReplicantId) -> Result<(), DriverError> {
        let path = self.path(id);
        match fs::remove_file(&path).and_then(|()| File::open(&self.dir)?.sync_all()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DriverError::io("remove", path, source)),
            _ => Ok(()),
        }
    }
}

/// Makes a directory with this mode, or gives one that is there the mode.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), DriverError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    let set = made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
    set.map_err(|source| DriverError::io("make", path, source))
}

/// What is in a directory.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>, DriverError> {
    let read = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    read.map_err(|source| DriverError::io("read", dir, source))
}
