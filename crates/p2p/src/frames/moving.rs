//! Writing that is given up once nothing moves any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::AsyncWrite;
use tokio::time::{Instant, Sleep};

/// Gives up when the other side takes nothing for so long. How long all of it takes is no matter: frames share the line with
/// plain streams, and a slow line is no fault of the peer.
#[derive(Debug)]
pub(super) struct Moving<W> {
    inner: W,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    waits: bool,
}

impl<W> Moving<W> {
    pub(super) fn new(inner: W, limit: Duration) -> Self {
        Self { inner, limit, timer: Box::pin(tokio::time::sleep(limit)), waits: false }
    }

    fn limited<R>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.waits = false;
            return done;
        }
        if !self.waits {
            self.timer.as_mut().reset(Instant::now() + self.limit);
            self.waits = true;
        }
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read"));
        self.timer.as_mut().poll(context).map(|()| late())
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Moving<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.limited(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.limited(context, flushed)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_close(context);
        self.limited(context, closed)
    }
}
