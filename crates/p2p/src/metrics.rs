//! What is counted besides libp2p's own metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Direction {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

pub(crate) const IN: Direction = Direction { direction: "in" };
pub(crate) const OUT: Direction = Direction { direction: "out" };

/// Counters of the network. Clones share the same values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    frames: Family<Direction, Counter>,
    frame_bytes: Family<Direction, Counter>,
    gossip: Family<Direction, Counter>,
    refusals: Family<Reason, Counter>,
    drops: Family<Reason, Counter>,
    peers: Gauge,
    streams: Family<Direction, Counter>,
    streams_open: Family<Direction, Gauge>,
    stream_bytes: Family<Direction, Counter>,
}

impl Counters {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        let registry = registry.sub_registry_with_prefix("khufu_p2p");
        registry.register("frames", "Frames exchanged with peers", counters.frames.clone());
        registry.register("frame_bytes", "Bytes of the frames exchanged with peers", counters.frame_bytes.clone());
        registry.register("gossip", "Gossip frames published and received", counters.gossip.clone());
        registry.register("refusals", "Connections and peers refused, by reason", counters.refusals.clone());
        registry.register("drops", "Frames and notices dropped, by reason", counters.drops.clone());
        registry.register("peers", "Peers that are up", counters.peers.clone());
        registry.register("streams", "Plain streams opened, by who opened them", counters.streams.clone());
        registry.register("streams_open", "Plain streams that are open", counters.streams_open.clone());
        registry.register(
            "stream_bytes",
            "Bytes over plain streams, by where they went",
            counters.stream_bytes.clone(),
        );
        counters
    }

    pub(crate) fn frame_in(&self, bytes: usize) {
        self.frames.get_or_create(&IN).inc();
        self.frame_bytes.get_or_create(&IN).inc_by(bytes as u64);
    }

    pub(crate) fn frame_out(&self, bytes: usize) {
        self.frames.get_or_create(&OUT).inc();
        self.frame_bytes.get_or_create(&OUT).inc_by(bytes as u64);
    }

    pub(crate) fn gossip_in(&self) {
        self.gossip.get_or_create(&IN).inc();
    }

    pub(crate) fn gossip_out(&self) {
        self.gossip.get_or_create(&OUT).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn dropped(&self, reason: &'static str) {
        self.drops.get_or_create(&Reason { reason }).inc();
    }

    /// A plain stream begins to be opened, or to be taken in.
    pub(crate) fn stream_begins(&self, direction: &Direction) {
        self.streams_open.get_or_create(direction).inc();
    }

    pub(crate) fn stream_opened(&self, direction: &Direction) {
        self.streams.get_or_create(direction).inc();
    }

    pub(crate) fn stream_ended(&self, direction: &Direction) {
        self.streams_open.get_or_create(direction).dec();
    }

    /// Counts the bytes over plain streams in a direction. Looked up once for each stream, since it is asked for each read.
    pub(crate) fn stream_bytes(&self, direction: &Direction) -> Counter {
        self.stream_bytes.get_or_create_owned(direction)
    }

    pub(crate) fn peers(&self, number: usize) {
        self.peers.set(i64::try_from(number).unwrap_or(i64::MAX));
    }
}
