//! Forcing what sled and the journal wrote to the disk.
//!
//! sled 0.34 writes to `db` (its log), `conf` and `snap.<lsn>` (when it opens) and `blobs/<lsn>` (values too large for
//! a segment of the log, which this crate avoids by cutting values in pieces). On Linux its `flush` ends in
//! `sync_file_range`, which leaves the file's length and the disk's own cache alone; blobs, `conf` and directories it
//! never syncs. So all of that is done here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fmt, io};

use crate::lock;

/// The last steps before a group of batches is acknowledged: [`sync_journal`](Self::sync_journal) for one that is in the
/// journal, else [`flushed`](Self::flushed) and [`sync`](Self::sync); then [`acknowledged`](Self::acknowledged). A seam for
/// tests; [`SyncFiles`] is the real thing.
pub trait DiskSteps: fmt::Debug + Send + Sync + 'static {
    /// sled has handed everything to the operating system, in the files under `dir`.
    fn flushed(&self, dir: &Path) {
        let _ = dir;
    }

    /// Forces every file under `dir` that sled wrote, and the directories where names changed, to the disk.
    ///
    /// # Errors
    /// Whatever the operating system says. The store then refuses all further batches: after a failed sync nobody
    /// knows what the disk holds.
    fn sync(&self, dir: &Path) -> io::Result<()>;

    /// Forces what was written to the journal to the disk.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync).
    fn sync_journal(&self, path: &Path, journal: &File) -> io::Result<()> {
        let _ = path;
        journal.sync_data()
    }

    /// So many batches are about to be acknowledged.
    fn acknowledged(&self, batches: usize) {
        let _ = batches;
    }
}

/// Syncs with `fdatasync` and `fsync`.
#[derive(Debug, Default)]
pub struct SyncFiles {
    /// What each directory holds of which the names are known to be durable. A name alone would not do: directories
    /// are renamed when a store is recovered.
    known: Mutex<BTreeMap<PathBuf, Entries>>,
}

type Entries = BTreeSet<(OsString, u64)>;

fn entries(dir: &Path) -> io::Result<Entries> {
    std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| (entry.file_name(), entry.ino()))).collect()
}

impl SyncFiles {
    /// Syncs the files of a directory that are new, then, if any came or went, the directory and those above.
    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        let now = entries(dir)?;
        let mut all = lock(&self.known);
        let first = !all.contains_key(dir);
        let known = all.entry(dir.to_owned()).or_default();
        if now == *known && !first {
            return Ok(());
        }
        for (name, _) in now.difference(known) {
            match File::open(dir.join(name)) {
                Ok(file) => file.sync_all()?,
                // sled removes what it no longer needs on a thread of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        File::open(dir)?.sync_all()?;
        if first {
            // The directory of the store was perhaps just made; those above may be closed to this user.
            for above in dir.ancestors().skip(1).take(3) {
                let _ = File::open(above).and_then(|above| above.sync_all());
            }
        }
        *known = now;
        Ok(())
    }
}

impl DiskSteps for SyncFiles {
    fn sync(&self, dir: &Path) -> io::Result<()> {
        File::open(dir.join("db"))?.sync_data()?;
        let blobs = dir.join("blobs");
        if blobs.is_dir() {
            self.sync_names(&blobs)?;
        }
        self.sync_names(dir)
    }
}
