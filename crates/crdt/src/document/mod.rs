//! Replicants as Automerge documents.

mod apply;
mod author;
mod carry;
mod chunk;
mod closing;
mod conflict;
mod edit;
mod epoch;
mod error;
mod hash;
mod history;
pub(crate) mod json;
mod reading;
mod replicant;
mod state;
mod sync;

pub use apply::Received;
pub use author::{Author, MAX_AUTHOR_BYTES};
pub use carry::Carried;
pub use conflict::{Conflict, ConflictValue, PathPart};
pub use edit::Edit;
pub use epoch::{EpochRule, Ripeness, Successor};
pub use error::{ApplyError, DocumentError, EditError};
pub(crate) use hash::ReadHash;
pub use hash::{Actor, Change, ChangeHash, ParseHashError};
pub use history::HistoryEntry;
pub use replicant::{Loaded, Replicant, SCHEMA};
pub use state::{Deleted, Spec, State};
pub use sync::SyncState;
