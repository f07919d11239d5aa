//! Who made a change, and why: the message that each change carries.

use serde::{Deserialize, Serialize};

use super::{ChangeHash, EditError};
use crate::{Epoch, Hlc, OperationId, SiteName};

/// Who makes a change, where, when and why. Written into the change; together they are the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Author {
    /// The site at which it is made.
    pub site: SiteName,
    /// When, by the hybrid clock of that site's node.
    pub at: Hlc,
    /// The person or program who asked for it.
    #[serde(default)]
    pub who: String,
    /// The reason given.
    #[serde(default)]
    pub why: String,
}

/// The most bytes of [`Author::who`] and of [`Author::why`], each.
pub const MAX_AUTHOR_BYTES: usize = 2048;

impl Author {
    pub(crate) fn check(&self) -> Result<(), EditError> {
        for (what, text) in [("name of the author (who)", &self.who), ("reason (why)", &self.why)] {
            if text.len() > MAX_AUTHOR_BYTES {
                return Err(EditError::TooLong { what, len: text.len(), max: MAX_AUTHOR_BYTES });
            }
        }
        Ok(())
    }
}

/// The message of a change: JSON, so that any Automerge reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    #[serde(flatten)]
    pub(crate) author: Author,
    /// What kind of edit it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) what: String,
    /// The operation it added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<OperationId>,
    /// The changes of earlier epochs that it carries over, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) carried: Vec<Origin>,
}

/// A change of an earlier epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) epoch: Epoch,
    /// The actor's bytes in hexadecimal.
    pub(crate) actor: String,
    pub(crate) seq: u64,
    pub(crate) hash: ChangeHash,
}

impl Message {
    pub(crate) fn parse(message: &str) -> Option<Self> {
        serde_json::from_str(message).ok()
    }
}
