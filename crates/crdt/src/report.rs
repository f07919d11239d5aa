//! Reports: what one site says of its replica. Registers beside the document: one writer, the highest number wins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Hlc, OperationId, ReplicantId, SiteName};

/// How far something got at one site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Known there and not done yet.
    #[default]
    Pending,
    /// Done.
    Applied,
    /// Tried as often as the policy allows, without success.
    Failed,
    /// Not needed any more, so never run.
    Skipped,
    /// Only a person can go on: the site has run what has to be taken back and its driver cannot.
    NeedsAttention,
    /// The replica is gone from the platform: the replicant was deleted or the site left its scope.
    Removed,
}

/// What a site says of one operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationReport {
    /// How far it got.
    pub status: Status,
    /// What the platform said, cut to [`MAX_OUTPUT_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// How often it was tried.
    #[serde(default)]
    pub attempt: u32,
    /// When it was last tried, in milliseconds since 1970 by that site's clock.
    #[serde(default)]
    pub at: u64,
}

/// What a site saw when it last looked at its platform.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Observation {
    /// When, in milliseconds since 1970 by that site's clock.
    pub at: u64,
    /// SHA-256 of the replica's contents in hexadecimal, none if there is no replica.
    #[serde(default, with = "crate::hex::option")]
    pub digest: Option<String>,
    /// How the platform differs from what was applied, if somebody changed it by hand.
    #[serde(default)]
    pub drift: Option<String>,
    /// How the replica is doing, where its platform says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How a replica is doing, from the best to the worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The platform has made what was asked for.
    Current,
    /// The platform is about to.
    InProgress,
    /// The platform takes it away.
    Terminating,
    /// It is not there.
    NotFound,
    /// The platform cannot make it, or it has ended badly.
    Failed,
    /// Nobody can say.
    #[default]
    Unknown,
}

impl Condition {
    /// The word for it, as it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::InProgress => "in-progress",
            Self::Terminating => "terminating",
            Self::NotFound => "not-found",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// How a replica is doing, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// How.
    pub condition: Condition,
    /// Why, in the platform's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The register of one site about one replicant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// The replicant spoken of.
    pub replicant: ReplicantId,
    /// The epoch of the document that the site acted on.
    pub epoch: Epoch,
    /// The site that speaks.
    pub site: SiteName,
    /// Grows with every report of that site about that replicant.
    pub seq: u64,
    /// The worst of all operations that count and the desired state, or `removed`.
    pub status: Status,
    /// Heads of the document that the site had, as hexadecimal hashes.
    #[serde(default, with = "crate::hex::list")]
    pub heads: Vec<String>,
    /// The operations that the site has executed since its base, in that order (the newest of them, where there are very
    /// many).
    #[serde(default)]
    pub applied: Vec<OperationId>,
    /// What became of the desired state; none while the replicant has none.
    #[serde(default)]
    pub desired: Option<OperationReport>,
    /// What became of each operation (where there are very many, of those that failed or are pending, and the newest).
    #[serde(default)]
    pub operations: BTreeMap<OperationId, OperationReport>,
    /// What the platform calls the replica.
    #[serde(default)]
    pub local_id: Option<String>,
    /// What the site last saw on its platform.
    #[serde(default)]
    pub observed: Option<Observation>,
    /// When it was decided where it lives, as far as the site knows.
    #[serde(default)]
    pub decided_at: Option<Hlc>,
    /// Where that was decided.
    #[serde(default)]
    pub decided_by: Option<SiteName>,
}

/// The most bytes of a platform's answer that a report carries.
pub const MAX_OUTPUT_BYTES: usize = 2048;

impl Report {
    /// Whether this register replaces `other`, which speaks for the same site and replicant.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.seq > other.seq
    }
}

/// Cuts a platform's answer to [`MAX_OUTPUT_BYTES`], at a character's boundary.
#[must_use]
pub fn clip_output(output: &str) -> String {
    if output.len() <= MAX_OUTPUT_BYTES {
        return output.to_owned();
    }
    let end = output.floor_char_boundary(MAX_OUTPUT_BYTES - 3);
    format!("{}...", output.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::Condition;

    #[test]
    fn a_condition_is_called_what_is_written() {
        use Condition::{Current, Failed, InProgress, NotFound, Terminating, Unknown};
        for condition in [Current, InProgress, Terminating, NotFound, Failed, Unknown] {
            assert_eq!(serde_json::to_value(condition).unwrap(), condition.as_str());
        }
    }
}
