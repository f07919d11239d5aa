//! Real OpenStack clouds: Keystone, Glance, Placement, Neutron and Nova with a fake hypervisor, each cloud with its own
//! databases and ports.
//!
//! ```no_run
//! use khufu_test_servers::openstack::{Cloud, Service};
//!
//! # fn test() {
//! // None, and a word about it, where the servers are not installed.
//! let Some(mut paris) = Cloud::start("paris", &[Service::Glance]) else { return };
//! let path = paris.clouds_yaml();
//! paris.stop(Service::Glance);
//! paris.start_again(Service::Glance);
//! # }
//! ```
//!
//! A cloud is a copy of one that `tests/servers/install-openstack` has made, so that it starts in some seconds. Projects and
//! users have the same ids in all of them; whatever is made in one has an id that no other has.

mod client;
mod cloud;
mod install;

pub use client::Answer;
pub use cloud::{Cloud, Service};
pub use install::Installed;
