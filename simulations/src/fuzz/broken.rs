//! The invariants, by how they break.

use std::time::Duration;

use khufu_crdt::OperationId;
use serde::Serialize;

/// A promise that was not kept. The name of the variant is the name of the invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "invariant", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Broken {
    #[error("{site} answered that it has a change of {name}, and no disk has it")]
    AcknowledgedBeforeStored { site: String, name: String },
    #[error("{name}: acknowledged and lost: {lost}")]
    AcknowledgedLost { name: String, lost: String },
    #[error("{other} knows operation {operation} of {name}, which its author {site} told of before it was stored")]
    ToldBeforeStored { site: String, other: String, name: String, operation: OperationId },
    #[error("{other} knows report {seq} of {site} on {name}, and the disk of {site} only {stored}")]
    ReportedBeforeStored { site: String, other: String, name: String, seq: u64, stored: u64 },
    #[error("{listener} knew report {before} of {site} on {name}, and now only {now}")]
    ReportWentBack { listener: String, site: String, name: String, before: u64, now: u64 },
    #[error("{site} and {other} have the same changes of {name} and not the same state or list of operations")]
    SameChangesOtherList { site: String, other: String, name: String },
    #[error("{site} uses a list of operations of {name} that is not that of its document")]
    StaleList { site: String, name: String },
    #[error("{site} knows {operation} of {name} with cut = {cut}, and the rules say otherwise for what it comes after")]
    WrongCut { site: String, name: String, operation: OperationId, cut: bool },
    #[error("{site} says that {name} is applied there, and holds {holds:?} instead of {wanted:?}")]
    FalseReport { site: String, name: String, holds: String, wanted: String },
    #[error("{site} ran {operation} of {name} twice without a rebuild")]
    RunTwice { site: String, name: String, operation: OperationId },
    #[error("{site} was never a site of {name}, and has {what} of it")]
    Outsider { site: String, name: String, what: &'static str },
    #[error("{site} removed its replica of {name}, and nobody asked for that")]
    RemovedUnasked { site: String, name: String },
    #[error("{site} had {name} on disk, and has it no more, and nobody asked for that")]
    DocumentGone { site: String, name: String },
    #[error("{site} took {silent} out of where {name} lives because it is silent")]
    SilenceRemoved { site: String, silent: String, name: String },
    #[error("{site}: {what} are {now}, {most} are allowed")]
    OverBound { site: String, what: &'static str, now: u64, most: u64 },
    #[error("{site} stopped by itself: {reason}")]
    Stopped { site: String, reason: String },
    #[error("not within {limit:?} of virtual time after all healed: {why}")]
    NotConverged { limit: Duration, why: String },
    #[error("{site} gave no answer to {what} within {limit:?}")]
    NoAnswer { site: String, what: String, limit: Duration },
    #[error("{site} forgot to answer {what}")]
    Unanswered { site: String, what: String },
    #[error("{name} is gone, and nobody deleted it")]
    Gone { name: String },
    #[error("{site} holds {holds:?} of {name} instead of {wanted:?}")]
    WrongContents { site: String, name: String, holds: String, wanted: String },
    #[error("{site} keeps {what} of {name}, which does not live there")]
    LeftBehind { site: String, name: String, what: &'static str },
    #[error("{name} is the same everywhere, and verify says: {differences}")]
    VerifyWrong { name: String, differences: String },
    #[error("{syncs} sync sessions in {time:?} although all is the same everywhere")]
    EndlessTalk { syncs: u64, time: Duration },
    #[error("{site} is done, and has {now} {what} left")]
    Unfinished { site: String, what: &'static str, now: u64 },
    #[error("a panic: {message}")]
    Panicked { message: String },
    #[error("the same seed gave another trace: {first} and {second}")]
    NotRepeatable { first: String, second: String },
}

impl Broken {
    /// The name of the invariant.
    #[must_use]
    pub fn name(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.get("invariant").and_then(|name| name.as_str()).unwrap_or("unknown").to_owned()
    }
}
