//! Sends the frames of one queue over one stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use super::READY;
use crate::link::Traffic;

/// Small frames are put together up to this size; larger ones are not copied.
const BUFFER_BYTES: usize = 16 << 10;

/// Waits until the other side says that it reads this stream.
pub(crate) async fn await_ready(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    limit: Duration,
) -> Result<(), io::Error> {
    let mut byte = [0];
    // The library negotiates lazily: without a flush the other side may not even know of the stream.
    within(limit, async {
        stream.flush().await?;
        stream.read_exact(&mut byte).await
    })
    .await?;
    if byte == [READY] { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "unknown answer")) }
}

/// Writes frames until the queue is closed (then `Ok`) or the stream breaks.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<u8>>,
    traffic: Arc<Traffic>,
    write_timeout: Duration,
) -> io::Result<()> {
    let (mut back, stream) = stream.split();
    let mut stream = BufWriter::with_capacity(BUFFER_BYTES, stream);
    let mut byte = [0];
    loop {
        let frame = match queue.try_recv() {
            Ok(frame) => Some(frame),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                within(write_timeout, stream.flush()).await?;
                tokio::select! {
                    frame = queue.recv() => frame,
                    // Nothing comes back on this stream, so whatever is read means that it is over.
                    end = back.read(&mut byte) => {
                        end?;
                        return Err(io::Error::new(io::ErrorKind::ConnectionReset, "closed by the other side"));
                    }
                }
            }
        };
        let Some(frame) = frame else { return within(write_timeout, stream.close()).await };
        within(write_timeout, async {
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(&frame).await
        })
        .await?;
        traffic.sent(frame.len());
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read")))
}
