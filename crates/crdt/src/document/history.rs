//! What was done to a replicant, by whom and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::author::Message;
use super::{Author, ChangeHash, Replicant};
use crate::OperationId;

/// One change in the history of a replicant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    /// The change.
    pub hash: ChangeHash,
    /// The changes its author had seen and that nothing followed.
    pub parents: Vec<ChangeHash>,
    /// Who Automerge says made it, as hexadecimal digits: one document in one process.
    pub actor: String,
    /// Which of that actor's changes it is, from 1.
    pub seq: u64,
    /// Who made it, where, when and why; none if another program made it and did not say.
    pub author: Option<Author>,
    /// What kind of edit it was: `create`, `desired`, `overrides`, `policy`, `scope`, `operation`, `pick`, `delete`,
    /// `join` (it only brings others together) or `epoch` (the epoch before was closed).
    pub what: String,
    /// The operation it added.
    pub operation: Option<OperationId>,
    /// How many fields and list elements it set or removed.
    pub edits: u64,
    /// The change of an earlier epoch that it carries over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<ChangeHash>,
}

impl Replicant {
    /// All changes but the first one, in one order everywhere that no change stands before its parents in.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        let mut metas = self.doc.get_changes_meta(&[]);
        metas.retain(|meta| meta.hash.0 != self.genesis.hash.0);
        // One that edits nothing may begin where the next does, so the numbers of edits alone do not tell.
        let mut depths: BTreeMap<automerge::ChangeHash, usize> = BTreeMap::new();
        for meta in &metas {
            let depth = meta.deps.iter().filter_map(|dep| depths.get(dep)).max().map_or(0, |depth| depth + 1);
            depths.insert(meta.hash, depth);
        }
        metas.sort_by_key(|meta| (meta.start_op, depths.get(&meta.hash).copied(), meta.hash));
        let entry = |meta: automerge::ChangeMetadata<'_>| {
            let message = meta.message.as_deref().and_then(Message::parse);
            let (author, what, operation, carried) = message.map_or((None, String::new(), None, None), |m| {
                (Some(m.author), m.what, m.op, m.carried.last().map(|origin| origin.hash))
            });
            HistoryEntry {
                hash: meta.hash.into(),
                parents: meta.deps.into_iter().map(ChangeHash::from).collect(),
                actor: meta.actor.to_hex_string(),
                seq: meta.seq,
                author,
                what,
                operation,
                edits: meta.max_op.saturating_add(1).saturating_sub(meta.start_op),
                carried,
            }
        };
        metas.into_iter().map(entry).collect()
    }
}
