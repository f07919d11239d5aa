//! The private network of a Khufu node: opaque frames between peers.
//!
//! This crate knows libp2p: connections over TCP, Noise and Yamux, closed to those without the pre-shared key; peers
//! that find each other through bootstrap addresses, Kademlia and mDNS and come back after every failure; ordered
//! streams of frames to single peers, plain streams of bytes, and gossip to all who listen to a topic. It must never know what a frame means:
//! no replicant, no site, no signature inside a frame. It imports no other crate of the house, and shows no type of
//! libp2p: peers and addresses are strings. Everything a peer can make it keep is bounded; what a peer does wrong is
//! refused, counted and told, and never stops the node.
//!
//! Frames are for what must arrive, gossip is a hint, plain streams are for what is long or has an answer of its own. `docs/network.md` holds the protocols, limits and numbers.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use khufu_p2p::{Config, Event, Identity, Network, Psk};
//!
//! let psk = Some(Psk::generate());
//! let (left, mut left_events) = Network::start(Config { psk, ..Config::fast(Identity::generate()) })?;
//! let address = loop {
//!     if let Some(Event::Listening { address }) = left_events.recv().await {
//!         break address;
//!     }
//! };
//! let echo = left.clone();
//! tokio::spawn(async move {
//!     while let Some(event) = left_events.recv().await {
//!         if let Event::Frame { from, frame } = event {
//!             let _ = echo.send(&from, frame);
//!         }
//!     }
//! });
//!
//! let bootstrap = vec![address];
//! let (right, mut right_events) = Network::start(Config { psk, bootstrap, ..Config::fast(Identity::generate()) })?;
//! while let Some(event) = right_events.recv().await {
//!     match event {
//!         Event::PeerUp { peer, .. } => right.send(&peer, b"hello".to_vec())?,
//!         Event::Frame { from, frame } => {
//!             assert_eq!((from.as_str(), frame.as_slice()), (left.peer_id(), b"hello".as_slice()));
//!             break;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod behaviour;
mod config;
mod dialer;
mod error;
mod event;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod link;
mod metrics;
mod network;
mod psk;
mod pump;
mod roster;
mod secret_file;
mod shared;
mod streams;
mod substream;
mod task;
mod transport;

pub use address::{AddressError, check_address};
pub use config::{Config, Limits, MAX_TOPIC_BYTES, MAX_TOPICS, Timing};
pub use error::{RequestError, SendError, StartError, StreamError, TopicError};
pub use event::{Discovery, DownReason, Event, PeerInfo, Refusal};
pub use identity::{Identity, IdentityError, verify};
pub use network::Network;
pub use psk::{Psk, PskError, PskFormatError};
pub use secret_file::SecretFileError;
pub use streams::{IncomingStreams, PeerStream, StreamEnded};
