//! A simulated network: connections that keep the order of frames, and gossip that keeps nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Next, World};
use crate::{Input, NodeId};

/// How the network treats what is sent. Times are in microseconds, shares in percent.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// The least time that anything is on its way.
    pub delay_us: u64,
    /// What is added at most, at random. Gossip is reordered by it; frames of one connection keep their order.
    pub jitter_us: u64,
    /// Gossip that is lost.
    pub gossip_loss: u64,
    /// Gossip that comes twice.
    pub gossip_twice: u64,
    /// Frames that are lost although the connection stays, as in a drill.
    pub frame_loss: u64,
    /// Driver calls that fail, and leave the replica as it was.
    pub driver_failure: u64,
    /// Driver calls that do their work and give no answer.
    pub driver_silence: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay_us: 5_000,
            jitter_us: 5_000,
            gossip_loss: 0,
            gossip_twice: 0,
            frame_loss: 0,
            driver_failure: 0,
            driver_silence: 0,
        }
    }
}

/// A frame or a gossiped message as somebody sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The site that sent it.
    pub from: String,
    /// The site that it was sent to, or that gossip took it to.
    pub to: String,
    /// Whether it was gossiped.
    pub gossip: bool,
    /// What was sent.
    pub bytes: Vec<u8>,
}

/// Who can reach whom, and when the last frame on each connection arrives.
#[derive(Debug, Default)]
pub(super) struct Network {
    cut: BTreeSet<(String, String)>,
    /// Connections by both ends in order of their names, with a number for each time they were made.
    up: BTreeMap<(String, String), u64>,
    last_frame_us: BTreeMap<(String, String), u64>,
    made: u64,
}

fn ends(a: &str, b: &str) -> (String, String) {
    if a < b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) }
}

impl World {
    /// Cuts the connection between two sites.
    pub fn cut(&mut self, a: &str, b: &str) {
        self.network.cut.insert(ends(a, b));
        self.refresh_links();
    }

    /// Cuts the sites into groups that cannot reach each other.
    pub fn partition(&mut self, groups: &[&[&str]]) {
        for (number, group) in groups.iter().enumerate() {
            for other in groups.iter().skip(number + 1) {
                for a in *group {
                    for b in *other {
                        self.network.cut.insert(ends(a, b));
                    }
                }
            }
        }
        self.refresh_links();
    }

    /// Cuts one site from all others.
    pub fn isolate(&mut self, site: &str) {
        let others: Vec<_> = self.sites.keys().filter(|other| *other != site).cloned().collect();
        for other in others {
            self.network.cut.insert(ends(site, &other));
        }
        self.refresh_links();
    }

    /// Connects two sites again.
    pub fn mend(&mut self, a: &str, b: &str) {
        self.network.cut.remove(&ends(a, b));
        self.refresh_links();
    }

    /// Connects all sites again.
    pub fn heal(&mut self) {
        self.network.cut.clear();
        self.refresh_links();
    }

    /// Makes and drops connections, so that they fit who runs and what is cut.
    pub(super) fn refresh_links(&mut self) {
        let names: Vec<_> = self.sites.keys().cloned().collect();
        for (number, a) in names.iter().enumerate() {
            for b in names.iter().skip(number + 1) {
                let link = ends(a, b);
                let both = self.is_running(a) && self.is_running(b);
                let wanted = both && !self.network.cut.contains(&link);
                let is_up = self.network.up.contains_key(&link);
                if wanted && !is_up {
                    self.network.made += 1;
                    self.network.up.insert(link, self.network.made);
                    self.tell_link(a, b, true);
                    self.tell_link(b, a, true);
                } else if !wanted && is_up {
                    self.network.up.remove(&link);
                    self.tell_link(a, b, false);
                    self.tell_link(b, a, false);
                }
            }
        }
    }

    fn tell_link(&mut self, site: &str, other: &str, up: bool) {
        let Some(life) = self.life(site) else { return };
        let node = Self::node(other);
        let input = if up { Input::PeerUp { node } } else { Input::PeerDown { node } };
        // Both ends hear of it in the order in which it happens, one after the other.
        self.at(10 + u64::from(up), site, Next::Arrive { life, input });
    }

    /// What is on its way takes so long.
    fn travel_us(&mut self) -> u64 {
        let jitter = self.below(self.weather.jitter_us.max(1));
        self.weather.delay_us + jitter
    }

    pub(super) fn send(&mut self, from: &str, to: &NodeId, bytes: Vec<u8>) {
        let to = Self::site_of(to).to_owned();
        self.note(from, &to, false, &bytes);
        let Some(link) = self.network.up.get(&ends(from, &to)).copied() else { return };
        if self.chance(self.weather.frame_loss) {
            return;
        }
        let direction = (from.to_owned(), to.clone());
        let arrives =
            (self.now_us + self.travel_us()).max(self.network.last_frame_us.get(&direction).copied().unwrap_or(0) + 1);
        self.network.last_frame_us.insert(direction, arrives);
        let from_life = self.life(from).unwrap_or(0);
        let after = arrives - self.now_us;
        self.at(after, &to, Next::Frame { from: from.to_owned(), from_life, link, bytes });
    }

    fn note(&mut self, from: &str, to: &str, gossip: bool, bytes: &[u8]) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(Recorded { from: from.to_owned(), to: to.to_owned(), gossip, bytes: bytes.to_vec() });
        }
    }

    /// Whether the connection a frame was sent on is still there.
    pub(super) fn is_same_link(&self, a: &str, b: &str, link: u64) -> bool {
        self.network.up.get(&ends(a, b)) == Some(&link)
    }

    pub(super) fn disconnect(&mut self, site: &str, node: &NodeId) {
        let other = Self::site_of(node).to_owned();
        self.disconnected += 1;
        if self.network.up.remove(&ends(site, &other)).is_some() {
            self.tell_link(site, &other, false);
            self.tell_link(&other, site, false);
        }
        // As in the real network, both try again.
        self.refresh_links();
    }

    /// Gossip reaches all who listen and can be reached, also by way of others who listen.
    pub(super) fn publish(&mut self, from: &str, topic: &str, bytes: &[u8]) {
        let mut reached = BTreeSet::from([from.to_owned()]);
        let mut edge = vec![from.to_owned()];
        while let Some(at) = edge.pop() {
            let next: Vec<_> = self
                .sites
                .iter()
                .filter(|(name, site)| !reached.contains(*name) && site.topics.contains(topic))
                .filter(|(name, _)| self.network.up.contains_key(&ends(&at, name)))
                .map(|(name, _)| name.clone())
                .collect();
            for name in next {
                reached.insert(name.clone());
                edge.push(name.clone());
                self.note(from, &name, true, bytes);
                let copies = 1 + u64::from(self.chance(self.weather.gossip_twice));
                for _ in 0..copies {
                    if self.chance(self.weather.gossip_loss) {
                        continue;
                    }
                    let after = self.travel_us();
                    let Some(life) = self.life(&name) else { continue };
                    let input = Input::Gossip { source: Self::node(&at), bytes: bytes.to_vec() };
                    self.at(after, &name, Next::Arrive { life, input });
                }
            }
        }
    }
}
