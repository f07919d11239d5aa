//! Drivers, tested from outside.
#![allow(clippy::unwrap_used, missing_docs)]

mod crash;
mod disk;
mod files;
mod full;
#[cfg(feature = "http")]
mod http;
mod journal;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "openstack")]
mod openstack;
mod power;
#[cfg(feature = "shell")]
mod shell;
mod watch;

use khufu_crdt::{Hlc, Operation, OperationId, Payload};
use khufu_drivers::{DriverError, Replica, Work};
use serde_json::{Value, json};

fn replica(id: &str) -> Replica {
    Replica::new(id.parse().unwrap(), "paris".parse().unwrap())
}

fn operation(id: &str, payload: Value) -> Operation {
    Operation {
        id: OperationId::new(id).unwrap(),
        op_type: "any".to_owned(),
        parents: Vec::new(),
        cut: false,
        at: Hlc::default(),
        by: "paris".parse().unwrap(),
        payload: Payload::Value(payload),
    }
}

fn write(id: &str, text: &str) -> Work {
    Work::Operation(operation(id, json!({ "write": text })))
}

fn append(id: &str, text: &str) -> Work {
    Work::Operation(operation(id, json!({ "append": text })))
}

fn wait<T>(future: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// How many cases a property is tried with, unless `PROPTEST_CASES` says so.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}
