//! The clocks of one machine: off by any amount, and faster or slower than others.

use crate::Time;

/// The year 2026, so that wall clocks have plausible values.
const WALL_MS: u64 = 1_790_000_000_000;
/// The speed of a clock that is right, in parts per million.
pub(super) const RIGHT_PPM: u64 = 1_000_000;

/// What one machine takes for the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    /// The moment of the world since which the speed is as it is.
    since_us: u64,
    /// What the machine thinks had gone by then.
    gone_us: u64,
    speed_ppm: u64,
    /// What the monotonic clock showed when the world began. Another for every process.
    pub(super) boot_us: u64,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { since_us: 0, gone_us: 0, speed_ppm: RIGHT_PPM, boot_us: 0 }
    }
}

fn scaled(us: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(us) * u128::from(by) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

impl Clocks {
    fn gone(&self, now_us: u64) -> u64 {
        self.gone_us.saturating_add(scaled(now_us.saturating_sub(self.since_us), self.speed_ppm, RIGHT_PPM))
    }

    /// What the machine shows at a moment of the world, its wall clock being set off by so much.
    pub(super) fn at(&self, now_us: u64, skew_ms: i64) -> Time {
        let gone = self.gone(now_us);
        Time {
            monotonic_us: self.boot_us.saturating_add(gone),
            wall_ms: (WALL_MS + gone / 1000).saturating_add_signed(skew_ms),
        }
    }

    /// The moment of the world at which the monotonic clock shows this, or has just shown it.
    pub(super) fn when(&self, monotonic_us: u64) -> u64 {
        let left = monotonic_us.saturating_sub(self.boot_us).saturating_sub(self.gone_us);
        // One more, because parts of a microsecond are cut off on both ways.
        self.since_us.saturating_add(scaled(left, RIGHT_PPM, self.speed_ppm)).saturating_add(1)
    }

    /// From now on it runs at another speed.
    pub(super) fn set_speed(&mut self, now_us: u64, speed_ppm: u64) {
        self.gone_us = self.gone(now_us);
        self.since_us = now_us;
        self.speed_ppm = speed_ppm.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_changes_its_speed_never_jumps_and_is_never_early() {
        let mut clocks = Clocks { boot_us: 77, ..Clocks::default() };
        assert_eq!(clocks.at(1_000, 0).monotonic_us, 1_077);
        clocks.set_speed(1_000, 2 * RIGHT_PPM);
        assert_eq!(clocks.at(1_000, 0).monotonic_us, 1_077);
        assert_eq!(clocks.at(2_000, 0).monotonic_us, 3_077);
        clocks.set_speed(2_000, 333_333);
        for due in [3_077, 3_078, 3_100, 1_000_000] {
            let when = clocks.when(due);
            assert!(clocks.at(when, 0).monotonic_us >= due, "{due}");
            assert!(clocks.at(when.saturating_sub(5), 0).monotonic_us <= due, "{due}");
        }
    }
}
