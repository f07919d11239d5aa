//! A body that can be sent to another node for as long as nobody has taken any of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use crate::body::{Body, BoxError};

/// A body that nobody has taken any of.
#[derive(Clone)]
pub(super) struct Untouched {
    body: Arc<Mutex<Option<Body>>>,
    is_empty: bool,
}

impl Untouched {
    pub(super) fn new(body: Body) -> Self {
        let is_empty = body.is_end_stream();
        Self { body: Arc::new(Mutex::new(Some(body))), is_empty }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be sent once more.
    pub(super) fn is_whole(&self) -> bool {
        self.is_empty || self.lock().is_some()
    }

    /// The body, for one attempt to send it.
    pub(super) fn lend(&self) -> Lent {
        Lent { of: self.clone(), taken: None }
    }
}

/// The body that is sent. It is taken when the first of it is wanted.
pub(super) struct Lent {
    of: Untouched,
    taken: Option<Body>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.of.is_empty {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        if this.taken.is_none() {
            this.taken = this.of.lock().take();
        }
        match &mut this.taken {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(Some(Err("some of the body has been sent to another node".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.of.is_empty || self.taken.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(body) = &self.taken {
            return body.size_hint();
        }
        self.of.lock().as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
