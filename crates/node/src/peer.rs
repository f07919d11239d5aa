//! A peer as the API shows it.

use std::time::UNIX_EPOCH;

use khufu_engine::NodeId;
use khufu_p2p::PeerInfo;
use serde::{Deserialize, Serialize};

/// A node that this one has a connection with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PeerView {
    /// The node.
    pub node: NodeId,
    /// Where it says that it can be reached, with its peer id.
    pub addresses: Vec<String>,
    /// The other end of the connection.
    pub remote: String,
    /// Since when, in milliseconds since 1970.
    pub connected_since: u64,
    /// Whether this node dialled it.
    pub outbound: bool,
    /// The last measured round-trip time, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What its software calls itself.
    pub agent: Option<String>,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes of these frames.
    pub bytes_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes of these frames.
    pub bytes_out: u64,
    /// Frames waiting to be sent.
    pub queued_frames: usize,
}

impl From<PeerInfo> for PeerView {
    fn from(peer: PeerInfo) -> Self {
        let since = peer.connected_since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            node: NodeId(peer.id),
            addresses: peer.addresses,
            remote: peer.remote,
            connected_since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            outbound: peer.outbound,
            rtt_ms: peer.rtt_ms,
            agent: peer.agent,
            frames_in: peer.frames_in,
            bytes_in: peer.bytes_in,
            frames_out: peer.frames_out,
            bytes_out: peer.bytes_out,
            queued_frames: peer.queued_frames,
        }
    }
}
