//! Which state of a site has lasted. Whoever comes and goes stays what it was.

use crate::Liveness;

/// The state of a site, since when, and the one before that lasted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    state: Liveness,
    since_us: u64,
    lasted: Option<Liveness>,
}

impl Standing {
    pub(super) fn new(state: Liveness, now_us: u64) -> Self {
        Self { state, since_us: now_us, lasted: None }
    }

    /// The site is in this state now. Whether that is another.
    pub(super) fn turn(&mut self, state: Liveness, now_us: u64, settle_us: u64) -> bool {
        if self.state == state {
            return false;
        }
        if self.is_steady(now_us, settle_us) {
            self.lasted = Some(self.state);
        }
        self.state = state;
        self.since_us = now_us;
        true
    }

    /// Whether it has been in its state for long enough to count on it.
    pub(super) fn is_steady(self, now_us: u64, settle_us: u64) -> bool {
        now_us.saturating_sub(self.since_us) >= settle_us
    }

    /// The last state that has lasted. Of a site that is new it is the first.
    pub(super) fn settled(self, now_us: u64, settle_us: u64) -> Liveness {
        let lasted = self.lasted.filter(|_| !self.is_steady(now_us, settle_us));
        lasted.unwrap_or(self.state)
    }

    /// When its state will have lasted, if that will make a difference.
    pub(super) fn settles_us(self, now_us: u64, settle_us: u64) -> Option<u64> {
        let differs = self.settled(now_us, settle_us) != self.state;
        differs.then(|| self.since_us.saturating_add(settle_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_comes_and_goes_stays_what_it_was_until_it_stops() {
        let mut site = Standing::new(Liveness::Alive, 0);
        assert_eq!(site.settled(1, 100), Liveness::Alive);
        let mut now = 200;
        for _ in 0..5 {
            assert!(site.turn(Liveness::Down, now, 100));
            assert!(!site.turn(Liveness::Down, now + 10, 100));
            assert_eq!(site.settled(now + 60, 100), Liveness::Alive);
            assert_eq!(site.settles_us(now + 60, 100), Some(now + 100));
            assert!(site.turn(Liveness::Alive, now + 60, 100));
            assert_eq!(site.settles_us(now + 61, 100), None);
            now += 90;
        }
        assert!(site.turn(Liveness::Down, now, 100));
        assert_eq!(site.settled(now + 100, 100), Liveness::Down);
        assert_eq!(site.settles_us(now + 100, 100), None);
    }
}
