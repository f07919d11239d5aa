//! What users, machines and networks do in a scenario: plain data, so that a scenario can be printed, repeated and made
//! smaller.

use std::collections::BTreeSet;

use khufu_engine::harness::{CallFault, Weather};
use serde_json::Value;

/// A site, by its place in the list of the scenario.
pub type At = usize;

/// Where a replicant shall live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// As written.
    pub text: String,
    /// All sites that it can mean.
    pub sites: BTreeSet<At>,
    /// Whether its value changes when sites come and go.
    pub moving: bool,
}

/// A part of what a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Changes of documents.
    Changes,
    /// Snapshots of documents.
    Snapshots,
    /// What the site has applied.
    Work,
    /// What sites reported.
    Reports,
    /// The index of replicants.
    Index,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Changes, Self::Snapshots, Self::Work, Self::Reports, Self::Index];

    /// Whether a record with this key is one.
    #[must_use]
    pub fn is(self, key: &[u8]) -> bool {
        match self {
            Self::Snapshots | Self::Work => key.ends_with(self.key()),
            Self::Changes | Self::Reports => key.windows(3).any(|part| part == self.key()),
            Self::Index => key.starts_with(self.key()),
        }
    }

    /// What the keys of such records hold.
    #[must_use]
    pub fn key(self) -> &'static [u8] {
        match self {
            Self::Changes => b"/c/",
            Self::Snapshots => b"/s",
            Self::Work => b"/w",
            Self::Reports => b"/r/",
            Self::Index => b"i/",
        }
    }
}

/// What happens to a disk beyond what its contract allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Everything is gone.
    Everything,
    /// Each record of a part is damaged: those of the index cannot be understood, others fail their checksums.
    Damaged(Part),
    /// The store was recovered: records of a part are as they were when [`Deed::KeepCopy`] was last done.
    OldRecords(Part),
    /// The store was recovered, and the index is gone.
    NoIndex,
}

/// What is asked without changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The replicant.
    Get,
    /// What each site would do.
    Plan,
    /// Whether all hold the same.
    Verify,
    /// The same of all replicants.
    VerifyAll,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields say what they are: a site, a replicant by its place, and what is asked")]
pub enum Deed {
    /// A user asks for an operation; `own`: under an id of the user's own, so that it can be asked for again.
    Operate { at: At, of: usize, op_type: &'static str, payload: Value, wait_ms: u64, own: bool },
    /// A user asks again for the last operation with an id of its own.
    Again { at: At },
    /// A user patches a field of the desired state.
    Patch { at: At, of: usize, field: u64, value: u64 },
    /// A user lays a value over the desired state at one site; none takes all away.
    Override { at: At, of: usize, over: Option<(At, u64)> },
    /// A user settles whatever is in conflict.
    Pick { at: At, of: usize, nth: usize },
    /// A user says anew where a replicant lives.
    Rescope { at: At, of: usize, scope: Where },
    /// A user gives a replicant other rules.
    Repolicy { at: At, of: usize, policy: usize },
    /// A user deletes a replicant.
    Delete { at: At, of: usize },
    /// A user puts a replicant that somebody has wanted deleted, perhaps without knowing of that.
    Recreate { at: At, of: usize, scope: Where, value: u64 },
    /// A user asks something.
    Ask { at: At, of: usize, question: Question },
    /// Sites of different groups cannot reach each other.
    Partition { groups: Vec<usize> },
    /// Two sites cannot reach each other.
    Cut { a: At, b: At },
    /// What one site says does not reach another.
    CutOneWay { from: At, to: At },
    /// Two sites can reach each other again.
    Mend { a: At, b: At },
    /// All can.
    Heal,
    /// The network, the drivers and the disks are as good or bad as this from now on.
    Weather(Weather),
    /// A machine loses power.
    Crash { at: At, restart: bool },
    /// A machine is started, if it does not run.
    Start { at: At },
    /// A wall clock is set off.
    Skew { at: At, ms: i64 },
    /// Clocks run at another speed, in parts per million.
    Speed { at: At, ppm: u64 },
    /// Something will go wrong with the next driver call.
    Fault { at: At, fault: CallFault },
    /// A machine loses power about when this many more batches have been handed to its disk.
    PowerFails { at: At, batches: u32 },
    /// A disk is full, or has room again.
    Full { at: At, full: bool },
    /// A disk cannot be read, or can again.
    Unreadable { at: At, unreadable: bool },
    /// A disk fails to write, which it says, until the machine is started again.
    Break { at: At },
    /// A snapshot is written now.
    Compact { at: At, of: usize },
    /// A copy is made of a disk.
    KeepCopy { at: At },
    /// A disk is damaged or lost, and the machine started again.
    Lose { at: At, loss: Loss },
    /// Time goes by.
    Wait { ms: u64 },
}

impl Deed {
    /// The letter by which a timeline shows it.
    #[must_use]
    pub fn letter(&self) -> char {
        match self {
            Self::Operate { .. } | Self::Again { .. } => 'o',
            Self::Patch { .. } | Self::Override { .. } | Self::Pick { .. } => 'p',
            Self::Repolicy { .. } => 'y',
            Self::Rescope { .. } => 's',
            Self::Delete { .. } => 'd',
            Self::Recreate { .. } => 'n',
            Self::Ask { .. } => 'q',
            Self::Partition { .. } | Self::Cut { .. } => '/',
            Self::CutOneWay { .. } => '>',
            Self::Mend { .. } | Self::Heal => '+',
            Self::Weather(_) => 'w',
            Self::Crash { .. } => 'X',
            Self::Start { .. } => 'U',
            Self::Skew { .. } | Self::Speed { .. } => 'c',
            Self::Fault { .. } => 'h',
            Self::PowerFails { .. } => 'x',
            Self::Full { .. } | Self::Break { .. } | Self::Unreadable { .. } => 'f',
            Self::Compact { .. } => 'm',
            Self::KeepCopy { .. } => 'k',
            Self::Lose { .. } => 'L',
            Self::Wait { .. } => ' ',
        }
    }

    /// The sites that it happens at; none if at all or at no place.
    #[must_use]
    pub fn sites(&self) -> Vec<At> {
        match self {
            Self::Operate { at, .. }
            | Self::Again { at }
            | Self::Patch { at, .. }
            | Self::Override { at, .. }
            | Self::Pick { at, .. }
            | Self::Rescope { at, .. }
            | Self::Repolicy { at, .. }
            | Self::Delete { at, .. }
            | Self::Recreate { at, .. }
            | Self::Ask { at, .. }
            | Self::Crash { at, .. }
            | Self::Start { at }
            | Self::Skew { at, .. }
            | Self::Speed { at, .. }
            | Self::Fault { at, .. }
            | Self::PowerFails { at, .. }
            | Self::Full { at, .. }
            | Self::Break { at }
            | Self::Unreadable { at, .. }
            | Self::Compact { at, .. }
            | Self::KeepCopy { at }
            | Self::Lose { at, .. } => vec![*at],
            Self::Cut { a, b } | Self::Mend { a, b } => vec![*a, *b],
            Self::CutOneWay { from, to } => vec![*from, *to],
            Self::Partition { .. } | Self::Heal | Self::Weather(_) | Self::Wait { .. } => Vec::new(),
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self, sites: &[&str], names: &[&str]) -> String {
        let site = |at: &At| sites.get(*at).copied().unwrap_or("?");
        let name = |of: &usize| names.get(*of).copied().unwrap_or("?");
        match self {
            Self::Operate { at, of, op_type, payload, wait_ms, own } => {
                let own = if *own { " with an id of its own" } else { "" };
                format!("{op_type} {payload} on {} at {}{own}, wait {wait_ms} ms", name(of), site(at))
            }
            Self::Again { at } => format!("the last operation with an id of its own again at {}", site(at)),
            Self::Patch { at, of, field, value } => format!("f{field} = {value} on {} at {}", name(of), site(at)),
            Self::Override { at, of, over: Some((there, value)) } => {
                format!("f0 = {value} for {} only, on {} at {}", site(there), name(of), site(at))
            }
            Self::Override { at, of, over: None } => format!("no overrides on {} at {}", name(of), site(at)),
            Self::Pick { at, of, .. } => format!("pick on {} at {}", name(of), site(at)),
            Self::Rescope { at, of, scope } => format!("{} to {:?} at {}", name(of), scope.text, site(at)),
            Self::Repolicy { at, of, policy } => format!("rules {policy} on {} at {}", name(of), site(at)),
            Self::Delete { at, of } => format!("delete {} at {}", name(of), site(at)),
            Self::Recreate { at, of, scope, value } => {
                format!("{} anew, if anybody deleted it, to {:?} at {}, a = {value}", name(of), scope.text, site(at))
            }
            Self::Ask { at, of, question } => format!("{question:?} of {} at {}", name(of), site(at)),
            Self::Partition { groups } => {
                let mut parts = vec![Vec::new(); groups.iter().max().map_or(0, |most| most + 1)];
                for (at, group) in groups.iter().enumerate() {
                    if let Some(part) = parts.get_mut(*group) {
                        part.push(site(&at));
                    }
                }
                format!("partition {parts:?}")
            }
            Self::Cut { a, b } => format!("cut {} {}", site(a), site(b)),
            Self::CutOneWay { from, to } => format!("cut {} -> {}", site(from), site(to)),
            Self::Mend { a, b } => format!("mend {} {}", site(a), site(b)),
            Self::Heal => "heal".to_owned(),
            Self::Weather(weather) => format!("{weather:?}"),
            Self::Crash { at, restart } => format!("crash {}{}", site(at), if *restart { ", start" } else { "" }),
            Self::Start { at } => format!("start {}", site(at)),
            Self::Skew { at, ms } => format!("clock of {} off by {ms} ms", site(at)),
            Self::Speed { at, ppm } => format!("clocks of {} at {ppm} ppm", site(at)),
            Self::Fault { at, fault } => format!("the next driver call at {}: {fault:?}", site(at)),
            Self::PowerFails { at, batches } => format!("power of {} fails at its write number {batches}", site(at)),
            Self::Unreadable { at, unreadable } => {
                format!("the disk of {} {} be read", site(at), if *unreadable { "cannot" } else { "can" })
            }
            Self::Break { at } => format!("the disk of {} fails to write", site(at)),
            Self::Full { at, full: true } => format!("the disk of {} is full", site(at)),
            Self::Full { at, full: false } => format!("the disk of {} has room", site(at)),
            Self::Compact { at, of } => format!("snapshot of {} at {}", name(of), site(at)),
            Self::KeepCopy { at } => format!("a copy of the disk of {}", site(at)),
            Self::Lose { at, loss } => format!("the disk of {}: {loss:?}", site(at)),
            Self::Wait { ms } => format!("wait {ms} ms"),
        }
    }
}
