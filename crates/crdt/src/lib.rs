//! Replicants of Khufu: documents, operations, resolution, planning, reports.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod desired;
mod document;
mod hlc;
mod id;
mod limits;
mod operation;
mod placement;
mod policy;
mod report;

pub use document::{
    Actor, ApplyError, Author, Change, ChangeHash, Conflict, ConflictValue, Deleted, DocumentError, Edit, EditError,
    HistoryEntry, Loaded, MAX_AUTHOR_BYTES, ParseHashError, PathPart, Received, Replicant, SCHEMA, Spec, State,
    SyncState,
};
pub use hlc::{Clock, ClockAhead, Hlc};
pub use id::{DocumentId, Epoch, NameError, OperationId, ReplicantId, SiteName};
pub use limits::Limits;
pub use operation::{Operation, Operations, Payload};
pub use placement::{Mode, Placement};
pub use policy::{AfterFailure, Combine, Consistency, DriftPolicy, Policy, Resolution, Retry, TypePolicy};
pub use report::{MAX_OUTPUT_BYTES, Observation, OperationReport, Report, Status, clip_output};
