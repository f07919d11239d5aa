//! The network task: the only one that touches the swarm.
//!
//! It never waits for anything but its next input. What it tells others goes into bounded queues that drop or count
//! (see [`crate::pump`]), and what others tell it comes through channels that it always empties.

mod connections;
mod discovery;
mod plain;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use libp2p::gossipsub::{IdentTopic, PublishError};
use libp2p::metrics::{Metrics, Recorder};
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, watch};

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::config::Config;
use crate::dialer::Dialer;
use crate::event::{DownReason, Event, Refusal};
use crate::metrics::Counters;
use crate::pump::{Notices, Received};
use crate::roster::Roster;
use crate::shared::Shared;
use crate::streams::{Incoming, Opening};

use connections::LogGate;
use streams::{Link, Report};

/// What the handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Publish { topic: String, frame: Vec<u8> },
    Dial { peer: Option<PeerId>, address: Multiaddr },
    Disconnect { peer: PeerId },
    OpenStream { peer: PeerId, opening: Opening },
}

pub(crate) struct Task {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) notices: Arc<Notices>,
    pub(crate) counters: Counters,
    pub(crate) metrics: Metrics,
    pub(crate) roster: Roster,
    pub(crate) dialer: Dialer,
    pub(crate) links: BTreeMap<PeerId, Link>,
    pub(crate) frames: mpsc::Sender<Received>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) incoming: Arc<Incoming>,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) blocked: BTreeSet<PeerId>,
    pub(crate) next_walk: Instant,
    pub(crate) next_check: Instant,
    pub(crate) log_gate: LogGate,
}

/// The receiving ends of what the task listens to.
pub(crate) struct Inputs {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Task {
    /// Runs until it is told to stop, nobody holds a handle any more, or the user has dropped the events.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        let shared = Arc::clone(&self.shared);
        loop {
            let wake = self.next_walk.min(self.next_check);
            let wake = self.dialer.next().map_or(wake, |due| due.min(wake));
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = inputs.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(report) = inputs.reports.recv() => self.on_report(report),
                () = shared.changed.notified() => self.reconcile(),
                () = tokio::time::sleep_until(wake.into()) => self.on_time(),
                _ = inputs.stop.wait_for(|stop| *stop) => break,
            }
        }
        for peer in self.links.keys().copied().collect::<Vec<_>>() {
            self.drop_peer(peer, DownReason::Disconnected);
        }
        self.incoming.end();
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_walk {
            self.walk(now);
        }
        if now >= self.next_check {
            self.check_silence(now);
        }
        self.dial_due(now);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, frame } => self.publish(topic, frame),
            Command::Dial { peer, address } => self.dial_once(peer, address),
            Command::Disconnect { peer } => self.drop_peer(peer, DownReason::Disconnected),
            Command::OpenStream { peer, opening } => self.open_plain(peer, opening),
        }
    }

    fn publish(&mut self, topic: String, frame: Vec<u8>) {
        match self.swarm.behaviour_mut().gossip.publish(IdentTopic::new(topic), frame) {
            Ok(_) => self.counters.gossip_out(),
            // Nobody there yet, or everybody has it: reconciliation sees to the rest.
            Err(PublishError::NoPeersSubscribedToTopic) => self.counters.dropped("gossip-no-peers"),
            Err(PublishError::Duplicate) => self.counters.dropped("gossip-duplicate"),
            Err(PublishError::AllQueuesFull(_)) => self.counters.dropped("gossip-queues-full"),
            Err(error) => {
                self.counters.dropped("gossip-error");
                tracing::warn!(%error, "gossip was not published");
            }
        }
    }

    /// Brings subscriptions and blocks in line with what the handle wants.
    pub(crate) fn reconcile(&mut self) {
        let (topics, blocked) = self.shared.wanted();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        for topic in self.topics.difference(&topics) {
            gossip.unsubscribe(&IdentTopic::new(topic));
        }
        for topic in topics.difference(&self.topics) {
            if let Err(error) = gossip.subscribe(&IdentTopic::new(topic)) {
                tracing::warn!(%topic, %error, "cannot subscribe");
            }
        }
        self.topics = topics;
        let now = Instant::now();
        let (new, old): (Vec<_>, Vec<_>) = (
            blocked.difference(&self.blocked).copied().collect(),
            self.blocked.difference(&blocked).copied().collect(),
        );
        self.blocked = blocked;
        for peer in new {
            self.swarm.behaviour_mut().blocks.block_peer(peer);
            self.drop_peer(peer, DownReason::Blocked);
        }
        for peer in old {
            self.swarm.behaviour_mut().blocks.unblock_peer(peer);
            self.dialer.hurry(now, &peer);
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let detail = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                self.on_closed(peer_id, connection_id, DownReason::Closed { detail });
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.on_incoming_error(&send_back_addr, peer_id, &error);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_outgoing_error(connection_id, peer_id, &error);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.shared.set_listening(self.swarm.listeners());
                self.notices.event(Event::Listening { address: address.to_string() });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening_ended(&address, "the address went away");
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                let reason = reason.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
                for address in addresses {
                    self.listening_ended(&address, &reason);
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            _ => {}
        }
    }

    fn listening_ended(&mut self, address: &Multiaddr, reason: &str) {
        tracing::warn!(%address, reason, "no longer listening");
        self.shared.set_listening(self.swarm.listeners());
        self.notices.event(Event::ListeningEnded { address: address.to_string(), reason: reason.to_owned() });
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Frames(event) => self.on_frame_stream(event),
            BehaviourEvent::Streams(event) => self.on_plain_stream(event),
            BehaviourEvent::Ping(event) => {
                self.metrics.record(&event);
                self.on_ping(event);
            }
            BehaviourEvent::Identify(event) => {
                self.metrics.record(&event);
                self.on_identify(event);
            }
            BehaviourEvent::Gossip(event) => {
                self.metrics.record(&event);
                self.on_gossip(event);
            }
            BehaviourEvent::Kademlia(event) => {
                self.metrics.record(&event);
                self.on_kademlia(event);
            }
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Limits(never) | BehaviourEvent::Blocks(never) => match never {},
        }
    }

    fn on_gossip(&mut self, event: libp2p::gossipsub::Event) {
        match event {
            libp2p::gossipsub::Event::Message { propagation_source, message, .. } => {
                if message.data.len() > self.config.limits.max_gossip_bytes {
                    self.counters.dropped("gossip-oversized");
                    return;
                }
                self.counters.gossip_in();
                self.notices.event(Event::Gossip {
                    topic: message.topic.into_string(),
                    source: propagation_source.to_string(),
                    frame: message.data,
                });
            }
            libp2p::gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "takes gossip too slowly");
                self.counters.dropped("gossip-slow-peer");
            }
            _ => {}
        }
    }

    /// Counts, logs and tells that something was refused.
    pub(crate) fn refuse(&mut self, peer: Option<PeerId>, address: Option<&Multiaddr>, reason: Refusal) {
        self.counters.refused(reason.kind());
        let (peer, address) = (peer.map(|peer| peer.to_string()), address.map(ToString::to_string));
        if self.log_gate.opens(Instant::now(), address.as_deref().or(peer.as_deref()), reason.kind()) {
            tracing::warn!(?peer, ?address, %reason, "refused");
        }
        self.notices.event(Event::Refused { peer, address, reason });
    }
}
