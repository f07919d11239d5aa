//! What the driver remembers of a replica, so that no operation runs twice and hand-made changes are seen.
//!
//! Beside the files, in `.khufu/`, each replica has a note `<id>.json`. A change of a file goes like this, every step on
//! the disk before the next:
//!
//! 1. the new contents are written to `.khufu/<id>.<n>.next`;
//! 2. the note gets the number `n`, the state before and the state after;
//! 3. `<id>.<n>.next` is renamed to the file.
//!
//! So the file is in the state after exactly if no `<id>.<n>.next` of the note's number is there any more: one rename
//! decides, and there is nothing to guess after a crash at any point. A removal has no new contents that could tell; its
//! note is written a second time when the file is gone.

use khufu_crdt::OperationId;
use serde::{Deserialize, Serialize};

/// A state of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The operation that ran last since the desired state was written or the replica was new.
    pub(super) last: Option<OperationId>,
    /// Of the contents; none for no file.
    pub(super) digest: Option<String>,
    /// Operations ran on contents that had been edited by hand.
    #[serde(default)]
    pub(super) edited: bool,
}

/// A note on a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    version: u32,
    /// Grows with every change.
    pub(super) number: u64,
    pub(super) before: State,
    pub(super) after: State,
}

const VERSION: u32 = 1;

/// Notes are small; a larger file is none.
pub(super) const MAX_NOTE_BYTES: usize = 16 << 10;

impl Note {
    pub(super) fn new(number: u64, before: State, after: State) -> Self {
        Self { version: VERSION, number, before, after }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let note: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if note.version != VERSION {
            return Err(format!("it has version {}, this program knows {VERSION}", note.version));
        }
        Ok(note)
    }

    /// For the note of a removal that is not known to have ended: the one that says so.
    pub(super) fn closed(&self) -> Option<Self> {
        let open = self.after.digest.is_none() && self.before.digest.is_some();
        open.then(|| Self::new(self.number + 1, self.after.clone(), self.after.clone()))
    }

    /// The state that the replica is in.
    pub(super) fn state(&self, next_exists: bool, file_exists: bool) -> &State {
        let removal_pending = self.closed().is_some() && file_exists;
        if next_exists || removal_pending { &self.before } else { &self.after }
    }
}
