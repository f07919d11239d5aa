//! Reads the frames of one stream.

use std::io;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{HEADER_BYTES, READY};
use crate::event::Refusal;
use crate::pump::Received;

/// Room made for a frame before any of it has come: what a peer merely claims to send costs this much at most.
const FIRST_ALLOCATION: usize = 64 << 10;

/// What bounds a reader.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) max_frame_bytes: usize,
    pub(crate) ready_timeout: Duration,
    pub(crate) read_timeout: Duration,
}

/// How reading ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The stream is over, between two frames.
    Closed,
    /// The stream or the connection broke.
    Broken(io::Error),
    /// The peer broke a rule.
    Refused(Refusal),
    /// Nobody takes frames any more.
    Stopped,
}

/// Says that it reads, waits until the peer is up, then hands on frame after frame.
///
/// Waiting for room in `frames` is what slows a peer down that sends faster than frames are taken.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    bounds: Bounds,
    mut up: watch::Receiver<bool>,
    frames: mpsc::Sender<Received>,
    wrap: impl Fn(Vec<u8>) -> Received,
) -> Ended {
    let mut stream = stream;
    let ready = async {
        stream.write_all(&[READY]).await?;
        stream.flush().await
    };
    match timeout(bounds.ready_timeout, ready).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Ended::Broken(error),
        Err(_) => return Ended::Broken(io::ErrorKind::TimedOut.into()),
    }
    if up.wait_for(|up| *up).await.is_err() {
        return Ended::Stopped;
    }
    let mut stream = BufReader::new(stream);
    loop {
        let frame = match read_frame(&mut stream, &bounds).await {
            Ok(frame) => frame,
            Err(ended) => return ended,
        };
        if frames.send(wrap(frame)).await.is_err() {
            return Ended::Stopped;
        }
    }
}

pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), bounds: &Bounds) -> Result<Vec<u8>, Ended> {
    let mut first = [0];
    // Silence between frames is normal; that the peer is still there is what pings tell.
    if stream.read(&mut first).await.map_err(Ended::Broken)? == 0 {
        return Err(Ended::Closed);
    }
    let mut rest = [0; HEADER_BYTES - 1];
    fill(stream, &mut rest, bounds).await?;
    let ([a], [b, c, d]) = (first, rest);
    let length = u32::from_be_bytes([a, b, c, d]);
    let limit = bounds.max_frame_bytes;
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= limit) else {
        return Err(Ended::Refused(Refusal::Oversized { bytes: length.into(), limit: limit as u64 }));
    };
    if length == 0 {
        return Err(Ended::Refused(Refusal::Malformed { detail: "it has no content".into() }));
    }
    let mut frame = Vec::new();
    while frame.len() < length {
        let filled = frame.len();
        // As much room again as has come.
        frame.resize(length.min(filled.max(FIRST_ALLOCATION / 2) * 2), 0);
        fill(stream, &mut frame[filled..], bounds).await?;
    }
    Ok(frame)
}

/// Reads until all of it has come. The limit is for the time without anything, not for all of it: frames share the line with
/// plain streams, and a slow line is no fault of the peer.
async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8], bounds: &Bounds) -> Result<(), Ended> {
    let refused = |detail: &str| Ended::Refused(Refusal::Malformed { detail: detail.into() });
    let mut filled = 0;
    while filled < buffer.len() {
        match timeout(bounds.read_timeout, stream.read(&mut buffer[filled..])).await {
            Ok(Ok(0)) => return Err(refused("the stream ends within it")),
            Ok(Ok(bytes)) => filled += bytes,
            Ok(Err(error)) => return Err(Ended::Broken(error)),
            Err(_) => return Err(refused("its rest did not come in time")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use futures::io::Cursor;
    use tokio::time::Sleep;

    use super::*;

    fn bounds() -> Bounds {
        let second = Duration::from_secs(1);
        Bounds { max_frame_bytes: 10, ready_timeout: second, read_timeout: second }
    }

    async fn read(bytes: &[u8]) -> Result<Vec<u8>, Ended> {
        read_frame(&mut Cursor::new(bytes), &bounds()).await
    }

    #[tokio::test]
    async fn a_frame_is_taken_whole_or_refused() {
        assert_eq!(read(&[0, 0, 0, 3, 7, 8, 9, 1]).await.unwrap(), [7, 8, 9]);
        assert_eq!(read(&[[0, 0, 0, 10].as_slice(), &[5; 10]].concat()).await.unwrap(), [5; 10]);
        assert!(matches!(read(&[]).await, Err(Ended::Closed)));
        let refusal = |ended| match ended {
            Err(Ended::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal(read(&[0, 0, 0, 11]).await), Refusal::Oversized { bytes: 11, limit: 10 });
        assert_eq!(refusal(read(&[255; 4]).await), Refusal::Oversized { bytes: 0xffff_ffff, limit: 10 });
        assert!(matches!(refusal(read(&[0, 0, 0, 0]).await), Refusal::Malformed { .. }));
        assert!(matches!(refusal(read(&[0, 0]).await), Refusal::Malformed { .. }));
        assert!(matches!(refusal(read(&[0, 0, 0, 3, 7]).await), Refusal::Malformed { .. }));
    }

    /// Gives a byte, waits, and gives another.
    struct Slow {
        bytes: Cursor<Vec<u8>>,
        pause: Duration,
        timer: Pin<Box<Sleep>>,
    }

    impl AsyncRead for Slow {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            ready!(self.timer.as_mut().poll(context));
            let next = tokio::time::Instant::now() + self.pause;
            self.timer.as_mut().reset(next);
            Pin::new(&mut self.bytes).poll_read(context, &mut buffer[..1])
        }
    }

    #[tokio::test]
    async fn a_frame_may_take_long_as_long_as_it_comes() {
        let pause = Duration::from_millis(50);
        let bytes = Cursor::new([[0, 0, 0, 16].as_slice(), &[5; 16]].concat());
        let mut slow = Slow { bytes, pause, timer: Box::pin(tokio::time::sleep(pause)) };
        let bounds = Bounds { max_frame_bytes: 16, read_timeout: Duration::from_millis(600), ..bounds() };
        assert_eq!(read_frame(&mut slow, &bounds).await.unwrap(), [5; 16]);
    }

    #[tokio::test]
    async fn room_for_a_frame_is_made_as_it_comes() {
        let bytes: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
        let sent = [1_000_000_u32.to_be_bytes().as_slice(), &bytes].concat();
        let bounds = Bounds { max_frame_bytes: 1 << 20, ..bounds() };
        assert_eq!(read_frame(&mut Cursor::new(&sent), &bounds).await.unwrap(), bytes);
        let cut = read_frame(&mut Cursor::new(&sent[..500_000]), &bounds).await;
        assert!(matches!(cut, Err(Ended::Refused(Refusal::Malformed { .. }))), "{cut:?}");
    }
}
