//! Real Kubernetes API servers: each with its own etcd, its own certificates and its own users.
//!
//! ```no_run
//! use khufu_test_servers::kubernetes::Cluster;
//!
//! # fn test() {
//! // None, and a word about it, where the servers are not installed.
//! let Some(mut paris) = Cluster::builder("paris").user("eve", &["developers"]).start() else { return };
//! let made = paris.kubectl(&["create", "configmap", "web", "--from-literal=a=1"]);
//! assert!(made.status.success());
//! paris.stop();
//! paris.start_again();
//! # }
//! ```
//!
//! There are no nodes and no network: pods stay pending unless a test plays kubelet. Service accounts are not put into
//! pods. With [`Cluster::start_controller_manager`], Deployments get ReplicaSets and Pods, and what is orphaned is collected;
//! without it, the roles `view`, `edit` and `admin` allow nothing, since a controller adds them up.

mod builder;
mod certificates;
mod cluster;
mod kubeconfig;
mod kubectl;
mod metrics;
mod programs;
mod servers;

pub use builder::Builder;
pub use cluster::{ADMIN, Cluster};
pub use programs::{Missing, Programs};
