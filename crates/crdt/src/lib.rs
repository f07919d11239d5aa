//! Replicants of Khufu: documents, operations, resolution, planning, reports.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod desired;
mod document;
mod hlc;
mod id;
mod limits;
mod operation;
mod placement;
mod plan;
mod policy;
mod report;
mod resolve;

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
pub use plan::{Applied, Capabilities, Entry, Outcome, Plan, Recovery, Step, plan};
pub use policy::{
    AfterFailure, Combine, Consistency, DriftPolicy, Policy, PolicyError, PolicyWarning, Resolution, Retry, Rule,
    TypePolicy,
};
pub use report::{MAX_OUTPUT_BYTES, Observation, OperationReport, Report, Status, clip_output};
pub use resolve::{Fate, Resolved, cut_for, frontier, resolve};
