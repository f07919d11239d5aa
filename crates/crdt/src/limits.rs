//! How large a document may become.

use serde::{Deserialize, Serialize};

/// The bounds of one replicant's document.
///
/// Edits made here are refused beyond [`max_bytes`](Self::max_bytes). Changes made elsewhere cannot be un-made, and a
/// site that refuses one drops out of the replica set's agreement until it takes it after all; so they are refused
/// only beyond [`remote_factor`](Self::remote_factor) times that, which sites with the same limits do not reach by
/// honest edits. What was refused is not lost: its authors keep it, the heads stay different, and it is taken as soon
/// as the limits here are raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A document beyond so many bytes is worth a warning. 256 KiB.
    pub warn_bytes: usize,
    /// Local edits are refused beyond so many bytes. 5 MiB.
    pub max_bytes: usize,
    /// Changes from elsewhere are refused beyond this many times `max_bytes`. 4.
    pub remote_factor: usize,
    /// The deepest nesting of a value that is written. 64.
    pub max_depth: usize,
    /// The most operations of a replicant; more are refused here, never from elsewhere. 10,000.
    pub max_operations: usize,
    /// The most changes that wait for changes they depend on. 4,096; they may have `max_bytes` in all. What finds no
    /// room is refused and fetched again with what it depends on.
    pub max_queued: usize,
    /// The most primitive edits (fields, list elements) within one change. 1,000,000.
    pub max_change_ops: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            warn_bytes: 256 * 1024,
            max_bytes: 5 * 1024 * 1024,
            remote_factor: 4,
            max_depth: 64,
            max_operations: 10_000,
            max_queued: 4096,
            max_change_ops: 1_000_000,
        }
    }
}

impl Limits {
    /// The bytes beyond which changes from elsewhere are refused.
    #[must_use]
    pub fn remote_bytes(&self) -> usize {
        self.max_bytes.saturating_mul(self.remote_factor.max(1))
    }
}
