//! A plain stream that is open.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::io::{AsyncRead as _, AsyncWrite as _};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::places::Place;
use super::wait::Wait;
use super::{Over, StreamEnded};
use crate::metrics::{IN, OUT};

const READER: usize = 0;
const WRITER: usize = 1;

/// A stream of bytes to and from a peer.
///
/// What one side writes the other reads, in order. [`shutdown`](tokio::io::AsyncWriteExt::shutdown) tells the other side
/// that no more will come, and leaves the other direction open; dropping the stream without it ends both at once, and what
/// was on its way may be lost. After `shutdown`, read to the end before dropping: else the other side does not learn that
/// nobody reads any more, and waits until it is idle for too long.
///
/// An end that was not told by `shutdown` may look like one to the reader: what is sent must say by itself how long it is.
/// Writes are put together: [`flush`](tokio::io::AsyncWriteExt::flush) what an answer is waited for.
#[derive(Debug)]
pub struct PeerStream {
    inner: libp2p::Stream,
    peer: String,
    read: Counter,
    written: Counter,
    /// One for whoever reads, and one for whoever writes: they may be two tasks.
    waits: [Wait; 2],
    _place: Place,
}

impl PeerStream {
    pub(super) fn new(inner: libp2p::Stream, over: Over, place: Place, idle: Duration) -> Self {
        place.opened();
        let counters = place.counters();
        let (read, written) = (counters.stream_bytes(&IN), counters.stream_bytes(&OUT));
        let (peer, wait) = (place.peer().to_string(), Wait::new(over, idle));
        Self { inner, peer, read, written, waits: [wait.another(), wait], _place: place }
    }

    /// The peer at the other end, as the connection has proved it.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Ends with the connection, or once nothing has come or gone for too long, also where nobody reads or writes: for
    /// whoever works on an answer meanwhile. That the other side has dropped the stream shows only to whoever reads.
    pub fn ended(&self) -> StreamEnded {
        StreamEnded(self.waits[READER].another())
    }

    fn written<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_pending() {
            return Poll::Ready(Err(ready!(self.waits[WRITER].poll(context))));
        }
        self.waits[WRITER].moved();
        written
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(context, buffer.initialize_unfilled()) else {
            return Poll::Ready(Err(ready!(this.waits[READER].poll(context))));
        };
        let bytes = read?;
        this.waits[READER].moved();
        this.read.inc_by(bytes as u64);
        buffer.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Otherwise it may be taken, and never sent.
        if self.waits[WRITER].is_over(context) {
            return self.written(context, Poll::Pending);
        }
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = written {
            self.written.inc_by(bytes as u64);
        }
        self.written(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Moves nothing itself: a stream that is flushed again and again is as idle as before.
        match Pin::new(&mut self.inner).poll_flush(context) {
            Poll::Pending => self.written(context, Poll::Pending),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_close(context);
        self.written(context, closed)
    }
}
