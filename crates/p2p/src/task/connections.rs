//! Connections: dialled, refused, come up, gone.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::allow_block_list::Blocked;
use libp2p::connection_limits::Exceeded;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionDenied, ConnectionId, DialError, ListenError};
use libp2p::{Multiaddr, PeerId, ping};

use super::Task;
use super::streams::Remote;
use crate::address::Address;
use crate::event::{DownReason, Refusal};
use crate::streams::Life;
use crate::transport::is_unreachable;

/// Dials begun at once; the rest follows when these have ended or failed.
const DIALS_AT_ONCE: usize = 16;

/// The longest pause between two looks at who is silent.
const CHECK: Duration = Duration::from_millis(2500);

impl Task {
    pub(crate) fn dial_due(&mut self, now: Instant) {
        let room = self.roster.len() < self.config.limits.max_peers;
        let (roster, blocked) = (&self.roster, &self.blocked);
        let at = |address: &Multiaddr| self.shared.at(address);
        let skip = |peer: &PeerId| roster.is_connected(peer) || blocked.contains(peer);
        let due = self.dialer.take_due(now, DIALS_AT_ONCE, room, skip, at);
        for due in due {
            let options = match (due.peer, due.addresses.first()) {
                (Some(peer), _) => DialOpts::peer_id(peer)
                    // Whether it is connected the roster knows; the library counts what is just being closed.
                    .condition(PeerCondition::NotDialing)
                    .addresses(due.addresses)
                    .build(),
                (None, Some(address)) => DialOpts::unknown_peer_id().address(address.clone()).build(),
                (None, None) => continue,
            };
            let connection = options.connection_id();
            self.dialer.started(due.key, connection);
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%error, "not dialled");
                self.dialer.attempt_failed(now, connection);
            }
        }
    }

    pub(crate) fn dial_once(&mut self, peer: Option<PeerId>, address: Multiaddr) {
        let options = match peer {
            Some(peer) => {
                DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(vec![address]).build()
            }
            // A second connection to a peer would replace the first.
            None if self.shared.at(&address).is_some() => return,
            None => DialOpts::unknown_peer_id().address(address).build(),
        };
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%error, "not dialled");
        }
    }

    pub(crate) fn on_established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        tracing::debug!(%peer, %connection, ?endpoint, "connected");
        self.dialer.established(connection, peer);
        let remote = endpoint.get_remote_address().clone();
        let link = self.links.entry(peer).or_default();
        let (address, outbound) = (without_peer(remote), endpoint.is_dialer());
        let remote = Remote { address, outbound, heard: Some(now), life: Life::default() };
        link.remotes.insert(connection, remote);
        let actions = self.roster.established(now, peer, connection);
        self.act(peer, actions);
    }

    pub(crate) fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, reason: DownReason) {
        let now = Instant::now();
        if let Some(link) = self.links.get_mut(&peer) {
            link.remotes.remove(&connection);
        }
        let was_connected = self.roster.is_connected(&peer);
        let actions = self.roster.closed(now, peer, connection, reason);
        self.act(peer, actions);
        if was_connected && !self.roster.is_connected(&peer) {
            self.forget(peer);
        }
    }

    /// Ends the session with the peer at once and closes its connections.
    pub(crate) fn drop_peer(&mut self, peer: PeerId, reason: DownReason) {
        let actions = self.roster.drop_peer(&peer, reason);
        if actions.is_empty() {
            return;
        }
        self.act(peer, actions);
        self.forget(peer);
    }

    fn forget(&mut self, peer: PeerId) {
        self.links.remove(&peer);
        self.dialer.down(Instant::now(), &peer);
    }

    pub(crate) fn on_ping(&mut self, event: ping::Event) {
        let heard = match event.result {
            Ok(rtt) => {
                self.shared.update(&event.peer, |entry| entry.rtt_ms = Some(rtt.as_secs_f64() * 1e3));
                Some(Instant::now())
            }
            // Frames come over streams of our own; a peer without pings is merely not watched.
            Err(ping::Failure::Unsupported) => None,
            Err(error) => {
                tracing::debug!(peer = %event.peer, %error, "ping failed");
                return;
            }
        };
        let remote = self.links.get_mut(&event.peer).and_then(|link| link.remotes.get_mut(&event.connection));
        if let Some(remote) = remote {
            remote.heard = heard;
        }
    }

    /// Closes the connections over which nothing has been heard for too long.
    ///
    /// The library's own report of a failed ping is of no use for it: it keeps the first failure to itself and then
    /// waits ten seconds for a stream on the silent connection.
    pub(crate) fn check_silence(&mut self, now: Instant) {
        let limit = self.config.timing.ping_interval + self.config.timing.ping_timeout;
        self.next_check = now + (self.config.timing.ping_interval / 2).min(CHECK);
        let silent: Vec<_> = self
            .links
            .iter()
            .flat_map(|(peer, link)| link.remotes.iter().map(|(connection, remote)| (*peer, *connection, remote.heard)))
            .filter(|(_, _, heard)| heard.is_some_and(|heard| now.saturating_duration_since(heard) > limit))
            .collect();
        for (peer, connection, _) in silent {
            tracing::debug!(%peer, %connection, "silent");
            self.swarm.close_connection(connection);
            self.on_closed(peer, connection, DownReason::Timeout);
        }
    }

    pub(crate) fn on_incoming_error(&mut self, address: &Multiaddr, peer: Option<PeerId>, error: &ListenError) {
        let reason = match error {
            ListenError::Transport(error) => self.handshake_failed(error),
            ListenError::Denied { cause } => denied(cause),
            ListenError::LocalPeerId { .. } => return,
            ListenError::WrongPeerId { obtained, .. } => Refusal::OtherPeer { found: obtained.to_string() },
            ListenError::Aborted => return,
        };
        self.refuse(peer, Some(address), reason);
    }

    pub(crate) fn on_outgoing_error(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let now = Instant::now();
        tracing::debug!(?peer, %error, "dial failed");
        match error {
            DialError::LocalPeerId { address } => {
                self.dialer.is_itself(connection);
                self.refuse(None, Some(address), Refusal::Itself);
            }
            DialError::WrongPeerId { obtained, address } => {
                if let Some(peer) = peer {
                    self.dialer.not_there(&peer, &without_peer(address.clone()));
                }
                self.refuse(peer, Some(address), Refusal::OtherPeer { found: obtained.to_string() });
            }
            DialError::Transport(failures) => {
                for (address, error) in failures {
                    if !is_unreachable(error) {
                        let reason = self.handshake_failed(error);
                        self.refuse(peer, Some(address), reason);
                    }
                }
            }
            // Refused by this node itself: a peer that is blocked, or more than is wanted.
            _ => {}
        }
        self.dialer.attempt_failed(now, connection);
    }

    fn handshake_failed(&self, error: &(dyn Error + 'static)) -> Refusal {
        Refusal::Handshake { fingerprint: self.config.psk.map(|psk| psk.fingerprint()), detail: chain(error) }
    }
}

/// The errors within an error, as one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let detail = error.to_string();
        if !text.contains(&detail) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&detail);
        }
        next = error.source();
    }
    text
}

fn denied(cause: &ConnectionDenied) -> Refusal {
    if cause.downcast_ref::<Blocked>().is_some() {
        return Refusal::Blocked;
    }
    let detail = cause.downcast_ref::<Exceeded>().map_or_else(|| cause.to_string(), ToString::to_string);
    Refusal::TooMany { detail }
}

pub(crate) fn without_peer(address: Multiaddr) -> Multiaddr {
    Address::from_multiaddr(&address).map_or(address, |address| address.multiaddr())
}

/// Lets each kind of refusal of one host through to the log once a minute.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    last: BTreeMap<(String, &'static str), Instant>,
}

impl LogGate {
    const PAUSE: Duration = Duration::from_secs(60);
    const HOSTS: usize = 1024;

    pub(crate) fn opens(&mut self, now: Instant, who: Option<&str>, kind: &'static str) -> bool {
        // The port is another for each attempt.
        let host = who.and_then(|who| Address::parse(who).ok()).map(|address| address.socket.ip());
        let host = host.as_ref().map_or_else(|| who.unwrap_or_default().to_owned(), IpAddr::to_string);
        if self.last.len() >= Self::HOSTS {
            self.last.retain(|_, last| now.saturating_duration_since(*last) < Self::PAUSE);
        }
        if self.last.len() >= Self::HOSTS {
            return false;
        }
        match self.last.entry((host, kind)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let opens = now.saturating_duration_since(*entry.get()) >= Self::PAUSE;
                if opens {
                    entry.insert(now);
                }
                opens
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_not_flooded_by_one_host_or_by_many() {
        let (mut gate, now) = (LogGate::default(), Instant::now());
        assert!(gate.opens(now, Some("/ip4/192.0.2.1/tcp/1"), "handshake"));
        assert!(!gate.opens(now, Some("/ip4/192.0.2.1/tcp/2"), "handshake"));
        assert!(gate.opens(now, Some("/ip4/192.0.2.1/tcp/2"), "blocked"));
        assert!(gate.opens(now, Some("/ip4/192.0.2.2/tcp/2"), "handshake"));
        assert!(gate.opens(now + LogGate::PAUSE, Some("/ip4/192.0.2.1/tcp/3"), "handshake"));
        let opened = (0..5000).filter(|host| gate.opens(now, Some(&format!("peer {host}")), "handshake")).count();
        assert!(opened < LogGate::HOSTS, "{opened}");
        assert!(gate.opens(now + LogGate::PAUSE * 2, Some("someone else"), "handshake"));
    }
}
