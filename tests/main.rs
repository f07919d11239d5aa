//! End-to-end tests: several real processes.

mod cli;
mod house;
mod scenarios;
#[path = "../crates/store/tests/it/strace.rs"]
mod strace;
mod support;
