//! What really happened in a world, so that a scenario can prove that it tried what it says it tries.

use serde::Serialize;

use crate::Metrics;

/// Counted over all sites and all lives of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Frames lost although the connection stayed.
    pub frames_lost: u64,
    /// Frames that a one-way cut kept back or lost.
    pub frames_stuck: u64,
    /// Gossip that did not arrive.
    pub gossip_lost: u64,
    /// Gossip that came twice.
    pub gossip_twice: u64,
    /// Processes that ended with something written and not yet synced.
    pub unsynced_crashes: u64,
    /// Those of which a part was on the disk afterwards, and the rest was not.
    pub torn_crashes: u64,
    /// Batches that a crash lost.
    pub batches_lost: u64,
    /// Records read back that were not synced yet.
    pub early_reads: u64,
    /// Reads that failed.
    pub unread: u64,
    /// Disks that had no room for something.
    pub full_disks: u64,
    /// Disks that failed to store something.
    pub store_failures: u64,
    /// Those that had stored it all the same.
    pub store_lies: u64,
    /// Driver calls that failed and did nothing.
    pub driver_failures: u64,
    /// Driver calls that did their work and gave no answer.
    pub driver_silences: u64,
    /// Driver calls that hung until they were given up.
    pub driver_hangs: u64,
    /// Processes that died between the effect of a driver and its report.
    pub driver_deaths: u64,
    /// Processes that were started.
    pub lives: u64,
    /// Rebuilds of replicas.
    pub rebuilds: u64,
    /// Snapshots written.
    pub compactions: u64,
    /// Epochs closed.
    pub epochs: u64,
    /// Those that were closed far beyond the first change at which that could be done.
    pub epochs_far: u64,
    /// How often a site left the document that followed an epoch for another that follows the same.
    pub epochs_changed: u64,
    /// Changes made only to bring concurrent ones together.
    pub joins: u64,
    /// Sync sessions begun.
    pub syncs: u64,
    /// Changes made at sites.
    pub changes: u64,
    /// Calls of drivers.
    pub driver_calls: u64,
    /// Clock values that were too far ahead to follow.
    pub clocks_ahead: u64,
}

impl Tally {
    /// Adds what one process counted.
    pub(super) fn add(&mut self, metrics: &Metrics) {
        self.rebuilds += metrics.rebuilds;
        self.compactions += metrics.compactions;
        self.epochs += metrics.epochs;
        self.epochs_far += metrics.epochs_far;
        self.epochs_changed += metrics.epochs_changed;
        self.joins += metrics.joins;
        self.syncs += metrics.syncs;
        self.changes += metrics.changes_local;
        self.driver_calls += metrics.driver_calls;
        self.clocks_ahead += metrics.clocks_ahead;
    }
}
