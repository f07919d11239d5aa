//! Policies: what an operator promises of operation types, and how two of them combine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod parse;
mod rule;
mod warning;

pub use parse::PolicyError;
pub(crate) use rule::Matrix;
pub use rule::Rule;
pub use warning::PolicyWarning;

/// How an earlier and a later operation of given types combine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(from = "String", into = "String")]
pub enum Combine {
    /// The later one stays.
    TakeOne,
    /// Both stay; their order does not show in the contents.
    TakeBothAnyOrder,
    /// Both stay, the earlier first.
    TakeBothKeepOrder,
    /// Both stay, the later first.
    TakeBothReverseOrder,
    /// A word that this version does not know: counts as no entry.
    Unknown(String),
}

impl From<String> for Combine {
    fn from(word: String) -> Self {
        match word.as_str() {
            "take-one" => Self::TakeOne,
            "take-both-any-order" => Self::TakeBothAnyOrder,
            "take-both-keep-order" => Self::TakeBothKeepOrder,
            "take-both-reverse-order" => Self::TakeBothReverseOrder,
            _ => Self::Unknown(word),
        }
    }
}

impl From<Combine> for String {
    fn from(combine: Combine) -> Self {
        match combine {
            Combine::TakeOne => "take-one".into(),
            Combine::TakeBothAnyOrder => "take-both-any-order".into(),
            Combine::TakeBothKeepOrder => "take-both-keep-order".into(),
            Combine::TakeBothReverseOrder => "take-both-reverse-order".into(),
            Combine::Unknown(word) => word,
        }
    }
}

/// One entry of the resolution matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resolution {
    /// Type of the earlier operation.
    pub before: String,
    /// Type of the later operation.
    pub after: String,
    /// What becomes of the two.
    pub result: Combine,
}

/// What an operator promises of one type of operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct TypePolicy {
    /// The contents afterwards do not depend on those before.
    pub absolute: bool,
    /// Running it twice is the same as running it once.
    pub idempotent: bool,
    /// The type of operation that takes one of these back, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
}

/// What happens to the operations after one that failed for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AfterFailure {
    /// They are run: a failed operation leaves the contents as they were.
    #[default]
    Continue,
    /// Those up to the next absolute operation wait until the failed one is in the list no more.
    Wait,
    /// Those up to the next absolute operation are not run either, but reported skipped.
    Skip,
}

/// How a failed operation is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Retry {
    /// How often it is tried in all, at least once.
    pub attempts: u32,
    /// The pause after the first failure, in milliseconds; it doubles with each.
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, backoff_ms: 200, backoff_max_ms: 30_000 }
    }
}

/// What a site does when somebody changed its platform by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DriftPolicy {
    /// It says so.
    #[default]
    Report,
    /// It says so and puts the replica back.
    Correct,
    /// Nothing: what others do to the replica is theirs.
    Ignore,
}

/// How strongly the sites agree before a change is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// The site that is asked acknowledges alone; the others converge.
    #[default]
    Eventual,
}

/// The rules of one replicant. A missing field has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Policy {
    /// How strongly the sites agree before a change is acknowledged.
    pub consistency: Consistency,
    /// How two operations of given types combine. The first entry that matches counts.
    pub resolutions: Vec<Resolution>,
    /// What is promised of each type.
    pub types: BTreeMap<String, TypePolicy>,
    /// How failed work is tried again.
    pub retry: Retry,
    /// What happens to the operations after one that failed for good.
    pub after_failure: AfterFailure,
    /// What a site does about changes made by hand.
    pub drift: DriftPolicy,
    /// The fields by which the elements of lists of objects are matched, in the order they are tried. Empty: `name`.
    pub list_keys: Vec<String>,
    /// What the driver of the replicant's kind is told, in words that it defines.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub options: serde_json::Map<String, serde_json::Value>,
}
