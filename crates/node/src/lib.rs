//! A Khufu node: engine, storage, network and drivers behind an HTTP API.
//!
//! This crate is the glue. It knows how a process runs: tasks, time-outs, queues and their bounds, who may use the API,
//! what goes wrong when a disk is full or a port is taken. It must never know how sites converge: every decision about
//! replicants is the engine's, which it hands what happens and whose outputs it carries out.
//!
//! [`Node::builder`] is where to begin:
//!
//! ```
//! use khufu_node::Node;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), khufu_node::StartError> {
//! # let dir = tempfile::tempdir().map_err(|source| khufu_node::StartError::Data { path: "/tmp".into(), source })?;
//! # let dir = dir.path();
//! let node = Node::builder("paris").data(dir).listen("/ip4/127.0.0.1/tcp/0").start().await?;
//! println!("others bootstrap from {:?}", node.addresses());
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod api;
mod body;
mod book;
mod builder;
mod calls;
#[cfg(feature = "shell")]
mod cheops;
mod clock;
mod crowd;
mod disk;
mod drift;
mod error;
mod events;
mod faults;
mod forward;
#[cfg(feature = "kubernetes")]
mod front;
mod handle;
mod headers;
mod holds;
#[cfg(feature = "http")]
mod http_front;
mod keys;
mod list_keys;
mod listen;
mod loopback;
mod metrics;
mod node;
mod patient;
mod peer;
mod progress;
mod runner;
#[cfg(any(feature = "http", feature = "kubernetes"))]
mod scope_path;
mod start;
mod tokens;
#[cfg(any(feature = "kubernetes", feature = "shell"))]
mod turns;
#[cfg(any(feature = "http", feature = "kubernetes"))]
mod upgraded;

pub use api::Problem;
pub use body::{Body, BoxError, boxed, full};
pub use builder::{Builder, Preset};
#[cfg(feature = "shell")]
pub use cheops::{CheopsConfig, CheopsError};
pub use error::StartError;
pub use events::{Cursor, CursorError, EVENTS_KEPT, Events, Followed};
pub use faults::{Faults, FaultsError};
pub use forward::{Forward, ForwardError, Origin};
#[cfg(feature = "kubernetes")]
pub use front::{FrontConfig, FrontError};
#[cfg(feature = "http")]
pub use http_front::{HttpFrontConfig, HttpFrontError};
pub use node::{Node, Stopped};
pub use peer::PeerView;
pub use tokens::{Role, Tokens, TokensError};
