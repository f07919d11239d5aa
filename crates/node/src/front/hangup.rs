//! Clients that hang up: what they have asked for is dropped until it changes something, and finished from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hyper::http::StatusCode;
use tokio::task::AbortHandle;

use super::answer::Refusal;

/// Something is being changed.
const BEGUN: u8 = 1;
/// The client has gone.
const GONE: u8 = 2;

/// How far a write is. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Begun(Arc<AtomicU8>);

fn gone() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "Timeout", "whoever has asked has hung up")
}

impl Begun {
    /// From now on something is changed, and the client's going interrupts nothing. An error if he has gone already.
    pub(super) fn begin(&self) -> Result<(), Refusal> {
        if self.0.fetch_or(BEGUN, Ordering::SeqCst) & GONE == 0 { Ok(()) } else { Err(gone()) }
    }

    /// What was begun is finished, and nothing else begun. An error if the client has gone meanwhile.
    pub(super) fn end(&self) -> Result<(), Refusal> {
        if self.0.fetch_and(!BEGUN, Ordering::SeqCst) & GONE == 0 { Ok(()) } else { Err(gone()) }
    }

    /// The client has gone. Whether that ends what he has asked for.
    fn leave(&self) -> bool {
        self.0.fetch_or(GONE, Ordering::SeqCst) & BEGUN == 0
    }
}

/// Somebody who waits for an answer.
struct Client {
    begun: Begun,
    task: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.begun.leave() {
            self.task.abort();
        }
    }
}

/// Carries out a write in a task of its own, which goes on without its client once it has begun.
pub(super) async fn carry_out<T: Send + 'static>(
    begun: Begun,
    write: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let task = tokio::spawn(write);
    let _client = Client { begun, task: task.abort_handle() };
    task.await.unwrap_or_else(|error| {
        let message = format!("the write has ended in a defect of the front: {error}");
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    /// A write that begins, if it does, and then waits for a word; the word, and what it tells at its end.
    async fn hung_up(begins: bool) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
        let ((go, wait), (told, ended)) = (oneshot::channel(), oneshot::channel());
        let (started, starts) = oneshot::channel();
        let begun = Begun::default();
        let own = begun.clone();
        let write = carry_out(begun, async move {
            if begins {
                own.begin()?;
            }
            started.send(()).unwrap();
            wait.await.unwrap();
            told.send(()).unwrap();
            Ok(())
        });
        let mut write = Box::pin(write);
        assert!(write.as_mut().now_or_never().is_none());
        starts.await.unwrap();
        drop(write);
        (go, ended)
    }

    #[tokio::test]
    async fn what_has_begun_is_finished_when_its_client_hangs_up_and_nothing_else() {
        let (go, ended) = hung_up(true).await;
        go.send(()).unwrap();
        ended.await.unwrap();
        let (_go, ended) = hung_up(false).await;
        assert!(ended.await.is_err(), "it is dropped");
    }

    #[test]
    fn nothing_is_begun_for_whom_has_gone() {
        let begun = Begun::default();
        begun.begin().unwrap();
        begun.begin().unwrap();
        assert!(!begun.leave() && begun.end().is_err() && begun.begin().is_err());
        let begun = Begun::default();
        begun.begin().unwrap();
        begun.end().unwrap();
        assert!(begun.leave() && begun.begin().is_err());
    }
}
