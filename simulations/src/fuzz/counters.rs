//! What really happened over all seeds of a batch: a fault that was never tried proves nothing.

use std::collections::BTreeMap;

use khufu_engine::harness::Tally;
use serde::Serialize;

use super::plan::Class;

/// Kinds of things that happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "Kind::words says what each is")]
pub enum Kind {
    Operations,
    Acknowledged,
    Survived,
    Ended,
    OutlivedDeletions,
    AskedTwice,
    Edits,
    Overrides,
    Picks,
    Rescopes,
    Repolicies,
    Deletes,
    Recreations,
    Conflicts,
    Rebuilds,
    GivenAway,
    Epochs,
    EpochsFar,
    EpochsChanged,
    Joins,
    Carried,
    Partitions,
    Cuts,
    OneWayCuts,
    FramesStuck,
    FramesLost,
    GossipLost,
    GossipTwice,
    Crashes,
    UnsyncedCrashes,
    TornCrashes,
    BatchesLost,
    FullDisks,
    BrokenDisks,
    StoreLies,
    UnreadDisks,
    DriverFailures,
    DriverSilences,
    DriverHangs,
    DriverDeaths,
    ClockSkews,
    ClocksAhead,
    ClockSpeeds,
    Compactions,
    Verified,
    Wipes,
    Damages,
    OldDisks,
    Excused,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 49] = [
        Self::Operations,
        Self::Acknowledged,
        Self::Survived,
        Self::Ended,
        Self::OutlivedDeletions,
        Self::AskedTwice,
        Self::Edits,
        Self::Overrides,
        Self::Picks,
        Self::Rescopes,
        Self::Repolicies,
        Self::Deletes,
        Self::Recreations,
        Self::Conflicts,
        Self::Rebuilds,
        Self::GivenAway,
        Self::Epochs,
        Self::EpochsFar,
        Self::EpochsChanged,
        Self::Joins,
        Self::Carried,
        Self::Partitions,
        Self::Cuts,
        Self::OneWayCuts,
        Self::FramesStuck,
        Self::FramesLost,
        Self::GossipLost,
        Self::GossipTwice,
        Self::Crashes,
        Self::UnsyncedCrashes,
        Self::TornCrashes,
        Self::BatchesLost,
        Self::FullDisks,
        Self::BrokenDisks,
        Self::StoreLies,
        Self::UnreadDisks,
        Self::DriverFailures,
        Self::DriverSilences,
        Self::DriverHangs,
        Self::DriverDeaths,
        Self::ClockSkews,
        Self::ClocksAhead,
        Self::ClockSpeeds,
        Self::Compactions,
        Self::Verified,
        Self::Wipes,
        Self::Damages,
        Self::OldDisks,
        Self::Excused,
    ];

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Operations => "operations asked for",
            Self::Acknowledged => "writes acknowledged",
            Self::Survived => "acknowledged operations found at the end",
            Self::Ended => "acknowledged operations that a deletion ended",
            Self::OutlivedDeletions => "makings found at the end beside deletions",
            Self::AskedTwice => "operations asked for again under their own id",
            Self::Edits => "edits of desired states",
            Self::Overrides => "overrides for one site",
            Self::Picks => "conflicts settled",
            Self::Rescopes => "scopes changed",
            Self::Repolicies => "rules changed",
            Self::Deletes => "deletions",
            Self::Recreations => "replicants made anew",
            Self::Conflicts => "conflicts seen",
            Self::Rebuilds => "rebuilds",
            Self::GivenAway => "documents given away",
            Self::Epochs => "epochs closed",
            Self::EpochsFar => "epochs closed far beyond where they could be",
            Self::EpochsChanged => "documents left for another that follows the same epoch",
            Self::Joins => "changes that bring heads together, to close an epoch",
            Self::Carried => "acknowledged documents found whole in a later epoch",
            Self::Partitions => "partitions",
            Self::Cuts => "cuts between two sites",
            Self::OneWayCuts => "one-way cuts",
            Self::FramesStuck => "frames stuck in one-way cuts",
            Self::FramesLost => "frames lost",
            Self::GossipLost => "gossip lost",
            Self::GossipTwice => "gossip come twice",
            Self::Crashes => "crashes",
            Self::UnsyncedCrashes => "crashes with something unsynced",
            Self::TornCrashes => "crashes that kept a part of it (torn writes)",
            Self::BatchesLost => "batches lost in crashes",
            Self::FullDisks => "disks that had no room for a write",
            Self::BrokenDisks => "disks that failed to write",
            Self::StoreLies => "failed writes that were stored all the same",
            Self::UnreadDisks => "reads that failed",
            Self::DriverFailures => "driver calls failed",
            Self::DriverSilences => "driver calls done without an answer",
            Self::DriverHangs => "driver calls hung",
            Self::DriverDeaths => "deaths between effect and report",
            Self::ClockSkews => "wall clocks set off",
            Self::ClocksAhead => "clock values too far ahead to follow",
            Self::ClockSpeeds => "clocks at another speed",
            Self::Compactions => "snapshots written",
            Self::Verified => "replicants verified as the same everywhere",
            Self::Wipes => "disks wiped",
            Self::Damages => "records damaged",
            Self::OldDisks => "disks recovered with old or missing records",
            Self::Excused => "replicants excused, since only a lost disk held something",
        }
    }

    /// Whether a batch of this class that never saw it proves too little.
    fn must_happen(self, class: Class) -> bool {
        match self {
            Self::Wipes | Self::Damages | Self::OldDisks | Self::Excused => class == Class::Disasters,
            // Rare, and not what disks have to do with.
            Self::Picks => class == Class::Faults,
            _ => true,
        }
    }
}

/// How often each kind happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Happened(BTreeMap<Kind, u64>);

impl Happened {
    /// It happened.
    pub fn note(&mut self, kind: Kind) {
        self.add(kind, 1);
    }

    /// It happened so often.
    pub fn add(&mut self, kind: Kind, times: u64) {
        *self.0.entry(kind).or_insert(0) += times;
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Adds what happened in another run.
    pub fn merge(&mut self, other: &Self) {
        for (kind, times) in &other.0 {
            self.add(*kind, *times);
        }
    }

    /// Adds what a world counted.
    pub(super) fn add_tally(&mut self, tally: &Tally) {
        for (kind, times) in [
            (Kind::FramesStuck, tally.frames_stuck),
            (Kind::FramesLost, tally.frames_lost),
            (Kind::GossipLost, tally.gossip_lost),
            (Kind::GossipTwice, tally.gossip_twice),
            (Kind::UnsyncedCrashes, tally.unsynced_crashes),
            (Kind::TornCrashes, tally.torn_crashes),
            (Kind::BatchesLost, tally.batches_lost),
            (Kind::FullDisks, tally.full_disks),
            (Kind::BrokenDisks, tally.store_failures),
            (Kind::StoreLies, tally.store_lies),
            (Kind::DriverFailures, tally.driver_failures),
            (Kind::DriverSilences, tally.driver_silences),
            (Kind::DriverHangs, tally.driver_hangs),
            (Kind::DriverDeaths, tally.driver_deaths),
            (Kind::ClocksAhead, tally.clocks_ahead),
            (Kind::Rebuilds, tally.rebuilds),
            (Kind::Epochs, tally.epochs),
            (Kind::EpochsFar, tally.epochs_far),
            (Kind::EpochsChanged, tally.epochs_changed),
            (Kind::Joins, tally.joins),
            (Kind::UnreadDisks, tally.unread),
            (Kind::Compactions, tally.compactions),
        ] {
            self.add(kind, times);
        }
    }

    /// What a batch of this class should have seen and did not.
    #[must_use]
    pub fn missing(&self, class: Class) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| kind.must_happen(class) && self.count(*kind) == 0).collect()
    }
}
