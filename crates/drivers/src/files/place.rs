//! The directory: reading and replacing files safely.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use khufu_crdt::ReplicantId;
use rustix::fs::OFlags;

use super::MAX_FILE_BYTES;
use super::note::{MAX_NOTE_BYTES, Note, Noted};
use super::old::Old;
use super::step::Hook;
use crate::{DriverError, digest};

/// What is where a replica's file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File(Vec<u8>),
    /// A file with so many bytes, more than the driver reads.
    TooLarge(u64),
}

impl Found {
    /// What it can be known by; none for nothing.
    pub(super) fn mark(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::File(bytes) => Some(digest(bytes)),
            Self::TooLarge(size) => Some(format!("{size} bytes")),
        }
    }
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    notes: PathBuf,
    pub(super) hook: Hook,
}

impl Place {
    pub(super) fn new(dir: &Path, hook: Hook) -> Result<Self, DriverError> {
        make_dir(dir)?;
        let dir = dir.canonicalize().map_err(|source| DriverError::io("find", dir, source))?;
        let notes = dir.join(".khufu");
        if notes.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(refused(&notes, "it is a symbolic link, which is not followed: remove it"));
        }
        make_dir(&notes)?;
        let place = Self { dir, notes, hook };
        // Found out now, not with the first change.
        let probe = place.own("probe.tmp");
        write_new(&probe, b"", None).map_err(|source| DriverError::io("write", &probe, source))?;
        remove_if_there(&probe)?;
        Ok(place)
    }

    pub(super) fn file(&self, id: &ReplicantId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    /// A file of the driver's own.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.notes.join(name)
    }

    fn note_file(&self, id: &ReplicantId) -> PathBuf {
        self.notes.join(format!("{id}.json"))
    }

    fn new_file(&self, id: &ReplicantId) -> PathBuf {
        self.notes.join(format!("{id}.new"))
    }

    /// The metadata of a replica's file; none if there is none.
    pub(super) fn metadata(&self, id: &ReplicantId) -> Result<Option<Metadata>, DriverError> {
        let path = self.file(id);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                Err(refused(&path, "it is a symbolic link, which is not followed: remove it"))
            }
            Ok(metadata) if metadata.is_dir() => {
                Err(refused(&path, "there is a directory where the file belongs: move it away"))
            }
            Ok(metadata) if !metadata.is_file() => Err(refused(&path, "it is not a file: move it away")),
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DriverError::io("look at", path, source)),
        }
    }

    pub(super) fn read(&self, id: &ReplicantId) -> Result<Found, DriverError> {
        let Some(metadata) = self.metadata(id)? else { return Ok(Found::Nothing) };
        if metadata.len() > MAX_FILE_BYTES as u64 {
            return Ok(Found::TooLarge(metadata.len()));
        }
        match read_bounded(&self.file(id), MAX_FILE_BYTES) {
            Ok(Some(bytes)) => Ok(Found::File(bytes)),
            Ok(None) => Ok(Found::TooLarge(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(source) => Err(DriverError::io("read", self.file(id), source)),
        }
    }

    fn note_bytes(&self, id: &ReplicantId) -> Result<Option<Result<Vec<u8>, String>>, DriverError> {
        let path = self.note_file(id);
        match read_bounded(&path, MAX_NOTE_BYTES) {
            Ok(Some(bytes)) => Ok(Some(Ok(bytes))),
            Ok(None) => Ok(Some(Err("it is too large".to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) => {
                Err(refused(&path, &format!("it is not a file ({error}): remove it")))
            }
            Err(source) => Err(DriverError::io("read", path, source)),
        }
    }

    /// The note on the disk, which is older than the journal where that knows the replica.
    pub(super) fn note(&self, id: &ReplicantId) -> Result<Noted, DriverError> {
        Ok(match self.note_bytes(id)? {
            None => Noted::Nothing,
            Some(bytes) => bytes.and_then(|bytes| Note::parse(&bytes)).map_or_else(Noted::Garbage, Noted::Note),
        })
    }

    /// The note if it is one of the version before.
    pub(super) fn old_note(&self, id: &ReplicantId) -> Result<Option<Old>, DriverError> {
        match self.note_bytes(id) {
            Ok(bytes) => Ok(bytes.and_then(Result::ok).and_then(|bytes| Old::parse(&bytes).ok())),
            // Told when the replica is asked for.
            Err(DriverError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the contents that a file is to have beside it, with the permissions that it has. Not on the disk yet.
    pub(super) fn write_new(&self, id: &ReplicantId, contents: &[u8], mode: Option<u32>) -> Result<(), DriverError> {
        let path = self.new_file(id);
        write_new(&path, contents, mode).map(drop).map_err(|source| DriverError::io("write", path, source))
    }

    /// Puts them in its place.
    pub(super) fn replace(&self, id: &ReplicantId) -> Result<(), DriverError> {
        let path = self.file(id);
        self.metadata(id)?;
        std::fs::rename(self.new_file(id), &path).map_err(|source| DriverError::io("replace", path, source))
    }

    /// Drops them; that this failed only takes space.
    pub(super) fn drop_new(&self, id: &ReplicantId) {
        let _ = std::fs::remove_file(self.new_file(id));
    }

    pub(super) fn remove(&self, id: &ReplicantId) -> Result<(), DriverError> {
        if self.metadata(id)?.is_some() {
            remove_if_there(&self.file(id))?;
        }
        Ok(())
    }

    /// Forces a replica's file to the disk. What is no file of ours any more is left alone.
    pub(super) fn sync_file(&self, id: &ReplicantId) -> Result<(), DriverError> {
        if !matches!(self.metadata(id), Ok(Some(_))) {
            return Ok(());
        }
        let path = self.file(id);
        let synced = match open_bounded(&path) {
            Ok(file) => self.hook.sync(&path, || file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Somebody took the permission to read it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.hook.sync(&path, || Ok(rustix::fs::syncfs(File::open(&self.dir)?)?))
            }
            Err(error) => Err(error),
        };
        synced.map_err(|source| DriverError::io("sync", path, source))
    }

    /// Makes the names of the files durable.
    pub(super) fn sync_dir(&self) -> Result<(), DriverError> {
        self.sync_names(&self.dir)
    }

    /// Makes the names of the driver's own files durable.
    pub(super) fn sync_notes(&self) -> Result<(), DriverError> {
        self.sync_names(&self.notes)
    }

    /// Makes it durable that there is this directory.
    pub(super) fn sync_all_names(&self) -> Result<(), DriverError> {
        self.sync_notes()?;
        self.sync_dir()?;
        // The directory above need not be ours to read.
        if let Some(Err(error)) = self.dir.parent().map(|parent| self.sync_names(parent)) {
            tracing::debug!(%error, "whether a power loss leaves this directory is not known");
        }
        Ok(())
    }

    fn sync_names(&self, dir: &Path) -> Result<(), DriverError> {
        self.hook.sync(dir, || File::open(dir)?.sync_all()).map_err(|source| DriverError::io("sync", dir, source))
    }

    /// Writes a note, whole or not at all. Its name is durable after [`sync_notes`](Self::sync_notes).
    pub(super) fn write_note(&self, id: &ReplicantId, note: &Note) -> Result<(), DriverError> {
        let path = self.note_file(id);
        let temporary = self.notes.join(format!("{id}.json.tmp"));
        let bytes = serde_json::to_vec(note).map_err(|error| DriverError::io("write", &path, error.into()))?;
        let written =
            write_new(&temporary, &bytes, None).map_err(|source| DriverError::io("write", &temporary, source));
        let synced = written.and_then(|file| {
            self.hook.sync(&temporary, || file.sync_all()).map_err(|source| DriverError::io("sync", &temporary, source))
        });
        let renamed = synced.and_then(|()| {
            std::fs::rename(&temporary, &path).map_err(|source| DriverError::io("replace", &path, source))
        });
        if renamed.is_err() && !self.hook.has_crashed() {
            let _ = std::fs::remove_file(&temporary);
        }
        renamed
    }

    pub(super) fn forget(&self, id: &ReplicantId) -> Result<(), DriverError> {
        remove_if_there(&self.note_file(id))
    }

    /// The names of the driver's own files.
    pub(super) fn names(&self) -> Result<Vec<String>, DriverError> {
        let failed = |source| DriverError::io("list", &self.notes, source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.notes).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// All replicas that there is a note on, on the disk.
    pub(super) fn noted(&self) -> Result<Vec<ReplicantId>, DriverError> {
        Ok(self.names()?.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    pub(super) fn drop_own(&self, name: &str) -> Result<(), DriverError> {
        remove_if_there(&self.own(name))
    }

    /// Removes what was being written when a process ended.
    pub(super) fn clean_up(&self) -> Result<(), DriverError> {
        for name in self.names()? {
            if name.ends_with(".tmp") || name.ends_with(".new") {
                tracing::info!(name, "removing what a crash left behind");
                self.drop_own(&name)?;
            }
        }
        Ok(())
    }
}

pub(super) fn refused(path: &Path, reason: &str) -> DriverError {
    DriverError::Refused { place: path.display().to_string(), reason: reason.to_owned() }
}

fn make_dir(dir: &Path) -> Result<(), DriverError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|source| DriverError::io("make the directory", dir, source))
}

/// Opens a file for reading, without following a symbolic link and without waiting for a pipe.
fn open_bounded(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(file)
}

/// Reads such a file; none if it is larger than allowed.
fn read_bounded(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open_bounded(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= max).then_some(bytes))
}

/// Writes a file of our own in place of a leftover of that name.
fn write_new(path: &Path, contents: &[u8], mode: Option<u32>) -> io::Result<File> {
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let mut file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_leftover(path)?;
                options.open(path)?
            }
            opened => opened?,
        };
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(contents)?;
        Ok(file)
    };
    write().inspect_err(|_| {
        // Half of it would only take space.
        let _ = std::fs::remove_file(path);
    })
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> Result<(), DriverError> {
    remove_leftover(path).map_err(|source| DriverError::io("remove", path, source))
}
