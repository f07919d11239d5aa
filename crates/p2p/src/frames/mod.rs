//! Frames on the wire: one stream in each direction for each peer that is up.
//!
//! The side that has frames to send opens a stream of [`PROTOCOL`] and waits for one byte, [`READY`]. The other side
//! sends it once it will read this stream and no other. Then follow frames: their length as four bytes, big endian, at
//! least 1, and that many bytes. Nothing else ever comes back, so the end of the stream is seen at once. A stream that
//! was never acknowledged has lost nothing and is opened again; one that breaks later ends the session with the peer.

mod moving;
pub(crate) mod reader;
pub(crate) mod writer;

use libp2p::StreamProtocol;

/// The name of the protocol, with its version.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/khufu/frames/1");

/// What the accepting side sends before the first frame.
pub(crate) const READY: u8 = 1;

/// Bytes before each frame.
pub(crate) const HEADER_BYTES: usize = 4;
