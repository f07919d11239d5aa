//! Bringing documents of two nodes together: gossip for what is new, reconciliation for what gossip missed, and a session
//! of the Automerge sync protocol for each document that differs.

mod gossip;
mod news;
mod parts;
mod queue;
mod receive;
mod reconcile;
mod session;
mod shared;
mod topic;

use std::collections::BTreeMap;

use khufu_crdt::ReplicantId;

pub(crate) use self::gossip::Sent;
pub(crate) use self::news::{News, report, reports};
pub(crate) use self::receive::MAX_HEADS;
pub(crate) use self::reconcile::{Round, Said};
pub(crate) use self::session::Session;
pub(crate) use self::topic::Topics;
use crate::NodeId;

/// The most sites on whose behalf somebody is told of something.
const MAX_BEHALF: usize = 64;

/// What is going on between this node and others.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    sessions: BTreeMap<(NodeId, ReplicantId), Session>,
    /// Documents that wait for a session, by node.
    queued: BTreeMap<NodeId, queue::Queued>,
    rounds: BTreeMap<NodeId, Round>,
    said: BTreeMap<NodeId, Said>,
    shared: shared::Shared,
    gathered: BTreeMap<ReplicantId, gossip::Gathered>,
    pub(crate) topics: Topics,
    next_session: u64,
    next_round: u64,
}

impl Sync {
    /// Ends all that is going on; what is subscribed stays.
    pub(crate) fn forget(&mut self) {
        self.sessions.clear();
        self.queued.clear();
        self.rounds.clear();
        self.said.clear();
        self.shared.forget();
        self.gathered.clear();
    }

    /// A connection was lost: it is all said anew when there is another.
    pub(crate) fn unsay(&mut self, node: &NodeId) {
        self.said.remove(node);
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn has_session(&self, id: &ReplicantId) -> bool {
        self.with(id).next().is_some()
    }

    /// The nodes with which there are sessions about a replicant.
    fn with(&self, id: &ReplicantId) -> impl Iterator<Item = &NodeId> {
        self.sessions.keys().filter(move |(_, replicant)| replicant == id).map(|(node, _)| node)
    }

    fn sessions_with(&self, node: &NodeId) -> usize {
        self.sessions.keys().filter(|(with, _)| with == node).count()
    }
}
