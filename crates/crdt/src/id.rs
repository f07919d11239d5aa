//! Names: of replicants, their documents, sites and operations.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("a {what} must not be empty")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// The name has too many bytes.
    #[error("a {what} has at most {max} bytes, this one has {len}: shorten it")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// The limit in bytes.
        max: usize,
        /// The length found in bytes.
        len: usize,
    },
    /// The name holds a character that is not allowed there.
    #[error("{found:?} is not allowed at byte {at} of the {what} {name:?}: use letters, digits and {allowed}")]
    Character {
        /// What was being named.
        what: &'static str,
        /// The whole name.
        name: String,
        /// The offending character.
        found: char,
        /// Its byte offset.
        at: usize,
        /// The punctuation that is allowed.
        allowed: &'static str,
    },
    /// The name starts with a dot or is made of dots only.
    #[error("the {what} {name:?} must not start with a dot, nor contain two dots in a row")]
    Dots {
        /// What was being named.
        what: &'static str,
        /// The whole name.
        name: String,
    },
}

fn check(what: &'static str, name: &str, max: usize, allowed: &'static str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > max {
        return Err(NameError::TooLong { what, max, len: name.len() });
    }
    if let Some((at, found)) = name.char_indices().find(|(_, c)| !c.is_ascii_alphanumeric() && !allowed.contains(*c)) {
        return Err(NameError::Character { what, name: name.to_owned(), found, at, allowed });
    }
    if name.starts_with('.') || name.contains("..") {
        return Err(NameError::Dots { what, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:literal, $allowed:literal) => {
        $(#[$doc])*
        // A copy shares the text: the same names are in very many places.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $type(Arc<str>);

        impl $type {
            /// The most bytes such a name may have.
            pub const MAX_BYTES: usize = $max;

            /// Takes a name.
            ///
            /// # Errors
            /// [`NameError`] names the place and the rule that the name breaks.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                Self::of(&name.into())
            }

            fn of(name: &str) -> Result<Self, NameError> {
                check($what, name, $max, $allowed)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::of(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.as_str().to_owned()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::of(&String::deserialize(from)?).map_err(de::Error::custom)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name!(
    /// The meta id of a replicant: the same at every site, chosen by the user. Safe as a file name.
    ReplicantId, "replicant id", 200, "-_.:@"
);
name!(
    /// The name of a site, such as `paris`.
    SiteName, "site name", 100, "-_."
);
name!(
    /// The id of one operation, unique among all operations of its replicant.
    OperationId, "operation id", 200, "-_.:@"
);

/// Which incarnation of a replicant's document: part of its identity on disk and on the wire. 0 is the first; in those after
/// it the millions count the closings before it, and the rest is how many changes the last of these closed over.
pub type Epoch = u64;

/// By so much the number of an epoch grows at least when it is closed: more changes than an epoch has.
const EPOCH_STEP: Epoch = 1_000_000;

/// The identity of one document: a late change of an old epoch must not disappear in a new one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentId {
    /// The replicant it is the document of.
    pub replicant: ReplicantId,
    /// Which of this replicant's documents; the higher, the later.
    pub epoch: Epoch,
}

impl DocumentId {
    /// The document that follows this one where so many of its changes are closed over. Sites that know different amounts
    /// may close over different amounts: of the documents that follow the same one, the later is that in which more is
    /// closed over, and later than all of these is whatever follows any of them.
    #[must_use]
    pub fn next(&self, changes: usize) -> Self {
        let within = u64::try_from(changes).unwrap_or(u64::MAX).min(EPOCH_STEP - 1);
        let step = self.closings().saturating_add(1).saturating_mul(EPOCH_STEP);
        Self { replicant: self.replicant.clone(), epoch: step.saturating_add(within) }
    }

    /// How many epochs were closed before it.
    #[must_use]
    pub fn closings(&self) -> u64 {
        self.epoch / EPOCH_STEP
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.replicant, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for bad in ["", "..", "a/b", "../x", ".hidden", "a..b", "a b", "a\0b", "é"] {
            assert!(ReplicantId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["web", "web-1.yaml", "ns:web", "A_b@c"] {
            assert!(ReplicantId::new(good).is_ok(), "{good:?}");
        }
        assert!(ReplicantId::new("a".repeat(201)).is_err());
    }

    #[test]
    fn an_error_names_the_place() {
        let error = ReplicantId::new("web/one").unwrap_err().to_string();
        assert!(error.contains("'/'") && error.contains("byte 3"), "{error}");
    }
}
