//! What a network is told when it starts, and the limits it keeps.

use std::time::Duration;

use crate::identity::Identity;
use crate::psk::Psk;

/// Topics a node may be subscribed to at once. Gossipsub ignores a peer's subscriptions beyond 100 without a word, so
/// the limit stays well below.
pub const MAX_TOPICS: usize = 64;

/// Bytes of a topic's name.
pub const MAX_TOPIC_BYTES: usize = 128;

/// What [`Limits::max_streams_per_peer`] may be at most: the connection has room for so many from both sides.
pub(crate) const MOST_STREAMS_PER_PEER: usize = 48;

/// Everything [`Network::start`](crate::Network::start) needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this node is.
    pub identity: Identity,
    /// The key of the private network. Without one, anybody who can reach the port can connect.
    pub psk: Option<Psk>,
    /// Where to listen: `/ip4/<address>/tcp/<port>` or `/ip6/...`. Port 0 takes a free one, and
    /// [`Event::Listening`](crate::Event::Listening) tells which. May be empty: the node then only dials.
    pub listen: Vec<String>,
    /// Addresses to announce besides those listened on, for a node behind address translation.
    pub announce: Vec<String>,
    /// Where to begin, with or without `/p2p/<peer id>`. Dialled at start and again for ever while not connected.
    pub bootstrap: Vec<String>,
    /// Peers met earlier, with `/p2p/<peer id>`, as [`Event::Discovered`](crate::Event::Discovered) and
    /// [`PeerInfo::addresses`](crate::PeerInfo::addresses) gave them. Dialled like bootstrap addresses.
    pub known: Vec<String>,
    /// Find peers on the local network by multicast. Has no effect when all listen addresses are loopback.
    pub mdns: bool,
    /// Find peers by asking those already connected.
    pub kademlia: bool,
    /// Listen beyond loopback although there is no pre-shared key.
    pub open_network: bool,
    /// Bounds on sizes and numbers.
    pub limits: Limits,
    /// How long and how often.
    pub timing: Timing,
}

impl Config {
    /// Production settings, listening nowhere yet, with Kademlia and without mDNS.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            psk: None,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            known: Vec::new(),
            mdns: false,
            kademlia: true,
            open_network: false,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }

    /// For tests: loopback on a free port, with the timing of [`Timing::fast`].
    pub fn fast(identity: Identity) -> Self {
        Self { listen: vec!["/ip4/127.0.0.1/tcp/0".into()], timing: Timing::fast(), ..Self::new(identity) }
    }
}

/// Bounds. A peer that goes beyond one is refused and counted; a local caller gets a typed error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one frame, at most 4 GiB - 1. A peer that sends more is disconnected.
    pub max_frame_bytes: usize,
    /// Bytes of one gossip frame.
    pub max_gossip_bytes: usize,
    /// Peers this node looks for by itself. Others may still connect to it, up to a quarter more.
    pub max_peers: usize,
    /// Frames waiting to be sent to one peer.
    pub send_queue_frames: usize,
    /// Bytes waiting to be sent to one peer; one frame is always taken by an empty queue.
    pub send_queue_bytes: usize,
    /// Events waiting for the user. Beyond it reading from peers stops, so they feel it.
    pub event_queue: usize,
    /// Bytes of frames among those events. The next one waits until the user has taken the others.
    pub event_queue_bytes: usize,
    /// Gossip and notices waiting behind the event queue. Beyond it gossip and notices are dropped and counted; peers
    /// coming and going are never dropped.
    pub notice_queue: usize,
    /// Requests waiting for the network task (gossip to publish, addresses to dial).
    pub command_queue: usize,
    /// Connections that are still shaking hands, in each direction.
    pub max_pending_connections: u32,
    /// Addresses kept of one peer.
    pub max_addresses_per_peer: usize,
    /// Plain streams with one peer at once, in each direction.
    pub max_streams_per_peer: usize,
    /// Plain streams with all peers at once, in each direction.
    pub max_streams: usize,
    /// Plain streams that one peer may open at once which is not among
    /// [`Network::set_members`](crate::Network::set_members).
    pub max_streams_per_stranger: usize,
    /// Plain streams that all such peers together may. They are part of [`max_streams`](Self::max_streams), so that what
    /// is left is for members.
    pub max_streams_of_strangers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 8 << 20,
            max_gossip_bytes: 64 << 10,
            max_peers: 64,
            send_queue_frames: 1024,
            send_queue_bytes: 32 << 20,
            event_queue: 256,
            event_queue_bytes: 64 << 20,
            notice_queue: 1024,
            command_queue: 1024,
            max_pending_connections: 64,
            max_addresses_per_peer: 8,
            max_streams_per_peer: 32,
            max_streams: 256,
            max_streams_per_stranger: 4,
            max_streams_of_strangers: 16,
        }
    }
}

/// Times. All are lower bounds by the nature of timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// For a TCP connection to come up.
    pub connect_timeout: Duration,
    /// For the handshake after it (private network, Noise, Yamux). A wrong pre-shared key mostly shows as this
    /// time-out.
    pub handshake_timeout: Duration,
    /// For a stream to be opened and acknowledged.
    pub stream_timeout: Duration,
    /// For a peer to take more of the frame that is being sent. One that takes nothing for longer is disconnected.
    pub write_timeout: Duration,
    /// For more of a frame to arrive once its first byte has. Between frames silence may last.
    pub read_timeout: Duration,
    /// After which a plain stream over which nothing has come or gone is given up.
    pub stream_idle_timeout: Duration,
    /// Before a connection on which nothing is open is closed.
    pub idle_timeout: Duration,
    /// Between two pings of one connection; each gives a round-trip time.
    pub ping_interval: Duration,
    /// For the answer to a ping. A connection over which none has come for `ping_interval` and this time together is
    /// closed: this is what notices a cut network.
    pub ping_timeout: Duration,
    /// First pause before dialling again. It doubles with each failure up to `redial_max`, and each pause is varied by
    /// up to a quarter so that sites do not dial in step.
    pub redial_min: Duration,
    /// Longest pause before dialling again.
    pub redial_max: Duration,
    /// Between two walks through Kademlia in search of peers.
    pub walk_interval: Duration,
    /// Between two rounds of gossip upkeep.
    pub gossip_heartbeat: Duration,
    /// Before the first of them.
    pub gossip_heartbeat_delay: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            stream_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            stream_idle_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(30),
            walk_interval: Duration::from_secs(300),
            gossip_heartbeat: Duration::from_secs(1),
            gossip_heartbeat_delay: Duration::from_millis(100),
        }
    }
}

impl Timing {
    /// For tests on loopback: the same rules, in fractions of a second.
    pub fn fast() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(1),
            stream_timeout: Duration::from_secs(5),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_millis(500),
            ping_interval: Duration::from_secs(5),
            walk_interval: Duration::from_millis(500),
            gossip_heartbeat: Duration::from_millis(100),
            gossip_heartbeat_delay: Duration::from_millis(10),
            ..Self::default()
        }
    }
}
