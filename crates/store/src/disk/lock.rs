//! One process per directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::StoreError;

/// Holds a directory until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is just being started has it open too, for a moment.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Makes the directory if there is none, and takes it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| StoreError::io("make the directory", dir, source))?;
        let path = dir.join("LOCK");
        let failed = |what| {
            let path = path.clone();
            move |source| StoreError::io(what, path, source)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Empty for the moment in which the holder has taken the lock and not yet written its name.
                let _ = (&file).take(32).read_to_string(&mut holder);
                return Err(StoreError::InUse { dir: dir.to_owned(), pid: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write the lock file"))?;
        Ok(Self(file))
    }
}
