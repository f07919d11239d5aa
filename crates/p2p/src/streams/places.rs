//! How many plain streams there may be in one direction: with one peer, and in all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

use crate::config::Limits;
use crate::metrics::{Counters, Direction, IN, OUT};

/// The places of one direction. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    taken: Mutex<Taken>,
    per_peer: usize,
    in_all: usize,
    per_stranger: usize,
    of_strangers: usize,
    direction: &'static Direction,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Taken {
    by: BTreeMap<PeerId, usize>,
    by_strangers: usize,
}

/// What a peer is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Known to belong.
    Member,
    /// Not known: it has the key.
    Stranger,
}

/// A place that is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    peer: PeerId,
    standing: Standing,
}

impl Places {
    pub(crate) fn incoming(limits: &Limits, counters: Counters) -> Self {
        Self::new(limits, &IN, counters)
    }

    pub(crate) fn outgoing(limits: &Limits, counters: Counters) -> Self {
        Self::new(limits, &OUT, counters)
    }

    fn new(limits: &Limits, direction: &'static Direction, counters: Counters) -> Self {
        let taken = Mutex::default();
        let (per_peer, in_all) = (limits.max_streams_per_peer, limits.max_streams);
        let (per_stranger, of_strangers) = (limits.max_streams_per_stranger, limits.max_streams_of_strangers);
        Self(Arc::new(Inner { taken, per_peer, in_all, per_stranger, of_strangers, direction, counters }))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a stream with that peer.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn take(&self, peer: PeerId, standing: Standing) -> Result<Place, usize> {
        let mut taken = self.lock();
        let is_stranger = standing == Standing::Stranger;
        let per_peer = if is_stranger { self.0.per_stranger.min(self.0.per_peer) } else { self.0.per_peer };
        let of_peer = taken.by.get(&peer).copied().unwrap_or_default();
        if of_peer >= per_peer {
            return Err(per_peer);
        }
        if is_stranger && taken.by_strangers >= self.0.of_strangers {
            return Err(self.0.of_strangers);
        }
        if taken.by.values().sum::<usize>() >= self.0.in_all {
            return Err(self.0.in_all);
        }
        taken.by.insert(peer, of_peer + 1);
        taken.by_strangers += usize::from(is_stranger);
        drop(taken);
        self.0.counters.stream_begins(self.0.direction);
        Ok(Place { places: self.clone(), peer, standing })
    }
}

impl Place {
    /// The stream is open.
    pub(crate) fn opened(&self) {
        self.places.0.counters.stream_opened(self.places.0.direction);
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.places.0.counters
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_peer) = taken.by.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by.remove(&self.peer);
            }
        }
        taken.by_strangers -= usize::from(self.standing == Standing::Stranger);
        drop(taken);
        self.places.0.counters.stream_ended(self.places.0.direction);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_are_so_many_for_one_peer_and_so_many_in_all() {
        let limits = Limits { max_streams_per_peer: 2, max_streams: 3, ..Limits::default() };
        let places = Places::incoming(&limits, Counters::default());
        let take = |peer| places.take(peer, Standing::Member);
        let (one, other) = (PeerId::random(), PeerId::random());
        let mut kept = vec![take(one).unwrap(), take(one).unwrap()];
        assert_eq!(take(one).unwrap_err(), 2);
        kept.push(take(other).unwrap());
        assert_eq!(take(other).unwrap_err(), 3);
        kept.remove(0);
        take(other).unwrap();
        kept.clear();
        assert!(places.lock().by.is_empty());
    }

    #[test]
    fn strangers_leave_places_to_members() {
        let limits = Limits { max_streams_per_stranger: 2, max_streams_of_strangers: 3, ..Limits::default() };
        let places = Places::incoming(&limits, Counters::default());
        let (one, other) = (PeerId::random(), PeerId::random());
        let strange = |peer| places.take(peer, Standing::Stranger);
        let mut kept = vec![strange(one).unwrap(), strange(one).unwrap()];
        assert_eq!(strange(one).unwrap_err(), 2);
        kept.push(strange(other).unwrap());
        assert_eq!(strange(other).unwrap_err(), 3);
        // Also to one that has just become known as a member.
        kept.push(places.take(other, Standing::Member).unwrap());
        kept.remove(0);
        kept.push(strange(PeerId::random()).unwrap());
        assert_eq!(strange(PeerId::random()).unwrap_err(), 3);
    }
}
