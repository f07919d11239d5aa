//! What users ask of a node, and what they are told.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{
    ChangeHash, Conflict, Deleted, Fate, HistoryEntry, Observation, Operation, OperationId, OperationReport, Placement,
    Policy, PolicyWarning, ReplicantId, Report, SiteName, Status,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{HealthView, NodeId};

/// What a user can ask. Whoever is asked passes it on to a site that can answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Create a replicant, or edit it to be like this.
    Put(Put),
    /// Edit the desired state by a JSON merge patch (RFC 7386).
    Patch {
        /// The replicant.
        id: ReplicantId,
        /// The patch.
        patch: Value,
    },
    /// Ask for an operation.
    Operate(Operate),
    /// Read one replicant.
    Get {
        /// The replicant.
        id: ReplicantId,
    },
    /// List the replicants that this node holds.
    List(ListQuery),
    /// Who changed what, when and why.
    History {
        /// The replicant.
        id: ReplicantId,
        /// At most so many entries, the newest.
        limit: usize,
    },
    /// The fields that have several values.
    Conflicts {
        /// The replicant.
        id: ReplicantId,
    },
    /// Settle a conflict.
    Pick {
        /// The replicant.
        id: ReplicantId,
        /// JSON pointer to the field, such as `/desired/spec/replicas`.
        path: String,
        /// The change whose value shall stand.
        change: ChangeHash,
    },
    /// What each site would do now.
    Plan {
        /// The replicant.
        id: ReplicantId,
    },
    /// Delete a replicant.
    Delete {
        /// The replicant.
        id: ReplicantId,
        /// Leave the replicas on the platforms.
        keep: bool,
        /// The heads of the document that the user last saw: where others have edited it since, it is not deleted.
        #[serde(default)]
        base: Option<Vec<ChangeHash>>,
    },
    /// The sites that this node knows.
    Sites,
    /// Whether all sites hold the same.
    Verify {
        /// Only this replicant.
        id: Option<ReplicantId>,
    },
    /// What a scope would mean now.
    Explain {
        /// The expression.
        scope: String,
    },
}

impl Request {
    /// The one replicant that it is about, if it is about one.
    #[must_use]
    pub fn replicant(&self) -> Option<&ReplicantId> {
        match self {
            Self::Put(Put { id, .. })
            | Self::Patch { id, .. }
            | Self::Operate(Operate { id, .. })
            | Self::Get { id }
            | Self::History { id, .. }
            | Self::Conflicts { id }
            | Self::Pick { id, .. }
            | Self::Plan { id }
            | Self::Delete { id, .. }
            | Self::Verify { id: Some(id) } => Some(id),
            Self::List(_) | Self::Sites | Self::Verify { id: None } | Self::Explain { .. } => None,
        }
    }
}

/// Create a replicant, or edit it to be like this. A field that is not given stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Put {
    /// The replicant.
    pub id: ReplicantId,
    /// Which driver; needed to create, and never changed.
    pub kind: Option<String>,
    /// Where it lives; `here` if a new one is given none.
    pub scope: Option<String>,
    /// How operations combine.
    pub policy: Option<Policy>,
    /// The desired state.
    pub desired: Option<Value>,
    /// What is laid over the desired state at single sites: a JSON patch if it is a list, else a JSON merge patch.
    pub overrides: Option<BTreeMap<SiteName, Value>>,
    /// The heads of the document that the user last saw: edits made by others since then stay. An empty list says that there
    /// was none, or a deleted one: then it is made, or refused with [`RequestError::Conflict`] where somebody was faster.
    pub base: Option<Vec<ChangeHash>>,
}

impl Put {
    /// Whether the user saw no replicant.
    pub(crate) fn sees_nothing(&self) -> bool {
        self.base.as_ref().is_some_and(Vec::is_empty)
    }
}

/// Ask for an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operate {
    /// The replicant.
    pub id: ReplicantId,
    /// An id of the user's own, so that asking twice is the same as asking once.
    pub operation: Option<OperationId>,
    /// Its type, which the policy speaks of.
    pub op_type: String,
    /// What the driver gets.
    pub payload: Value,
    /// How long to wait for the reports of all sites, in milliseconds.
    pub wait_ms: u64,
}

/// Which replicants to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only those that live at this site.
    pub site: Option<SiteName>,
    /// Only those with this rolled-up status.
    pub status: Option<Status>,
    /// Only this one.
    #[serde(default)]
    pub only: Option<ReplicantId>,
    /// Only those after this one.
    pub after: Option<ReplicantId>,
    /// At most so many.
    pub limit: usize,
}

/// What a user is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The replicant as it is now.
    Replicant(Box<ReplicantView>),
    /// The replicant, which was made by this request.
    Created(Box<ReplicantView>),
    /// What became of an operation.
    Operation(Box<OperationAnswer>),
    /// A page of a list.
    List(Page),
    /// The history, newest last.
    History(Vec<HistoryEntry>),
    /// Fields that have several values.
    Conflicts(Vec<Conflict>),
    /// What each site would do.
    Plan(Vec<SitePlan>),
    /// The sites.
    Sites(Vec<SiteView>),
    /// Whether all hold the same.
    Verify(VerifyReport),
    /// What a scope means.
    Explain(Explanation),
}

/// One replicant as one node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicantView {
    /// The replicant.
    pub id: ReplicantId,
    /// Which of its documents this is.
    pub epoch: u64,
    /// Which driver.
    pub kind: String,
    /// Where it lives, as written.
    pub scope: String,
    /// Where it lives, as decided.
    pub placement: Option<Placement>,
    /// Its rules.
    pub policy: Policy,
    /// The desired state, without overrides.
    pub desired: Value,
    /// What is laid over it at single sites.
    pub overrides: BTreeMap<SiteName, Value>,
    /// The operations as they are run, in that order.
    pub resolved: Vec<OperationId>,
    /// All operations with what became of them.
    pub operations: Vec<OperationView>,
    /// Present once deleted.
    pub deleted: Option<Deleted>,
    /// The heads of the document: hand them in as `base` with an edit.
    pub heads: Vec<ChangeHash>,
    /// How many fields have several values.
    pub conflicts: usize,
    /// The worst status of all sites, or `pending` while one has not reported on these heads.
    pub status: Status,
    /// What each site of the replica set last said.
    pub sites: BTreeMap<SiteName, SiteStatus>,
    /// How the replicas are doing: the worst of all sites, where their platforms say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// The size of the document in bytes, about.
    pub bytes: usize,
    /// What an operator should know: a policy that contradicts itself, a document that grows too large.
    pub warnings: Vec<String>,
}

/// One operation and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationView {
    /// The operation.
    #[serde(flatten)]
    pub operation: Operation,
    /// Live, dead or dropped, and by which others.
    pub fate: Fate,
}

/// What one site last said, and whether it can be asked again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteStatus {
    /// Whether the site is thought alive. What a site that is not said last may be outdated.
    pub state: Liveness,
    /// Its last report, if it made one.
    pub report: Option<Report>,
    /// Whether that report speaks of the heads that the document has now.
    pub current: bool,
    /// Whether the site is on its way out of the scope.
    pub leaving: bool,
    /// How its replica is doing, where its platform says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationAnswer {
    /// The operation.
    pub operation: Operation,
    /// The whole list as it is run now.
    pub resolved: Vec<OperationId>,
    /// What each site of the placement says of the operation; `pending` from those that said nothing yet.
    pub sites: BTreeMap<SiteName, OperationReport>,
    /// Whether all sites have said their last word.
    pub complete: bool,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Summary {
    /// The replicant.
    pub id: ReplicantId,
    /// Which driver.
    pub kind: String,
    /// Where it lives, as written.
    pub scope: String,
    /// The sites it was placed at.
    pub sites: BTreeSet<SiteName>,
    /// The worst status of all sites.
    pub status: Status,
    /// Whether it is deleted.
    pub deleted: bool,
    /// How many operations it has.
    pub operations: usize,
    /// How many fields have several values.
    pub conflicts: usize,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page {
    /// The lines, sorted by id.
    pub items: Vec<Summary>,
    /// Where the next page starts: hand it in as `after`. None on the last page.
    pub next: Option<ReplicantId>,
}

/// What one site would do now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SitePlan {
    /// The site.
    pub site: SiteName,
    /// Why there is no answer of it, if there is none.
    #[serde(default)]
    pub unknown: Option<String>,
    /// Which of the six rules of planning applies.
    pub rule: u8,
    /// Whether what was applied does not stay.
    pub rebuild: bool,
    /// What it would do, in order, in words.
    pub steps: Vec<String>,
    /// Why nothing is run, if a person must look.
    #[serde(default)]
    pub needs_attention: Option<String>,
    /// What would change on the platform, as text.
    pub diff: String,
}

/// How sure a node is that another works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Liveness {
    /// Heard of lately.
    Alive,
    /// Silent for longer than usual.
    Suspect,
    /// Silent for so long that it is thought to be cut off or stopped. Nothing is ever deleted for that.
    #[default]
    Down,
}

/// One site as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteView {
    /// The site.
    pub site: SiteName,
    /// Whether it is the site of the node that answers.
    pub here: bool,
    /// Whether it is thought alive.
    pub state: Liveness,
    /// When it was last heard of, in milliseconds since 1970 by the clock of the node that answers.
    pub seen_at: Option<u64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The kinds of replicants that it can drive.
    pub kinds: BTreeSet<String>,
    /// Those of them whose platform it cannot reach, and since when, in milliseconds since 1970 by its clock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub away: BTreeMap<String, u64>,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
    /// The mean round-trip time from here, in milliseconds (EWMA).
    pub rtt_ms: Option<f64>,
}

/// One node of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// The suspicion level of the phi-accrual failure detector.
    pub phi: f64,
    /// The version of its software.
    pub version: String,
}

/// Whether all sites hold the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyReport {
    /// Whether every replicant is the same at every one of its sites, and all sites answered.
    pub same: bool,
    /// How many replicants were compared.
    pub checked: usize,
    /// The sites that did not answer.
    pub unknown: BTreeSet<SiteName>,
    /// What each site holds, for each replicant compared.
    pub replicants: Vec<VerifyEntry>,
}

/// One replicant as its sites hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyEntry {
    /// The replicant.
    pub id: ReplicantId,
    /// Whether all its sites answered and hold the same document and contents.
    pub same: bool,
    /// In words, what differs.
    pub differences: Vec<String>,
    /// What each site holds.
    pub sites: BTreeMap<SiteName, Holding>,
}

/// What one site holds of one replicant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Holding {
    /// SHA-256 over the state of the document, in hexadecimal.
    pub document: Option<String>,
    /// Status of the replica there.
    pub status: Status,
    /// Whether overrides are laid over the desired state there, so that its contents may differ from the others'.
    pub overridden: bool,
    /// What the platform holds, looked at now.
    pub observed: Option<Observation>,
    /// Why the platform could not be looked at, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

/// What a scope means now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The expression as the parser understood it.
    pub canonical: String,
    /// One entry for each service spoken of.
    pub places: Vec<ExplainedPlace>,
}

/// Where a scope puts one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedPlace {
    /// The service, none for the one that applies to all others.
    pub service: Option<String>,
    /// The sites.
    pub sites: BTreeSet<String>,
    /// Whether one resource spans them.
    pub cross: bool,
    /// Who holds it then.
    pub prime: Option<String>,
    /// Why, a sentence for each decision.
    pub reasons: Vec<String>,
}

/// Why a request was not carried out. The message says what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
#[serde(tag = "error", content = "detail", rename_all = "kebab-case")]
pub enum RequestError {
    /// Nobody that can be asked knows the replicant.
    #[error("no replicant {id} here or at any site that can be reached{}", unreachable_note(.unreachable))]
    NotFound {
        /// The replicant.
        id: ReplicantId,
        /// Sites that could not be asked.
        unreachable: Vec<SiteName>,
    },
    /// The request makes no sense.
    #[error("{message}")]
    Invalid {
        /// Which part, and what is right.
        message: String,
    },
    /// The request contradicts what there is.
    #[error("{message}")]
    Conflict {
        /// What, and the way out.
        message: String,
    },
    /// Something is larger than the limits allow.
    #[error("{message}")]
    TooLarge {
        /// What, with the figures.
        message: String,
    },
    /// The site that must answer cannot be reached.
    #[error("{message}")]
    Unreachable {
        /// Which, and since when.
        message: String,
    },
    /// There is too much going on.
    #[error("{message}")]
    Busy {
        /// What is full.
        message: String,
    },
    /// There is no space on the disk, so nothing was changed. Reading goes on.
    #[error("{message}")]
    Full {
        /// Which disk, and the way out.
        message: String,
    },
    /// The disk failed. Whether the change will be there after a restart is not known.
    #[error("{message}")]
    Storage {
        /// How.
        message: String,
    },
}

fn unreachable_note(sites: &[SiteName]) -> String {
    if sites.is_empty() {
        return String::new();
    }
    let names: Vec<_> = sites.iter().map(SiteName::as_str).collect();
    format!(" (could not ask {})", names.join(", "))
}

/// Turns the warnings of a policy into sentences.
pub(crate) fn sentences(warnings: &[PolicyWarning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}
