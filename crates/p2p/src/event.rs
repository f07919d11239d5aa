//! What a network tells its user.

use std::time::SystemTime;

/// Something that happened. Peers and addresses are in their text forms.
///
/// For one peer the order is `PeerUp`, any number of `Frame`, `PeerDown`, and so on. Between a `PeerUp` and its
/// `PeerDown` the frames of that peer arrive whole, in the order they were sent and without gaps; whatever breaks that
/// shows as a `PeerDown`, after which anything sent and not answered may be lost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The node can be reached at this address (`/ip4/.../tcp/<port>`, without peer id). An address that stands for all
    /// interfaces shows as one event for each.
    Listening {
        /// The address.
        address: String,
    },
    /// The node can no longer be reached at this address.
    ListeningEnded {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// Frames can be exchanged with this peer from now on.
    PeerUp {
        /// Who.
        peer: String,
        /// The other end of the connection.
        address: String,
    },
    /// Frames can no longer be exchanged with this peer. It is dialled again if it is known where.
    PeerDown {
        /// Who.
        peer: String,
        /// Why.
        reason: DownReason,
    },
    /// A frame from a peer that is up.
    Frame {
        /// Who sent it; the connection proves it.
        from: String,
        /// Its content, at least one byte.
        frame: Vec<u8>,
    },
    /// A frame published on a topic this node is subscribed to. May come late, out of order, or not at all.
    Gossip {
        /// The topic.
        topic: String,
        /// The peer that handed it to this node, which is seldom its author. That peer need not be up.
        source: String,
        /// Its content.
        frame: Vec<u8>,
    },
    /// A connection was refused, by this node or by the other.
    Refused {
        /// Who, where that is known.
        peer: Option<String>,
        /// The address, where that is known.
        address: Option<String>,
        /// Why.
        reason: Refusal,
    },
    /// A peer is said to be at these addresses, and that is news. Worth keeping for
    /// [`Config::known`](crate::Config::known) only when the peer itself said it (`source` is [`Discovery::Identify`]).
    Discovered {
        /// Who.
        peer: String,
        /// Full addresses, with `/p2p/<peer id>`.
        addresses: Vec<String>,
        /// How it was found.
        source: Discovery,
    },
}

/// How a peer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discovery {
    /// The peer, being connected, said so itself.
    Identify,
    /// Another peer said so.
    Kademlia,
    /// By multicast on the local network.
    Mdns,
}

/// Why a peer is no longer up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// The connection ended.
    #[error("the connection ended: {detail}")]
    Closed {
        /// What the system said.
        detail: String,
    },
    /// A ping was not answered in time.
    #[error("no answer to a ping in time")]
    Timeout,
    /// The frame stream broke, so that frames may be missing.
    #[error("the frame stream broke: {detail}")]
    Stream {
        /// What the system said.
        detail: String,
    },
    /// The peer came back over another connection.
    #[error("the peer came back over a new connection")]
    Replaced,
    /// This node was told to drop the peer.
    #[error("disconnected by this node")]
    Disconnected,
    /// This node was told to block the peer.
    #[error("blocked by this node")]
    Blocked,
    /// The peer broke a rule; an [`Event::Refused`] says which.
    #[error("the peer broke a rule")]
    Refused,
}

/// Why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The connection came up, but no handshake: with a private network this is what another key looks like.
    #[error("no handshake ({detail}): {}", hint(fingerprint.as_deref()))]
    Handshake {
        /// The fingerprint of this node's pre-shared key, if it has one.
        fingerprint: Option<String>,
        /// What the library said.
        detail: String,
    },
    /// Another peer than expected is at that address.
    #[error("another peer is there: {found}")]
    OtherPeer {
        /// Who it is.
        found: String,
    },
    /// The peer is blocked.
    #[error("the peer is blocked at this node")]
    Blocked,
    /// There are too many connections.
    #[error("too many connections: {detail}")]
    TooMany {
        /// Which limit.
        detail: String,
    },
    /// A frame is larger than this node takes.
    #[error("a frame of {bytes} bytes, the limit is {limit}")]
    Oversized {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A frame without content, or a stream that ended or stood still within a frame.
    #[error("malformed frame: {detail}")]
    Malformed {
        /// In which way.
        detail: String,
    },
    /// The peer speaks libp2p, but not this network's protocol.
    #[error("the peer does not speak {protocol}")]
    Protocol {
        /// The protocol it lacks.
        protocol: String,
    },
    /// The peer opens one frame stream after the other.
    #[error("the peer opened more than {limit} frame streams on one connection")]
    Streams {
        /// The limit.
        limit: u32,
    },
    /// This node was about to connect to itself.
    #[error("that address is this node itself")]
    Itself,
}

fn hint(fingerprint: Option<&str>) -> String {
    match fingerprint {
        Some(fingerprint) => {
            format!(
                "does the other side have the same PSK? Ours has the fingerprint {fingerprint}; compare with theirs"
            )
        }
        None => "this node has no PSK; does the other side have one?".into(),
    }
}

impl Refusal {
    /// A short name for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Handshake { .. } => "handshake",
            Self::OtherPeer { .. } => "other-peer",
            Self::Blocked => "blocked",
            Self::TooMany { .. } => "too-many",
            Self::Oversized { .. } => "oversized",
            Self::Malformed { .. } => "malformed",
            Self::Protocol { .. } => "protocol",
            Self::Streams { .. } => "streams",
            Self::Itself => "itself",
        }
    }
}

/// A peer that is up, as it is now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer id.
    pub id: String,
    /// Where it says it can be reached, with `/p2p/<peer id>`; until it has said so, the other end of the connection if
    /// this node dialled it.
    pub addresses: Vec<String>,
    /// The other end of the connection.
    pub remote: String,
    /// Since when it is up.
    pub connected_since: SystemTime,
    /// Whether this node dialled it.
    pub outbound: bool,
    /// The last measured round-trip time, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What it calls itself, like `khufu/0.1.0`; at most 64 characters.
    pub agent: Option<String>,
    /// Frames received since it is up.
    pub frames_in: u64,
    /// Bytes of these frames.
    pub bytes_in: u64,
    /// Frames handed to the connection since it is up.
    pub frames_out: u64,
    /// Bytes of these frames.
    pub bytes_out: u64,
    /// Frames waiting to be sent.
    pub queued_frames: usize,
}
