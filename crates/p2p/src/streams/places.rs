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
    taken: Mutex<BTreeMap<PeerId, usize>>,
    per_peer: usize,
    in_all: usize,
    direction: &'static Direction,
    counters: Counters,
}

/// A place that is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    peer: PeerId,
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
        Self(Arc::new(Inner { taken, per_peer, in_all, direction, counters }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, usize>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a stream with that peer.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn take(&self, peer: PeerId) -> Result<Place, usize> {
        let mut taken = self.lock();
        let of_peer = taken.get(&peer).copied().unwrap_or_default();
        if of_peer >= self.0.per_peer {
            return Err(self.0.per_peer);
        }
        if taken.values().sum::<usize>() >= self.0.in_all {
            return Err(self.0.in_all);
        }
        taken.insert(peer, of_peer + 1);
        drop(taken);
        self.0.counters.stream_begins(self.0.direction);
        Ok(Place { places: self.clone(), peer })
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
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
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
        let (one, other) = (PeerId::random(), PeerId::random());
        let mut kept = vec![places.take(one).unwrap(), places.take(one).unwrap()];
        assert_eq!(places.take(one).unwrap_err(), 2);
        kept.push(places.take(other).unwrap());
        assert_eq!(places.take(other).unwrap_err(), 3);
        kept.remove(0);
        places.take(other).unwrap();
        kept.clear();
        assert!(places.lock().is_empty());
    }
}
