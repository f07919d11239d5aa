//! What a node is told about itself, and how patient it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use khufu_crdt::{Capabilities, EpochRule, Limits, SiteName};

use crate::NodeId;

/// The settings of one engine. [`Config::new`] suits sites that are some tens of milliseconds apart.
#[derive(Debug, Clone)]
pub struct Config {
    /// The site that this node serves.
    pub site: SiteName,
    /// This node.
    pub node: NodeId,
    /// Labels of the site, which scopes can speak of.
    pub labels: BTreeMap<String, String>,
    /// The kinds of replicants that this node can drive, and how well.
    pub kinds: BTreeMap<String, Capabilities>,
    /// Kinds whose driver will say whether its platform can be reached and has not yet: until it does, nobody knows how the
    /// replicas are.
    pub unsure: BTreeSet<String>,
    /// The version of the software, told to others.
    pub version: String,
    /// The storage was recovered from damage: any record may be missing, or older than what was written there last.
    /// Then [`Engine::new`](crate::Engine::new) also wants what starts with
    /// [`RECOVERY_PREFIX`](crate::Engine::RECOVERY_PREFIX), and replicas are made anew rather than gone on with.
    pub doubtful: bool,
    /// Limits of documents.
    pub limits: Limits,
    /// Pause between two heartbeats to a connected node that is sent nothing else. One costs some 100 bytes, and as much
    /// again for the connection.
    pub heartbeat: Duration,
    /// How often it is looked who is due a heartbeat and who is silent. Whoever has missed one is asked as often as that
    /// for a sign of life, and it is by about this that a heartbeat may be late without being missed.
    pub look: Duration,
    /// Pause between two reconciliations with a connected node; what gossip missed is late by at most about this.
    pub reconcile: Duration,
    /// How long a document must have been quiet before it is reconciled: what changed just now is still on its way.
    pub quiet: Duration,
    /// Changes of one document that arrive within this time are applied together.
    pub batch: Duration,
    /// How long a site keeps to itself that it has begun with something: most often the end of it follows at once, and
    /// is all that has to be said. Until then others see that its last report is about older heads.
    pub report_begun: Duration,
    /// How long reports on desired states gather, to be sent in one frame.
    pub gather: Duration,
    /// The same for reports on operations, which somebody may wait for.
    pub gather_operations: Duration,
    /// Up to so many nodes are told of a change one by one, if all other holders can be reached. Beyond, or to reach
    /// the others, changes are gossiped, which costs each receiver about two copies and a signature.
    pub direct: usize,
    /// The same for reports, which every site of a replica set makes: one by one they are sent gathered, and only what is
    /// new in them.
    pub direct_reports: usize,
    /// A sync session without a word for so long is given up; reconciliation starts another.
    pub session_timeout: Duration,
    /// How long another site is waited for when it must answer a user's request.
    pub ask_timeout: Duration,
    /// How long other nodes are waited for when a replicant that is not held here is looked for. One that is silent and
    /// not known to be down yet holds up the making of new replicants for so long.
    pub search_timeout: Duration,
    /// A site must have been down, or back, for so long before placements are decided anew.
    pub settle: Duration,
    /// The suspicion level (phi) from which a node is suspect.
    pub phi_suspect: f64,
    /// The suspicion level (phi) from which a node is down: 8 is one mistake in 10^8 heartbeats, if they are regular.
    pub phi_down: f64,
    /// How far ahead another site's clock is followed, in milliseconds.
    pub clock_bound_ms: u64,
    /// Changes larger than this together are only announced by gossip, and fetched. In bytes.
    pub gossip_bytes: usize,
    /// The most gossip topics: one for each replica set, beyond which changes are pushed to each site.
    pub topics: usize,
    /// The most documents in memory that nothing is done with right now. For a moment there may be some more.
    pub resident: usize,
    /// The most sync sessions with one node at a time.
    pub sessions: usize,
    /// The most driver calls at a time; there is always a place for each kind that this node drives.
    pub calls: usize,
    /// The most user requests that wait for something.
    pub requests: usize,
    /// The most operations that a report speaks of.
    pub reported: usize,
    /// Raw changes stored beside a snapshot before they are compacted into the next.
    pub compact_after: u64,
    /// When the epoch of a document is closed: its history is left behind, and what it says stays. The same at all sites.
    pub epochs: EpochRule,
    /// How many closed epochs of a document are kept beside it, for its history.
    pub archives: usize,
    /// The largest frame, in bytes. It must hold the largest change (see [`Limits::max_bytes`]) and more; what is larger
    /// than one change is sent in several.
    pub frame_bytes: usize,
}

impl Config {
    /// The most bytes of a message that go into one frame, so that others do not wait long behind it.
    pub(crate) fn part_bytes(&self) -> usize {
        (self.frame_bytes / 4).clamp(1, 1 << 20)
    }

    /// The largest report, in bytes: with a part of a message it still fits into a frame.
    pub(crate) fn report_bytes(&self) -> usize {
        self.frame_bytes / 4
    }

    /// The settings for sites some tens of milliseconds apart.
    #[must_use]
    pub fn new(site: SiteName, node: NodeId) -> Self {
        Self {
            site,
            node,
            labels: BTreeMap::new(),
            kinds: BTreeMap::new(),
            unsure: BTreeSet::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            doubtful: false,
            limits: Limits::default(),
            heartbeat: Duration::from_secs(5),
            look: Duration::from_secs(1),
            reconcile: Duration::from_secs(5),
            quiet: Duration::from_secs(2),
            batch: Duration::from_millis(10),
            report_begun: Duration::from_millis(100),
            gather: Duration::from_millis(100),
            gather_operations: Duration::from_millis(10),
            direct: 16,
            direct_reports: 64,
            session_timeout: Duration::from_secs(10),
            ask_timeout: Duration::from_secs(5),
            search_timeout: Duration::from_secs(2),
            settle: Duration::from_secs(30),
            phi_suspect: 3.0,
            phi_down: 8.0,
            clock_bound_ms: 10 * 60 * 1000,
            gossip_bytes: 4096,
            topics: 48,
            resident: 1000,
            sessions: 16,
            calls: 16,
            requests: 1024,
            reported: 500,
            compact_after: 64,
            epochs: EpochRule::default(),
            archives: 8,
            frame_bytes: 8 << 20,
        }
    }

    /// Shorter patience, for tests and drills on one machine.
    #[must_use]
    pub fn fast(site: SiteName, node: NodeId) -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            look: Duration::from_millis(200),
            reconcile: Duration::from_millis(500),
            quiet: Duration::from_millis(200),
            session_timeout: Duration::from_secs(2),
            ask_timeout: Duration::from_secs(2),
            search_timeout: Duration::from_secs(1),
            settle: Duration::from_secs(2),
            ..Self::new(site, node)
        }
    }
}
