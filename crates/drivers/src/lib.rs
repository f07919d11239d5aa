//! Drivers: what applies to a platform what the sites have agreed on.
//!
//! This crate knows how to make one replica match a desired state, run operations on it, look at it and take it away
//! again. It must never know why: no document, no resolution, no other site, no network of Khufu's own. Whoever calls a
//! [`Driver`] decides what runs and in which order, stores that it is about to run, and what came of it.
//!
//! [`FilesDriver`] keeps replicas as files, and is what a node uses unless it is told otherwise. A service that embeds
//! Khufu brings drivers of its own:
//!
//! ```
//! use std::sync::Arc;
//! use khufu_drivers::{FilesDriver, Registry, Replica, Work};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path();
//! let mut drivers = Registry::new();
//! drivers.insert(Arc::new(FilesDriver::new(dir)?));
//!
//! let driver = drivers.get("files").ok_or("no such driver")?;
//! let replica = Replica::new("web".parse()?, "paris".parse()?);
//! driver.apply(&replica, Work::Desired(serde_json::json!({"replicas": 3}))).await?;
//! assert_eq!(std::fs::read_to_string(dir.join("web"))?, "replicas: 3\n");
//! # Ok(())
//! # }
//! ```

mod digest;
mod driver;
mod error;
mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(any(feature = "http", feature = "shell"))]
mod notes;
#[cfg(feature = "openstack")]
pub mod openstack;
#[cfg(any(feature = "http", feature = "kubernetes", feature = "openstack"))]
mod pulse;
mod registry;
#[cfg(feature = "shell")]
pub mod shell;
mod text;
#[cfg(any(feature = "http", feature = "kubernetes", feature = "openstack"))]
mod turns;

#[cfg(feature = "http")]
pub use self::http::HttpDriver;
pub use digest::digest;
pub use driver::{Changes, Done, Driver, Observed, Replica, Work};
pub use error::DriverError;
#[doc(hidden)]
pub use files::Step;
pub use files::{FilesDriver, MAX_FILE_BYTES, MAX_OPERATION_BYTES};
pub use khufu_crdt::{Condition, Health};
#[cfg(feature = "kubernetes")]
pub use kubernetes::KubernetesDriver;
#[cfg(feature = "openstack")]
pub use openstack::OpenStackDriver;
pub use registry::Registry;
#[cfg(feature = "shell")]
pub use shell::ShellDriver;
