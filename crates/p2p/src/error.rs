//! One error type for each operation.

use std::time::Duration;

use crate::address::AddressError;

/// Why a network could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address in the configuration is wrong.
    #[error("{setting}: {source}")]
    Address {
        /// Which setting: `listen`, `announce`, `bootstrap` or `known`.
        setting: &'static str,
        /// What is wrong.
        source: AddressError,
    },
    /// Without a pre-shared key the node stays on loopback.
    #[error(
        "refusing to listen on {address} without a pre-shared key: anybody who reaches that port could join. Give a \
         key file, listen on a loopback address (127.0.0.1), or allow an open network in so many words"
    )]
    OpenNetwork {
        /// The first listen address that is not loopback.
        address: String,
    },
    /// The node cannot listen there.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said, and what may be done.
        reason: String,
    },
    /// A limit or a time makes no sense.
    #[error("{setting} is {value}, it must be {expected}")]
    Setting {
        /// The field of [`Limits`](crate::Limits) or [`Timing`](crate::Timing).
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The library refused a part of the set-up.
    #[error("cannot set up {part}: {reason}")]
    Setup {
        /// Which part.
        part: &'static str,
        /// What it said.
        reason: String,
    },
    /// There is no tokio runtime to run in.
    #[error("a network must be started within a tokio runtime")]
    NoRuntime,
}

/// Why a frame was not taken for sending. It was not sent then, not even in part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer is not up.
    #[error("{peer} is not connected: wait for it to be up")]
    NotConnected {
        /// The peer.
        peer: String,
    },
    /// The peer takes frames more slowly than they are sent.
    #[error("the queue for {peer} is full ({frames} frames): it reads too slowly, send again later")]
    QueueFull {
        /// The peer.
        peer: String,
        /// How many frames waited when it was refused.
        frames: usize,
    },
    /// The frame is too large for any peer.
    #[error("a frame of {bytes} bytes is over the limit of {limit}: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame holds at least one byte.
    #[error("a frame must hold at least one byte")]
    Empty,
}

/// Why a plain stream could not be opened. Nothing was sent over it then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer is not up.
    #[error("{peer} is not connected: wait for it to be up")]
    NotConnected {
        /// The peer.
        peer: String,
    },
    /// There are as many streams to that peer, or to all, as there may be.
    #[error("{limit} streams to {peer} or to all peers are open already: close some, or try again later")]
    TooMany {
        /// The peer.
        peer: String,
        /// The limit that was reached.
        limit: usize,
    },
    /// The peer has as many streams open as it takes.
    #[error("{peer} takes no more streams now: try again later")]
    Full {
        /// The peer.
        peer: String,
    },
    /// The peer takes no streams at all.
    #[error("{peer} takes no streams: it may be of an older version, or just be starting")]
    NotTaken {
        /// The peer.
        peer: String,
    },
    /// The peer did not answer in time.
    #[error("{peer} has not answered within {} ms to a stream that was to be opened", after.as_millis())]
    Timeout {
        /// The peer.
        peer: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke before the stream was open.
    #[error("the connection to {peer} broke before a stream was open: {detail}")]
    Lost {
        /// The peer.
        peer: String,
        /// In which way.
        detail: String,
    },
    /// More is asked than the network task can take.
    #[error("the queue of the network task is full: ask again later")]
    QueueFull,
    /// The network was shut down.
    #[error("the network was shut down")]
    Stopped,
}

/// Why gossip was not published or a subscription not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The frame is too large for gossip.
    #[error("{bytes} bytes are over the gossip limit of {limit}: announce it and let it be fetched")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// There are [`MAX_TOPICS`](crate::MAX_TOPICS) already.
    #[error("subscribed to {limit} topics already: unsubscribe from one, or send to the peers directly")]
    TooManyTopics {
        /// The limit.
        limit: usize,
    },
    /// The name is empty or longer than [`MAX_TOPIC_BYTES`](crate::MAX_TOPIC_BYTES).
    #[error("a topic's name has 1 to {limit} bytes, this one has {bytes}")]
    Name {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More is published than the network task can take.
    #[error("the queue of the network task is full: publish again later, or leave it to reconciliation")]
    QueueFull,
    /// The network was shut down.
    #[error("the network was shut down")]
    Stopped,
}

/// Why a request about a peer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The address or the peer id is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// More is asked than the network task can take.
    #[error("the queue of the network task is full: ask again later")]
    QueueFull,
    /// The network was shut down.
    #[error("the network was shut down")]
    Stopped,
}
