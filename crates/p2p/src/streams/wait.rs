//! When waiting at a plain stream is of no use any more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Over;

/// Its connection is over, or nothing has come or gone for too long. Each wakes one task, so each task that waits has one.
#[derive(Debug)]
pub(super) struct Wait {
    over: Over,
    limit: Duration,
    moved: Arc<Mutex<Instant>>,
    sleep: Pin<Box<Sleep>>,
}

impl Wait {
    pub(super) fn new(over: Over, limit: Duration) -> Self {
        let moved = Arc::new(Mutex::new(Instant::now()));
        Self { over, limit, moved, sleep: Box::pin(tokio::time::sleep(limit)) }
    }

    /// The same, for another task.
    pub(super) fn another(&self) -> Self {
        let (over, moved) = (self.over.clone(), self.moved.clone());
        Self { over, limit: self.limit, moved, sleep: Box::pin(tokio::time::sleep(self.limit)) }
    }

    /// Something has come or gone.
    pub(super) fn moved(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the connection is over.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.over.poll(context).is_ready()
    }

    /// Ready with why it is of no use to wait.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.is_over(context) {
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, "the connection to the peer is over"));
        }
        loop {
            ready!(self.sleep.as_mut().poll(context));
            // Setting the timer anew for each read would cost more than looking again when it has rung.
            let due = *self.moved.lock().unwrap_or_else(PoisonError::into_inner) + self.limit;
            if due <= Instant::now() {
                let words = "nothing has come or gone over the stream for too long";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

/// Ends with a stream that nobody reads or writes: [`PeerStream::ended`](super::PeerStream::ended).
#[derive(Debug)]
pub struct StreamEnded(pub(super) Wait);

impl Future for StreamEnded {
    type Output = io::Error;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Error> {
        self.0.poll(context)
    }
}
