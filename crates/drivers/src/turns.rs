//! How many requests a platform is sent at once, and how many a second.

use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::DriverError;

/// Gives out turns.
#[derive(Debug)]
pub(crate) struct Turns {
    slots: Semaphore,
    /// Between two requests, over a longer time.
    step: Duration,
    /// What may be caught up after a pause.
    burst: Duration,
    /// When the next request may begin, if none had to wait.
    next: Mutex<Instant>,
}

impl Turns {
    /// So many at once, so many a second over a longer time, and so many at once after a pause.
    pub(crate) fn new(at_once: usize, a_second: u32, burst: u32) -> Self {
        let step = Duration::from_secs(1) / a_second.max(1);
        Self { slots: Semaphore::new(at_once), step, burst: step * burst, next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, DriverError> {
        let permit = self
            .slots
            .acquire()
            .await
            .map_err(|error| DriverError::Unavailable { reason: error.to_string(), retry_after: None })?;
        let at = {
            let mut next = self.next.lock().await;
            *next = (*next).max(Instant::now().checked_sub(self.burst).unwrap_or_else(Instant::now)) + self.step;
            *next
        };
        tokio::time::sleep_until(at).await;
        Ok(permit)
    }
}
