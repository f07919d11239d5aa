//! What the engine is told.

use std::fmt;

use khufu_crdt::ReplicantId;
use serde::{Deserialize, Serialize};

use crate::{Damaged, Record, Request};

/// A node's name on the network: its libp2p peer id as text. The engine only compares it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct NodeId(pub String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers the requests of users of this node; given by whoever runs the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Numbers the batches that the engine wants stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Numbers the calls of drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Something that happened, for the engine to act on.
#[derive(Debug)]
pub enum Input {
    /// A user asks for something.
    Request {
        /// Comes back with the answer.
        id: RequestId,
        /// Who asks, for the audit log: a user name, a token's name.
        who: String,
        /// What is asked.
        request: Request,
    },
    /// Nobody waits for the answer to a request any more. It is done all the same; only its answer is not kept back.
    Abandoned {
        /// The request.
        id: RequestId,
    },
    /// A whole frame came from a peer, in the order it was sent there.
    Frame {
        /// The peer, authenticated by the transport.
        from: NodeId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// A message was gossiped on a topic.
    Gossip {
        /// The peer that handed it on; not necessarily its author.
        source: NodeId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Frames can be sent to this peer from now on.
    PeerUp {
        /// The peer.
        node: NodeId,
    },
    /// Frames can no longer be sent to this peer.
    PeerDown {
        /// The peer.
        node: NodeId,
    },
    /// The moment of the last [`crate::Output::SetTimer`] has come.
    Timer,
    /// A batch is on disk and will survive a crash. Batches are stored in the order of their tokens.
    Stored {
        /// The batch.
        token: Token,
    },
    /// A batch could not be stored. Nothing after it will be.
    StoreFailed {
        /// The batch.
        token: Token,
        /// Why.
        error: String,
    },
    /// There is no space on the disk. No batch that was handed out and not answered is stored, nor will be, and no
    /// other is handed out before [`Input::StoreRoom`].
    StoreFull {
        /// How the disk says so.
        error: String,
        /// What is stored, as for [`crate::Engine::new`].
        restore: Vec<Record>,
    },
    /// There is space again.
    StoreRoom {
        /// What is stored, as for [`crate::Engine::new`].
        restore: Vec<Record>,
    },
    /// The records of a replicant, answering [`crate::Output::Load`].
    Loaded {
        /// The replicant.
        replicant: ReplicantId,
        /// The prefix that was asked for.
        prefix: Vec<u8>,
        /// Its records, sorted by key.
        records: Vec<Record>,
        /// Records that are damaged and will not come back.
        damaged: Vec<Damaged>,
    },
    /// The records of a replicant could not be read this time, answering [`crate::Output::Load`]. They may be whole: it is
    /// tried again, and nothing is put in their place.
    Unread {
        /// The replicant.
        replicant: ReplicantId,
        /// What the keys of the records start with.
        prefix: Vec<u8>,
        /// What the disk said.
        error: String,
    },
    /// A driver is done with a call.
    Driver {
        /// The call.
        call: CallId,
        /// What came of it.
        result: Result<DriverDone, DriverFailure>,
    },
    /// A driver believes that somebody changed a replica by hand.
    Drifted {
        /// The replicant.
        replicant: ReplicantId,
    },
    /// The platform that a driver works on cannot be reached, or can be again: until then nobody knows how its replicas are
    /// doing.
    Platform {
        /// The kind of the driver.
        kind: String,
        /// Since when it cannot, in milliseconds since 1970; none if it can.
        away_since: Option<u64>,
    },
    /// The addresses under which this node can be reached have changed.
    Addresses {
        /// Multiaddresses without the peer id.
        addresses: Vec<String>,
    },
}

/// What a driver says when it has done as told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DriverDone {
    /// What the platform said.
    pub output: String,
    /// What the platform calls the replica, if that is known now.
    pub local_id: Option<String>,
    /// SHA-256 of the replica's contents in hexadecimal; none if there is no replica or nobody looked.
    pub digest: Option<String>,
    /// How the platform differs from what was last applied; only from [`crate::DriverCall::Observe`].
    pub drift: Option<String>,
    /// The last operation that the platform is known to hold; only from [`crate::DriverCall::Observe`].
    pub marker: Option<String>,
    /// An operation that was begun, and of which nobody can say any more how far it came; only from
    /// [`crate::DriverCall::Observe`].
    pub unsettled: Option<String>,
    /// How the replica is doing, where its platform says.
    pub health: Option<khufu_crdt::Health>,
}

/// What a driver says when it could not do as told. The replica is then as it was, unless that is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverFailure {
    /// Why, and what to do about it.
    pub message: String,
    /// Trying again cannot help.
    pub permanent: bool,
    /// The platform asked to be left alone for so long, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The driver gave no answer, so it may have done as told or not. The engine finds out before it goes on.
    pub unknown: bool,
    /// What an operation was to change is not there any more: what was made by all before it is made anew first.
    #[serde(default)]
    pub lost: bool,
}
