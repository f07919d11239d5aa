//! Opens a plain stream.

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{FULL, NOT_TAKEN, Over, PeerStream, Places, READY};
use crate::config::Timing;
use crate::error::StreamError;
use crate::substream::OpenError;
use crate::task::Command;

/// Who waits for a stream.
pub(crate) type Opening = oneshot::Sender<Result<(Stream, Over), OpenError>>;

/// Has the network task open a stream on the connection that frames go over, and waits until the peer takes it in.
pub(crate) async fn open(
    commands: &mpsc::Sender<Command>,
    places: &Places,
    timing: &Timing,
    peer: PeerId,
) -> Result<PeerStream, StreamError> {
    let place = places.take(peer).map_err(|limit| StreamError::TooMany { peer: peer.to_string(), limit })?;
    let (opening, opened) = oneshot::channel();
    commands.try_send(Command::OpenStream { peer, opening }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => StreamError::QueueFull,
        mpsc::error::TrySendError::Closed(_) => StreamError::Stopped,
    })?;
    let lost = |detail: String| StreamError::Lost { peer: peer.to_string(), detail };
    let taken_in = async {
        let opened = opened.await.map_err(|_| lost("it is closed".to_owned()))?;
        let (mut stream, over) = opened.map_err(|error| match error {
            OpenError::Unsupported => StreamError::NotTaken { peer: peer.to_string() },
            OpenError::Failed(detail) => lost(detail),
        })?;
        let mut answer = [0];
        let asked = async {
            // The library negotiates lazily: without a flush the other side may not even know of the stream.
            stream.flush().await?;
            stream.read_exact(&mut answer).await
        };
        asked.await.map_err(|error| lost(error.to_string()))?;
        match answer {
            [READY] => Ok((stream, over)),
            [FULL] => Err(StreamError::Full { peer: peer.to_string() }),
            [NOT_TAKEN] => Err(StreamError::NotTaken { peer: peer.to_string() }),
            [other] => Err(lost(format!("it answered {other}, which nobody here knows"))),
        }
    };
    let after = timing.stream_timeout;
    let late = |_| Err(StreamError::Timeout { peer: peer.to_string(), after });
    let (stream, over) = timeout(after, taken_in).await.unwrap_or_else(late)?;
    Ok(PeerStream::new(stream, over, place, timing.stream_idle_timeout))
}
