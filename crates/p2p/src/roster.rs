//! Which connection to each peer counts, and from when to when the peer is up. Rules only: no I/O, no clock.
//!
//! Two nodes that dial each other at once end with two connections. The one with the smaller peer id decides which one
//! stays, and closes the others; the other side keeps them all until then. That way they cannot disagree. The decider
//! keeps the first, unless that is so old that the peer may have come back after a crash that nobody noticed; then it
//! keeps the newest.
//!
//! A *session* begins with the first connection. It is up once the peer has acknowledged this node's stream of frames.
//! It ends with the connection that carries a stream of frames: the frames on it may be lost, and a new session says
//! so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use crate::event::DownReason;

/// Frame streams that a peer may open on one connection. It needs one; more happen when an acknowledgement is late.
pub(crate) const MAX_STREAMS_PER_SESSION: u32 = 16;

/// What the network task has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open this node's stream of frames on that connection.
    Open { session: u64, connection: ConnectionId },
    /// Close the connection.
    Close { connection: ConnectionId },
    /// The peer is up.
    Up { session: u64, connection: ConnectionId },
    /// The session is over. `was_up` tells whether the user knew of it.
    Over { session: u64, was_up: bool, reason: DownReason },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Opening(ConnectionId),
    Up(ConnectionId),
}

#[derive(Debug)]
struct Session {
    number: u64,
    /// Oldest first, never empty.
    connections: Vec<(ConnectionId, Instant)>,
    out: Out,
    inbound: Option<ConnectionId>,
    inbound_streams: u32,
}

impl Session {
    fn has(&self, connection: ConnectionId) -> bool {
        self.connections.iter().any(|(id, _)| *id == connection)
    }

    fn is_up(&self) -> bool {
        matches!(self.out, Out::Up(_))
    }

    fn over(&self, reason: DownReason) -> Action {
        Action::Over { session: self.number, was_up: self.is_up(), reason }
    }
}

/// What to do with a stream that a peer opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// Read it, as part of this session, and no other stream of the peer.
    Accept { session: u64 },
    /// Drop it: its connection is being closed.
    Ignore,
    /// The peer has opened too many.
    TooMany,
}

pub(crate) struct Roster {
    local: PeerId,
    /// A second connection within this time of the first was made at the same time; later, the first may be dead.
    grace: Duration,
    next_session: u64,
    sessions: BTreeMap<PeerId, Session>,
}

impl Roster {
    pub(crate) fn new(local: PeerId, grace: Duration) -> Self {
        Self { local, grace, next_session: 1, sessions: BTreeMap::new() }
    }

    /// Whether there is any connection to that peer, up or not.
    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.sessions.contains_key(peer)
    }

    /// The connection that frames are sent over to a peer that is up.
    pub(crate) fn up_on(&self, peer: &PeerId) -> Option<ConnectionId> {
        match self.sessions.get(peer)?.out {
            Out::Up(connection) => Some(connection),
            Out::Opening(_) => None,
        }
    }

    /// How many peers there are connections to.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn begin(&mut self, now: Instant, peer: PeerId, connection: ConnectionId) -> Action {
        let number = self.next_session;
        self.next_session += 1;
        let session = Session {
            number,
            connections: vec![(connection, now)],
            out: Out::Opening(connection),
            inbound: None,
            inbound_streams: 0,
        };
        self.sessions.insert(peer, session);
        Action::Open { session: number, connection }
    }

    /// A connection came up.
    pub(crate) fn established(&mut self, now: Instant, peer: PeerId, connection: ConnectionId) -> Vec<Action> {
        let decides = self.local.to_bytes() < peer.to_bytes();
        let Some(session) = self.sessions.get_mut(&peer) else { return vec![self.begin(now, peer, connection)] };
        if !decides {
            session.connections.push((connection, now));
            return Vec::new();
        }
        let oldest = session.connections.iter().map(|(_, since)| *since).min().unwrap_or(now);
        if now.saturating_duration_since(oldest) < self.grace {
            return vec![Action::Close { connection }];
        }
        self.replace(now, peer, connection)
    }

    fn replace(&mut self, now: Instant, peer: PeerId, connection: ConnectionId) -> Vec<Action> {
        let mut actions = self.end(&peer, DownReason::Replaced, Some(connection));
        actions.push(self.begin(now, peer, connection));
        actions
    }

    /// A connection is gone.
    pub(crate) fn closed(
        &mut self,
        now: Instant,
        peer: PeerId,
        connection: ConnectionId,
        reason: DownReason,
    ) -> Vec<Action> {
        let Some(session) = self.sessions.get_mut(&peer) else { return Vec::new() };
        session.connections.retain(|(id, _)| *id != connection);
        let carried_frames =
            session.out == Out::Up(connection) || (session.is_up() && session.inbound == Some(connection));
        let spare = session.connections.last().map(|(id, _)| *id);
        let Some(spare) = spare else {
            let over = session.over(reason);
            self.sessions.remove(&peer);
            return vec![over];
        };
        if carried_frames {
            let over = session.over(reason);
            let rest = std::mem::take(&mut session.connections);
            let open = self.begin(now, peer, spare);
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.connections = rest;
            }
            return vec![over, open];
        }
        if session.inbound == Some(connection) {
            session.inbound = None;
        }
        if session.out == Out::Opening(connection) {
            session.out = Out::Opening(spare);
            return vec![Action::Open { session: session.number, connection: spare }];
        }
        Vec::new()
    }

    /// Whether a stream that was opened on that connection is the one wanted.
    pub(crate) fn wants(&self, peer: &PeerId, connection: ConnectionId) -> Option<u64> {
        self.sessions.get(peer).filter(|session| session.out == Out::Opening(connection)).map(|session| session.number)
    }

    /// The peer has acknowledged this node's stream.
    pub(crate) fn acknowledged(&mut self, peer: &PeerId, session: u64, connection: ConnectionId) -> Option<Action> {
        let found = self.sessions.get_mut(peer)?;
        if found.number != session || found.out != Out::Opening(connection) {
            return None;
        }
        found.out = Out::Up(connection);
        Some(Action::Up { session, connection })
    }

    /// This node's stream could not be opened or was not acknowledged; tries the newest connection.
    pub(crate) fn reopen(&mut self, peer: &PeerId, session: u64) -> Option<Action> {
        let found = self.sessions.get_mut(peer)?;
        if found.number != session || found.is_up() {
            return None;
        }
        let (connection, _) = *found.connections.last()?;
        found.out = Out::Opening(connection);
        Some(Action::Open { session, connection })
    }

    /// The peer has opened a stream on that connection.
    pub(crate) fn inbound(&mut self, now: Instant, peer: PeerId, connection: ConnectionId) -> (Inbound, Vec<Action>) {
        let Some(session) = self.sessions.get_mut(&peer) else { return (Inbound::Ignore, Vec::new()) };
        if !session.has(connection) {
            return (Inbound::Ignore, Vec::new());
        }
        let mut actions = Vec::new();
        if session.is_up()
            && (session.out != Out::Up(connection) || session.inbound.is_some_and(|old| old != connection))
        {
            // The peer has begun a session on another connection, so it has given up the one this session is on.
            actions = self.replace(now, peer, connection);
        }
        let Some(session) = self.sessions.get_mut(&peer) else { return (Inbound::Ignore, actions) };
        session.inbound = Some(connection);
        session.inbound_streams += 1;
        if session.inbound_streams > MAX_STREAMS_PER_SESSION {
            return (Inbound::TooMany, actions);
        }
        (Inbound::Accept { session: session.number }, actions)
    }

    /// Ends the session with that peer and closes its connections.
    pub(crate) fn drop_peer(&mut self, peer: &PeerId, reason: DownReason) -> Vec<Action> {
        self.end(peer, reason, None)
    }

    fn end(&mut self, peer: &PeerId, reason: DownReason, except: Option<ConnectionId>) -> Vec<Action> {
        let Some(session) = self.sessions.remove(peer) else { return Vec::new() };
        let mut actions = vec![session.over(reason)];
        let others = session.connections.iter().map(|(id, _)| *id).filter(|id| Some(*id) != except);
        actions.extend(others.map(|connection| Action::Close { connection }));
        actions
    }
}

#[cfg(test)]
mod tests;
