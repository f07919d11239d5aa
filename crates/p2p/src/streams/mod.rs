//! Plain streams: bytes both ways between two peers, for what is long or has an answer of its own.
//!
//! The side that opens a stream of [`PROTOCOL`] waits for one byte. [`READY`]: it is taken in, and what follows is the
//! users' own, both ways. [`FULL`] or [`NOT_TAKEN`]: it is not, and nothing follows. So whoever opens one knows before
//! sending anything whether it will be read, and may ask another.

mod incoming;
mod life;
mod open;
mod places;
mod stream;
mod wait;

use libp2p::StreamProtocol;

pub(crate) use incoming::Incoming;
pub use incoming::IncomingStreams;
pub(crate) use life::{Life, Over};
pub(crate) use open::{Opening, open};
pub(crate) use places::Places;
pub use stream::PeerStream;
pub use wait::StreamEnded;

/// The name of the protocol, with its version.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/khufu/stream/1");

/// The stream is taken in.
const READY: u8 = 1;
/// There are as many as there may be.
const FULL: u8 = 2;
/// Nobody takes streams in.
const NOT_TAKEN: u8 = 3;
