#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(10);

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

/// Two peers, the one that decides first.
fn peers() -> (PeerId, PeerId) {
    let (a, b) = (PeerId::random(), PeerId::random());
    if a.to_bytes() < b.to_bytes() { (a, b) } else { (b, a) }
}

fn up(roster: &mut Roster, now: Instant, peer: PeerId, connection: ConnectionId) -> u64 {
    let actions = roster.established(now, peer, connection);
    let [Action::Open { session, connection: opened }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(opened, connection);
    assert_eq!(roster.acknowledged(&peer, session, connection), Some(Action::Up { session, connection }));
    session
}

#[test]
fn one_connection_comes_up_and_goes_down() {
    let (local, peer) = peers();
    let (mut roster, now) = (Roster::new(local, GRACE), Instant::now());
    let session = up(&mut roster, now, peer, id(1));
    assert!(roster.is_connected(&peer));
    assert_eq!(roster.acknowledged(&peer, session, id(1)), None, "only once");
    let over = roster.closed(now, peer, id(1), DownReason::Timeout);
    assert_eq!(over, [Action::Over { session, was_up: true, reason: DownReason::Timeout }]);
    assert!(!roster.is_connected(&peer));
    assert_eq!(roster.closed(now, peer, id(1), DownReason::Timeout), []);
    assert!(up(&mut roster, now, peer, id(2)) > session);
}

#[test]
fn the_decider_keeps_the_first_of_two_made_at_once_and_the_newest_later() {
    let (local, peer) = peers();
    let (mut roster, now) = (Roster::new(local, GRACE), Instant::now());
    let session = up(&mut roster, now, peer, id(1));
    assert_eq!(roster.established(now + GRACE / 2, peer, id(2)), [Action::Close { connection: id(2) }]);
    assert_eq!(roster.inbound(now, peer, id(2)), (Inbound::Ignore, vec![]), "it is being closed");
    assert_eq!(roster.closed(now, peer, id(2), DownReason::Timeout), [], "and was never part of the session");
    let actions = roster.established(now + GRACE, peer, id(3));
    assert_eq!(
        actions[..2],
        [Action::Over { session, was_up: true, reason: DownReason::Replaced }, Action::Close { connection: id(1) },]
    );
    assert!(matches!(actions[2..], [Action::Open { connection, .. }] if connection == id(3)));
}

#[test]
fn the_other_side_waits_and_moves_without_a_word_if_nothing_was_lost() {
    let (peer, local) = peers();
    let (mut roster, now) = (Roster::new(local, GRACE), Instant::now());
    let actions = roster.established(now, peer, id(1));
    let [Action::Open { session, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(roster.established(now, peer, id(2)), []);
    // The decider has taken the second, and opens its stream there.
    assert_eq!(roster.inbound(now, peer, id(2)), (Inbound::Accept { session }, vec![]));
    let moved = roster.closed(now, peer, id(1), DownReason::Timeout);
    assert_eq!(moved, [Action::Open { session, connection: id(2) }]);
    assert!(roster.acknowledged(&peer, session, id(1)).is_none());
    assert!(roster.acknowledged(&peer, session, id(2)).is_some());
}

#[test]
fn a_peer_that_came_back_is_followed_to_its_new_connection() {
    let (peer, local) = peers();
    let (mut roster, now) = (Roster::new(local, GRACE), Instant::now());
    let session = up(&mut roster, now, peer, id(1));
    assert_eq!(roster.inbound(now, peer, id(1)), (Inbound::Accept { session }, vec![]));
    // The peer has crashed unnoticed, and has one connection only.
    assert_eq!(roster.established(now, peer, id(2)), []);
    let (inbound, actions) = roster.inbound(now, peer, id(2));
    assert_eq!(
        actions[..2],
        [Action::Over { session, was_up: true, reason: DownReason::Replaced }, Action::Close { connection: id(1) },]
    );
    let Action::Open { session: new, .. } = actions[2] else { panic!("{actions:?}") };
    assert_eq!(inbound, Inbound::Accept { session: new });
    assert!(new > session);
}

#[test]
fn streams_are_counted() {
    let (local, peer) = peers();
    let (mut roster, now) = (Roster::new(local, GRACE), Instant::now());
    let session = up(&mut roster, now, peer, id(1));
    for _ in 0..MAX_STREAMS_PER_SESSION {
        assert_eq!(roster.inbound(now, peer, id(1)).0, Inbound::Accept { session });
    }
    assert_eq!(roster.inbound(now, peer, id(1)).0, Inbound::TooMany);
}

/// Messages under way between two rosters, or to one.
#[derive(Debug, Clone, PartialEq)]
enum Fact {
    Established(usize),
    Closed(usize),
    Stream(usize, u64),
    Acknowledged(usize, u64),
}

/// Two rosters and the connections between them. What a side learns, it learns in order for each connection.
struct World {
    rosters: [Roster; 2],
    names: [PeerId; 2],
    open: BTreeSet<usize>,
    /// By side and connection.
    under_way: BTreeMap<(usize, usize), VecDeque<Fact>>,
    up: [Option<u64>; 2],
    now: Instant,
}

impl World {
    fn new(names: [PeerId; 2]) -> Self {
        let now = Instant::now();
        let rosters = names.map(|name| Roster::new(name, GRACE));
        Self { rosters, names, open: BTreeSet::new(), under_way: BTreeMap::new(), up: [None; 2], now }
    }

    fn tell(&mut self, side: usize, connection: usize, fact: Fact) {
        self.under_way.entry((side, connection)).or_default().push_back(fact);
    }

    fn connect(&mut self, connection: usize) {
        if self.open.insert(connection) {
            for side in 0..2 {
                self.tell(side, connection, Fact::Established(connection));
            }
        }
    }

    fn close(&mut self, connection: usize) {
        if self.open.remove(&connection) {
            for side in 0..2 {
                // What else was under way on it is lost with it, but that it was there is not.
                let queue = self.under_way.entry((side, connection)).or_default();
                queue.retain(|fact| matches!(fact, Fact::Established(_)));
                queue.push_back(Fact::Closed(connection));
            }
        }
    }

    fn act(&mut self, side: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open { session, connection } => {
                    let connection = number(connection);
                    if self.open.contains(&connection) {
                        self.tell(1 - side, connection, Fact::Stream(connection, session));
                    }
                }
                Action::Close { connection } => self.close(number(connection)),
                Action::Up { session, .. } => {
                    assert_eq!(self.up[side].replace(session), None, "up twice");
                }
                Action::Over { session, was_up, .. } => {
                    assert_eq!(was_up, self.up[side] == Some(session));
                    if was_up {
                        self.up[side] = None;
                    }
                }
            }
        }
    }

    /// Lets everything happen that is under way, in an order that `choices` gives.
    fn rest(&mut self, choices: &[usize]) {
        let rested = choices.iter().cycle().take(10_000).any(|choice| !self.step(*choice));
        assert!(rested, "it never comes to rest: {:?}", self.under_way);
    }

    /// Lets the fact at that place happen. False when there is none.
    fn step(&mut self, choice: usize) -> bool {
        let waiting: Vec<_> =
            self.under_way.iter().filter(|(_, queue)| !queue.is_empty()).map(|(place, _)| *place).collect();
        if waiting.is_empty() {
            return false;
        }
        let (side, connection) = waiting[choice % waiting.len()];
        let fact = self.under_way.get_mut(&(side, connection)).unwrap().pop_front().unwrap();
        let (peer, now) = (self.names[1 - side], self.now);
        match fact {
            Fact::Established(connection) => {
                let actions = self.rosters[side].established(now, peer, id(connection));
                self.act(side, actions);
            }
            Fact::Closed(connection) => {
                let detail = String::new();
                let actions = self.rosters[side].closed(now, peer, id(connection), DownReason::Closed { detail });
                self.act(side, actions);
            }
            Fact::Stream(connection, session) => {
                let (inbound, actions) = self.rosters[side].inbound(now, peer, id(connection));
                self.act(side, actions);
                if matches!(inbound, Inbound::Accept { .. }) && self.open.contains(&connection) {
                    self.tell(1 - side, connection, Fact::Acknowledged(connection, session));
                }
            }
            Fact::Acknowledged(connection, session) => {
                let action = self.rosters[side].acknowledged(&peer, session, id(connection));
                self.act(side, action.into_iter().collect());
            }
        }
        true
    }
}

fn number(connection: ConnectionId) -> usize {
    connection.to_string().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever connections come, go and cross, both sides end up with each other or both without.
    #[test]
    fn both_sides_agree_in_the_end(
        events in prop::collection::vec((0_u8..10, 1_usize..6, any::<usize>(), 0_u64..12), 1..60),
        rest in prop::collection::vec(any::<usize>(), 1..8),
    ) {
        let (decider, other) = peers();
        let mut world = World::new([decider, other]);
        let mut next = 1;
        for (kind, connection, choice, seconds) in events {
            match kind {
                0 | 1 => {
                    world.connect(next);
                    next += 1;
                }
                2 => {
                    let open: Vec<_> = world.open.iter().copied().collect();
                    if let Some(connection) = open.get(connection % open.len().max(1)) {
                        world.close(*connection);
                    }
                }
                3 => world.now += Duration::from_secs(seconds),
                _ => drop(world.step(choice)),
            }
        }
        world.rest(&rest);
        prop_assert!(world.open.len() <= 1, "one connection at most: {:?}", world.open);
        let up = world.up.map(|session| session.is_some());
        prop_assert_eq!(up, [!world.open.is_empty(); 2], "{:?}", world.open);
        // And whatever came before, two that connect to each other at once end with one connection, not with none.
        world.connect(next);
        world.connect(next + 1);
        world.rest(&rest);
        prop_assert_eq!(world.open.len(), 1);
        prop_assert!(world.up.iter().all(Option::is_some));
    }
}
