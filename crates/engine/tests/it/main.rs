//! Scenarios over several engines in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod basics;
mod epochs;
mod faults;
mod foreign;
mod full;
mod fuzz;
mod hostile;
mod kinds;
mod large;
mod limits;
mod members;
mod placement;
mod reports;
mod same;
mod scope;
mod unread;

use khufu_crdt::Policy;
use serde_json::json;

/// The matrix that the known breaking scenario uses.
pub fn file_policy() -> Policy {
    serde_json::from_value(json!({
        "resolutions": [
            {"before": "set", "after": "set", "result": "take-one"},
            {"before": "set", "after": "add", "result": "take-both-keep-order"},
            {"before": "add", "after": "set", "result": "take-both-reverse-order"}
        ],
        "types": {"set": {"absolute": true, "idempotent": true}}
    }))
    .unwrap()
}
