//! What the engine wants done.

use khufu_crdt::{Operation, ReplicantId, SiteName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CallId, NodeId, RequestError, RequestId, Response, Token, Write};

/// Something to do, in the order given.
///
/// What must be on disk first is held back inside the engine until [`crate::Input::Stored`] says so: whoever runs the
/// engine may do at once whatever it is handed. Of what one step hands out, what is for the disk comes first,
/// then answers, then what is for the network, then drivers and events.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "outputs are handed on at once, a few at a time")]
pub enum Output {
    /// Store a batch, whole or not at all, and answer [`crate::Input::Stored`]. Batches are stored in order.
    Persist {
        /// Names the batch.
        token: Token,
        /// What to write.
        writes: Vec<Write>,
        /// Whether anything but events was to be done after it. Other batches may be stored a few milliseconds later, in
        /// one go with those that follow.
        urgent: bool,
    },
    /// Read all records of a replicant that start with a prefix and answer [`crate::Input::Loaded`] or
    /// [`crate::Input::Unread`].
    Load {
        /// The replicant.
        replicant: ReplicantId,
        /// What the keys of its records start with.
        prefix: Vec<u8>,
    },
    /// Send a frame to a peer, after all earlier ones. It may be lost with the connection.
    Send {
        /// The peer.
        to: NodeId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Gossip a message to all who subscribe to the topic. It may be lost.
    Publish {
        /// The topic.
        topic: String,
        /// The message.
        frame: Vec<u8>,
    },
    /// Be told what is gossiped on a topic.
    Subscribe {
        /// The topic.
        topic: String,
    },
    /// No longer be told.
    Unsubscribe {
        /// The topic.
        topic: String,
    },
    /// Hand in [`crate::Input::Timer`] at this moment; replaces the moment asked for before.
    SetTimer {
        /// In microseconds of the monotonic clock.
        at_us: u64,
    },
    /// Have a driver do something and answer [`crate::Input::Driver`], within the time that the runner allows a driver.
    CallDriver {
        /// Names the call.
        call: CallId,
        /// Which driver.
        kind: String,
        /// The replica to work on.
        replica: ReplicaRef,
        /// What to do.
        work: DriverCall,
    },
    /// Answer a user.
    Answer {
        /// The request.
        request: RequestId,
        /// What to say.
        answer: Result<Response, RequestError>,
    },
    /// Something that people may want to follow.
    Event(Event),
    /// Close the connection to a peer that broke the rules.
    Disconnect {
        /// The peer.
        node: NodeId,
        /// Which rule.
        reason: String,
    },
    /// The disk failed: stop this process. What was acknowledged is safe; nothing more can be.
    Stop {
        /// Why.
        reason: String,
    },
}

/// The replica that a driver works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRef {
    /// The replicant.
    pub id: ReplicantId,
    /// The site whose replica it is: this one.
    pub site: SiteName,
    /// What the platform called it last.
    pub local_id: Option<String>,
    /// SHA-256 in hexadecimal of the contents that were last applied.
    pub expected: Option<String>,
    /// What the policy tells the driver.
    pub options: serde_json::Map<String, Value>,
    /// Where it is to be looked at, or an operation is to be run on it: the desired state that was last written, if nothing
    /// else is wanted since.
    pub written: Option<Value>,
}

/// What a driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum DriverCall {
    /// Make the replica match a desired state. It replaces whatever operations did.
    Desired(Value),
    /// Carry out an operation.
    Operation(Operation),
    /// Take an operation back.
    Undo(Operation),
    /// Make the replica as new.
    Reset,
    /// Remove the replica.
    Delete,
    /// Look at the replica.
    Observe,
    /// Say what this work would change, and change nothing. The output is the difference.
    Diff(Vec<DiffWork>),
}

/// A part of what a dry run goes through.
#[derive(Debug, Clone, PartialEq)]
pub enum DiffWork {
    /// Make the replica as new.
    Reset,
    /// The desired state.
    Desired(Value),
    /// An operation.
    Operation(Operation),
}

/// Something that people may want to follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// When, in milliseconds since 1970 by this node's clock.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// The kinds of [`Event`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A replicant's document changed.
    Changed {
        /// The replicant.
        replicant: ReplicantId,
        /// Whether the change was made here.
        local: bool,
        /// The heads it has now.
        heads: Vec<String>,
    },
    /// A site reported.
    Reported {
        /// The replicant.
        replicant: ReplicantId,
        /// The site.
        site: SiteName,
        /// Its status there.
        status: khufu_crdt::Status,
        /// The number of the report.
        seq: u64,
    },
    /// Two sites set the same thing while apart.
    Conflicted {
        /// The replicant.
        replicant: ReplicantId,
        /// How many fields have several values now.
        fields: usize,
    },
    /// A replicant was deleted.
    Deleted {
        /// The replicant.
        replicant: ReplicantId,
    },
    /// Where a replicant lives was decided.
    Placed {
        /// The replicant.
        replicant: ReplicantId,
        /// The sites.
        sites: Vec<SiteName>,
    },
    /// A site is thought alive, suspect or down.
    Site {
        /// The site.
        site: SiteName,
        /// The state.
        state: crate::Liveness,
    },
    /// Something that an operator should look at.
    Warning {
        /// The replicant it is about, if about one.
        #[serde(default)]
        replicant: Option<ReplicantId>,
        /// What, and what to do.
        message: String,
    },
}

impl Happening {
    /// What it is called where it is written: the value of its field `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Reported { .. } => "reported",
            Self::Conflicted { .. } => "conflicted",
            Self::Deleted { .. } => "deleted",
            Self::Placed { .. } => "placed",
            Self::Site { .. } => "site",
            Self::Warning { .. } => "warning",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_called_what_is_written() {
        let (replicant, site) = (ReplicantId::new("web").unwrap(), SiteName::new("paris").unwrap());
        let of = || replicant.clone();
        let all = [
            Happening::Changed { replicant: of(), local: true, heads: Vec::new() },
            Happening::Reported { replicant: of(), site: site.clone(), status: khufu_crdt::Status::Applied, seq: 1 },
            Happening::Conflicted { replicant: of(), fields: 1 },
            Happening::Deleted { replicant: of() },
            Happening::Placed { replicant: of(), sites: Vec::new() },
            Happening::Site { site, state: crate::Liveness::Alive },
            Happening::Warning { replicant: None, message: String::new() },
        ];
        for what in all {
            let written = serde_json::to_value(Event { at: 1, what: what.clone() }).unwrap();
            assert_eq!(written["event"], what.name());
        }
    }
}
