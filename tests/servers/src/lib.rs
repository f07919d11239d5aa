//! Real servers of platforms for tests: started on loopback, each with a directory and ports of its own, cut, paused,
//! moved and ended as a test wants it.
//!
//! Everything here blocks and uses nothing but threads, so that any test can use it. What cannot be started is a panic with
//! the end of the log of what was to be started; what is not there at all leaves a test out, unless
//! `KHUFU_REQUIRE_SERVERS` is set: see [`kubernetes::Programs::required`].

pub mod kubernetes;
pub mod openstack;
mod ports;
mod process;
mod redis;
pub mod rest;

use std::time::Duration;

pub use redis::Redis;

/// How long a server may take to start, and anything else that is waited for here. Machines that build in parallel are slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Says that a test is left out, or panics where `KHUFU_REQUIRE_SERVERS` is set.
#[allow(clippy::print_stderr, reason = "what was left out is said where it is read")]
fn leave_out(missing: &str) {
    let required = std::env::var_os("KHUFU_REQUIRE_SERVERS").is_some();
    assert!(!required, "KHUFU_REQUIRE_SERVERS is set, and there is no {missing}");
    eprintln!("not tried here, there is no {missing}");
}
