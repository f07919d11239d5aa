//! Plain streams that peers open.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::io::AsyncWriteExt as _;
use libp2p::{PeerId, Stream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::places::{Place, Standing};
use super::{FULL, NOT_TAKEN, Over, PeerStream, Places, READY};
use crate::config::{Limits, Timing};
use crate::metrics::Counters;

/// The streams that peers open, one after the other.
///
/// They wait in here until they are taken, as many as [`Limits::max_streams`] allows; dropping this refuses those that
/// come.
#[derive(Debug)]
pub struct IncomingStreams(mpsc::Receiver<PeerStream>);

impl IncomingStreams {
    /// The next one; none once the network has stopped.
    pub async fn next(&mut self) -> Option<PeerStream> {
        self.0.recv().await
    }
}

/// Who takes streams in, and how many there may be.
#[derive(Debug)]
pub(crate) struct Incoming {
    listener: Mutex<Option<mpsc::Sender<PeerStream>>>,
    members: Mutex<BTreeSet<PeerId>>,
    places: Places,
    limit: usize,
    counters: Counters,
}

impl Incoming {
    pub(crate) fn new(limits: &Limits, counters: Counters) -> Self {
        let places = Places::incoming(limits, counters.clone());
        Self { listener: Mutex::default(), members: Mutex::default(), places, limit: limits.max_streams, counters }
    }

    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Sender<PeerStream>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Network::incoming_streams`](crate::Network::incoming_streams).
    pub(crate) fn listen(&self) -> Option<IncomingStreams> {
        let mut listener = self.lock();
        if listener.as_ref().is_some_and(|listener| !listener.is_closed()) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(self.limit);
        *listener = Some(sender);
        Some(IncomingStreams(receiver))
    }

    /// See [`Network::set_members`](crate::Network::set_members).
    pub(crate) fn set_members(&self, members: BTreeSet<PeerId>) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }

    fn standing(&self, peer: &PeerId) -> Standing {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.contains(peer) { Standing::Member } else { Standing::Stranger }
    }

    /// The network has stopped: whoever waits for streams is told that no more will come.
    pub(crate) fn end(&self) {
        self.lock().take();
    }

    /// Takes a stream in, or tells the peer why not. It is done beside everything else, since the peer may not read.
    pub(crate) fn take(&self, peer: PeerId, stream: Stream, over: Over, timing: &Timing) {
        let listener = self.lock().clone().filter(|listener| !listener.is_closed());
        let (answer, taken) = match (listener, self.places.take(peer, self.standing(&peer))) {
            (Some(listener), Ok(place)) => (READY, Some((listener, over, place))),
            (Some(_), Err(limit)) => {
                tracing::debug!(%peer, limit, "a stream is refused");
                self.counters.dropped("stream-limit");
                (FULL, None)
            }
            (None, _) => {
                self.counters.dropped("stream-not-taken");
                (NOT_TAKEN, None)
            }
        };
        tokio::spawn(answered(stream, answer, taken, timing.clone()));
    }
}

async fn answered(
    mut stream: Stream,
    answer: u8,
    taken: Option<(mpsc::Sender<PeerStream>, Over, Place)>,
    timing: Timing,
) {
    let tell = async {
        stream.write_all(&[answer]).await?;
        stream.flush().await?;
        // What is refused has to be told before it is dropped.
        if taken.is_none() { stream.close().await } else { Ok(()) }
    };
    if !matches!(timeout(timing.stream_timeout, tell).await, Ok(Ok(()))) {
        return;
    }
    if let Some((listener, over, place)) = taken {
        // There is room for as many as may be open; an error means that nobody listens any more.
        let _ = listener.send(PeerStream::new(stream, over, place, timing.stream_idle_timeout)).await;
    }
}
