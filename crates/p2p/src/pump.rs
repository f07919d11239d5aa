//! Brings events to the user, in order, without ever making the network task wait.
//!
//! The rule that keeps it from locking up: the network task never waits for the user. It puts notices into [`Notices`],
//! which is bounded by what it drops; readers wait in a channel of their own. One task, the pump, takes from both and
//! is the only one that waits when the user is slow. Notices go first, so a peer's frames always come after its
//! `PeerUp`, and frames of a session that is over are dropped; but what was read before a peer went down is delivered
//! before that is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use tokio::sync::{Notify, mpsc};

use crate::config::Limits;
use crate::event::{DownReason, Event};
use crate::link::Traffic;
use crate::metrics::Counters;

/// A frame on its way from a reader to the user.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) peer: PeerId,
    /// The session in which it was read.
    pub(crate) session: u64,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) frame: Vec<u8>,
}

#[derive(Debug)]
enum Notice {
    Up { peer: PeerId, session: u64, address: String },
    Down { peer: PeerId, reason: DownReason },
    Event(Event),
}

/// Notices from the network task to the pump.
#[derive(Debug)]
pub(crate) struct Notices {
    queue: Mutex<VecDeque<Notice>>,
    filled: Notify,
    limit: usize,
    counters: Counters,
}

impl Notices {
    pub(crate) fn new(limit: usize, counters: Counters) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), limit, counters }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Notice>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer is up. Never dropped.
    pub(crate) fn up(&self, peer: PeerId, session: u64, address: String) {
        self.lock().push_back(Notice::Up { peer, session, address });
        self.filled.notify_one();
    }

    /// A peer is down. Never dropped; but if the user was not yet told that it is up, the two cancel out. So for each
    /// peer that the user thinks up, or that is, there are two notices at most, however long the user sleeps.
    pub(crate) fn down(&self, peer: PeerId, reason: DownReason) {
        let mut queue = self.lock();
        let untold = queue.iter().rposition(|notice| match notice {
            Notice::Up { peer: other, .. } | Notice::Down { peer: other, .. } => *other == peer,
            Notice::Event(_) => false,
        });
        match untold.filter(|index| matches!(queue.get(*index), Some(Notice::Up { .. }))) {
            Some(index) => drop(queue.remove(index)),
            None => queue.push_back(Notice::Down { peer, reason }),
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Anything else. Dropped and counted when too much is waiting.
    pub(crate) fn event(&self, event: Event) {
        let mut queue = self.lock();
        if queue.len() >= self.limit {
            drop(queue);
            self.counters.dropped(if matches!(event, Event::Gossip { .. }) { "gossip-in" } else { "notice" });
            return;
        }
        queue.push_back(Notice::Event(event));
        drop(queue);
        self.filled.notify_one();
    }

    fn pop(&self) -> Option<Notice> {
        self.lock().pop_front()
    }
}

/// Runs until the user drops the receiver or the network ends.
pub(crate) async fn run(
    notices: Arc<Notices>,
    frames: mpsc::Receiver<Received>,
    events: mpsc::Sender<Event>,
    limits: Limits,
) {
    let exit = Exit { events, bytes: VecDeque::new(), max_bytes: limits.event_queue_bytes };
    let mut pump = Pump { notices, frames, exit, sessions: BTreeMap::new(), held: VecDeque::new() };
    while pump.turn().await.is_some() {}
}

struct Pump {
    notices: Arc<Notices>,
    frames: mpsc::Receiver<Received>,
    exit: Exit,
    /// The sessions the user knows to be up.
    sessions: BTreeMap<PeerId, u64>,
    /// Frames that have been received and wait for their session to be announced.
    held: VecDeque<Received>,
}

impl Pump {
    /// Waits for something and brings it to the user. `None` when there is no more to come or nobody to bring it to.
    async fn turn(&mut self) -> Option<()> {
        let received = tokio::select! {
            biased;
            () = self.notices.filled.notified() => None,
            () = self.exit.events.closed() => return None,
            received = self.frames.recv() => Some(received?),
        };
        self.held.extend(received);
        // Before the frame: what makes it valid or void was put there before it was sent.
        while let Some(notice) = self.notices.pop() {
            let event = match notice {
                Notice::Up { peer, session, address } => {
                    self.sessions.insert(peer, session);
                    Event::PeerUp { peer: peer.to_string(), address }
                }
                Notice::Down { peer, reason } => {
                    self.last_frames().await?;
                    self.sessions.remove(&peer);
                    Event::PeerDown { peer: peer.to_string(), reason }
                }
                Notice::Event(event) => event,
            };
            self.exit.send(event).await.ok()?;
        }
        while let Some(received) = self.held.pop_front() {
            self.deliver(received).await?;
        }
        Some(())
    }

    /// Delivers what was read from a peer before it went down: its last words may say why.
    async fn last_frames(&mut self) -> Option<()> {
        let room = self.frames.max_capacity();
        while self.held.len() < room
            && let Ok(received) = self.frames.try_recv()
        {
            self.held.push_back(received);
        }
        for _ in 0..self.held.len() {
            let received = self.held.pop_front()?;
            if self.is_current(&received) { self.deliver(received).await? } else { self.held.push_back(received) }
        }
        Some(())
    }

    fn is_current(&self, received: &Received) -> bool {
        self.sessions.get(&received.peer) == Some(&received.session)
    }

    async fn deliver(&mut self, received: Received) -> Option<()> {
        if !self.is_current(&received) {
            self.notices.counters.dropped("session-over");
            return Some(());
        }
        let Received { peer, traffic, frame, .. } = received;
        traffic.received(frame.len());
        self.exit.send(Event::Frame { from: peer.to_string(), frame }).await.ok()
    }
}

/// The channel to the user, bounded in bytes as well as in number.
struct Exit {
    events: mpsc::Sender<Event>,
    /// The sizes of the latest events, at least of those the user has not taken.
    bytes: VecDeque<usize>,
    max_bytes: usize,
}

impl Exit {
    async fn send(&mut self, event: Event) -> Result<(), mpsc::error::SendError<()>> {
        let bytes = match &event {
            Event::Frame { frame, .. } | Event::Gossip { frame, .. } => frame.len(),
            _ => 0,
        };
        let untaken = self.events.max_capacity() - self.events.capacity();
        while self.bytes.len() > untaken {
            self.bytes.pop_front();
        }
        let waiting: usize = self.bytes.iter().sum();
        if waiting > 0 && waiting + bytes > self.max_bytes {
            // Room for all means that the user has taken all.
            drop(self.events.reserve_many(self.events.max_capacity()).await?);
            self.bytes.clear();
        }
        self.events.reserve().await?.send(event);
        self.bytes.push_back(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn setup(limits: &Limits) -> (Arc<Notices>, mpsc::Sender<Received>, mpsc::Receiver<Event>) {
        let notices = Arc::new(Notices::new(limits.notice_queue, Counters::default()));
        let (frames_in, frames) = mpsc::channel(4);
        let (events_in, events) = mpsc::channel(limits.event_queue);
        tokio::spawn(run(Arc::clone(&notices), frames, events_in, limits.clone()));
        (notices, frames_in, events)
    }

    fn received(peer: PeerId, session: u64, frame: &[u8]) -> Received {
        Received { peer, session, traffic: Arc::default(), frame: frame.to_vec() }
    }

    #[tokio::test]
    async fn frames_come_after_the_peer_is_up_and_not_after_it_is_down() {
        let (notices, frames, mut events) = setup(&Limits::default());
        let peer = PeerId::random();
        notices.up(peer, 1, "a".into());
        frames.send(received(peer, 1, b"one")).await.unwrap();
        assert!(matches!(events.recv().await, Some(Event::PeerUp { .. })));
        assert!(matches!(events.recv().await, Some(Event::Frame { frame, .. }) if frame == b"one"));
        notices.down(peer, DownReason::Timeout);
        assert!(matches!(events.recv().await, Some(Event::PeerDown { .. })));
        frames.send(received(peer, 1, b"late")).await.unwrap();
        notices.up(peer, 2, "b".into());
        frames.send(received(peer, 2, b"two")).await.unwrap();
        assert!(matches!(events.recv().await, Some(Event::PeerUp { .. })));
        assert!(matches!(events.recv().await, Some(Event::Frame { frame, .. }) if frame == b"two"));
    }

    #[tokio::test]
    async fn the_last_words_of_a_peer_are_heard() {
        let (notices, frames, mut events) = setup(&Limits::default());
        let (peer, next) = (PeerId::random(), PeerId::random());
        notices.up(peer, 1, "a".into());
        assert!(matches!(events.recv().await, Some(Event::PeerUp { .. })));
        frames.send(received(peer, 1, b"last")).await.unwrap();
        frames.send(received(next, 2, b"first")).await.unwrap();
        notices.down(peer, DownReason::Refused);
        notices.up(next, 2, "b".into());
        assert!(matches!(events.recv().await, Some(Event::Frame { frame, .. }) if frame == b"last"));
        assert!(matches!(events.recv().await, Some(Event::PeerDown { .. })));
        assert!(matches!(events.recv().await, Some(Event::PeerUp { .. })));
        assert!(matches!(events.recv().await, Some(Event::Frame { frame, .. }) if frame == b"first"));
    }

    #[test]
    fn a_peer_that_flaps_unseen_leaves_at_most_two_notices() {
        let notices = Notices::new(8, Counters::default());
        let (known, unknown) = (PeerId::random(), PeerId::random());
        for session in 0..100 {
            notices.down(known, DownReason::Timeout);
            notices.up(known, session, String::new());
            notices.up(unknown, session, String::new());
            notices.down(unknown, DownReason::Timeout);
        }
        let left: Vec<Notice> = notices.lock().drain(..).collect();
        assert!(matches!(left[..], [Notice::Down { .. }, Notice::Up { session: 99, .. }]), "{left:?}");
    }

    #[tokio::test]
    async fn frames_wait_for_room_in_bytes() {
        let limits = Limits { event_queue: 8, event_queue_bytes: 10, ..Limits::default() };
        let (notices, frames, mut events) = setup(&limits);
        let peer = PeerId::random();
        notices.up(peer, 1, String::new());
        for _ in 0..3 {
            frames.send(received(peer, 1, &[0; 6])).await.unwrap();
        }
        // The frames channel empties only when the pump has taken a frame out of it to wait with it.
        while frames.capacity() < 3 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(events.len(), 2, "up and one frame; the second waits for the first to be taken");
        for _ in 0..4 {
            events.recv().await.unwrap();
        }
    }
}
