//! What the driver remembers of a replica, so that no operation runs twice and hand-made changes are seen.
//!
//! Beside the files, in `.khufu/`, each replica has a note `<id>.json` with its state. A note is written at a checkpoint,
//! once the file itself is on the disk; what changed since is in the [journal](super::journal).

use khufu_crdt::OperationId;
use serde::{Deserialize, Serialize};

use super::old::Old;

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
    pub(super) state: State,
}

/// What there is of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noted {
    Nothing,
    Note(Note),
    /// A note that makes no sense, and why.
    Garbage(String),
}

const VERSION: u32 = 2;

/// Notes are small; a larger file is none.
pub(super) const MAX_NOTE_BYTES: usize = 16 << 10;

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Note {
    pub(super) fn new(number: u64, state: State) -> Self {
        Self { version: VERSION, number, state }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match version {
            VERSION => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
            // One that was in the middle of a change was decided when the directory was opened.
            Old::VERSION => Old::parse(bytes).map(|old| Self::new(old.number, old.after)),
            _ => Err(format!("it has version {version}, this program knows {VERSION}")),
        }
    }
}
