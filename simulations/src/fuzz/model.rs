//! What a run remembers of what was asked and answered, to compare the sites with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use khufu_crdt::{ChangeHash, Epoch, OperationId, Replicant, SiteName};
use khufu_engine::{Request, RequestId};

/// A document as it is with some set of changes: its epoch and its heads.
pub(super) type Version = (Epoch, Vec<ChangeHash>);

/// A request that was made and not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) site: &'static str,
    pub(super) at: Duration,
    pub(super) what: Request,
    /// Somebody waits for just this answer.
    pub(super) awaited: bool,
    /// For a question about conflicts: which of the values is to be picked.
    pub(super) pick: Option<usize>,
}

/// A field of a desired state that was written, or that a replicant was made, as acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) epoch: Epoch,
    pub(super) change: ChangeHash,
    /// Which field, and its value, which nothing else ever writes.
    pub(super) field: Option<(String, u64)>,
    /// The replicant was made: it was not there, or deleted, as far as was known.
    pub(super) made: bool,
}

/// What is known of one replicant.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Sites that any scope of it has ever named.
    pub(super) allowed: BTreeSet<&'static str>,
    /// Its scope has been changed, or can change its value by itself.
    pub(super) rescoped: bool,
    pub(super) moving: bool,
    /// Its rules have been changed.
    pub(super) repolicied: bool,
    /// Somebody wanted it deleted.
    pub(super) deleted: bool,
    /// Operations that were acknowledged.
    pub(super) operations: BTreeSet<OperationId>,
    /// Fields that were written, and makings, that were acknowledged.
    pub(super) writes: Vec<Write>,
    /// Changes that were acknowledged, with the document they are in.
    pub(super) changes: BTreeSet<(Epoch, ChangeHash)>,
    /// Documents as they were when a change was acknowledged, to see that nothing of it was lost in a closed epoch.
    pub(super) documents: Vec<Replicant>,
    /// Only a disk that was lost may have held all of it.
    pub(super) excused: bool,
    /// Operations whose cut was looked at.
    pub(super) cuts: BTreeSet<OperationId>,
    /// Sites whose disks hold it.
    pub(super) stored: BTreeSet<&'static str>,
    /// The state and the list that each set of changes has.
    pub(super) lists: BTreeMap<Version, (String, [u8; 32], Vec<OperationId>)>,
}

/// What is known of one site.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) running: bool,
    /// Which sites it said that it hears (`true`) or that are silent.
    pub(super) heard: BTreeMap<SiteName, bool>,
    /// The newest report that it told of, by replicant and site.
    pub(super) reports: BTreeMap<(String, String), u64>,
    /// Where it said each replicant lives, and what it said of that last and may have decided itself.
    pub(super) placed: BTreeMap<String, Vec<SiteName>>,
    pub(super) placing: Option<(String, Vec<SiteName>, Vec<SiteName>)>,
    /// What ran on each replica since it was last made anew.
    pub(super) ran: BTreeMap<String, BTreeSet<OperationId>>,
    /// The changes that each document had when it was last looked at, and what the replica must hold then.
    pub(super) looked: BTreeMap<String, (Version, String)>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) told: BTreeMap<&'static str, Told>,
    pub(super) seen: BTreeMap<&'static str, Seen>,
    pub(super) asked: BTreeMap<RequestId, Asked>,
    /// The last operation that was asked for under an id of the user's own.
    pub(super) own: Option<Request>,
}
