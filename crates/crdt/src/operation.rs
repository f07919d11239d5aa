//! Operations: immutable changes asked of a replicant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Hlc, OperationId, SiteName};

/// All operations of a replicant by their id.
pub type Operations = BTreeMap<OperationId, Operation>;

/// One change asked of a replicant; immutable, identified by its id, ordered by causality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operation {
    /// Unique among the operations of its replicant.
    pub id: OperationId,
    /// Free text that the policy speaks of, such as `append`.
    #[serde(rename = "type")]
    pub op_type: String,
    /// The operations that its author had seen and that nothing followed: its direct predecessors, sorted.
    #[serde(default)]
    pub parents: Vec<OperationId>,
    /// Whether it replaces what it comes after. Decided by its author's node, never computed anew.
    #[serde(default)]
    pub cut: bool,
    /// When it was asked, by the hybrid clock of its author's node.
    pub at: Hlc,
    /// The site at which it was asked.
    pub by: SiteName,
    /// What the driver is to do.
    #[serde(default)]
    pub payload: Payload,
}

/// What a driver gets to carry out an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The payload itself.
    Value(Value),
    /// The hash of a payload kept outside the document, as `sha256:<64 hex digits>`.
    Blob(String),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Value(Value::Null)
    }
}
