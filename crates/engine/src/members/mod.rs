//! Membership: who is there, how well they are heard, and how far away they are.

mod phi;
mod presence;
mod record;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::SiteName;
pub(crate) use record::{RecordError, SignedRecord, SiteRecord};

use self::phi::Phi;
use self::standing::Standing;
use crate::time::micros;
use crate::{Config, Liveness, NodeId, NodeView, SiteView, Time};

/// Whoever is told other things is sent a heartbeat for every so many that it would be sent else: for the distance, and
/// for what only heartbeats tell.
const BEATS: u64 = 6;
/// Distances are told again when one has changed by such a part of it and so many milliseconds, and with every twelfth
/// heartbeat.
const FAR: f64 = 0.25;
const FAR_MS: f64 = 0.5;
const BEATS_UNTOLD: u32 = 12;
/// The most nodes that are remembered.
const MAX_NODES: usize = 4096;

/// One other node.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) record: SiteRecord,
    pub(crate) signed: SignedRecord,
    pub(crate) load: f64,
    /// Its own measurements, for scopes that speak of the distance between two other sites.
    pub(crate) rtt_ms: BTreeMap<SiteName, f64>,
    seen_wall_ms: Option<u64>,
}

/// What is known of the connection to a node, with or without a record of it.
#[derive(Debug)]
struct Link {
    connected: bool,
    phi: Option<Phi>,
    rtt_ms: Option<f64>,
    state: Liveness,
    /// The moment that its last heartbeat spoke of, on its clock, and when that came, on ours: told it once.
    ping: Option<(u64, u64)>,
    /// When anything was last sent to it, and when a heartbeat was.
    sent_us: u64,
    pinged_us: u64,
    /// The distances that it was told last, and in how many heartbeats it was not since.
    told: Option<(BTreeMap<SiteName, f64>, u32)>,
}

/// What a node is to be told by way of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// That this node is there, if nothing else has told it so.
    Here,
    /// The same, and that a sign of life is waited for.
    Waits,
}

/// All other nodes.
#[derive(Debug)]
pub(crate) struct Members {
    members: BTreeMap<NodeId, Member>,
    by_site: BTreeMap<SiteName, BTreeSet<NodeId>>,
    links: BTreeMap<NodeId, Link>,
    standings: BTreeMap<SiteName, Standing>,
    heartbeat_us: u64,
    look_us: u64,
    settle_us: u64,
    suspect: f64,
    down: f64,
}

impl Members {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            members: BTreeMap::new(),
            by_site: BTreeMap::new(),
            links: BTreeMap::new(),
            standings: BTreeMap::new(),
            heartbeat_us: micros(config.heartbeat),
            look_us: micros(config.look),
            settle_us: micros(config.settle),
            suspect: config.phi_suspect,
            down: config.phi_down,
        }
    }

    fn link(&mut self, node: &NodeId) -> &mut Link {
        self.links.entry(node.clone()).or_insert_with(|| Link {
            connected: false,
            phi: None,
            rtt_ms: None,
            state: Liveness::Down,
            ping: None,
            sent_us: 0,
            pinged_us: 0,
            told: None,
        })
    }

    /// Has a node that is connected remembered, also where there are too many: one that was only heard of is forgotten,
    /// since anybody can make up names. Which.
    pub(crate) fn make_room_for(&mut self, node: &NodeId) -> Option<NodeId> {
        if self.members.len() < MAX_NODES || self.members.contains_key(node) || !self.is_connected(node) {
            return None;
        }
        let nobody = self.members.keys().find(|known| !self.links.contains_key(*known)).cloned()?;
        self.forget(&nobody);
        self.standings.retain(|site, _| self.by_site.contains_key(site));
        Some(nobody)
    }

    fn forget(&mut self, node: &NodeId) {
        let Some(member) = self.members.remove(node) else { return };
        if let Some(nodes) = self.by_site.get_mut(&member.record.site) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.by_site.remove(&member.record.site);
            }
        }
    }

    /// Takes in a record whose signature was checked. Whether it is news.
    pub(crate) fn learn(&mut self, record: SiteRecord, signed: SignedRecord) -> bool {
        let known = self.members.get(&record.node);
        if known.is_some_and(|known| known.record.seq >= record.seq)
            || (known.is_none() && self.members.len() >= MAX_NODES)
        {
            return false;
        }
        let (load, rtt_ms, seen) =
            known.map_or((0.0, BTreeMap::new(), None), |known| (known.load, known.rtt_ms.clone(), known.seen_wall_ms));
        self.forget(&record.node.clone());
        self.by_site.entry(record.site.clone()).or_default().insert(record.node.clone());
        self.members.insert(record.node.clone(), Member { record, signed, load, rtt_ms, seen_wall_ms: seen });
        true
    }

    pub(crate) fn up(&mut self, node: &NodeId, now: Time) {
        let (heartbeat_us, look_us) = (self.heartbeat_us, self.look_us);
        let link = self.link(node);
        link.connected = true;
        link.told = None;
        match &mut link.phi {
            Some(phi) => phi.heard(now.monotonic_us),
            None => link.phi = Some(Phi::new(heartbeat_us, look_us, now.monotonic_us)),
        }
        self.heard(node, now);
    }

    pub(crate) fn gone(&mut self, node: &NodeId) {
        // Of a peer that never said who it is, nothing is kept.
        if !self.members.contains_key(node) {
            self.links.remove(node);
        } else if let Some(link) = self.links.get_mut(node) {
            link.connected = false;
            link.ping = None;
        }
    }

    /// A node was heard, by whatever it said.
    pub(crate) fn heard(&mut self, node: &NodeId, now: Time) {
        if let Some(phi) = self.links.get_mut(node).and_then(|link| link.phi.as_mut()) {
            phi.heard(now.monotonic_us);
        }
        if let Some(member) = self.members.get_mut(node) {
            member.seen_wall_ms = Some(now.wall_ms);
        }
    }

    /// Something is being sent to a node.
    pub(crate) fn sends(&mut self, node: &NodeId, now: Time) {
        if let Some(link) = self.links.get_mut(node) {
            link.sent_us = now.monotonic_us;
        }
    }

    /// The nodes that are due a heartbeat: whoever was sent nothing else for long, or no heartbeat for very long, and whoever
    /// has been silent for so long that it is asked.
    pub(crate) fn beats(&mut self, now: Time) -> Vec<(NodeId, Beat)> {
        // So that none is late by a whole look.
        let (pause, late) = (self.heartbeat_us.saturating_sub(self.look_us / 2), self.look_us / 2);
        let mut beats = Vec::new();
        for (node, link) in self.links.iter_mut().filter(|(_, link)| link.connected) {
            let silent = link.phi.as_ref().map_or(0, |phi| phi.silent_us(now.monotonic_us));
            let beat = if silent > self.heartbeat_us.saturating_add(late) {
                Beat::Waits
            } else if now.monotonic_us.saturating_sub(link.sent_us) >= pause
                || now.monotonic_us.saturating_sub(link.pinged_us) >= self.heartbeat_us.saturating_mul(BEATS)
            {
                Beat::Here
            } else {
                continue;
            };
            link.pinged_us = now.monotonic_us;
            beats.push((node.clone(), beat));
        }
        beats
    }

    /// A heartbeat came.
    pub(crate) fn pinged(&mut self, node: &NodeId, sent_us: u64, now: Time) {
        if let Some(link) = self.links.get_mut(node) {
            link.ping = Some((sent_us, now.monotonic_us));
        }
    }

    /// What the last heartbeat of a node said, to be sent back, and how long it has been here.
    pub(crate) fn echo(&mut self, node: &NodeId, now: Time) -> Option<(u64, u64)> {
        let (sent_us, came_us) = self.links.get_mut(node)?.ping.take()?;
        Some((sent_us, now.monotonic_us.saturating_sub(came_us)))
    }

    /// A heartbeat came back.
    pub(crate) fn measured(&mut self, node: &NodeId, rtt_ms: f64) {
        let link = self.link(node);
        // The weight of a new sample is an eighth, as for TCP (RFC 6298).
        link.rtt_ms = Some(link.rtt_ms.map_or(rtt_ms, |mean| mean + (rtt_ms - mean) / 8.0));
    }

    /// What a node says of its load and its distance to others.
    pub(crate) fn told(&mut self, node: &NodeId, load: f64, rtt_ms: Option<BTreeMap<SiteName, f64>>) {
        let Some(member) = self.members.get_mut(node) else { return };
        member.load = if load.is_finite() { load } else { f64::MAX };
        if let Some(rtt_ms) = rtt_ms {
            member.rtt_ms = rtt_ms.into_iter().filter(|(_, ms)| ms.is_finite() && *ms >= 0.0).take(MAX_NODES).collect();
        }
    }

    /// Looks at every node's silence. The sites whose state changed.
    pub(crate) fn judge(&mut self, now: Time) -> BTreeMap<SiteName, Liveness> {
        for link in self.links.values_mut() {
            let level = link.phi.as_ref().map_or(f64::MAX, |phi| phi.level(now.monotonic_us));
            link.state = if level >= self.down {
                Liveness::Down
            } else if level >= self.suspect || !link.connected {
                Liveness::Suspect
            } else {
                Liveness::Alive
            };
        }
        let mut changed = BTreeMap::new();
        for site in self.sites() {
            let state = self.site_state(&site);
            let is_other = match self.standings.get_mut(&site) {
                Some(standing) => standing.turn(state, now.monotonic_us, self.settle_us),
                None => {
                    self.standings.insert(site.clone(), Standing::new(state, now.monotonic_us));
                    state != Liveness::Down
                }
            };
            if is_other {
                changed.insert(site, state);
            }
        }
        changed
    }

    /// The last state of a site that has lasted, for what is not to be decided anew with every moment of silence.
    pub(crate) fn settled_state(&self, site: &SiteName, now: Time) -> Liveness {
        let standing = self.standings.get(site);
        standing.map_or(Liveness::Down, |standing| standing.settled(now.monotonic_us, self.settle_us))
    }

    /// Whether a site has been in its state for a while.
    pub(crate) fn is_steady(&self, site: &SiteName, now: Time) -> bool {
        self.standings.get(site).is_none_or(|standing| standing.is_steady(now.monotonic_us, self.settle_us))
    }

    /// When the next state of a site will have lasted, in microseconds.
    pub(crate) fn next_settled_us(&self, now: Time) -> Option<u64> {
        let mut moments = self.standings.values().filter_map(|site| site.settles_us(now.monotonic_us, self.settle_us));
        let first = moments.next()?;
        Some(moments.fold(first, u64::min))
    }

    /// All other sites that were ever heard of.
    pub(crate) fn sites(&self) -> BTreeSet<SiteName> {
        self.by_site.keys().cloned().collect()
    }

    /// The best state of a site's nodes.
    pub(crate) fn site_state(&self, site: &SiteName) -> Liveness {
        self.nodes_of(site).map(|member| self.state(&member.record.node)).min().unwrap_or(Liveness::Down)
    }

    fn state(&self, node: &NodeId) -> Liveness {
        self.links.get(node).map_or(Liveness::Down, |link| link.state)
    }

    pub(crate) fn nodes_of<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a Member> + 'a {
        self.by_site.get(site).into_iter().flatten().filter_map(|node| self.members.get(node))
    }

    pub(crate) fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node)
    }

    pub(crate) fn site_of(&self, node: &NodeId) -> Option<&SiteName> {
        self.members.get(node).map(|member| &member.record.site)
    }

    pub(crate) fn is_connected(&self, node: &NodeId) -> bool {
        self.links.get(node).is_some_and(|link| link.connected)
    }

    /// The nodes that frames can be sent to.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &NodeId> {
        self.links.iter().filter(|(_, link)| link.connected).map(|(node, _)| node)
    }

    /// The nodes of a site that frames can be sent to, the best heard first.
    pub(crate) fn reachable(&self, site: &SiteName) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self
            .nodes_of(site)
            .map(|member| (self.state(&member.record.node), member.record.node.clone()))
            .filter(|(_, node)| self.is_connected(node))
            .collect();
        nodes.sort();
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// Whether a site is known to have a driver of a kind; none if the site is not known.
    pub(crate) fn drives(&self, site: &SiteName, kind: &str) -> Option<bool> {
        let mut known = None;
        for member in self.nodes_of(site) {
            known = Some(known.unwrap_or(false) || member.record.kinds.contains(kind));
        }
        known
    }

    /// Since when a site cannot reach the platform of a kind. Where it has several nodes, one that can is enough.
    pub(crate) fn away(&self, site: &SiteName, kind: &str) -> Option<u64> {
        let is_there = |member: &&Member| self.state(&member.record.node) != Liveness::Down;
        let drivers = self.nodes_of(site).filter(is_there).filter(|member| member.record.kinds.contains(kind));
        let away: Option<Vec<_>> = drivers.map(|member| member.record.away.get(kind).copied()).collect();
        away.and_then(|away| away.into_iter().max())
    }

    /// The least mean round-trip time to a site, in milliseconds.
    pub(crate) fn rtt_ms(&self, site: &SiteName) -> Option<f64> {
        self.nodes_of(site).filter_map(|member| self.links.get(&member.record.node)?.rtt_ms).min_by(f64::total_cmp)
    }

    /// The mean round-trip times to all sites, to tell others.
    pub(crate) fn distances(&self) -> BTreeMap<SiteName, f64> {
        let mut distances = BTreeMap::<SiteName, f64>::new();
        for (node, link) in &self.links {
            if let (Some(ms), Some(site)) = (link.rtt_ms, self.site_of(node)) {
                let least = distances.entry(site.clone()).or_insert(ms);
                *least = least.min(ms);
            }
        }
        distances
    }

    /// The distances, for the next heartbeat to a node, if it does not know them: they are most of a heartbeat, and change
    /// little. Told again now and then, since a frame may be lost.
    pub(crate) fn distances_for(
        &mut self,
        node: &NodeId,
        distances: &BTreeMap<SiteName, f64>,
    ) -> Option<BTreeMap<SiteName, f64>> {
        let link = self.links.get_mut(node)?;
        if let Some((told, beats)) = &mut link.told {
            let near = |(site, ms): (&SiteName, &f64)| {
                told.get(site).is_some_and(|told| (told - ms).abs() <= (told.max(*ms) * FAR).max(FAR_MS))
            };
            *beats += 1;
            if *beats < BEATS_UNTOLD && told.len() == distances.len() && distances.iter().all(near) {
                return None;
            }
        }
        link.told = Some((distances.clone(), 0));
        Some(distances.clone())
    }

    /// What was to be sent was forgotten: nobody knows the distances.
    pub(crate) fn untell(&mut self) {
        self.links.values_mut().for_each(|link| link.told = None);
    }

    /// All records, to pass on.
    pub(crate) fn records(&self) -> impl Iterator<Item = &SignedRecord> {
        self.members.values().map(|member| &member.signed)
    }

    /// All records, with whose they are.
    pub(crate) fn records_by_node(&self) -> impl Iterator<Item = (&NodeId, &SignedRecord)> {
        self.members.iter().map(|(node, member)| (node, &member.signed))
    }

    /// One site for people.
    pub(crate) fn view(&self, site: &SiteName, now: Time) -> SiteView {
        let members: Vec<_> = self.nodes_of(site).collect();
        SiteView {
            site: site.clone(),
            here: false,
            state: self.site_state(site),
            seen_at: members.iter().filter_map(|member| member.seen_wall_ms).max(),
            labels: members.iter().flat_map(|member| member.record.labels.clone()).collect(),
            kinds: members.iter().flat_map(|member| member.record.kinds.clone()).collect(),
            away: members.iter().flat_map(|member| member.record.away.clone()).collect(),
            nodes: members
                .iter()
                .map(|member| {
                    let link = self.links.get(&member.record.node);
                    let phi = link.and_then(|link| link.phi.as_ref());
                    NodeView {
                        node: member.record.node.clone(),
                        addresses: member.record.addresses.clone(),
                        connected: link.is_some_and(|link| link.connected),
                        phi: phi.map_or(100.0, |phi| phi.level(now.monotonic_us)),
                        version: member.record.version.clone(),
                    }
                })
                .collect(),
            rtt_ms: self.rtt_ms(site),
        }
    }
}
