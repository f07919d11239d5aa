//! What a command writes: the begin is kept, all of it is counted.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// The begin of what was written, and what is known of the rest.
#[derive(Debug)]
pub(super) struct Kept {
    begin: Vec<u8>,
    limit: usize,
    total: u64,
    hash: Sha256,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self { begin: Vec::new(), limit, total: 0, hash: Sha256::new() }
    }

    /// Reads to the end. What was read until then stays if this is dropped.
    pub(super) async fn read(&mut self, mut from: impl AsyncRead + Unpin) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let bytes = from.read(&mut chunk).await?;
            let Some(new) = chunk.get(..bytes).filter(|new| !new.is_empty()) else { return Ok(()) };
            self.hash.update(new);
            self.total += new.len() as u64;
            let room = self.limit.saturating_sub(self.begin.len()).min(new.len());
            self.begin.extend_from_slice(new.get(..room).unwrap_or_default());
        }
    }

    /// The begin, and how much is left out.
    pub(super) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.begin).into_owned();
        let more = self.total.saturating_sub(self.begin.len() as u64);
        if more > 0 {
            let _ = write!(text, "\n[{more} more bytes]");
        }
        text
    }

    /// SHA-256 of all that was written.
    pub(super) fn digest(self) -> String {
        let mut out = String::with_capacity(64);
        for byte in self.hash.finalize() {
            let _ = write!(out, "{byte:02x}");
        }
        out
    }
}
