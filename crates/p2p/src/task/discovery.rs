//! Finding peers: what they say of themselves, what others say, what is heard on the local network.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, identify, kad, mdns};

use super::Task;
use crate::address::{Address, plausible};
use crate::behaviour::{KADEMLIA, found, with_peer};
use crate::event::{Discovery, Event};

/// After a peer has come up, others are asked for soon; this much later, so that several coming up make one walk.
const WALK_SOON: Duration = Duration::from_millis(200);

/// Characters of what a peer calls itself.
const MAX_AGENT_CHARS: usize = 64;

impl Task {
    /// Looks for peers by asking those that are closest to a random place.
    pub(crate) fn walk(&mut self, now: Instant) {
        self.next_walk = now + self.config.timing.walk_interval;
        let room = self.roster.len() < self.config.limits.max_peers;
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut().filter(|_| room) {
            kademlia.get_closest_peers(PeerId::random());
        }
    }

    pub(crate) fn walk_soon(&mut self) {
        self.next_walk = self.next_walk.min(Instant::now() + WALK_SOON);
    }

    pub(crate) fn on_identify(&mut self, event: identify::Event) {
        let (connection, peer, info) = match event {
            identify::Event::Received { connection_id, peer_id, info } => (connection_id, peer_id, info),
            identify::Event::Error { peer_id, error, .. } => {
                tracing::debug!(peer = %peer_id, %error, "identify failed");
                return;
            }
            _ => return,
        };
        let Some(link) = self.links.get_mut(&peer) else { return };
        let over_loopback = link
            .remotes
            .get(&connection)
            .and_then(|remote| Address::from_multiaddr(&remote.address))
            .is_some_and(|address| address.is_loopback());
        let addresses = plausible(&info.listen_addrs, &peer, over_loopback, self.config.limits.max_addresses_per_peer);
        let changed = link.addresses != addresses;
        link.addresses.clone_from(&addresses);
        link.agent = Some(info.agent_version.chars().filter(|c| !c.is_control()).take(MAX_AGENT_CHARS).collect());
        let agent = link.agent.clone();
        self.shared.update(&peer, |entry| {
            entry.addresses.clone_from(&addresses);
            entry.agent = agent;
        });
        if info.protocols.contains(&KADEMLIA)
            && let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut()
        {
            for address in &addresses {
                kademlia.add_address(&peer, address.clone());
            }
            self.walk_soon();
        }
        self.learn(peer, &addresses, Discovery::Identify, changed);
    }

    pub(crate) fn on_kademlia(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { result, .. } = event else { return };
        for info in found(result) {
            // What others say of loopback is true for them; on one machine it is true for all.
            let addresses =
                plausible(&info.addrs, &info.peer_id, self.only_loopback(), self.config.limits.max_addresses_per_peer);
            self.learn(info.peer_id, &addresses, Discovery::Kademlia, false);
        }
    }

    pub(crate) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        for (peer, address) in found {
            let addresses = plausible([&address], &peer, false, 1);
            self.learn(peer, &addresses, Discovery::Mdns, false);
        }
    }

    fn only_loopback(&self) -> bool {
        self.swarm.listeners().filter_map(Address::from_multiaddr).all(|address| address.is_loopback())
    }

    /// Takes up addresses of a peer, and tells of them if they are news, or `tell` says so.
    fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], source: Discovery, tell: bool) {
        if addresses.is_empty() || peer == self.config.identity.id() {
            return;
        }
        let new = self.dialer.learn(Instant::now(), peer, addresses);
        if new || tell {
            tracing::debug!(%peer, ?addresses, ?source, "discovered");
            let addresses = with_peer(addresses, peer);
            self.notices.event(Event::Discovered { peer: peer.to_string(), addresses, source });
        }
    }
}
