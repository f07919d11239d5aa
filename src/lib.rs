//! Geo-distribute the resources of any service over sites that may be cut off from each other.
//!
//! Every site runs a node; there is no hub. Somebody says *what* (a Kubernetes object, a file, a row in a service of
//! yours) and *where* (a scope such as `paris & rennes`) at whichever node is nearest. The sites concerned converge on
//! the same state, also when they were apart while two people edited the same thing, and the driver at each makes its
//! local platform match.
//!
//! This crate only gathers the others: [`Node`] to embed a node in a service, [`Driver`] to teach it
//! a platform, and the crates themselves as modules for those who need a part of them. It has no logic and must never get
//! any. The driver for files is always there; the one for Kubernetes comes with the feature `kubernetes`, the one for OpenStack
//! with `openstack`, the one that runs commands with `shell`, and the one for any REST service with `http`.
//!
//! ```
//! use std::sync::Arc;
//! use khufu::{FilesDriver, Node, Request, Response};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let node = Node::builder("paris")
//!     .data(dir.join("data"))
//!     .driver(Arc::new(FilesDriver::new(dir.join("files"))?))
//!     .start()
//!     .await?;
//! let motd = serde_json::json!({"id": "motd", "kind": "files", "desired": {"text": "good morning"}});
//! let motd = Request::Put(serde_json::from_value(motd)?);
//! let Response::Created(view) = node.request("ana", motd).await? else { return Err("there was one already".into()) };
//! assert_eq!(view.desired["text"], "good morning");
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embed.rs` adds a driver of its own, `examples/node.rs` is a whole node in a page, and
//! `examples/private_network.rs` shows who can join a network and who cannot.

pub use khufu_crdt::{Capabilities, Operation, OperationId, Policy, ReplicantId, SiteName, Status};
#[cfg(feature = "http")]
pub use khufu_drivers::HttpDriver;
#[cfg(feature = "kubernetes")]
pub use khufu_drivers::KubernetesDriver;
#[cfg(feature = "openstack")]
pub use khufu_drivers::OpenStackDriver;
#[cfg(feature = "shell")]
pub use khufu_drivers::ShellDriver;
pub use khufu_drivers::{Driver, FilesDriver};
pub use khufu_engine::{
    Event, Happening, ListQuery, NodeId, Operate, Put, ReplicantView, Request, RequestError, Response,
};
pub use khufu_node::{
    Builder, Cursor, Events, Faults, Followed, Node, PeerView, Preset, Role, StartError, Stopped, Tokens,
};
#[cfg(feature = "shell")]
pub use khufu_node::{CheopsConfig, CheopsError};
#[cfg(feature = "kubernetes")]
pub use khufu_node::{FrontConfig, FrontError};
pub use khufu_p2p::{Identity, Psk};

/// Replicants: documents, operations, how they converge.
pub use khufu_crdt as crdt;
/// Drivers for platforms, and the trait to write another.
pub use khufu_drivers as drivers;
/// The brain of a node as a state machine without I/O.
pub use khufu_engine as engine;
/// What a running node is made of.
pub use khufu_node as node;
/// The private network.
pub use khufu_p2p as p2p;
/// The language of scopes.
pub use khufu_scope as scope;
/// Durable storage.
pub use khufu_store as store;
