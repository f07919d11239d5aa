//! Whether a request still moves.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::Instant;

use crate::body::{Body, BoxError};

/// When something of a request was last sent.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    moved: Instant,
    /// Whether more of the body is waited for: that is whoever asks, and not whoever is asked.
    waits: bool,
}

impl Progress {
    /// Watches over the body of a request that is about to be sent.
    pub(crate) fn watch(body: Body) -> (Self, Watched) {
        let progress = Self(Arc::new(Mutex::new(State { moved: Instant::now(), waits: false })));
        (progress.clone(), Watched { body, progress })
    }

    fn set(&self, waits: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State { moved: Instant::now(), waits };
    }

    fn due(&self, limit: Duration) -> Instant {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waits { Instant::now() + limit } else { state.moved + limit }
    }

    /// Ends when nothing more has been sent for so long, without counting the time in which there was nothing to send yet. A
    /// body that takes hours is no reason to give up, and an answer that does not come after it is.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let due = self.due(limit);
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A body that is watched over.
pub(crate) struct Watched {
    body: Body,
    progress: Progress,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.progress.set(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
