//! Multiaddresses: which ones this network uses, and which ones a peer may plausibly have.

use std::net::{IpAddr, SocketAddr};

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not a multiaddress at all.
    #[error("`{address}` is no multiaddress ({reason}); one looks like `/ip4/192.0.2.7/tcp/7000`")]
    Malformed {
        /// As given.
        address: String,
        /// What the parser said.
        reason: String,
    },
    /// A multiaddress, but not of the kind this network speaks.
    #[error("`{address}` is no TCP address; this network speaks `/ip4/<address>/tcp/<port>` or `/ip6/...` only")]
    NotTcp {
        /// As given.
        address: String,
    },
    /// A peer id is needed and there is none.
    #[error("`{address}` does not say which peer is there: append `/p2p/<peer id>`")]
    NoPeer {
        /// As given.
        address: String,
    },
    /// A peer id that does not parse.
    #[error("`{peer}` is no peer id; one looks like `12D3KooW...`")]
    Peer {
        /// As given, shortened.
        peer: String,
    },
}

/// Checks that a text is an address that [`Config`](crate::Config) takes: `/ip4/192.0.2.7/tcp/7000` or `/ip6/...`, with or
/// without `/p2p/<peer id>`.
///
/// # Errors
/// [`AddressError`] says what one looks like.
pub fn check_address(text: &str) -> Result<(), AddressError> {
    Address::parse(text).map(drop)
}

/// An address that was checked: IP, TCP port, and perhaps who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    pub(crate) peer: Option<PeerId>,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > 512 {
            let start: String = text.chars().take(40).collect();
            return Err(AddressError::Malformed { address: format!("{start}..."), reason: "too long".into() });
        }
        let multiaddr: Multiaddr = text
            .parse()
            .map_err(|error| AddressError::Malformed { address: text.to_owned(), reason: format!("{error}") })?;
        Self::from_multiaddr(&multiaddr).ok_or_else(|| AddressError::NotTcp { address: text.to_owned() })
    }

    pub(crate) fn from_multiaddr(multiaddr: &Multiaddr) -> Option<Self> {
        let mut parts = multiaddr.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let Protocol::Tcp(port) = parts.next()? else { return None };
        let peer = match parts.next() {
            None => None,
            Some(Protocol::P2p(peer)) => Some(peer),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self { socket: SocketAddr::new(ip, port), peer })
    }

    /// Without the peer id.
    pub(crate) fn multiaddr(&self) -> Multiaddr {
        let ip = match self.socket.ip() {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        };
        Multiaddr::empty().with(ip).with(Protocol::Tcp(self.socket.port()))
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.socket.ip().to_canonical().is_loopback()
    }
}

/// The addresses out of what a peer says of itself that can be dialled with any hope, at most `limit`, without peer id.
///
/// Loopback addresses count only when the peer itself came over loopback: elsewhere they would lead back to this node.
pub(crate) fn plausible<'a>(
    said: impl IntoIterator<Item = &'a Multiaddr>,
    peer: &PeerId,
    over_loopback: bool,
    limit: usize,
) -> Vec<Multiaddr> {
    let mut found = Vec::new();
    for multiaddr in said {
        if found.len() >= limit {
            break;
        }
        let Some(address) = Address::from_multiaddr(multiaddr) else { continue };
        let ip = address.socket.ip();
        let right = address.peer.is_none_or(|named| named == *peer)
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && address.socket.port() != 0
            && (over_loopback || !address.is_loopback());
        let multiaddr = address.multiaddr();
        if right && !found.contains(&multiaddr) {
            found.push(multiaddr);
        }
    }
    found
}

pub(crate) fn parse_peer(text: &str) -> Result<PeerId, AddressError> {
    let refused = || AddressError::Peer { peer: text.chars().take(80).collect() };
    if text.len() > 128 {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}
