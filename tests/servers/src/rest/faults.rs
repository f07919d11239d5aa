//! What goes wrong.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Asked;

/// Something that goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429; nothing is done.
    TooMany {
        /// What `Retry-After` says.
        retry_after_s: u64,
    },
    /// Such a status; nothing is done.
    FailBefore(u16),
    /// The connection is closed; nothing is done.
    HangUpBefore,
    /// All is done as asked, after a while.
    SlowBefore(Duration),
    /// Sent elsewhere; nothing is done.
    MovedTo(String),
    /// All is done as asked, and the answer is such a status.
    FailAfter(u16),
    /// All is done as asked, and the connection is closed.
    HangUpAfter,
    /// All is done as asked, and the answer comes after a while.
    SlowAfter(Duration),
    /// All is done as asked, and half of the answer comes.
    CutAfter,
}

/// What goes wrong next.
#[derive(Debug, Default)]
pub(super) struct Faults {
    next: VecDeque<(String, String, Fault)>,
    chaos: Option<(StdRng, u32)>,
}

impl Faults {
    pub(super) fn next(&mut self, method: &str, path: &str, fault: Fault) {
        self.next.push_back((method.to_owned(), path.to_owned(), fault));
    }

    pub(super) fn chaos(&mut self, seed: u64, of_a_hundred: u32) {
        self.chaos = (of_a_hundred > 0).then(|| (StdRng::seed_from_u64(seed), of_a_hundred));
    }

    pub(super) fn choose(&mut self, asked: &Asked) -> Option<Fault> {
        let is_it =
            |(method, path, _): &(String, String, Fault)| *method == asked.method && asked.path.contains(path.as_str());
        if let Some(place) = self.next.iter().position(is_it) {
            return self.next.remove(place).map(|(_, _, fault)| fault);
        }
        let (random, of_a_hundred) = self.chaos.as_mut()?;
        if random.random_range(0..100) >= *of_a_hundred {
            return None;
        }
        let soon = Duration::from_millis(random.random_range(1..200));
        Some(match random.random_range(0..8) {
            0 => Fault::TooMany { retry_after_s: 0 },
            1 => Fault::FailBefore(500),
            2 => Fault::HangUpBefore,
            3 => Fault::SlowBefore(soon),
            4 => Fault::FailAfter(503),
            5 => Fault::HangUpAfter,
            6 => Fault::SlowAfter(soon),
            _ => Fault::CutAfter,
        })
    }
}
