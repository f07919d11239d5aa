//! Whether a platform can be reached: asked now and then, and at once when something suggests that it cannot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// How often a platform is asked while it answers.
const EVERY: Duration = Duration::from_secs(15);
/// The first pause after it has not answered; it doubles until it is as long as the other.
const SOON: Duration = Duration::from_secs(1);
/// So often in a row it must not answer to count as away.
const MISSED: u32 = 2;

/// Asks a platform whether it is there, for as long as somebody may want to know.
pub(crate) struct Pulse {
    reachable: watch::Sender<Option<bool>>,
    suspect: Arc<Notify>,
    task: Mutex<Option<AbortHandle>>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { reachable: watch::Sender::new(None), suspect: Arc::default(), task: Mutex::default() }
    }

    /// Something that may be because the platform is away wakes this up.
    pub(crate) fn suspect(&self) -> Arc<Notify> {
        self.suspect.clone()
    }

    /// Tells whether the platform is there once it was asked, when it goes away, and when it is back. The first who wants to
    /// know says how it is asked.
    pub(crate) fn subscribe<Asked: Future<Output = bool> + Send + 'static>(
        &self,
        ask: impl Fn() -> Asked + Send + 'static,
    ) -> watch::Receiver<Option<bool>> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            *task = Some(tokio::spawn(beat(ask, self.reachable.clone(), self.suspect.clone())).abort_handle());
        }
        self.reachable.subscribe()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

async fn beat<Asked: Future<Output = bool> + Send>(
    ask: impl Fn() -> Asked + Send,
    reachable: watch::Sender<Option<bool>>,
    suspect: Arc<Notify>,
) {
    let mut missed = 0_u32;
    let mut first = true;
    loop {
        let pause = if std::mem::take(&mut first) {
            Duration::ZERO
        } else if missed == 0 {
            EVERY
        } else {
            EVERY.min(SOON * (1 << (missed - 1).min(8)))
        };
        // While it is away, what fails says nothing new.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = suspect.notified(), if missed == 0 => {}
        }
        let is_there = ask().await;
        missed = if is_there { 0 } else { missed.saturating_add(1) };
        if is_there || missed >= MISSED {
            reachable.send_if_modified(|was| was.replace(is_there) != Some(is_there));
        }
    }
}
