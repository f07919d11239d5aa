//! The libp2p protocols this network is made of.

use std::collections::HashSet;

use libp2p::gossipsub::{self, AllowAllSubscriptionFilter, IdentityTransform, MaxCountSubscriptionFilter};
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::metrics::Registry;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Multiaddr, StreamProtocol, allow_block_list, connection_limits, identify, kad, mdns, ping};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::config::{Config, MAX_TOPICS};
use crate::error::StartError;
use crate::streams::{self, Opening};
use crate::{frames, substream};

pub(crate) const KADEMLIA: StreamProtocol = StreamProtocol::new("/khufu/kad/1");
const IDENTIFY: &str = "/khufu/1";
/// What this node calls itself.
const AGENT: &str = concat!("khufu/", env!("CARGO_PKG_VERSION"));
/// Bytes around a gossip frame: the topic, field tags, and room for the control messages that share a transmission.
const GOSSIP_OVERHEAD_BYTES: usize = 4096;
/// Connections between the same two peers: two when they dial each other at once, and one that is just being closed.
const CONNECTIONS_PER_PEER: u32 = 3;

pub(crate) type Gossip =
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First, so that nothing else spends anything on a connection that is not wanted.
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) blocks: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(crate) frames: substream::Behaviour<()>,
    pub(crate) streams: substream::Behaviour<Opening>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) gossip: Gossip,
    pub(crate) kademlia: Toggle<kad::Behaviour<MemoryStore>>,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(crate) fn new(config: &Config, listen: &[Address], registry: &mut Registry) -> Result<Self, StartError> {
        let timing = &config.timing;
        let peer = config.identity.id();
        Ok(Self {
            limits: connection_limits::Behaviour::new(connection_limits(config)),
            blocks: allow_block_list::Behaviour::default(),
            frames: substream::Behaviour::new(frames::PROTOCOL, timing.stream_timeout),
            streams: substream::Behaviour::new(streams::PROTOCOL, timing.stream_timeout),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(timing.ping_interval).with_timeout(timing.ping_timeout),
            ),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY.into(), config.identity.keypair().public())
                    .with_agent_version(AGENT.into())
                    .with_push_listen_addr_updates(true)
                    .with_cache_size(config.limits.max_peers),
            ),
            gossip: gossip(config, registry)?,
            kademlia: config.kademlia.then(|| kademlia(config)).into(),
            mdns: if config.mdns && listen.iter().any(|address| !address.is_loopback()) {
                let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
                    .map_err(|error| StartError::Setup { part: "mDNS", reason: error.to_string() })?;
                Some(behaviour).into()
            } else {
                None.into()
            },
        })
    }
}

fn connection_limits(config: &Config) -> connection_limits::ConnectionLimits {
    let peers = u32::try_from(config.limits.max_peers).unwrap_or(u32::MAX);
    let pending = config.limits.max_pending_connections;
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(pending))
        .with_max_pending_outgoing(Some(pending))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
        // Room for those who find us while we have found enough, and for two connections to one peer.
        .with_max_established(Some(peers.saturating_add(peers / 4).saturating_add(4)))
}

fn gossip(config: &Config, registry: &mut Registry) -> Result<Gossip, StartError> {
    let setup = |reason: String| StartError::Setup { part: "gossip", reason };
    let timing = &config.timing;
    let settings = gossipsub::ConfigBuilder::default()
        .heartbeat_interval(timing.gossip_heartbeat)
        .heartbeat_initial_delay(timing.gossip_heartbeat_delay)
        // Frames are signed by those who write them; the library would check a signature for each duplicate as well.
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .message_id_fn(message_id)
        .mesh_n(3)
        .mesh_n_low(2)
        .mesh_n_high(6)
        .mesh_outbound_min(1)
        .gossip_lazy(3)
        .flood_publish(false)
        .max_transmit_size(config.limits.max_gossip_bytes + GOSSIP_OVERHEAD_BYTES)
        // The library's 5000 messages may be 300 MB for each peer that does not read.
        .connection_handler_queue_len(512)
        .build()
        .map_err(|error| setup(error.to_string()))?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: 2 * MAX_TOPICS,
        max_subscriptions_per_request: 2 * MAX_TOPICS,
    };
    let gossip = Gossip::new_with_subscription_filter(gossipsub::MessageAuthenticity::Anonymous, settings, filter)
        .map_err(|error| setup(error.to_owned()))?;
    Ok(gossip.with_metrics(registry.sub_registry_with_prefix("gossipsub"), gossipsub::MetricsConfig::default()))
}

/// The same bytes on the same topic are the same message, whoever publishes them.
fn message_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let mut hash = Sha256::new();
    let topic = message.topic.as_str();
    hash.update((topic.len() as u64).to_be_bytes());
    hash.update(topic.as_bytes());
    hash.update(&message.data);
    gossipsub::MessageId::new(&hash.finalize()[..20])
}

fn kademlia(config: &Config) -> kad::Behaviour<MemoryStore> {
    let mut settings = kad::Config::new(KADEMLIA);
    settings
        // Walks are begun by the network task, which also hears what they find.
        .set_periodic_bootstrap_interval(None)
        .set_query_timeout(config.timing.stream_timeout)
        // Nothing is stored in this table; what others want stored is not.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None);
    let store =
        MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 0, max_provided_keys: 0 };
    let peer = config.identity.id();
    let mut kademlia = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, store), settings);
    // Otherwise it answers nobody until an address has been confirmed from outside, which never happens here.
    kademlia.set_mode(Some(kad::Mode::Server));
    kademlia
}

/// The addresses of all peers that a walk has found, each peer once.
pub(crate) fn found(result: kad::QueryResult) -> Vec<kad::PeerInfo> {
    let peers = match result {
        kad::QueryResult::GetClosestPeers(Ok(found)) => found.peers,
        kad::QueryResult::GetClosestPeers(Err(kad::GetClosestPeersError::Timeout { peers, .. })) => peers,
        _ => Vec::new(),
    };
    let mut seen = HashSet::new();
    peers.into_iter().filter(|peer| seen.insert(peer.peer_id)).collect()
}

/// Text forms with the peer id.
pub(crate) fn with_peer(addresses: &[Multiaddr], peer: libp2p::PeerId) -> Vec<String> {
    addresses.iter().map(|address| format!("{address}/p2p/{peer}")).collect()
}
