//! How far the store has acknowledged, kept beside sled's files.
//!
//! sled takes a damaged place near the end of its log for the end, and drops what follows without a word. The mark tells
//! that apart from a crash. It is written after the sync that it speaks of and not synced itself: so it is never ahead
//! of what is durable, and a power loss can only make it say less.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::StoreError;

#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Opens the mark, and says which group of batches was acknowledged last (0 if that is not known).
    pub(super) fn open(dir: &Path) -> Result<(Self, u64), StoreError> {
        let path = dir.join("acknowledged");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| StoreError::io("open", path, source))?;
        let mut bytes = [0; 12];
        let mut last = 0;
        if file.read_exact_at(&mut bytes, 0).is_ok() {
            let (number, crc) = bytes.split_at(8);
            if crc32fast::hash(number).to_le_bytes() == crc {
                last = number.try_into().map(u64::from_le_bytes).unwrap_or(0);
            }
        }
        Ok((Self(file), last))
    }

    pub(super) fn set(&self, sequence: u64) {
        let mut bytes = sequence.to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        if let Err(error) = self.0.write_all_at(&bytes, 0) {
            // Only the diagnosis suffers.
            tracing::warn!(%error, "cannot note how far the store has acknowledged");
        }
    }
}
