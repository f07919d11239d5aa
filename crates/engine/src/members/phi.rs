//! The phi-accrual failure detector (Hayashibara et al., 2004): how unlikely the silence of a node is.

use std::collections::VecDeque;

/// How many gaps between heartbeats are remembered.
const WINDOW: usize = 64;

/// Learns how regularly one node is heard, and says how odd its silence is.
#[derive(Debug, Clone)]
pub(crate) struct Phi {
    gaps_us: VecDeque<f64>,
    last_us: u64,
    expected_us: f64,
    slack_us: f64,
}

impl Phi {
    /// A detector for heartbeats at least about every `expected_us` microseconds, give or take `slack_us`, first heard at
    /// `now_us`.
    pub(crate) fn new(expected_us: u64, slack_us: u64, now_us: u64) -> Self {
        let (expected_us, slack_us) = (expected_us.max(1) as f64, slack_us.max(1) as f64);
        Self { gaps_us: VecDeque::new(), last_us: now_us, expected_us, slack_us }
    }

    /// The node was heard.
    pub(crate) fn heard(&mut self, now_us: u64) {
        let gap = now_us.saturating_sub(self.last_us) as f64;
        self.last_us = now_us;
        // Frames that come in a burst say nothing of the rhythm, and a gap from before a cut is no rhythm either.
        if gap < self.expected_us / 2.0 || gap > self.expected_us * 10.0 {
            return;
        }
        if self.gaps_us.len() == WINDOW {
            self.gaps_us.pop_front();
        }
        self.gaps_us.push_back(gap);
    }

    /// How long it has been silent, in microseconds.
    pub(crate) fn silent_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.last_us)
    }

    /// Minus the decimal logarithm of the probability that a living node is silent for so long: 1 is one in ten, 8 one
    /// in 10^8. At most 100.
    pub(crate) fn level(&self, now_us: u64) -> f64 {
        let silent = now_us.saturating_sub(self.last_us) as f64;
        let count = self.gaps_us.len() as f64;
        let mean = if self.gaps_us.is_empty() { self.expected_us } else { self.gaps_us.iter().sum::<f64>() / count };
        let variance = self.gaps_us.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count.max(1.0);
        // A pause of the process is nothing to be alarmed at, nor is it that one who had much to say has nothing to say.
        let deviation = variance.sqrt().max(self.slack_us / 2.0);
        let tolerated = mean.max(self.expected_us) + self.slack_us;
        // The logistic approximation of the normal distribution's tail, good to 10^-4 (Bowling et al., 2009).
        let y = ((silent - tolerated) / deviation).clamp(-8.0, 16.0);
        let odds = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        let tail = if y > 0.0 { odds / (1.0 + odds) } else { 1.0 - 1.0 / (1.0 + odds) };
        -tail.max(1e-100).log10()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_grows_more_suspicious_and_a_word_clears_it() {
        let mut phi = Phi::new(1_000_000, 1_000_000, 0);
        for second in 1..30 {
            phi.heard(second * 1_000_000);
        }
        let at = |seconds: u64| 29_000_000 + seconds * 1_000_000;
        assert!(phi.level(at(1)) < 0.5, "{}", phi.level(at(1)));
        assert!(phi.level(at(3)) < 3.0, "{}", phi.level(at(3)));
        assert!(phi.level(at(4)) > phi.level(at(3)));
        assert!(phi.level(at(10)) > 8.0, "{}", phi.level(at(10)));
        assert!(phi.level(u64::MAX).is_finite());
        phi.heard(at(20));
        assert!(phi.level(at(21)) < 0.5);
    }

    #[test]
    fn a_node_heard_once_is_not_trusted_for_ever() {
        let phi = Phi::new(1_000_000, 1_000_000, 0);
        assert!(phi.level(500_000) < 0.5);
        assert!(phi.level(10_000_000) > 8.0);
    }

    #[test]
    fn rare_heartbeats_are_missed_after_one_and_a_little() {
        let mut phi = Phi::new(5_000_000, 1_000_000, 0);
        assert!(phi.level(5_500_000) < 0.5, "{}", phi.level(5_500_000));
        // It has had much to say, and then nothing.
        (1..100).for_each(|number| phi.heard(number * 3_000_000));
        let at = |seconds: u64| 99 * 3_000_000 + seconds * 1_000_000;
        assert!(phi.level(at(5)) < 0.5, "{}", phi.level(at(5)));
        assert!(phi.level(at(6)) < 3.0, "{}", phi.level(at(6)));
        assert!(phi.level(at(9)) > 8.0, "{}", phi.level(at(9)));
    }
}
