//! Whether the API server can be reached: asked now and then, and at once when a watch is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::server::Server;
use super::watching::Watcher;

/// How often the server is asked while it answers.
const EVERY: Duration = Duration::from_secs(15);
/// The first pause after it has not answered; it doubles until it is as long as the other.
const SOON: Duration = Duration::from_secs(1);
/// So often in a row it must not answer to count as away.
const MISSED: u32 = 2;

/// Asks an API server whether it is there, for as long as somebody may want to know.
pub(super) struct Pulse {
    reachable: watch::Sender<Option<bool>>,
    suspect: Arc<Notify>,
    task: Mutex<Option<AbortHandle>>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { reachable: watch::Sender::new(None), suspect: Arc::default(), task: Mutex::default() }
    }

    /// Something that may be because the server is away wakes this up.
    pub(super) fn suspect(&self) -> Arc<Notify> {
        self.suspect.clone()
    }

    /// Tells whether the server is there once it was asked, when it goes away, and when it is back. What is written anew of how it is reached is taken up then.
    pub(super) fn subscribe(&self, server: &Arc<Server>, watcher: &Arc<Watcher>) -> watch::Receiver<Option<bool>> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let beat = beat(server.clone(), watcher.clone(), self.reachable.clone(), self.suspect.clone());
            *task = Some(tokio::spawn(beat).abort_handle());
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

async fn beat(
    server: Arc<Server>,
    watcher: Arc<Watcher>,
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
        // While it is away, watches that fail say nothing new.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = suspect.notified(), if missed == 0 => {}
        }
        if server.reload().await {
            watcher.begin_anew(&server);
        }
        let is_ready = server.is_ready().await;
        missed = if is_ready { 0 } else { missed.saturating_add(1) };
        if is_ready || missed >= MISSED {
            reachable.send_if_modified(|was| was.replace(is_ready) != Some(is_ready));
        }
    }
}
