//! What this site does about a replicant: how far its replica is, and what the driver is told next.

mod done;
mod looks;
mod lost;
mod next;
mod places;
mod queue;
mod report;
mod resume;
mod same;

pub(crate) use self::next::{may_reset, says_nothing, wanted};
pub(crate) use self::queue::Queue;

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{
    Applied, ChangeHash, Observation, Operation, OperationId, OperationReport, Outcome, Report, Status, clip_output,
};
use serde::{Deserialize, Serialize};

use self::same::essence;
use crate::origin::Origin;
use crate::wire::is_default;

/// In place of a digest: the replica may have been made from any desired state. So whatever is wanted is written, and
/// where nothing is wanted the replica is reset.
pub(crate) const UNKNOWN: &str = "unknown";
/// In place of a digest: one was refused where there was none before, so that nothing of any is there.
pub(crate) const REFUSED: &str = "refused";

/// What one site has made of one replicant. Stored beside the document, never in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Work {
    /// The operations executed since the base, and the intent.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) applied: Applied,
    /// SHA-256 of the desired state that the replica was made from; none if it has none, [`REFUSED`] or [`UNKNOWN`] else.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) desired: Option<String>,
    /// A driver was told to write this desired state and has not answered.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) desired_intent: Option<String>,
    /// What became of the desired state.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) desired_report: Option<OperationReport>,
    /// What became of each operation.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) operations: BTreeMap<OperationId, OperationReport>,
    /// What each of the operations executed since the base was: two sites that are apart may give one id to two.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ran: BTreeMap<OperationId, u64>,
    /// What the last plan left out.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) skipped: BTreeSet<OperationId>,
    /// What the platform calls the replica.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) local_id: Option<String>,
    /// SHA-256 of the contents after the last driver call.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) expected: Option<String>,
    /// What was last seen on the platform.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) observed: Option<Observation>,
    /// The replica is gone, or was left to the platform: nothing more is done.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) removed: bool,
    /// Another site knows everything that this one does, and that it is no holder any more: the heads there.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) expelled: Vec<ChangeHash>,
    /// A driver was told to remove the replica and has not answered.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) removing: bool,
    /// What was run must be taken back before anything else: the platform was changed by hand and is put back, or the
    /// desired state under the operations changed.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) rebuild: bool,
    /// Why nothing is run, if a person must look.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) attention: Option<String>,
    /// What is tried at present, in words, and how often it was.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) trying: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) attempt: u32,
    /// The number of this site's newest report.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) seq: u64,
    /// The number of the first report that all this is behind.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) born: u64,
    /// The number of the newest report from before that which was heard of.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) past: u64,
    /// A driver was told to make something of it.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) touched: bool,
    /// The kind of that driver: what is made anew after a deletion may be of another.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    /// What was on the platform before the first operation was looked at, or need not be known.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) looked: bool,
    /// The same, where nothing is to be there.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) searched: bool,
    /// Nobody could say whether this operation was done, and so the replica was made anew.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) rebuilt_for: Option<OperationId>,
    /// How often that was so in a row, where it is limited.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) rebuilt: u32,
    /// Operations that were broken off each time, and what each of them was: the replica is made anew without them.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) given_up: BTreeMap<OperationId, u64>,
    /// The replica was made as new since all this is written: what was on the platform before is gone.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) was_reset: bool,
    /// The replica is made anew only since somebody has changed it by hand: it is known what was run on it.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) put_back: bool,
    /// How often in a row the replica was put back after somebody had changed it by hand, and when last, in milliseconds
    /// since 1970.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) corrected: (u32, u64),
    /// How often in a row the platform could not be looked at for changes by hand.
    #[serde(skip)]
    pub(crate) unseen: u32,
    /// How often in a row it could not be looked at before something is done there. Such looks are no attempts at it.
    #[serde(skip)]
    pub(crate) in_the_dark: u32,
    /// What is known of the open intent. After a crash nothing is.
    #[serde(skip)]
    pub(crate) doubt: Doubt,
}

/// Whether an earlier attempt at the open intent may have been carried out, though nobody has said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// There was no earlier attempt without an answer.
    #[default]
    None,
    /// There was, and the driver is called again with the same.
    Repeated,
    /// There was, and the attempt after it failed. That says nothing of the one before.
    Failed,
}

impl Work {
    /// What is written here may be older than what was done. A replica that is only a value is written again; any other
    /// is made anew from the start, since nobody knows which operations have run on it.
    pub(crate) fn distrust(&mut self, only_a_value: bool) {
        let ran = !self.applied.sequence().is_empty() || self.applied.intent().is_some();
        if ran || !only_a_value {
            self.start_over();
        }
        self.desired = Some(UNKNOWN.into());
        self.removed = false;
        self.touched = true;
    }

    /// What was run stands on something that is no more, or nobody knows on what: the replica is made anew.
    pub(super) fn start_over(&mut self) {
        (self.rebuild, self.put_back) = (true, false);
    }

    /// Whether it is known what this site has made of the replica: only then is anything else on the platform somebody
    /// else's doing.
    pub(super) fn knows_contents(&self) -> bool {
        let open = self.removing || self.desired_intent.is_some() || self.applied.intent().is_some();
        let lost =
            matches!(self.desired.as_deref(), Some(UNKNOWN | REFUSED)) || (self.rebuild && self.expected.is_none());
        !open && !lost
    }

    /// Nobody can say whether the open intent was carried out: it counts as done, and all is started over.
    pub(super) fn give_up_knowing(&mut self) {
        self.applied.finish(Outcome::Succeeded);
        self.start_over();
        self.doubt = Doubt::None;
    }

    /// Nobody can say how far this operation came. It is not run again on what it left: all is started over, and when that did
    /// not help as often as anything is tried, the operation has failed.
    pub(super) fn start_over_for(&mut self, op: &OperationId, attempts: u32, at: u64) {
        if self.rebuilt_for.as_ref() != Some(op) {
            (self.rebuilt_for, self.rebuilt) = (Some(op.clone()), 0);
        }
        self.rebuilt = self.rebuilt.saturating_add(1);
        if self.rebuilt < attempts {
            return self.give_up_knowing();
        }
        self.fail_unknown(op, at);
    }

    /// The operation has failed for good, and may have done a part of what was asked. No other site may have done that part, so
    /// all is started over once more, without it.
    fn fail_unknown(&mut self, op: &OperationId, at: u64) {
        let noted = self.operations.entry(op.clone()).or_default();
        if noted.status != Status::Pending || noted.output.is_empty() {
            "nobody can say how far it came".clone_into(&mut noted.output);
        }
        let said = format!("it was broken off each time, and the replica is made anew without it: {}", noted.output);
        noted.output = clip_output(&said);
        (noted.status, noted.at) = (Status::Failed, at);
        self.given_up.insert(op.clone(), self.ran.get(op).copied().unwrap_or_default());
        self.give_up_knowing();
        (self.rebuilt_for, self.rebuilt, self.attempt) = (None, 0, 0);
    }

    /// Whether this operation is not to be run again, as it was broken off each time.
    pub(super) fn has_given_up(&self, operation: &Operation) -> bool {
        self.given_up.get(&operation.id).is_some_and(|ran| *ran == essence(operation))
    }

    /// Whether this site said so before it lost what was written here.
    pub(crate) fn forgot(&self, report: &Report) -> bool {
        report.seq > self.past && (report.seq < self.born || report.seq > self.seq)
    }

    /// What this site said of its replica before it lost what was written here: it is still on the platform, unless all this
    /// is newer, and the replica was started over since.
    pub(crate) fn remember(&mut self, report: &Report, only_a_value: bool) {
        self.past = report.seq;
        if self.was_reset && report.seq < self.born {
            return;
        }
        let had = !report.applied.is_empty() || report.desired.is_some() || report.local_id.is_some();
        if had && report.status != Status::Removed {
            self.distrust(only_a_value);
            self.local_id = self.local_id.take().or_else(|| report.local_id.clone());
        }
    }

    /// Whether the platform may hold anything of this replicant.
    pub(crate) fn is_blank(&self) -> bool {
        self.applied.sequence().is_empty()
            && self.applied.intent().is_none()
            && self.desired.is_none()
            && self.desired_intent.is_none()
    }
}

/// What a driver is busy with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Doing {
    /// Writing this desired state.
    Desired(String),
    /// The intent of [`Work::applied`].
    Step,
    /// Writing this desired state in place of all that was made: the intent of [`Work::applied`] is a reset.
    Anew(String),
    /// Looking whether there is something already, before anything is done.
    First,
    /// Looking whether an earlier life of this site left something where nothing is to be.
    Left,
    /// Looking whether the intent that a crash left behind was carried out.
    Lookup,
    /// Removing the replica.
    Remove,
    /// Somebody wants to know.
    Side(Side),
    /// What the call was for is forgotten, since it could not be stored.
    Forgotten,
}

/// Looks at the platform that change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// The driver believes that somebody changed the replica.
    Drift,
    /// For a comparison of all sites.
    Verify(u64),
    /// A dry run.
    Diff(Origin),
}
