//! Replicants of Khufu: documents, operations, resolution, planning, reports.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod hlc;
mod id;
mod operation;
mod placement;
mod policy;
mod report;

pub use hlc::{Clock, ClockAhead, Hlc};
pub use id::{DocumentId, Epoch, NameError, OperationId, ReplicantId, SiteName};
pub use operation::{Operation, Operations, Payload};
pub use placement::{Mode, Placement};
pub use policy::{AfterFailure, Combine, Consistency, DriftPolicy, Policy, Resolution, Retry, TypePolicy};
pub use report::{MAX_OUTPUT_BYTES, Observation, OperationReport, Report, Status, clip_output};
