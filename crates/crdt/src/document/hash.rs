//! Identities inside a document: changes and those who make them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The SHA-256 hash that names one change; the same at every site. Written as 64 hexadecimal digits.
///
/// In formats that people do not read it is the 32 bytes; both ways of writing it are read everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct ChangeHash(pub [u8; 32]);

/// A text that is no change hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no change hash: give all of its 64 hexadecimal digits")]
pub struct ParseHashError(pub String);

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some are written with every edit, so not digit by digit.
        let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChangeHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        let wrong = || ParseHashError(text.chars().take(100).collect());
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut digits = text.bytes().map(|digit| (digit as char).to_digit(16));
        let mut hash = [0; 32];
        for byte in &mut hash {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else { return Err(wrong()) };
            *byte = u8::try_from(high * 16 + low).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for ChangeHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for ChangeHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a change hash: 32 bytes, or 64 hexadecimal digits";
        from.deserialize_any(ReadHash { expected, text: str::parse, hash: |hash| hash })
    }
}

/// Reads what is a hash as its 32 bytes, and may be something else as a text.
pub(crate) struct ReadHash<T> {
    pub(crate) expected: &'static str,
    pub(crate) text: fn(&str) -> Result<T, ParseHashError>,
    pub(crate) hash: fn(ChangeHash) -> T,
}

impl<T> Visitor<'_> for ReadHash<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        let hash = bytes.try_into().map(ChangeHash).map_err(|_| E::invalid_length(bytes.len(), &self))?;
        Ok((self.hash)(hash))
    }
}

impl From<ChangeHash> for String {
    fn from(hash: ChangeHash) -> Self {
        hash.to_string()
    }
}

impl From<automerge::ChangeHash> for ChangeHash {
    fn from(hash: automerge::ChangeHash) -> Self {
        Self(hash.0)
    }
}

impl From<ChangeHash> for automerge::ChangeHash {
    fn from(hash: ChangeHash) -> Self {
        Self(hash.0)
    }
}

/// Who makes changes, as Automerge counts them: a sequence of its own per document.
///
/// Two writers under one actor break a document for good, so a process draws new random bytes each time it starts.
/// A document that already holds changes of an actor is written under one derived from it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(Vec<u8>);

impl Actor {
    /// The actor of these bytes, which must be random and drawn since the process started.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes.to_vec())
    }

    /// The actor's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Another actor that nobody else derives.
    pub(crate) fn derive(&self, from: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(&self.0).chain_update(from).finalize();
        Self(digest.iter().copied().take(16).collect())
    }

    pub(crate) fn id(&self) -> automerge::ActorId {
        automerge::ActorId::from(self.0.as_slice())
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One change of a document, as it is stored and sent: immutable, named by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub hash: ChangeHash,
    /// An uncompressed Automerge change chunk.
    pub bytes: Vec<u8>,
}

impl From<&automerge::Change> for Change {
    fn from(change: &automerge::Change) -> Self {
        Self { hash: change.hash().into(), bytes: change.raw_bytes().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hash_is_written_as_hexadecimal_and_read_back() {
        let hash = ChangeHash(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        let text = hash.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse::<ChangeHash>().unwrap(), hash);
        assert_eq!(serde_json::from_value::<ChangeHash>(serde_json::to_value(hash).unwrap()).unwrap(), hash);
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32), &text.replace('0', "+")] {
            assert!(bad.parse::<ChangeHash>().is_err(), "{bad}");
        }
    }
}
