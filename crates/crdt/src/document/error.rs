//! What can go wrong with a document.

use super::ChangeHash;
use crate::{DocumentId, OperationId, OverrideError, SiteName};

/// Why an edit was refused. The document is then as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The document has nothing but its first change.
    #[error("{0} was not created yet: create it first")]
    NotCreated(DocumentId),
    /// It was created before.
    #[error("{0} exists already: edit it, or choose another id")]
    AlreadyCreated(DocumentId),
    /// It was deleted.
    #[error("{0} was deleted and takes no more edits: create another one under another id")]
    Deleted(DocumentId),
    /// A value, or the document with it, would be too large.
    #[error(
        "{what} would have {size} bytes and may have {max}: make it smaller, keep large payloads outside as blobs, or raise max_bytes"
    )]
    TooLarge {
        /// What would be too large.
        what: &'static str,
        /// The bytes it would have, as estimated.
        size: usize,
        /// The bytes it may have.
        max: usize,
    },
    /// A value is nested too deeply.
    #[error("{what} is nested more than {max} levels deep: make it flatter, or raise max_depth")]
    TooDeep {
        /// What is nested.
        what: &'static str,
        /// The levels it may have.
        max: usize,
    },
    /// A text is too long.
    #[error("the {what} has {len} bytes and may have {max}: shorten it")]
    TooLong {
        /// What the text is.
        what: &'static str,
        /// The bytes it has.
        len: usize,
        /// The bytes it may have.
        max: usize,
    },
    /// An override is a list, and no JSON patch.
    #[error("overrides.{site}: {error}")]
    BadOverride {
        /// Whose override.
        site: SiteName,
        /// What is wrong with it.
        error: OverrideError,
    },
    /// The replicant has as many operations as it may.
    #[error(
        "the replicant has {max} operations, which is all it may: wait for its next epoch, or raise max_operations"
    )]
    TooManyOperations {
        /// How many it may have.
        max: usize,
    },
    /// The id stands for another operation.
    #[error("operation {0} exists with another type or payload: choose another id")]
    OperationExists(OperationId),
    /// An operation is to follow one that is not here.
    #[error("operation {0} is not known here: wait until it has arrived")]
    UnknownParent(OperationId),
    /// A field of an operation is not what it must be.
    #[error("{what} of an operation must not be {found:?}: {hint}")]
    BadOperation {
        /// The field.
        what: &'static str,
        /// What it was.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// What the user last saw is not known here.
    #[error("change {0} is not known here: read the replicant again and repeat the edit")]
    UnknownBase(ChangeHash),
    /// A path leads nowhere.
    #[error("there is no conflict at {path:?}: list the conflicts and copy a path from there")]
    NoSuchPath {
        /// The JSON pointer that was given.
        path: String,
    },
    /// None of the values at a path comes from that change.
    #[error("change {change} wrote none of the values at {path:?}: list the conflicts again")]
    NoSuchValue {
        /// The JSON pointer that was given.
        path: String,
        /// The change that was given.
        change: ChangeHash,
    },
    /// Automerge refused an edit that should have been good.
    #[error("the document refused the edit ({0}): this is a defect, please report it")]
    Automerge(String),
}

impl From<automerge::AutomergeError> for EditError {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::Automerge(error.to_string())
    }
}

/// Why a whole batch of changes, or a message of the sync protocol, was refused. The document is then as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The bytes are no message of the Automerge sync protocol.
    #[error("not a message of the sync protocol ({0}): drop the sync state and begin again")]
    Message(String),
    /// A message is larger than any document may be.
    #[error(
        "a sync message of {size} bytes is refused, {max} are allowed: raise max_bytes here if the document may be so large"
    )]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The bytes allowed.
        max: usize,
    },
    /// Automerge refused a message that could be read.
    #[error("the message was refused ({0}): drop the sync state and begin again")]
    Automerge(String),
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The first change could not be made.
    #[error("the first change of {id} could not be made ({reason}): this is a defect, please report it")]
    Genesis {
        /// The document.
        id: DocumentId,
        /// What Automerge said.
        reason: String,
    },
}
