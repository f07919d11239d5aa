//! Replicants as Automerge documents.

mod apply;
mod author;
mod chunk;
mod conflict;
mod edit;
mod error;
mod hash;
mod history;
pub(crate) mod json;
mod replicant;
mod state;
mod sync;

pub use apply::Received;
pub use author::{Author, MAX_AUTHOR_BYTES};
pub use conflict::{Conflict, ConflictValue, PathPart};
pub use edit::Edit;
pub use error::{ApplyError, DocumentError, EditError};
pub use hash::{Actor, Change, ChangeHash, ParseHashError};
pub use history::HistoryEntry;
pub use replicant::{Loaded, Replicant, SCHEMA};
pub use state::{Deleted, Spec, State};
pub use sync::SyncState;
