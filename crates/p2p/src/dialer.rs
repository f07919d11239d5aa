//! Whom to dial when: bootstrap addresses and peers met before, again and again, ever more slowly, never giving up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

/// Names a target.
pub(crate) type Key = u64;

/// A dial that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) key: Key,
    /// Who must answer; without it anybody may.
    pub(crate) peer: Option<PeerId>,
    pub(crate) addresses: Vec<Multiaddr>,
}

#[derive(Debug)]
struct Target {
    /// Who must answer.
    peer: Option<PeerId>,
    /// Who answered last.
    found: Option<PeerId>,
    /// First those given, then those learned, the newest first.
    addresses: Vec<Multiaddr>,
    /// How many of the addresses were given by the operator; these, and a target that has any, are never forgotten.
    given: usize,
    failures: u32,
    /// `None` while it is being dialled or connected.
    due: Option<Instant>,
}

impl Target {
    fn is(&self, peer: &PeerId) -> bool {
        self.peer.as_ref().or(self.found.as_ref()) == Some(peer)
    }
}

/// Bounds of a dialer.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    /// Learned targets beyond this number replace the ones that failed most.
    pub(crate) max_learned: usize,
    pub(crate) max_addresses: usize,
}

#[derive(Debug)]
pub(crate) struct Dialer {
    bounds: Bounds,
    targets: BTreeMap<Key, Target>,
    next_key: Key,
    in_flight: BTreeMap<ConnectionId, Key>,
}

impl Dialer {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, targets: BTreeMap::new(), next_key: 0, in_flight: BTreeMap::new() }
    }

    fn insert(&mut self, target: Target) {
        self.targets.insert(self.next_key, target);
        self.next_key += 1;
    }

    /// Adds an address that the operator gave; addresses of one peer become one target.
    pub(crate) fn pin(&mut self, now: Instant, peer: Option<PeerId>, address: Multiaddr) {
        let same = self.targets.values_mut().find(|target| match peer {
            Some(peer) => target.peer == Some(peer),
            None => target.peer.is_none() && target.addresses.contains(&address),
        });
        match same {
            Some(target) => {
                let index = target.addresses.iter().position(|known| *known == address);
                if index.is_some_and(|index| index < target.given) {
                    return;
                }
                target.addresses.retain(|known| *known != address);
                target.addresses.insert(target.given, address);
                target.given += 1;
            }
            None => {
                let addresses = vec![address];
                self.insert(Target { peer, found: None, addresses, given: 1, failures: 0, due: Some(now) });
            }
        }
    }

    /// Adds what was found out about a peer. Returns whether anything was new.
    pub(crate) fn learn(&mut self, now: Instant, peer: PeerId, addresses: &[Multiaddr]) -> bool {
        if addresses.is_empty() {
            return false;
        }
        let limit = self.bounds.max_addresses;
        if let Some(target) = self.targets.values_mut().find(|target| target.peer == Some(peer)) {
            let mut new = false;
            for address in addresses {
                if !target.addresses.contains(address) {
                    target.addresses.insert(target.given, address.clone());
                    new = true;
                }
            }
            target.addresses.truncate(limit.max(target.given));
            return new;
        }
        let learned = self.targets.values().filter(|target| target.given == 0).count();
        if learned >= self.bounds.max_learned {
            let worst = self.targets.iter().filter(|(_, target)| target.given == 0 && target.failures > 0);
            let Some(key) = worst.max_by_key(|(_, target)| target.failures).map(|(key, _)| *key) else { return false };
            self.targets.remove(&key);
        }
        let addresses = addresses.iter().take(limit).cloned().collect();
        self.insert(Target { peer: Some(peer), found: None, addresses, given: 0, failures: 0, due: Some(now) });
        true
    }

    /// When the next dial is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.targets.values().filter_map(|target| target.due).min()
    }

    /// Takes what is due, at most `limit` of it. `room` tells whether learned peers are wanted at all; `skip` names the
    /// peers that are connected or blocked, and `at` who is known to be at an address.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        limit: usize,
        room: bool,
        skip: impl Fn(&PeerId) -> bool,
        at: impl Fn(&Multiaddr) -> Option<PeerId>,
    ) -> Vec<Due> {
        let mut taken = Vec::new();
        for (key, target) in &mut self.targets {
            if target.due.is_none_or(|due| due > now) {
                continue;
            }
            if taken.len() >= limit {
                target.due = Some(now + self.bounds.min);
                continue;
            }
            if !room && target.given == 0 {
                target.due = Some(now + self.bounds.max);
                continue;
            }
            if target.peer.is_none() {
                target.found = target.addresses.iter().find_map(&at).or(target.found);
            }
            if target.peer.or(target.found).is_some_and(|peer| skip(&peer)) {
                // Looked at again when that peer goes down, and now and then, should it be another by then.
                target.due = Some(now + self.bounds.max);
                continue;
            }
            target.due = None;
            taken.push(Due { key: *key, peer: target.peer, addresses: target.addresses.clone() });
        }
        taken
    }

    /// The dial was begun.
    pub(crate) fn started(&mut self, key: Key, connection: ConnectionId) {
        self.in_flight.insert(connection, key);
    }

    /// The dial could not even be begun, or ended without a connection.
    pub(crate) fn failed(&mut self, now: Instant, key: Key) {
        if let Some(target) = self.targets.get_mut(&key) {
            target.failures = target.failures.saturating_add(1);
            target.due = Some(now + pause(&self.bounds, target.failures));
        }
    }

    /// The attempt ended without a connection. Returns whether it was one of this dialer's.
    pub(crate) fn attempt_failed(&mut self, now: Instant, connection: ConnectionId) -> bool {
        let key = self.in_flight.remove(&connection);
        if let Some(key) = key {
            self.failed(now, key);
        }
        key.is_some()
    }

    /// A connection came up, dialled or not.
    pub(crate) fn established(&mut self, connection: ConnectionId, peer: PeerId) {
        if let Some(target) = self.in_flight.remove(&connection).and_then(|key| self.targets.get_mut(&key)) {
            target.found = Some(peer);
        }
        for target in self.targets.values_mut().filter(|target| target.is(&peer)) {
            target.due = None;
        }
    }

    /// The peer is up: the next pause is short again.
    pub(crate) fn up(&mut self, peer: &PeerId) {
        for target in self.targets.values_mut().filter(|target| target.is(peer)) {
            target.failures = 0;
        }
    }

    /// No connection to the peer is left. One that never came up counts as a failure.
    pub(crate) fn down(&mut self, now: Instant, peer: &PeerId) {
        for target in self.targets.values_mut().filter(|target| target.is(peer)) {
            target.failures = target.failures.saturating_add(1);
            target.due = Some(now + pause(&self.bounds, target.failures));
        }
    }

    /// Dials the peer at the next opportunity.
    pub(crate) fn hurry(&mut self, now: Instant, peer: &PeerId) {
        for target in self.targets.values_mut().filter(|target| target.is(peer)) {
            target.failures = 0;
            target.due = Some(now);
        }
    }

    /// Another peer than expected is at that address. A learned address is forgotten for it.
    pub(crate) fn not_there(&mut self, peer: &PeerId, address: &Multiaddr) {
        self.targets.retain(|_, target| {
            if target.given > 0 || target.peer != Some(*peer) {
                return true;
            }
            target.addresses.retain(|known| known != address);
            !target.addresses.is_empty()
        });
    }

    /// That target leads back to this node.
    pub(crate) fn is_itself(&mut self, connection: ConnectionId) {
        if let Some(key) = self.in_flight.remove(&connection) {
            self.targets.remove(&key);
        }
    }
}

/// `min` doubled with each failure after the first, at most `max`, more or less a quarter.
fn pause(bounds: &Bounds, failures: u32) -> Duration {
    let doubled = bounds.min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(bounds.max).mul_f64(rand::random_range(0.75..=1.25))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn dialer() -> Dialer {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(30));
        Dialer::new(Bounds { min, max, max_learned: 3, max_addresses: 2 })
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    fn due(dialer: &mut Dialer, now: Instant) -> Vec<Due> {
        dialer.take_due(now, 100, true, |_| false, |_| None)
    }

    #[test]
    fn failures_are_tried_again_for_ever_and_ever_more_slowly() {
        let mut dialer = dialer();
        let mut now = Instant::now();
        dialer.pin(now, None, address(1));
        let mut pauses = Vec::new();
        for number in 0..100 {
            let taken = due(&mut dialer, now);
            assert_eq!(taken.len(), 1, "attempt {number}");
            let connection = ConnectionId::new_unchecked(number);
            dialer.started(taken[0].key, connection);
            assert_eq!(dialer.next(), None, "nothing is due while it is being dialled");
            assert!(dialer.attempt_failed(now, connection));
            let next = dialer.next().unwrap();
            pauses.push((next - now).as_secs_f64());
            now = next;
        }
        assert!((0.75..=1.25).contains(&pauses[0]) && (1.5..=2.5).contains(&pauses[1]), "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| (22.5..=37.5).contains(pause)), "{pauses:?}");
        assert!(pauses[10..].iter().any(|pause| (pause - 30.0).abs() > 0.5), "they vary");
    }

    #[test]
    fn a_peer_that_was_up_is_dialled_again_soon_and_one_that_never_was_is_not() {
        let (mut dialer, now, peer) = (dialer(), Instant::now(), PeerId::random());
        dialer.pin(now, None, address(1));
        for number in 0..6 {
            let taken = due(&mut dialer, now + Duration::from_secs(1000));
            let connection = ConnectionId::new_unchecked(number);
            dialer.started(taken[0].key, connection);
            dialer.established(connection, peer);
            assert_eq!(dialer.next(), None);
            dialer.down(now, &peer);
        }
        assert!(dialer.next().unwrap() - now > Duration::from_secs(20));
        dialer.up(&peer);
        dialer.down(now, &peer);
        assert!(dialer.next().unwrap() - now < Duration::from_secs(2));
    }

    #[test]
    fn connected_peers_are_skipped_also_where_only_the_address_is_known() {
        let (mut dialer, now, peer) = (dialer(), Instant::now(), PeerId::random());
        dialer.pin(now, None, address(1));
        dialer.learn(now, peer, &[address(1)]);
        let taken = dialer.take_due(now, 100, true, |other| *other == peer, |_| Some(peer));
        assert_eq!(taken, []);
        dialer.down(now, &peer);
        assert_eq!(due(&mut dialer, now + Duration::from_secs(2)).len(), 2);
    }

    #[test]
    fn what_is_learned_is_bounded_and_what_was_given_stays() {
        let (mut dialer, now) = (dialer(), Instant::now());
        let given = PeerId::random();
        dialer.pin(now, Some(given), address(1));
        for port in 0..100 {
            dialer.learn(now, PeerId::random(), &[address(port), address(port + 1), address(port + 2)]);
            for due in due(&mut dialer, now + Duration::from_secs(1000)) {
                assert!(due.addresses.len() <= 2);
                dialer.failed(now, due.key);
            }
        }
        assert_eq!(dialer.targets.len(), 4);
        assert!(dialer.targets.values().any(|target| target.peer == Some(given)));
        dialer.not_there(&given, &address(1));
        assert_eq!(dialer.targets.len(), 4);
    }
}
