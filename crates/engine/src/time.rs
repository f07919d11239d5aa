//! The two clocks that whoever runs the engine hands in with every input.

use std::time::Duration;

/// The moment of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Microseconds of a clock that never goes back and starts anywhere. Timers and round-trip times are kept in it.
    pub monotonic_us: u64,
    /// Milliseconds since 1970 as far as this machine knows. It may jump; nothing but stamps is made of it.
    pub wall_ms: u64,
}

impl Time {
    /// The monotonic moment that comes `after` this one, in microseconds.
    #[must_use]
    pub fn plus(self, after: Duration) -> u64 {
        self.monotonic_us.saturating_add(micros(after))
    }

    /// Time that has gone by since the monotonic moment `earlier_us`.
    #[must_use]
    pub fn since(self, earlier_us: u64) -> Duration {
        Duration::from_micros(self.monotonic_us.saturating_sub(earlier_us))
    }
}

/// A duration in whole microseconds.
#[must_use]
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
