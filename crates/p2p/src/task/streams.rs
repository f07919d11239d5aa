//! Streams of frames: opened, acknowledged, accepted, broken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Task;
use crate::event::{DownReason, Refusal};
use crate::frames::reader::{self, Ended};
use crate::frames::{PROTOCOL, writer};
use crate::link::{Outbox, PeerEntry, Traffic};
use crate::pump::Received;
use crate::roster::{Action, Inbound, MAX_STREAMS_PER_SESSION};
use crate::streams::Life;
use crate::substream::{Event, OpenError, Opened};

/// Before a stream that could not be opened is tried again; doubles with each failure.
const REOPEN_MIN: Duration = Duration::from_millis(200);
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// What is known of a peer while there is a connection to it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) remotes: BTreeMap<ConnectionId, Remote>,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) agent: Option<String>,
    session: Option<Running>,
}

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) address: Multiaddr,
    /// Whether this node dialled it.
    pub(crate) outbound: bool,
    /// When it last answered a ping, or came up; `None` if it knows no pings.
    pub(crate) heard: Option<Instant>,
    /// Ends the plain streams of the connection when it is dropped.
    pub(crate) life: Life,
}

/// The tasks of one session.
#[derive(Debug)]
struct Running {
    number: u64,
    traffic: Arc<Traffic>,
    up: watch::Sender<bool>,
    reader: Option<AbortHandle>,
    writer: Option<AbortHandle>,
    failures: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.reader.iter().chain(&self.writer) {
            task.abort();
        }
    }
}

/// What the tasks of a session tell the network task.
#[derive(Debug)]
pub(crate) struct Report {
    peer: PeerId,
    session: u64,
    news: News,
}

#[derive(Debug)]
enum News {
    /// This node's stream was acknowledged.
    Ready { connection: ConnectionId, stream: Stream },
    /// It was not.
    NotReady { detail: String },
    /// It is time to try again.
    Reopen,
    /// This node's stream broke after it was acknowledged.
    WriterEnded { detail: String },
    /// The peer's stream has ended.
    ReaderEnded { ended: Ended },
}

impl Task {
    pub(crate) fn act(&mut self, peer: PeerId, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open { session, connection } => {
                    self.ensure_running(peer, session);
                    self.swarm.behaviour_mut().frames.open(peer, connection, ());
                }
                Action::Close { connection } => {
                    self.swarm.close_connection(connection);
                }
                // Only ever the answer to an acknowledgement, where the stream is at hand.
                Action::Up { .. } => {}
                Action::Over { session, was_up, reason } => self.over(peer, session, was_up, reason),
            }
        }
    }

    fn ensure_running(&mut self, peer: PeerId, session: u64) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.session.as_ref().is_some_and(|running| running.number == session) {
            return;
        }
        link.session = Some(Running {
            number: session,
            traffic: Arc::new(Traffic::new(self.counters.clone())),
            up: watch::Sender::new(false),
            reader: None,
            writer: None,
            failures: 0,
        });
    }

    fn running(&mut self, peer: &PeerId, session: u64) -> Option<&mut Running> {
        self.links.get_mut(peer)?.session.as_mut().filter(|running| running.number == session)
    }

    fn over(&mut self, peer: PeerId, session: u64, was_up: bool, reason: DownReason) {
        if let Some(link) = self.links.get_mut(&peer)
            && link.session.as_ref().is_some_and(|running| running.number == session)
        {
            link.session = None;
        }
        if was_up {
            tracing::info!(%peer, %reason, "peer down");
            let mut state = self.shared.lock();
            state.peers.remove(&peer);
            self.counters.peers(state.peers.len());
            drop(state);
            self.notices.down(peer, reason);
        }
    }

    pub(crate) fn on_frame_stream(&mut self, event: Event<()>) {
        let Event { peer, connection, opened } = event;
        match opened {
            Opened::Inbound(stream) => self.on_inbound(peer, connection, stream),
            Opened::Outbound((), Ok(stream)) => self.on_outbound(peer, connection, stream),
            Opened::Outbound((), Err(OpenError::Unsupported)) => {
                if self.roster.wants(&peer, connection).is_some() {
                    self.rule_broken(peer, Refusal::Protocol { protocol: PROTOCOL.to_string() });
                }
            }
            Opened::Outbound((), Err(OpenError::Failed(detail))) => {
                if let Some(session) = self.roster.wants(&peer, connection) {
                    self.not_ready(peer, session, &detail);
                }
            }
        }
    }

    fn on_inbound(&mut self, peer: PeerId, connection: ConnectionId, stream: Stream) {
        let (inbound, actions) = self.roster.inbound(Instant::now(), peer, connection);
        self.act(peer, actions);
        let session = match inbound {
            Inbound::Accept { session } => session,
            Inbound::Ignore => return,
            Inbound::TooMany => return self.rule_broken(peer, Refusal::Streams { limit: MAX_STREAMS_PER_SESSION }),
        };
        let bounds = reader::Bounds {
            max_frame_bytes: self.config.limits.max_frame_bytes,
            ready_timeout: self.config.timing.stream_timeout,
            read_timeout: self.config.timing.read_timeout,
        };
        let (frames, reports) = (self.frames.clone(), self.reports.clone());
        let Some(running) = self.running(&peer, session) else { return };
        let (up, traffic) = (running.up.subscribe(), Arc::clone(&running.traffic));
        let wrap = move |frame| Received { peer, session, traffic: Arc::clone(&traffic), frame };
        let task = tokio::spawn(async move {
            let ended = reader::run(stream, bounds, up, frames, wrap).await;
            let _ = reports.send(Report { peer, session, news: News::ReaderEnded { ended } }).await;
        });
        if let Some(old) = running.reader.replace(task.abort_handle()) {
            old.abort();
        }
    }

    fn on_outbound(&mut self, peer: PeerId, connection: ConnectionId, mut stream: Stream) {
        let Some(session) = self.roster.wants(&peer, connection) else { return };
        let (reports, limit) = (self.reports.clone(), self.config.timing.stream_timeout);
        let Some(running) = self.running(&peer, session) else { return };
        let task = tokio::spawn(async move {
            let news = match writer::await_ready(&mut stream, limit).await {
                Ok(()) => News::Ready { connection, stream },
                Err(error) => News::NotReady { detail: error.to_string() },
            };
            let _ = reports.send(Report { peer, session, news }).await;
        });
        if let Some(old) = running.writer.replace(task.abort_handle()) {
            old.abort();
        }
    }

    pub(crate) fn on_report(&mut self, report: Report) {
        let Report { peer, session, news } = report;
        if self.running(&peer, session).is_none() {
            return;
        }
        match news {
            News::Ready { connection, stream } => self.on_ready(peer, session, connection, stream),
            News::NotReady { detail } => self.not_ready(peer, session, &detail),
            News::Reopen => {
                let action = self.roster.reopen(&peer, session);
                self.act(peer, action.into_iter().collect());
            }
            News::WriterEnded { detail } => self.drop_peer(peer, DownReason::Stream { detail }),
            News::ReaderEnded { ended } => self.on_reader_ended(peer, ended),
        }
    }

    fn on_ready(&mut self, peer: PeerId, session: u64, connection: ConnectionId, stream: Stream) {
        if self.roster.acknowledged(&peer, session, connection).is_none() {
            return;
        }
        let (reports, write_timeout) = (self.reports.clone(), self.config.timing.write_timeout);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(running) = link.session.as_mut() else { return };
        let (outbox, queue) = Outbox::new(&self.config.limits, Arc::clone(&running.traffic));
        let traffic = Arc::clone(&running.traffic);
        let task = tokio::spawn(async move {
            let detail = match writer::run(stream, queue, traffic, write_timeout).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            };
            let _ = reports.send(Report { peer, session, news: News::WriterEnded { detail } }).await;
        });
        running.writer = Some(task.abort_handle());
        let (remote, outbound) = link
            .remotes
            .get(&connection)
            .map_or((Multiaddr::empty(), false), |remote| (remote.address.clone(), remote.outbound));
        let entry = PeerEntry {
            outbox,
            traffic: Arc::clone(&running.traffic),
            since: SystemTime::now(),
            remote: remote.clone(),
            outbound,
            addresses: link.addresses.clone(),
            rtt_ms: None,
            agent: link.agent.clone(),
        };
        tracing::info!(%peer, address = %remote, "peer up");
        // In this order: whoever is told can send, and no frame overtakes the notice.
        let mut state = self.shared.lock();
        state.peers.insert(peer, entry);
        self.counters.peers(state.peers.len());
        drop(state);
        self.notices.up(peer, session, remote.to_string());
        running.up.send_replace(true);
        self.dialer.up(&peer);
        self.walk_soon();
    }

    fn not_ready(&mut self, peer: PeerId, session: u64, detail: &str) {
        let reports = self.reports.clone();
        let Some(running) = self.running(&peer, session) else { return };
        let pause = REOPEN_MIN.saturating_mul(1 << running.failures.min(16)).min(REOPEN_MAX);
        running.failures += 1;
        tracing::debug!(%peer, detail, ?pause, "frame stream not opened");
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = reports.send(Report { peer, session, news: News::Reopen }).await;
        });
        running.writer = Some(task.abort_handle());
    }

    fn on_reader_ended(&mut self, peer: PeerId, ended: Ended) {
        match ended {
            Ended::Refused(refusal) => self.rule_broken(peer, refusal),
            // The peer says by it that its session is over, or has opened another stream; either shows elsewhere.
            Ended::Closed | Ended::Stopped => {}
            Ended::Broken(error) => tracing::debug!(%peer, %error, "the peer's frame stream broke"),
        }
    }

    /// Refuses a peer and disconnects it.
    fn rule_broken(&mut self, peer: PeerId, refusal: Refusal) {
        let remote = self.links.get(&peer).and_then(|link| link.remotes.values().next());
        let address = remote.map(|remote| remote.address.clone());
        self.refuse(Some(peer), address.as_ref(), refusal);
        self.drop_peer(peer, DownReason::Refused);
    }
}
