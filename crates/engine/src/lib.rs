//! The brain of a Khufu node as a pure state machine.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![allow(clippy::module_name_repetitions)]

mod ask;
mod config;
mod engine;
#[cfg(feature = "harness")]
pub mod harness;
mod input;
mod members;
mod metrics;
mod origin;
mod outbox;
mod output;
mod perform;
mod place;
mod record;
mod replicant;
mod request;
mod sync;
mod time;
mod timers;
mod wire;
mod work;

pub use config::Config;
pub use engine::{Engine, Keys, RestoreError};
pub use input::{CallId, DriverDone, DriverFailure, Input, NodeId, RequestId, Token};
pub use khufu_crdt::Status;
pub use metrics::Metrics;
pub use output::{DiffWork, DriverCall, Event, Happening, Output, ReplicaRef};
pub use record::{Record, Write};
pub use request::{
    ExplainedPlace, Explanation, Holding, ListQuery, Liveness, NodeView, Operate, OperationAnswer, OperationView, Page,
    Put, ReplicantView, Request, RequestError, Response, SitePlan, SiteStatus, SiteView, Summary, VerifyEntry,
    VerifyReport,
};
pub use time::Time;
