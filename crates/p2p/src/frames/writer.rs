//! Sends the frames of one queue over one stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use super::READY;
use super::moving::Moving;
use crate::link::Traffic;

/// Small frames are put together up to this size; larger ones are not copied.
const BUFFER_BYTES: usize = 16 << 10;

/// Waits until the other side says that it reads this stream.
pub(crate) async fn await_ready(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    limit: Duration,
) -> Result<(), io::Error> {
    let mut byte = [0];
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not answer"));
    timeout(limit, stream.read_exact(&mut byte)).await.unwrap_or_else(late)?;
    if byte == [READY] { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "unknown answer")) }
}

/// Writes frames until the queue is closed (then `Ok`), the stream breaks, or nothing of what is written is taken for so
/// long.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<u8>>,
    traffic: Arc<Traffic>,
    write_timeout: Duration,
) -> io::Result<()> {
    let (mut back, stream) = stream.split();
    let mut stream = BufWriter::with_capacity(BUFFER_BYTES, Moving::new(stream, write_timeout));
    let mut byte = [0];
    loop {
        let frame = match queue.try_recv() {
            Ok(frame) => Some(frame),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                stream.flush().await?;
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
        let Some(frame) = frame else { return stream.close().await };
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&frame).await?;
        traffic.sent(frame.len());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use tokio::time::Sleep;

    use super::*;
    use crate::metrics::Counters;

    /// Takes a byte, waits, and takes another, so many in all.
    struct Slow {
        pause: Duration,
        left: usize,
        timer: Pin<Box<Sleep>>,
    }

    impl Slow {
        fn new(pause: Duration, left: usize) -> Self {
            Self { pause, left, timer: Box::pin(tokio::time::sleep(pause)) }
        }
    }

    impl AsyncRead for Slow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            if self.left == 0 {
                return Poll::Pending;
            }
            ready!(self.timer.as_mut().poll(context));
            let next = tokio::time::Instant::now() + self.pause;
            self.timer.as_mut().reset(next);
            self.left -= 1;
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Sends a frame of 16 bytes, with the four before it, and says how it went.
    async fn send(pause: Duration, takes: usize, limit: Duration) -> io::Result<()> {
        let (frames, queue) = mpsc::channel(1);
        frames.send(vec![7; 16]).await.unwrap();
        drop(frames);
        run(Slow::new(pause, takes), queue, Arc::new(Traffic::new(Counters::default())), limit).await
    }

    #[tokio::test]
    async fn a_frame_may_take_long_as_long_as_it_moves() {
        send(Duration::from_millis(50), usize::MAX, Duration::from_millis(600)).await.unwrap();
        let stuck = send(Duration::from_millis(1), 10, Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
    }
}
