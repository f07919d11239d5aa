//! What can go wrong, where, and the way out.

use std::{fmt, io, path::PathBuf, sync::Arc};

/// Why a store refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the directory open.
    #[error(
        "the data directory {} is in use by {}: stop it, or give this node a directory of its own",
        dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory of the store.
        dir: PathBuf,
        /// The process that holds it, if it said so.
        pid: Option<u32>,
    },
    /// The operating system refused an operation on a file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `read`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// There is too little space, or a quota or size limit is reached. Nothing of the batch is kept.
    #[error("the disk that holds {} is full ({free} bytes free): make space, then try again", dir.display())]
    DiskFull {
        /// The directory of the store.
        dir: PathBuf,
        /// Bytes that were free when it was found out.
        free: u64,
    },
    /// An earlier commit failed, so that memory and disk may differ. Nothing acknowledged is lost.
    #[error(
        "the store in {} takes no more writes since one failed ({reason}): mend the cause and open it again",
        dir.display()
    )]
    Poisoned {
        /// The directory of the store.
        dir: PathBuf,
        /// How the first failed commit failed.
        reason: String,
    },
    /// A record is there and cannot be read.
    #[error("the record {key} is damaged ({reason}): fetch it again from a peer, or delete it")]
    Damaged {
        /// Its key.
        key: Printed,
        /// What is wrong with it.
        reason: String,
    },
    /// The files are there and cannot be opened as a store.
    #[error(
        "the store in {} cannot be opened ({reason}): open it with recovery, which moves the damaged files aside and \
         keeps all that can be read, or move them away and let the peers send everything again",
        dir.display()
    )]
    CannotOpen {
        /// The directory of the store.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The files turned out to be damaged while the store was in use.
    #[error(
        "the files of the store in {} are damaged ({reason}): open it again with recovery, which moves them aside and \
         keeps all that can be read",
        dir.display()
    )]
    Corrupt {
        /// The directory of the store.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The store was written by a newer version.
    #[error("the store in {} has format {found}, this program knows up to {known}: use a newer one", dir.display())]
    TooNew {
        /// The directory of the store.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// The batch breaks a limit; nothing of it is kept.
    #[error("the {what} is {len}, at most {max} is allowed: split it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        len: usize,
        /// How large it may be.
        max: usize,
    },
    /// A key without bytes; nothing of the batch is kept.
    #[error("a key must not be empty")]
    EmptyKey,
    /// The store has been closed, or has crashed on purpose.
    #[error("the store is closed: open it again")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source: Arc::new(source) }
    }

    /// Whether the store still takes batches after this error.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::EmptyKey | Self::DiskFull { .. })
    }
}

/// Whether an error of the operating system means that there is no space for more.
pub(crate) fn means_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Bytes that print as text where they are text, else escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Printed(pub Vec<u8>);

impl fmt::Display for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
