//! Who waits for an answer.

use crate::{NodeId, RequestId};

/// Who asked: a user of this node, or another node for one of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A user of this node.
    User(RequestId),
    /// Another node, by its number for the question.
    Node(NodeId, u64),
}
