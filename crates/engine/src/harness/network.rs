//! A simulated network: connections that keep the order of frames, and gossip that keeps nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Next, World};
use crate::wire::{self, Frame, Gossip, Push, Signed, What};
use crate::{Input, NodeId};

/// How the network treats what is sent. Times are in microseconds, shares in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// What is added at most, at random, to the time that a driver takes.
    pub driver_us: u64,
    /// What is added at most, at random, to the time until a batch is synced.
    pub disk_us: u64,
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
            driver_us: 0,
            disk_us: 0,
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

impl Recorded {
    /// What kind of message it is, in a word: the name of the frame, with what it carries where that makes a difference.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        fn of(push: &Push) -> &'static str {
            match (push.changes.is_empty(), push.reports.is_empty()) {
                (false, _) => "changes",
                (true, false) => "report",
                (true, true) => "heads",
            }
        }
        if self.gossip {
            let body =
                wire::decode_frame::<Signed>(&self.bytes).and_then(|signed| wire::decode_frame::<Gossip>(&signed.body));
            return match body {
                Ok(Gossip::Member(_)) => "gossiped member",
                Ok(Gossip::Push(push)) if !push.changes.is_empty() => "gossiped changes",
                Ok(Gossip::Push(_)) => "gossiped report",
                Err(_) => "gossip that nobody understands",
            };
        }
        match wire::decode_frame::<Frame>(&self.bytes) {
            Ok(Frame::Members { .. }) => "members",
            Ok(Frame::Ping { .. }) => "ping",
            Ok(Frame::Pong { .. }) => "pong",
            Ok(Frame::Shared { .. }) => "shared",
            Ok(Frame::Reconcile { .. }) => "reconcile",
            Ok(Frame::Want { .. }) => "want",
            Ok(Frame::Sync(_)) => "sync",
            Ok(Frame::NotHolder { .. }) => "not-holder",
            Ok(Frame::Push(push)) => of(&push),
            Ok(Frame::Reports { told }) if told.iter().all(|told| matches!(told.what, What::News(_))) => "reports",
            Ok(Frame::Reports { .. }) => "whole reports",
            Ok(Frame::Ask { .. }) => "ask",
            Ok(Frame::Reply { .. }) => "reply",
            Err(_) => "a frame that nobody understands",
        }
    }
}

/// How long a connection is kept on which nothing goes through in one direction, at most. Two machines notice it by what
/// is not confirmed.
const GIVE_UP_US: u64 = 15_000_000;
/// Frames that are kept back in a direction that is cut, and go on if it is mended while the connection is still there.
const MAX_STUCK: usize = 1000;

/// Who can reach whom, and when the last frame on each connection arrives.
#[derive(Debug, Default)]
pub(super) struct Network {
    cut: BTreeSet<(String, String)>,
    /// From whom nothing reaches whom, and what is stuck on the way.
    blocked: BTreeMap<(String, String), Vec<Vec<u8>>>,
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

    /// From now on nothing of what one site says reaches another, while all that the other says still arrives. The
    /// connection stays for a while, and is not made anew before the cut is mended.
    pub fn cut_one_way(&mut self, from: &str, to: &str) {
        self.network.blocked.entry((from.to_owned(), to.to_owned())).or_default();
        if let Some(link) = self.network.up.get(&ends(from, to)).copied() {
            let after = 1_000_000 + self.below(GIVE_UP_US);
            self.at(after, from, Next::GiveUp { other: to.to_owned(), link });
        }
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
        self.unblock(a, b);
        self.unblock(b, a);
        self.refresh_links();
    }

    /// Connects all sites again.
    pub fn heal(&mut self) {
        self.network.cut.clear();
        let blocked: Vec<_> = self.network.blocked.keys().cloned().collect();
        for (from, to) in blocked {
            self.unblock(&from, &to);
        }
        self.refresh_links();
    }

    /// What was kept back arrives late, as with TCP, if the connection has lived through it.
    fn unblock(&mut self, from: &str, to: &str) {
        let stuck = self.network.blocked.remove(&(from.to_owned(), to.to_owned()));
        for bytes in stuck.into_iter().flatten() {
            self.carry(from, to, bytes);
        }
    }

    fn is_blocked(&self, from: &str, to: &str) -> bool {
        self.network.blocked.contains_key(&(from.to_owned(), to.to_owned()))
    }

    /// A connection that carries nothing in one direction is closed by both ends.
    pub(super) fn give_up(&mut self, site: &str, other: &str, link: u64) {
        let blocked = self.is_blocked(site, other) || self.is_blocked(other, site);
        if blocked && self.is_same_link(site, other, link) {
            self.drop_link(site, other);
        }
    }

    fn drop_link(&mut self, a: &str, b: &str) {
        if self.network.up.remove(&ends(a, b)).is_some() {
            for (from, to) in [(a, b), (b, a)] {
                if let Some(stuck) = self.network.blocked.get_mut(&(from.to_owned(), to.to_owned())) {
                    self.tally.frames_lost += u64::try_from(stuck.len()).unwrap_or(0);
                    stuck.clear();
                }
                self.tell_link(from, to, false);
            }
        }
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
                // A new connection needs both directions, an old one is given up later.
                let can_begin = !self.is_blocked(a, b) && !self.is_blocked(b, a);
                if wanted && !is_up && can_begin {
                    self.network.made += 1;
                    self.network.up.insert(link, self.network.made);
                    self.tell_link(a, b, true);
                    self.tell_link(b, a, true);
                } else if !wanted && is_up {
                    self.drop_link(a, b);
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
        if !self.network.up.contains_key(&ends(from, &to)) {
            return;
        }
        if self.chance(self.weather.frame_loss) {
            self.tally.frames_lost += 1;
            return;
        }
        if let Some(stuck) = self.network.blocked.get_mut(&(from.to_owned(), to.clone())) {
            self.tally.frames_stuck += 1;
            if stuck.len() < MAX_STUCK {
                stuck.push(bytes);
            }
            return;
        }
        self.carry(from, &to, bytes);
    }

    fn carry(&mut self, from: &str, to: &str, bytes: Vec<u8>) {
        let Some(link) = self.network.up.get(&ends(from, to)).copied() else { return };
        let direction = (from.to_owned(), to.to_owned());
        let arrives =
            (self.now_us + self.travel_us()).max(self.network.last_frame_us.get(&direction).copied().unwrap_or(0) + 1);
        self.network.last_frame_us.insert(direction, arrives);
        let from_life = self.life(from).unwrap_or(0);
        let after = arrives - self.now_us;
        self.at(after, to, Next::Frame { from: from.to_owned(), from_life, link, bytes });
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
        self.drop_link(site, &other);
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
                .filter(|(name, _)| self.network.up.contains_key(&ends(&at, name)) && !self.is_blocked(&at, name))
                .map(|(name, _)| name.clone())
                .collect();
            for name in next {
                reached.insert(name.clone());
                edge.push(name.clone());
                self.note(from, &name, true, bytes);
                let copies = 1 + u64::from(self.chance(self.weather.gossip_twice));
                self.tally.gossip_twice += copies - 1;
                for _ in 0..copies {
                    if self.chance(self.weather.gossip_loss) {
                        self.tally.gossip_lost += 1;
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
