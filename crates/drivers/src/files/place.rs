//! The directory: reading and replacing files safely.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use khufu_crdt::ReplicantId;
use rustix::fs::OFlags;

use super::MAX_FILE_BYTES;
use super::group::GroupSync;
use super::note::{MAX_NOTE_BYTES, Note};
use crate::DriverError;

/// What is where a replica's file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File(Vec<u8>),
    /// A file with so many bytes, more than the driver reads.
    TooLarge(u64),
}

/// What there is of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noted {
    Nothing,
    Note(Note),
    /// A note that makes no sense, and why.
    Garbage(String),
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    notes: PathBuf,
    dir_sync: GroupSync,
    notes_sync: GroupSync,
}

impl Place {
    pub(super) fn new(dir: &Path) -> Result<Self, DriverError> {
        make_dir(dir)?;
        let dir = dir.canonicalize().map_err(|source| DriverError::io("find", dir, source))?;
        let notes = dir.join(".khufu");
        if notes.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(refused(&notes, "it is a symbolic link, which is not followed: remove it"));
        }
        make_dir(&notes)?;
        // Found out now, not with the first change.
        let probe = notes.join("probe.tmp");
        write_new(&probe, b"", None)?;
        std::fs::remove_file(&probe).map_err(|source| DriverError::io("remove", &probe, source))?;
        let (dir_sync, notes_sync) = (GroupSync::new(&dir), GroupSync::new(&notes));
        let place = Self { dir, notes, dir_sync, notes_sync };
        place.clean_up()?;
        Ok(place)
    }

    pub(super) fn file(&self, id: &ReplicantId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    fn note_file(&self, id: &ReplicantId) -> PathBuf {
        self.notes.join(format!("{id}.json"))
    }

    fn next_file(&self, id: &ReplicantId, number: u64) -> PathBuf {
        self.notes.join(format!("{id}.{number}.next"))
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

    pub(super) fn note(&self, id: &ReplicantId) -> Result<Noted, DriverError> {
        let path = self.note_file(id);
        match read_bounded(&path, MAX_NOTE_BYTES) {
            Ok(Some(bytes)) => Ok(Note::parse(&bytes).map_or_else(Noted::Garbage, Noted::Note)),
            Ok(None) => Ok(Noted::Garbage("it is too large".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noted::Nothing),
            Err(error) if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) => {
                Err(refused(&path, &format!("it is not a file ({error}): remove it")))
            }
            Err(source) => Err(DriverError::io("read", path, source)),
        }
    }

    pub(super) fn has_next(&self, id: &ReplicantId, number: u64) -> bool {
        self.next_file(id, number).symlink_metadata().is_ok()
    }

    pub(super) fn write_next(&self, id: &ReplicantId, number: u64, contents: &[u8]) -> Result<(), DriverError> {
        let like = self.metadata(id)?;
        write_new(&self.next_file(id, number), contents, like.as_ref())?;
        self.notes_sync.sync()
    }

    pub(super) fn write_note(&self, id: &ReplicantId, note: &Note) -> Result<(), DriverError> {
        let path = self.note_file(id);
        let temporary = self.notes.join(format!("{id}.json.tmp"));
        let bytes = serde_json::to_vec(note).map_err(|error| DriverError::io("write", &path, error.into()))?;
        write_new(&temporary, &bytes, None)?;
        std::fs::rename(&temporary, &path).map_err(|source| DriverError::io("replace", &path, source))?;
        self.notes_sync.sync()
    }

    /// Puts the new contents in the place of the file: the step that decides.
    pub(super) fn replace(&self, id: &ReplicantId, number: u64) -> Result<(), DriverError> {
        let path = self.file(id);
        self.metadata(id)?;
        std::fs::rename(self.next_file(id, number), &path)
            .map_err(|source| DriverError::io("replace", &path, source))?;
        self.dir_sync.sync()?;
        self.notes_sync.sync()
    }

    pub(super) fn remove(&self, id: &ReplicantId) -> Result<(), DriverError> {
        if self.metadata(id)?.is_some() {
            remove_if_there(&self.file(id))?;
        }
        self.dir_sync.sync()
    }

    pub(super) fn drop_next(&self, id: &ReplicantId, number: u64) -> Result<(), DriverError> {
        remove_if_there(&self.next_file(id, number))
    }

    pub(super) fn forget(&self, id: &ReplicantId) -> Result<(), DriverError> {
        remove_if_there(&self.note_file(id))?;
        self.notes_sync.sync()
    }

    fn names(&self) -> Result<Vec<String>, DriverError> {
        let failed = |source| DriverError::io("list", &self.notes, source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.notes).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// All replicas that there is a note on, sorted.
    pub(super) fn known(&self) -> Result<Vec<ReplicantId>, DriverError> {
        let names = self.names()?;
        let mut ids: Vec<ReplicantId> =
            names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes what a crash left behind: notes and contents that were being written and that nothing refers to.
    fn clean_up(&self) -> Result<(), DriverError> {
        for name in self.names()? {
            let stale = if name.ends_with(".tmp") {
                true
            } else if let Some((id, number)) = name.strip_suffix(".next").and_then(|rest| rest.rsplit_once('.')) {
                let (Ok(id), Ok(number)) = (id.parse::<ReplicantId>(), number.parse::<u64>()) else { continue };
                !matches!(self.note(&id)?, Noted::Note(note) if note.number == number)
            } else {
                false
            };
            if stale {
                tracing::info!(name, "removing what a crash left behind");
                remove_if_there(&self.notes.join(name))?;
            }
        }
        for id in self.known()? {
            // A removal that got as far as the file. Closed now, or a file made by hand would be taken for the old one.
            if let Noted::Note(note) = self.note(&id)?
                && let Some(closed) = note.closed()
                && matches!(self.metadata(&id), Ok(None))
            {
                self.write_note(&id, &closed)?;
            }
        }
        Ok(())
    }
}

fn refused(path: &Path, reason: &str) -> DriverError {
    DriverError::Refused { place: path.display().to_string(), reason: reason.to_owned() }
}

fn make_dir(dir: &Path) -> Result<(), DriverError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|source| DriverError::io("make the directory", dir, source))
}

/// Reads a file without following a symbolic link and without waiting for a pipe; none if it is larger than allowed.
fn read_bounded(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= max).then_some(bytes))
}

/// Writes a file of our own, durably, in place of a leftover of that name.
fn write_new(path: &Path, contents: &[u8], like: Option<&Metadata>) -> Result<(), DriverError> {
    let write = || {
        remove_leftover(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(contents)?;
        if let Some(like) = like {
            file.set_permissions(like.permissions())?;
        }
        file.sync_all()
    };
    write().map_err(|source| {
        // Half of it would only take space.
        let _ = std::fs::remove_file(path);
        DriverError::io("write", path, source)
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
