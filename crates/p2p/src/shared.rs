//! What the handle and the network task both see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::Notify;

use crate::link::PeerEntry;

#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The wanted topics or blocks have changed.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) peers: BTreeMap<PeerId, PeerEntry>,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) blocked: BTreeSet<PeerId>,
    pub(crate) listening: Vec<Multiaddr>,
}

impl Shared {
    /// Held for a few instructions only, and never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wanted(&self) -> (BTreeSet<String>, BTreeSet<PeerId>) {
        let state = self.lock();
        (state.topics.clone(), state.blocked.clone())
    }

    pub(crate) fn set_listening<'a>(&self, addresses: impl Iterator<Item = &'a Multiaddr>) {
        self.lock().listening = addresses.cloned().collect();
    }

    /// The peer that is up and says that it is at that address.
    pub(crate) fn at(&self, address: &Multiaddr) -> Option<PeerId> {
        let state = self.lock();
        state.peers.iter().find(|(_, entry)| entry.addresses.contains(address)).map(|(peer, _)| *peer)
    }

    pub(crate) fn update(&self, peer: &PeerId, change: impl FnOnce(&mut PeerEntry)) {
        if let Some(entry) = self.lock().peers.get_mut(peer) {
            change(entry);
        }
    }
}
