//! How streams end with their connection.
//!
//! Yamux tells streams when the other side closes a connection, or it breaks; of one that this side closes, whoever waits
//! to read would never hear.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{FusedFuture as _, Shared};

/// A connection lives for as long as this does.
#[derive(Debug)]
pub(crate) struct Life {
    _ends: oneshot::Sender<Infallible>,
    over: Over,
}

/// Ready once the connection is over. Each clone wakes one task.
#[derive(Debug, Clone)]
pub(crate) struct Over(Shared<oneshot::Receiver<Infallible>>);

impl Default for Life {
    fn default() -> Self {
        let (ends, over) = oneshot::channel();
        Self { _ends: ends, over: Over(over.shared()) }
    }
}

impl Life {
    pub(crate) fn over(&self) -> Over {
        self.over.clone()
    }
}

impl Over {
    /// Also again after it was ready.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.0.is_terminated() { Poll::Ready(()) } else { Pin::new(&mut self.0).poll(context).map(drop) }
    }
}
