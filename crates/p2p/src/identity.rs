//! Who a node is: an ed25519 key in a file only its owner can read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libp2p::PeerId;
use libp2p::identity::{KeyType, Keypair, PublicKey};

use crate::secret_file::{self, SecretFileError};

/// A key file in libp2p's encoding has 68 bytes; anything much larger is something else.
const MAX_FILE_BYTES: u64 = 4096;

/// The multihash code under which a peer id holds the public key itself instead of its digest.
const MULTIHASH_IDENTITY: u64 = 0;

/// Why an identity could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file could not be read or written, or others may read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file holds no key that this version knows.
    #[error(
        "{path} is no ed25519 key in libp2p's encoding ({reason}): restore it, or remove it and start as a new peer"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
}

/// The key pair of a node. Cheap to clone; `Debug` and `Display` show the public peer id only.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    peer_id: PeerId,
}

impl Identity {
    /// Loads the key at `path`, or makes one and writes it there with mode 0600.
    ///
    /// The file (libp2p's protobuf encoding of a private key) appears whole or not at all. When two processes do this
    /// at once, both end with the same key.
    ///
    /// # Errors
    /// The file may be read by others, holds something else, or cannot be read or written.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(IdentityError::File(error)) if error.is_not_found() => {}
            other => return other,
        }
        let identity = Self::generate();
        match secret_file::create(path, &identity.encode(path)?) {
            Ok(()) => Ok(identity),
            Err(SecretFileError::Exists { .. }) => Self::load(path),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads the key at `path`.
    ///
    /// # Errors
    /// There is no such file, it may be read by others, or it holds something else.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let bytes = secret_file::read(path, MAX_FILE_BYTES)?;
        let malformed = |reason: String| IdentityError::Malformed { path: path.to_owned(), reason };
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|error| malformed(error.to_string()))?;
        if keypair.key_type() != KeyType::Ed25519 {
            return Err(malformed(format!("it holds a key of type {}", keypair.key_type())));
        }
        Ok(Self::from_keypair(keypair))
    }

    /// Makes a new identity that is in memory only.
    pub fn generate() -> Self {
        Self::from_keypair(Keypair::generate_ed25519())
    }

    fn from_keypair(keypair: Keypair) -> Self {
        let peer_id = keypair.public().to_peer_id();
        Self { keypair, peer_id }
    }

    fn encode(&self, path: &Path) -> Result<Vec<u8>, IdentityError> {
        self.keypair
            .to_protobuf_encoding()
            .map_err(|error| IdentityError::Malformed { path: path.to_owned(), reason: error.to_string() })
    }

    /// The peer id in its usual text form (`12D3Koo...`).
    pub fn peer_id(&self) -> String {
        self.peer_id.to_string()
    }

    /// The ed25519 signature of `message`, 64 bytes. [`verify`] checks it.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        // Only RSA keys can fail to sign, and no other than ed25519 gets in here. An empty signature verifies nowhere.
        self.keypair.sign(message).unwrap_or_default()
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    pub(crate) fn id(&self) -> PeerId {
        self.peer_id
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer_id)
    }
}

/// Whether `signature` over `message` is by the peer of that id.
///
/// The peer id of an ed25519 key holds the key itself, so nothing else is needed. Anything malformed is `false`.
pub fn verify(peer_id: &str, message: &[u8], signature: &[u8]) -> bool {
    // Longer than any ed25519 peer id; keeps the base58 decoder, which is quadratic, away from long input.
    if peer_id.len() > 128 {
        return false;
    }
    let Ok(peer_id) = PeerId::from_str(peer_id) else { return false };
    let hash: &libp2p::multihash::Multihash<64> = peer_id.as_ref();
    if hash.code() != MULTIHASH_IDENTITY {
        return false;
    }
    PublicKey::try_decode_protobuf(hash.digest())
        .is_ok_and(|key| key.key_type() == KeyType::Ed25519 && key.verify(message, signature))
}
