//! The clocks that the engine is handed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use khufu_engine::Time;
use tokio::time::Instant;

/// Counts from when it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Time {
        Time { monotonic_us: u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX), wall_ms: wall_ms() }
    }

    /// The moment that the engine calls `at_us`; far off if it is beyond what can be represented.
    pub(crate) fn instant(self, at_us: u64) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start + Duration::from_micros(at_us).min(self.start.elapsed() + FAR)
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
