//! Opens a plain stream.

use futures::io::AsyncReadExt as _;
use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::places::{Place, Standing};
use super::{FULL, NOT_TAKEN, Over, PeerStream, Places, READY};
use crate::config::Timing;
use crate::error::StreamError;
use crate::substream::OpenError;
use crate::task::Command;

/// Who waits for a stream, and its place. That is taken until the stream is closed, or known not to be open: also where who
/// waited has given up, since the connection has room for so many and no more.
#[derive(Debug)]
pub(crate) struct Opening {
    waits: oneshot::Sender<Result<Opened, OpenError>>,
    place: Place,
}

/// A stream that is open, and not taken in yet.
#[derive(Debug)]
pub(crate) struct Opened {
    stream: Stream,
    over: Over,
    place: Place,
}

impl Opening {
    /// Whether nobody waits any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.waits.is_closed()
    }

    /// Hands it to who waits. Who has given up drops it, which resets the stream.
    pub(crate) fn done(self, opened: Result<Stream, OpenError>, over: Over) {
        let Self { waits, place } = self;
        let _ = waits.send(opened.map(|stream| Opened { stream, over, place }));
    }
}

/// Has the network task open a stream on the connection that frames go over, and waits until the peer takes it in.
pub(crate) async fn open(
    commands: &mpsc::Sender<Command>,
    places: &Places,
    timing: &Timing,
    peer: PeerId,
) -> Result<PeerStream, StreamError> {
    let place = places.take(peer, Standing::Member);
    let place = place.map_err(|limit| StreamError::TooMany { peer: peer.to_string(), limit })?;
    let (waits, opened) = oneshot::channel();
    let opening = Opening { waits, place };
    commands.try_send(Command::OpenStream { peer, opening }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => StreamError::QueueFull,
        mpsc::error::TrySendError::Closed(_) => StreamError::Stopped,
    })?;
    let lost = |detail: String| StreamError::Lost { peer: peer.to_string(), detail };
    let taken_in = async {
        let opened = opened.await.map_err(|_| lost("it is closed".to_owned()))?;
        let mut opened = opened.map_err(|error| match error {
            OpenError::Unsupported => StreamError::NotTaken { peer: peer.to_string() },
            OpenError::Failed(detail) => lost(detail),
        })?;
        let mut answer = [0];
        opened.stream.read_exact(&mut answer).await.map_err(|error| lost(error.to_string()))?;
        match answer {
            [READY] => Ok(opened),
            [FULL] => Err(StreamError::Full { peer: peer.to_string() }),
            [NOT_TAKEN] => Err(StreamError::NotTaken { peer: peer.to_string() }),
            [other] => Err(lost(format!("it answered {other}, which nobody here knows"))),
        }
    };
    let after = timing.stream_timeout;
    let late = |_| Err(StreamError::Timeout { peer: peer.to_string(), after });
    let Opened { stream, over, place } = timeout(after, taken_in).await.unwrap_or_else(late)?;
    Ok(PeerStream::new(stream, over, place, timing.stream_idle_timeout))
}
