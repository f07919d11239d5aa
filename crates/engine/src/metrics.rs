//! What the engine counts.

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) gossip_in: u64,
    pub(crate) gossip_out: u64,
    pub(crate) refused: u64,
    pub(crate) ignored: u64,
    pub(crate) changes_local: u64,
    pub(crate) changes_remote: u64,
    pub(crate) changes_rejected: u64,
    pub(crate) syncs: u64,
    pub(crate) reconciles: u64,
    pub(crate) driver_calls: u64,
    pub(crate) driver_failures: u64,
    pub(crate) rebuilds: u64,
    pub(crate) requests: u64,
    pub(crate) compactions: u64,
    pub(crate) clocks_ahead: u64,
    pub(crate) epochs: u64,
    pub(crate) epochs_far: u64,
    pub(crate) epochs_changed: u64,
    pub(crate) carried: u64,
    pub(crate) joins: u64,
}

/// What an engine has done and what it holds, for a monitoring system. Counters count since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Frames that came from peers.
    pub frames_in: u64,
    /// Frames that were sent.
    pub frames_out: u64,
    /// Gossiped messages that came in.
    pub gossip_in: u64,
    /// Messages that were gossiped.
    pub gossip_out: u64,
    /// Frames, messages and sessions that broke the rules.
    pub refused: u64,
    /// What came too late, or from whom it does not concern: frames of sessions that are over, answers to no question,
    /// reports and requests about replicants of which the sender is no holder as far as is known here.
    pub ignored: u64,
    /// Changes made here.
    pub changes_local: u64,
    /// Changes taken in from others.
    pub changes_remote: u64,
    /// Changes of others that were refused.
    pub changes_rejected: u64,
    /// Sync sessions begun.
    pub syncs: u64,
    /// Reconciliations begun.
    pub reconciles: u64,
    /// Calls of drivers.
    pub driver_calls: u64,
    /// Calls of drivers that failed.
    pub driver_failures: u64,
    /// How often a replica was rebuilt.
    pub rebuilds: u64,
    /// Requests of users.
    pub requests: u64,
    /// Snapshots written.
    pub compactions: u64,
    /// Clock values of others that were too far ahead to follow.
    pub clocks_ahead: u64,
    /// Epochs of documents that were closed, here or by following others.
    pub epochs: u64,
    /// Those of them that were closed here far beyond the first change at which that could be done.
    pub epochs_far: u64,
    /// How often the document that followed an epoch was left for another that follows the same and leaves more behind.
    pub epochs_changed: u64,
    /// Changes that were carried over into later epochs.
    pub carried: u64,
    /// Changes made only to bring concurrent ones together, so that an epoch could be closed.
    pub joins: u64,
    /// Replicants held.
    pub replicants: u64,
    /// Documents in memory.
    pub resident: u64,
    /// Replicants for which this site has something left to do.
    pub unsettled: u64,
    /// Sync sessions open.
    pub sessions: u64,
    /// Batches handed out to be stored and not stored yet.
    pub unstored: u64,
    /// Nodes connected.
    pub connected: u64,
    /// Users that wait for an answer.
    pub waiting: u64,
    /// 1 while the disk has no space and changes are refused.
    pub full: u64,
}

impl crate::Engine {
    /// What it has done and what it holds.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let c = self.counters;
        let held = || self.replicants.index.values().filter(|entry| !entry.dropped);
        Metrics {
            frames_in: c.frames_in,
            frames_out: c.frames_out,
            gossip_in: c.gossip_in,
            gossip_out: c.gossip_out,
            refused: c.refused,
            ignored: c.ignored,
            changes_local: c.changes_local,
            changes_remote: c.changes_remote,
            changes_rejected: c.changes_rejected,
            syncs: c.syncs,
            reconciles: c.reconciles,
            driver_calls: c.driver_calls,
            driver_failures: c.driver_failures,
            rebuilds: c.rebuilds,
            requests: c.requests,
            compactions: c.compactions,
            clocks_ahead: c.clocks_ahead,
            epochs: c.epochs,
            epochs_far: c.epochs_far,
            epochs_changed: c.epochs_changed,
            carried: c.carried,
            joins: c.joins,
            replicants: count(held().count()),
            resident: count(self.replicants.resident.len()),
            unsettled: count(held().filter(|entry| !entry.settled).count()),
            sessions: count(self.sync.sessions()),
            unstored: self.outbox.outstanding(),
            connected: count(self.members.connected().count()),
            waiting: count(self.asks.waiting()),
            full: u64::from(self.is_full()),
        }
    }
}
