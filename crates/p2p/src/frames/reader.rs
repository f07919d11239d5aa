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
    let remainder = async {
        let mut rest = [0; HEADER_BYTES - 1];
        stream.read_exact(&mut rest).await.map_err(cut_short)?;
        let ([a], [b, c, d]) = (first, rest);
        let length = u32::from_be_bytes([a, b, c, d]);
        let limit = bounds.max_frame_bytes;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= limit) else {
            return Err(Ended::Refused(Refusal::Oversized { bytes: length.into(), limit: limit as u64 }));
        };
        if length == 0 {
            return Err(Ended::Refused(Refusal::Malformed { detail: "it has no content".into() }));
        }
        let mut frame = Vec::with_capacity(length.min(FIRST_ALLOCATION));
        stream.take(length as u64).read_to_end(&mut frame).await.map_err(Ended::Broken)?;
        if frame.len() < length { Err(cut_short(io::ErrorKind::UnexpectedEof.into())) } else { Ok(frame) }
    };
    timeout(bounds.read_timeout, remainder)
        .await
        .unwrap_or_else(|_| Err(Ended::Refused(Refusal::Malformed { detail: "its rest did not come in time".into() })))
}

fn cut_short(error: io::Error) -> Ended {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Ended::Refused(Refusal::Malformed { detail: "the stream ends within it".into() });
    }
    Ended::Broken(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use futures::io::Cursor;

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
}
