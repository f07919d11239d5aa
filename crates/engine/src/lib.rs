//! The brain of a Khufu node as a pure state machine: [`Engine`].
//!
//! It knows replicants and where they live, who else is there and how well they are heard, what to tell them, what the
//! platform of its own site still lacks, and who waits for which answer. It must never know a clock, a disk, a socket, a
//! thread or a source of randomness: whoever runs it hands in what happens ([`Input`]) and does what comes out
//! ([`Output`]), in that order. Nothing in it sleeps, so a simulation runs the very code that a node runs.
//!
//! The loop of a runner is short. What must be on disk before anybody hears of it is held back inside until
//! [`Input::Stored`] comes:
//!
//! ```
//! use khufu_engine::{Config, Engine, Input, Keys, NodeId, Output, Request, RequestId, Response, Time};
//!
//! struct NoKeys;
//! impl Keys for NoKeys {
//!     fn sign(&self, _: &[u8]) -> Vec<u8> { Vec::new() }
//!     fn verify(&self, _: &NodeId, _: &[u8], _: &[u8]) -> bool { false }
//! }
//!
//! let now = Time { monotonic_us: 0, wall_ms: 1_790_000_000_000 };
//! let config = Config::new("paris".parse()?, NodeId("me".into()));
//! let (mut engine, first) = Engine::new(config, Box::new(NoKeys), [7; 16], Vec::new(), now)?;
//! let asked = engine.handle(now, Input::Request { id: RequestId(1), who: "me".into(), request: Request::Sites });
//! let mut answer = None;
//! let mut todo: std::collections::VecDeque<_> = first.into_iter().chain(asked).collect();
//! while let Some(output) = todo.pop_front() {
//!     match output {
//!         // A runner stores the writes here, and hands this in when they will survive a crash.
//!         Output::Persist { token, .. } => todo.extend(engine.handle(now, Input::Stored { token })),
//!         Output::Answer { request: RequestId(1), answer: given } => answer = Some(given),
//!         // Send, publish, call a driver, set the timer ...
//!         _ => {}
//!     }
//! }
//! assert!(matches!(answer, Some(Ok(Response::Sites(sites))) if sites.len() == 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The design follows quinn-proto and iroh-gossip in its shape, Hayashibara et al. (2004) in its failure detector,
//! Meyer (2023) in its set reconciliation, and Automerge's own protocol for single documents. The feature `harness`
//! adds `harness`: any number of engines in one thread and virtual time.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![allow(clippy::module_name_repetitions)]

mod actors;
mod ask;
mod config;
mod engine;
mod epoch;
mod full;
#[cfg(feature = "harness")]
pub mod harness;
mod health;
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
mod stock;
mod sync;
mod time;
mod timers;
mod wire;
mod work;

pub use config::Config;
pub use engine::{Engine, Keys, RestoreError};
pub use health::HealthView;
pub use input::{CallId, DriverDone, DriverFailure, Input, NodeId, RequestId, Token};
pub use khufu_crdt::Status;
pub use metrics::Metrics;
pub use output::{DiffWork, DriverCall, Event, Happening, Output, ReplicaRef};
pub use record::{Damaged, Record, Write};
pub use request::{
    ExplainedPlace, Explanation, Holding, ListQuery, Liveness, NodeView, Operate, OperationAnswer, OperationView, Page,
    Put, ReplicantView, Request, RequestError, Response, SitePlan, SiteStatus, SiteView, Summary, VerifyEntry,
    VerifyReport,
};
pub use time::Time;
