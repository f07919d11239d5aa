//! What is known of the sites when a scope is evaluated.

use std::{cmp::Ordering, collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The sites as the evaluating site sees them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The name of the site that evaluates: the value of `here`, and the middle for `n of`.
    pub here: String,
    /// Every known site by name, `here` included. An evaluation names no other.
    pub sites: BTreeMap<String, SiteView>,
}

/// What is known of one site.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SiteView {
    /// Its labels, by key.
    pub labels: BTreeMap<String, String>,
    /// Whether it answers.
    pub state: State,
    /// How busy it is; less is better, the unit is whatever all sites of the view agree on. What is no number counts
    /// as busier than all others.
    pub load: f64,
    /// The measured round-trip times from this site, by the name of the other.
    pub rtt: BTreeMap<String, Duration>,
    /// It was chosen before, and what it was chosen for lives there. It is kept if it is in no worse state than another:
    /// measured times change all the time, and nothing is to move because of that.
    pub held: bool,
}

/// Whether a site answers, best first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It answers.
    #[default]
    Alive,
    /// It has been silent for longer than usual.
    Suspect,
    /// It has been silent for so long that it is taken to be cut off.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

impl View {
    /// The round-trip time between two sites: zero for one and the same, else what `from` measured, else what `to`
    /// did. `None` if neither has, or one is not known.
    #[must_use]
    pub fn rtt(&self, from: &str, to: &str) -> Option<Duration> {
        let (near, far) = (self.sites.get(from)?, self.sites.get(to)?);
        if from == to {
            return Some(Duration::ZERO);
        }
        near.rtt.get(to).or_else(|| far.rtt.get(from)).copied()
    }

    /// Whether a site is known to be down.
    pub(crate) fn is_down(&self, site: &str) -> bool {
        self.sites.get(site).is_some_and(|site| site.state == State::Down)
    }

    /// Which of two sites placement prefers: by state, then the one chosen before, then by round-trip time from here
    /// (unknown is last), then by load, then by name, so that the order is total.
    pub(crate) fn prefer(&self, one: &str, other: &str) -> Ordering {
        let key = |name: &str| {
            let site = self.sites.get(name);
            let load = site.map_or(f64::INFINITY, |site| site.load);
            let load = if load.is_nan() { f64::INFINITY } else { load + 0.0 };
            let state = (site.map_or(State::Down, |site| site.state), !site.is_some_and(|site| site.held));
            (state, self.rtt(&self.here, name).unwrap_or(Duration::MAX), load)
        };
        let ((state, rtt, load), (other_state, other_rtt, other_load)) = (key(one), key(other));
        state.cmp(&other_state).then(rtt.cmp(&other_rtt)).then(load.total_cmp(&other_load)).then_with(|| one.cmp(other))
    }

    /// A site as a sentence about choosing describes it.
    pub(crate) fn describe(&self, name: &str) -> String {
        let Some(site) = self.sites.get(name) else { return name.to_owned() };
        let away = match self.rtt(&self.here, name) {
            Some(_) if name == self.here => "here".to_owned(),
            Some(rtt) => format!("{} away", crate::duration::write(rounded(rtt))),
            None => "distance unknown".to_owned(),
        };
        let held = if site.held { ", chosen before" } else { "" };
        format!("{name} ({}, {away}, load {:.2}{held})", site.state, site.load)
    }
}

/// A measured time without the digits that tell people nothing.
pub(crate) fn rounded(time: Duration) -> Duration {
    let micros = time.as_micros();
    let step = if micros >= 10_000 { 1000 } else { 1 };
    Duration::from_micros(u64::try_from((micros + step / 2) / step * step).unwrap_or(u64::MAX))
}
