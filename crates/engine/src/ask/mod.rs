//! What users and other nodes ask, and who waits for what.

mod edit;
mod gather;
mod history;
mod search;
mod verify;
mod view;
mod wait;

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{OperationId, ReplicantId, SiteName};

use self::gather::Gather;
use self::search::Search;
use self::verify::Job;
use crate::NodeId;
use crate::origin::Origin;

/// Why another node was asked something.
#[derive(Debug)]
enum Purpose {
    /// To find a replicant.
    Locate { search: u64 },
    /// To answer a user.
    Forward { origin: Origin },
    /// To know what a site would do or holds.
    Gather { gather: u64, site: SiteName },
}

/// A question to another node that is not answered yet.
#[derive(Debug)]
struct Pending {
    to: NodeId,
    purpose: Purpose,
}

/// Somebody who waits for the reports of all sites on an operation.
#[derive(Debug)]
struct Wait {
    replicant: ReplicantId,
    operation: OperationId,
}

/// All that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    searches: BTreeMap<u64, Search>,
    gathers: BTreeMap<u64, Gather>,
    jobs: BTreeMap<u64, Job>,
    waits: BTreeMap<Origin, Wait>,
    by_replicant: BTreeMap<ReplicantId, BTreeSet<Origin>>,
    /// Who waits for archived epochs, and for how many entries.
    histories: BTreeMap<ReplicantId, Vec<(Origin, usize)>>,
}

impl Asks {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many wait for another node.
    fn waiting_for(&self, node: &NodeId) -> usize {
        let all = Origin::Node(node.clone(), 0)..=Origin::Node(node.clone(), u64::MAX);
        let is = |origin: &Origin| matches!(origin, Origin::Node(of, _) if of == node);
        let gathers = self.gathers.values().filter(|gather| is(&gather.origin));
        self.waits.range(all).count() + gathers.count() + self.jobs_of(node).len()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
            + self.searches.len()
            + self.gathers.len()
            + self.jobs.len()
            + self.waits.len()
            + self.histories.len()
    }
}
