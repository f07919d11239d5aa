//! What a node counts besides what the network counts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use khufu_engine::Metrics as EngineMetrics;
use khufu_store::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HttpLabels {
    pub(crate) method: String,
    /// The route with its placeholders, so that ids do not become labels.
    pub(crate) route: String,
    pub(crate) status: u16,
}

/// Labels of driver calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DriverLabels {
    pub(crate) kind: String,
    pub(crate) call: &'static str,
    pub(crate) outcome: &'static str,
}

/// Labels of requests that go to another site, or come from one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForwardLabels {
    direction: &'static str,
    outcome: &'static str,
}

/// Labels of requests that a front of an HTTP service answers.
#[cfg(feature = "http")]
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrontLabels {
    front: String,
    status: u16,
}

/// Labels of what is lost on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    peer: String,
}

/// From a tenth of a millisecond to some thirteen seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

/// Clones share their values.
#[derive(Clone)]
pub(crate) struct Metrics {
    snapshot: Arc<Mutex<Snapshot>>,
    http: Family<HttpLabels, Counter>,
    http_seconds: Histogram,
    persist_seconds: Histogram,
    load_seconds: Histogram,
    handle_seconds: Histogram,
    drivers: Family<DriverLabels, Counter>,
    driver_seconds: Family<DriverKind, Histogram, fn() -> Histogram>,
    dropped: Family<Reason, Counter>,
    forwards: Family<ForwardLabels, Counter>,
    #[cfg(feature = "http")]
    fronts: Family<FrontLabels, Counter>,
    rtt: Family<Peer, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriverKind {
    kind: String,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            snapshot: Arc::default(),
            http: Family::default(),
            http_seconds: seconds(),
            persist_seconds: seconds(),
            load_seconds: seconds(),
            handle_seconds: seconds(),
            drivers: Family::default(),
            driver_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            dropped: Family::default(),
            forwards: Family::default(),
            #[cfg(feature = "http")]
            fronts: Family::default(),
            rtt: Family::default(),
        };
        let m = &metrics;
        registry.register_collector(Box::new(Shared(m.snapshot.clone())));
        let node = registry.sub_registry_with_prefix("khufu");
        node.register("http_requests", "Requests served by the API", m.http.clone());
        node.register_with_unit("http_request", "How long requests took", Unit::Seconds, m.http_seconds.clone());
        node.register_with_unit(
            "persist",
            "From handing a batch to the store until it is durable",
            Unit::Seconds,
            m.persist_seconds.clone(),
        );
        node.register_with_unit("load", "Reading a replicant from disk", Unit::Seconds, m.load_seconds.clone());
        node.register_with_unit("handle", "One step of the engine", Unit::Seconds, m.handle_seconds.clone());
        node.register("driver_calls", "Driver calls that ended", m.drivers.clone());
        node.register_with_unit("driver_call", "How long driver calls took", Unit::Seconds, m.driver_seconds.clone());
        node.register("dropped_frames", "Frames given up, by reason", m.dropped.clone());
        node.register("forwards", "HTTP requests to other sites and from them, by outcome", m.forwards.clone());
        #[cfg(feature = "http")]
        node.register("http_front_requests", "Requests that fronts of HTTP services answered", m.fronts.clone());
        node.register("peer_rtt_milliseconds", "The last round-trip time to a peer", m.rtt.clone());
        metrics
    }

    pub(crate) fn http(&self, labels: HttpLabels, took: Duration) {
        // Streams last as long as their readers like, and say nothing of how fast requests are.
        if labels.route != "/v1/events" {
            self.http_seconds.observe(took.as_secs_f64());
        }
        self.http.get_or_create(&labels).inc();
    }

    pub(crate) fn persisted(&self, took: Duration) {
        self.persist_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn loaded(&self, took: Duration) {
        self.load_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn handled(&self, took: Duration) {
        self.handle_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn driver(&self, labels: DriverLabels, took: Duration) {
        self.driver_seconds.get_or_create(&DriverKind { kind: labels.kind.clone() }).observe(took.as_secs_f64());
        self.drivers.get_or_create(&labels).inc();
    }

    /// A request went to another site, or came from one.
    pub(crate) fn forwarded(&self, direction: &'static str, outcome: &'static str) {
        self.forwards.get_or_create(&ForwardLabels { direction, outcome }).inc();
    }

    /// A front of an HTTP service has answered.
    #[cfg(feature = "http")]
    pub(crate) fn front_answered(&self, front: &str, status: u16) {
        self.fronts.get_or_create(&FrontLabels { front: front.to_owned(), status }).inc();
    }

    pub(crate) fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&Reason { reason }).inc();
    }

    /// What the next scrape shows of the engine, the store and the peers.
    pub(crate) fn update(&self, engine: EngineMetrics, store: Option<Stats>, rtt: impl Iterator<Item = (String, f64)>) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Snapshot { engine, store };
        self.rtt.clear();
        for (peer, milliseconds) in rtt {
            self.rtt.get_or_create(&Peer { peer }).set(milliseconds);
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Snapshot {
    engine: EngineMetrics,
    store: Option<Stats>,
}

struct Shared(Arc<Mutex<Snapshot>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Snapshot { engine: e, store } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, help, value) in [
            ("frames_in", "Frames that came from peers", e.frames_in),
            ("frames_out", "Frames that were sent", e.frames_out),
            ("gossip_in", "Gossiped messages that came in", e.gossip_in),
            ("gossip_out", "Messages that were gossiped", e.gossip_out),
            ("refused", "Frames, messages and sessions that broke the rules", e.refused),
            ("ignored", "Frames, reports and requests that came too late, or from whom they do not concern", e.ignored),
            ("changes_local", "Changes made here", e.changes_local),
            ("changes_remote", "Changes taken in from others", e.changes_remote),
            ("changes_rejected", "Changes of others that were refused", e.changes_rejected),
            ("syncs", "Sync sessions begun", e.syncs),
            ("reconciles", "Reconciliations begun", e.reconciles),
            ("operations", "Pieces of work handed to drivers", e.driver_calls),
            ("operations_failed", "Pieces of work that drivers failed", e.driver_failures),
            ("rebuilds", "How often a replica was rebuilt", e.rebuilds),
            ("requests", "Requests of users", e.requests),
            ("compactions", "Snapshots written", e.compactions),
            ("clocks_ahead", "Clock values of others too far ahead to follow", e.clocks_ahead),
            ("epochs", "Epochs of documents that were closed", e.epochs),
            ("epochs_far", "Epochs closed here far beyond where they could first be closed", e.epochs_far),
            ("epochs_changed", "Documents left for another that follows the same epoch", e.epochs_changed),
            ("carried", "Changes carried over into later epochs", e.carried),
            ("joins", "Changes made to bring concurrent ones together", e.joins),
        ] {
            counter(&mut encoder, &format!("khufu_engine_{name}"), help, value)?;
        }
        for (name, help, value) in [
            ("replicants", "Replicants held", e.replicants),
            ("resident_documents", "Documents in memory", e.resident),
            ("unsettled", "Replicants for which this site has something left to do", e.unsettled),
            ("sync_sessions", "Sync sessions open", e.sessions),
            ("unstored_batches", "Batches not stored yet", e.unstored),
            ("connected_nodes", "Nodes connected", e.connected),
            ("waiting_requests", "Users that wait for an answer", e.waiting),
            ("disk_full", "1 while the disk has no space and changes are refused", e.full),
        ] {
            gauge(&mut encoder, &format!("khufu_engine_{name}"), help, value)?;
        }
        if let Some(s) = store {
            counter(&mut encoder, "khufu_store_commits", "Batches acknowledged", s.commits)?;
            counter(&mut encoder, "khufu_store_syncs", "Times the files were forced to the disk", s.syncs)?;
            counter(&mut encoder, "khufu_store_writes", "Puts and deletes acknowledged", s.writes)?;
            gauge(&mut encoder, "khufu_store_bytes", "Size of the store", s.bytes_on_disk)?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
