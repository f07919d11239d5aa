//! Files that only their owner may read: written whole or not at all, refused when others can read them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What can go wrong with a file that holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// Others than the owner have rights on the file.
    #[error("{path} may be read by others (mode {mode:o}): run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is larger than any secret of its kind.
    #[error("{path} is larger than {limit} bytes and cannot be what it should be: is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A file is there already; it is never overwritten.
    #[error("{path} exists already: move it away first, a secret is never overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// `read`, `create` and the like.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl SecretFileError {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretFileError {
    let path = path.to_owned();
    move |source| SecretFileError::Io { what, path, source }
}

/// Reads at most `limit` bytes from a file that nobody but its owner may read.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, SecretFileError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    // The opened file is asked, not the path: it cannot be exchanged in between.
    let meta = file.metadata().map_err(io_error("read", path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretFileError::Exposed { path: path.to_owned(), mode });
        }
    }
    if meta.is_dir() {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(SecretFileError::Io { what: "read", path: path.to_owned(), source });
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(SecretFileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Writes a new file with mode 0600. It appears with its whole content or not at all, and never replaces another.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let draft = directory.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = write_draft(&draft, content).and_then(|()| {
        // A link fails where a rename would replace: two processes that start at once agree on one secret.
        std::fs::hard_link(&draft, path)
    });
    // The draft holds a secret, so it goes whatever happened; a failure leaves a file only its owner can read.
    let _ = std::fs::remove_file(&draft);
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SecretFileError::Exists { path: path.to_owned() });
        }
        Err(source) => return Err(SecretFileError::Io { what: "create", path: path.to_owned(), source }),
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error("sync the directory of", path))
}

fn write_draft(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
