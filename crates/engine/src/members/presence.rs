//! Keeping in touch: records announced and learned, heartbeats, and what follows from who is there.

use std::collections::BTreeMap;

use khufu_crdt::SiteName;
use serde_bytes::ByteBuf;

use super::{Beat, RecordError, SignedRecord};
use crate::record::{clock_key, node_key};
use crate::time::{Time, micros};
use crate::timers::Due;
use crate::wire::{self, Frame, Gossip, Signed};
use crate::{Engine, Happening, Liveness, NodeId, Output, Write};

/// The topic on which sites speak of themselves.
const MEMBERS_TOPIC: &str = "khufu/members";
/// The most records of one frame. To check one costs some 50 microseconds.
const MAX_RECORDS: usize = 4096 + 1;
/// Heartbeats between two unasked announcements of this site's record.
const ANNOUNCE_EVERY: u32 = 30;

impl Engine {
    pub(crate) fn subscribe_members(&mut self) {
        self.outbox.now(Output::Subscribe { topic: MEMBERS_TOPIC.into() });
    }

    pub(crate) fn store_clock(&mut self) {
        self.outbox.write(Write::Put { key: clock_key(), value: self.clock.last().0.to_be_bytes().to_vec() });
    }

    /// Writes down all nodes that are known.
    pub(crate) fn store_members(&mut self) {
        for (node, signed) in self.members.records_by_node() {
            self.outbox.write(Write::Put { key: node_key(&node.0), value: wire::encode(signed) });
        }
    }

    pub(crate) fn peer_up(&mut self, node: &NodeId) {
        self.members.up(node, self.now);
        self.tell_members(node);
        let distances = self.members.distances();
        self.ping(node, self.load(), &distances, Beat::Here);
        self.judge();
        self.reconcile_soon(node);
    }

    /// Tells a node of all sites that are known here, this one first, in frames of bounded size.
    fn tell_members(&mut self, node: &NodeId) {
        let mut records = vec![SignedRecord::sign(&self.record, &*self.keys)];
        let mut size = records.iter().map(SignedRecord::size).sum::<usize>();
        let known: Vec<_> = self.members.records().cloned().collect();
        for record in known {
            if size.saturating_add(record.size()) > self.config.part_bytes() {
                self.send_now(node, &Frame::Members { records: std::mem::take(&mut records) });
                size = 0;
            }
            size = size.saturating_add(record.size());
            records.push(record);
        }
        self.send_now(node, &Frame::Members { records });
    }

    /// How much there is to do for this site: the replicants that it holds.
    pub(crate) fn load(&self) -> f64 {
        self.replicants.index.held() as f64
    }

    pub(crate) fn peer_down(&mut self, node: &NodeId) {
        self.members.gone(node);
        self.timers.cancel(&Due::Reconcile(node.clone()));
        self.sync.unsay(node);
        self.sync_peer_gone(node);
        self.asks_peer_gone(node);
        self.judge();
    }

    pub(crate) fn member_records(&mut self, from: &NodeId, records: &[SignedRecord]) {
        if records.len() > MAX_RECORDS {
            return self.refuse(from, format!("{} site records, {MAX_RECORDS} are allowed", records.len()));
        }
        for record in records {
            if let Err(error) = self.learn_member(record, true) {
                return self.refuse(from, error.to_string());
            }
        }
        // Only now may it be known which site the peer serves, and so what is shared with it.
        self.judge();
        self.reconcile_soon(from);
    }

    /// Takes in a record from anywhere.
    ///
    /// # Errors
    /// What is wrong with a record that its node has not signed like this. Nothing of it is kept.
    pub(crate) fn learn_member(&mut self, signed: &SignedRecord, store: bool) -> Result<(), RecordError> {
        let record = signed.open(&*self.keys)?;
        if record.node == self.config.node {
            // An earlier life of this node may have spoken with a higher number, if its clock ran ahead.
            if record.seq > self.record.seq {
                self.record.seq = record.seq;
                self.announce();
            }
            return Ok(());
        }
        let (node, site) = (record.node.clone(), record.site.clone());
        let known = self.members.member(&node).is_some();
        let forgotten = self.members.make_room_for(&node);
        if !self.members.learn(record, signed.clone()) || !store {
            return Ok(());
        }
        if let Some(forgotten) = forgotten {
            self.outbox.write(Write::Delete { key: node_key(&forgotten.0) });
        }
        self.outbox.write(Write::Put { key: node_key(&node.0), value: wire::encode(signed) });
        if !known {
            if site == self.config.site {
                self.warn(None, format!("node {node} also serves site {site}: give every node a site of its own"));
            }
            self.members.heard(&node, self.now);
            self.placements_may_change();
        }
        if self.members.is_connected(&node) {
            self.reconcile_soon(&node);
        }
        Ok(())
    }

    pub(crate) fn addresses(&mut self, mut addresses: Vec<String>) {
        addresses.truncate(16);
        addresses.sort();
        if self.record.addresses != addresses {
            self.record.addresses = addresses;
            self.announce();
        }
    }

    /// The platform of a kind cannot be reached, or can be; both may be said for the first time.
    pub(crate) fn platform(&mut self, kind: &str, away_since: Option<u64>) {
        let is_first = self.config.unsure.remove(kind);
        let is_news = self.record.away.contains_key(kind) != away_since.is_some();
        if !(is_news || is_first) || !self.record.kinds.contains(kind) {
            return;
        }
        match away_since {
            Some(since) => {
                // It is away since it was first said, or since nobody knows.
                self.record.away.entry(kind.to_owned()).or_insert(since);
                self.warn(
                    None,
                    format!("the platform of kind {kind:?} cannot be reached: nobody knows how its replicas are"),
                );
            }
            None => {
                self.record.away.remove(kind);
                tracing::info!(kind, "the platform can be reached again");
            }
        }
        if is_news {
            self.announce();
        }
    }

    /// Tells all what this site is now.
    fn announce(&mut self) {
        self.record.seq = self.clock.tick(self.now.wall_ms).0.max(self.record.seq.saturating_add(1));
        let signed = SignedRecord::sign(&self.record, &*self.keys);
        let nodes: Vec<_> = self.members.connected().cloned().collect();
        for node in nodes {
            self.send_now(&node, &Frame::Members { records: vec![signed.clone()] });
        }
        self.publish_now(MEMBERS_TOPIC, &Gossip::Member(signed));
    }

    pub(crate) fn announce_periodically(&mut self) {
        let signed = SignedRecord::sign(&self.record, &*self.keys);
        self.publish_now(MEMBERS_TOPIC, &Gossip::Member(signed));
        self.timers.set(Due::Announce, self.now.plus(self.config.heartbeat * ANNOUNCE_EVERY));
    }

    /// A gossiped message with this node's signature.
    pub(crate) fn signed_gossip(&self, body: &Gossip) -> Vec<u8> {
        let body = wire::encode_frame(body);
        let signature = self.keys.sign(&body);
        let author = self.config.node.clone();
        wire::encode_frame(&Signed { author, body: ByteBuf::from(body), signature: ByteBuf::from(signature) })
    }

    fn publish_now(&mut self, topic: &str, body: &Gossip) {
        self.counters.gossip_out += 1;
        let frame = self.signed_gossip(body);
        self.outbox.now(Output::Publish { topic: topic.to_owned(), frame });
    }

    pub(crate) fn heartbeat(&mut self) {
        let beats = self.members.beats(self.now);
        if !beats.is_empty() {
            let (load, rtt_ms) = (self.load(), self.members.distances());
            for (node, beat) in beats {
                self.ping(&node, load, &rtt_ms, beat);
            }
        }
        self.judge();
        self.timers.set(Due::Heartbeat, self.now.plus(self.config.look));
    }

    fn ping(&mut self, node: &NodeId, load: f64, rtt_ms: &BTreeMap<SiteName, f64>, beat: Beat) {
        let rtt_ms = self.members.distances_for(node, rtt_ms);
        let known = self.members.member(node).map_or(0, |member| member.record.seq);
        let echo = self.members.echo(node, self.now);
        let waits = beat == Beat::Waits;
        self.send_now(node, &Frame::Ping { sent_us: self.now.monotonic_us, load, rtt_ms, known, echo, waits });
    }

    /// A node that has an older record of this site than there is gets the newest.
    pub(crate) fn tell_record_if_unknown(&mut self, node: &NodeId, known: u64) {
        if known < self.record.seq {
            let records = vec![SignedRecord::sign(&self.record, &*self.keys)];
            self.send_now(node, &Frame::Members { records });
        }
    }

    pub(crate) fn pong(&mut self, from: &NodeId, sent_us: u64, held_us: u64) {
        // Numbers that this node never sent would fake a distance.
        let Some(away_us) = self.now.monotonic_us.checked_sub(sent_us).filter(|away| *away < 600_000_000) else {
            return;
        };
        if let Some(way_us) = away_us.checked_sub(held_us) {
            self.members.measured(from, std::time::Duration::from_micros(way_us).as_secs_f64() * 1000.0);
        }
    }

    fn judge(&mut self) {
        let changed = self.members.judge(self.now);
        for (site, state) in changed {
            self.event(Happening::Site { site, state });
            if state != Liveness::Suspect {
                self.placements_may_change();
            }
        }
    }

    /// How sure this node is that a site works.
    pub(crate) fn liveness(&self, site: &SiteName) -> Liveness {
        if *site == self.config.site { Liveness::Alive } else { self.members.site_state(site) }
    }

    /// Pseudo-random but repeatable: spreads what all nodes do at the same pace.
    pub(crate) fn jitter(&self, salt: &str, of_us: u64) -> u64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let time = self.now.monotonic_us.to_be_bytes();
        for byte in self.config.node.0.bytes().chain(salt.bytes()).chain(time) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash.checked_rem(of_us.max(1)).unwrap_or(0)
    }

    /// A moment about `pause` from now.
    pub(crate) fn about(&self, salt: &str, pause: std::time::Duration) -> u64 {
        let us = micros(pause);
        Time::plus(self.now, pause).saturating_add(self.jitter(salt, us / 4))
    }
}
