//! Site records: what a node says of itself, signed, so that others can pass it on.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::SiteName;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::wire::{self, WireError};
use crate::{Keys, NodeId};

/// The most addresses, labels or kinds of one record, so that nobody can fill another's memory with them.
pub(crate) const MAX_ENTRIES: usize = 64;
/// The most bytes of an encoded record.
pub(crate) const MAX_BYTES: usize = 16 << 10;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiteRecord {
    pub(crate) site: SiteName,
    pub(crate) node: NodeId,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) kinds: BTreeSet<String>,
    pub(crate) version: String,
    /// The kinds whose platform cannot be reached, and since when, in milliseconds since 1970 by the clock of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) away: BTreeMap<String, u64>,
    /// Grows with every record of a node, also over restarts.
    pub(crate) seq: u64,
}

/// A record as it travels: the exact bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedRecord {
    pub(crate) body: ByteBuf,
    pub(crate) signature: ByteBuf,
}

/// Why a record is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a site record of {0} bytes, {MAX_BYTES} are allowed")]
    TooLarge(usize),
    #[error("a site record with more than {MAX_ENTRIES} labels, addresses or kinds")]
    TooMany,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the signature of a site record is not that of node {0}")]
    Signature(NodeId),
}

impl SignedRecord {
    /// About how many bytes of a frame it takes.
    pub(crate) fn size(&self) -> usize {
        self.body.len().saturating_add(self.signature.len()).saturating_add(32)
    }

    pub(crate) fn sign(record: &SiteRecord, keys: &dyn Keys) -> Self {
        let body = wire::encode(record);
        let signature = keys.sign(&body);
        Self { body: ByteBuf::from(body), signature: ByteBuf::from(signature) }
    }

    /// The record, if its signature is that of the node it speaks of.
    pub(crate) fn open(&self, keys: &dyn Keys) -> Result<SiteRecord, RecordError> {
        if self.body.len() > MAX_BYTES {
            return Err(RecordError::TooLarge(self.body.len()));
        }
        let record: SiteRecord = wire::decode(&self.body)?;
        if [record.labels.len(), record.addresses.len(), record.kinds.len(), record.away.len()]
            .into_iter()
            .any(|entries| entries > MAX_ENTRIES)
        {
            return Err(RecordError::TooMany);
        }
        if !keys.verify(&record.node, &self.body, &self.signature) {
            return Err(RecordError::Signature(record.node));
        }
        Ok(record)
    }
}
