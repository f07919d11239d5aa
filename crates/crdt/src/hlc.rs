//! The hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) as one integer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A hybrid logical clock value: milliseconds since 1970 times 1,024 plus a counter within the millisecond.
///
/// It stays below 2^53 until the year 2248, so that implementations with only doubles read it exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Ticks in one millisecond; more than so many events in one of them borrow from the next.
    pub const TICKS_PER_MS: u64 = 1024;

    /// The first value of a millisecond.
    #[must_use]
    pub fn from_ms(wall_ms: u64) -> Self {
        Self(wall_ms.saturating_mul(Self::TICKS_PER_MS))
    }

    /// Milliseconds since 1970, without the counter.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 / Self::TICKS_PER_MS
    }

    /// The value that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 % Self::TICKS_PER_MS)
    }
}

/// A value from elsewhere was too far ahead to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a clock is {ahead_ms} ms ahead of ours (the bound is {bound_ms} ms): set the clock of one of the two sites")]
pub struct ClockAhead {
    /// How far it is ahead, in milliseconds.
    pub ahead_ms: u64,
    /// The bound, in milliseconds.
    pub bound_ms: u64,
}

/// Gives out clock values that only grow.
#[derive(Debug, Clone)]
pub struct Clock {
    last: Hlc,
    bound_ms: u64,
}

impl Clock {
    /// A clock that follows others at most `bound_ms` ahead of its own wall clock.
    #[must_use]
    pub fn new(last: Hlc, bound_ms: u64) -> Self {
        Self { last, bound_ms }
    }

    /// The newest value that was given out or followed.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A new value, above all earlier ones.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::from_ms(wall_ms));
        self.last
    }

    /// Follows a value seen elsewhere, so that what comes next here ranks above it.
    ///
    /// # Errors
    /// [`ClockAhead`] if it is beyond the bound; this clock is then unchanged. What carried the value is still good:
    /// causality, not the clock, orders what follows from what.
    pub fn follow(&mut self, seen: Hlc, wall_ms: u64) -> Result<(), ClockAhead> {
        let ahead_ms = seen.ms().saturating_sub(wall_ms);
        if ahead_ms > self.bound_ms {
            return Err(ClockAhead { ahead_ms, bound_ms: self.bound_ms });
        }
        self.last = self.last.max(seen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn grows_even_if_the_wall_clock_goes_back() {
        let mut clock = Clock::new(Hlc::default(), 1000);
        let a = clock.tick(5000);
        let b = clock.tick(4000);
        assert!(b > a);
    }

    #[test]
    fn a_clock_far_ahead_is_refused_not_followed() {
        let mut clock = Clock::new(Hlc::default(), 1000);
        let before = clock.tick(5000);
        assert!(clock.follow(Hlc::from_ms(6001), 5000).is_err());
        assert_eq!(clock.last(), before);
        clock.follow(Hlc::from_ms(6000), 5000).unwrap();
        assert!(clock.tick(5000) > Hlc::from_ms(6000));
    }
}
