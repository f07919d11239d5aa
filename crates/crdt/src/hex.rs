//! Hashes that are written as hexadecimal text, in formats that people do not read as the bytes that they stand for: half
//! as long. What is no hash is kept as it is. Both ways of writing are read everywhere.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ChangeHash;
use crate::document::ReadHash;

/// One text.
struct Text<'a>(&'a str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<ChangeHash>() {
            // Only what comes back as the same text.
            Ok(hash) if !to.is_human_readable() && !self.0.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                hash.serialize(to)
            }
            _ => self.0.serialize(to),
        }
    }
}

/// A text that was written in one way or the other.
struct Read(String);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a text, or the 32 bytes of a hash";
        let text = |text: &str| Ok(Self(text.to_owned()));
        from.deserialize_any(ReadHash { expected, text, hash: |hash| Self(hash.to_string()) })
    }
}

/// For lists of hashes.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(texts: &[String], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(texts.iter().map(|text| Text(text)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(Vec::<Read>::deserialize(from)?.into_iter().map(|read| read.0).collect())
    }
}

/// For a hash that may be missing.
pub(crate) mod option {
    use super::*;

    #[allow(clippy::ref_option, reason = "serde hands it in like this")]
    pub(crate) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        text.as_deref().map(Text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<Read>::deserialize(from)?.map(|read| read.0))
    }
}
