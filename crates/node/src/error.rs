//! Why a node did not start.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a node did not start. Nothing is left running, and what was on disk is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The site's name or a label is not one.
    #[error("{what}: {reason}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// What is wrong, and what is right.
        reason: String,
    },
    /// Neither a directory nor a store was given.
    #[error("a node needs a place for its data: give it a directory of its own")]
    NoData,
    /// Two drivers are for one kind.
    #[error("two drivers are for the kind {kind:?}: leave one out")]
    Driver {
        /// The kind.
        kind: String,
    },
    /// The data directory cannot be made or read.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store cannot be opened: another process may have it open.
    #[error(transparent)]
    Store(#[from] khufu_store::StoreError),
    /// The identity cannot be read or made.
    #[error("identity: {0}")]
    Identity(#[from] khufu_p2p::IdentityError),
    /// The network cannot start.
    #[error("network: {0}")]
    Network(#[from] khufu_p2p::StartError),
    /// What is stored cannot be gone on from.
    #[error(transparent)]
    Restore(#[from] khufu_engine::RestoreError),
    /// The address of the API is taken, or not of this machine.
    #[error("the API cannot listen on {address}: {source}; give it another address, or port 0 for a free one")]
    Api {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The API would be open to others without tokens.
    #[error(
        "the API would listen on {address}, beyond this machine, and nobody would have to say who they are: give a token file, or listen on 127.0.0.1"
    )]
    TokensNeeded {
        /// The address.
        address: SocketAddr,
    },
    /// The front for kubectl cannot be served.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Front(#[from] crate::FrontError),
    /// The API of Cheops cannot be served.
    #[cfg(feature = "shell")]
    #[error(transparent)]
    Cheops(#[from] crate::CheopsError),
    /// A front of an HTTP service cannot be served.
    #[cfg(feature = "http")]
    #[error(transparent)]
    HttpFront(#[from] crate::HttpFrontError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}
