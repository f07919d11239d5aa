//! The network on loopback: several nodes in one process, each with its own keys, ports from the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod files;
mod frames;
mod gossip;
mod hostile;
mod membership;
mod outage;
mod start;
mod streams;
mod support;
