//! Bearer tokens of the HTTP API: who may do what.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What the bearer of a token may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Also create, edit, operate and delete.
    Write,
    /// Also inject faults.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        })
    }
}

/// A name, a role, and the digest of a secret that proves them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Entry>,
}

/// The tokens that a node accepts.
///
/// They are kept as SHA-256 digests: whoever reads the file cannot use it. A secret must have enough randomness that
/// it cannot be guessed (`openssl rand -hex 32`), since nothing slows a guess down.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    entries: Vec<(String, Role, [u8; 32])>,
}

/// Why tokens were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not as it should be.
    #[error(
        "the token file {} is not as it should be: {detail}. It holds, for each token, a table [[tokens]] with name, role (read, write or admin) and sha256 (of the token, in hexadecimal)",
        path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What, and where.
        detail: String,
    },
    /// A digest is not one.
    #[error(
        "the sha256 of the token {name:?} is not 64 hexadecimal digits: make it with `printf %s TOKEN | sha256sum`"
    )]
    Digest {
        /// Whose.
        name: String,
    },
    /// Two tokens have one name.
    #[error("two tokens are named {name:?}: names tell in the audit log who made a change, so each needs its own")]
    Twice {
        /// The name.
        name: String,
    },
    /// There are no tokens.
    #[error("the token file {} holds no token: nobody could use the API", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Tokens {
    /// No tokens yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts the bearer of `secret` as `name`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, role: Role, secret: &str) -> Self {
        self.entries.push((name.into(), role, digest(secret)));
        self
    }

    /// Reads tokens from a file: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// [`TokensError`] names the file, the place in it, and what is right.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TokensError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| TokensError::Read { path: path.to_owned(), source })?;
        let parse_error = |detail: String| TokensError::Parse { path: path.to_owned(), detail };
        let file: File = if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(&text).map_err(|error| parse_error(error.to_string()))?
        } else {
            toml::from_str(&text).map_err(|error| parse_error(error.to_string().trim().to_owned()))?
        };
        if file.tokens.is_empty() {
            return Err(TokensError::Empty { path: path.to_owned() });
        }
        let mut names = BTreeSet::new();
        let mut tokens = Self::new();
        for Entry { name, role, sha256 } in file.tokens {
            let Some(digest) = from_hex(&sha256) else { return Err(TokensError::Digest { name }) };
            if !names.insert(name.clone()) {
                return Err(TokensError::Twice { name });
            }
            tokens.entries.push((name, role, digest));
        }
        Ok(tokens)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whose secret this is. Takes the same time whichever it is, and if it is nobody's.
    pub(crate) fn bearer(&self, secret: &str) -> Option<(&str, Role)> {
        let presented = digest(secret);
        let mut found = None;
        for (name, role, digest) in &self.entries {
            let difference = digest.iter().zip(&presented).fold(0_u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some((name.as_str(), *role));
            }
        }
        found
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    // SHA-256 of "secret".
    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn both_formats_are_read() {
        let toml = format!("[[tokens]]\nname = \"ana\"\nrole = \"write\"\nsha256 = \"{DIGEST}\"\n");
        let json = format!(r#"{{"tokens": [{{"name": "ana", "role": "write", "sha256": "{DIGEST}"}}]}}"#);
        for (name, text) in [("t.toml", toml), ("t.json", json)] {
            let (_dir, path) = write(name, &text);
            let tokens = Tokens::load(path).unwrap();
            assert_eq!(tokens.bearer("secret"), Some(("ana", Role::Write)));
            assert_eq!(tokens.bearer("Secret"), None);
            assert_eq!(tokens.bearer(""), None);
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said() {
        for (text, expected) in [
            ("tokens = []", "holds no token"),
            ("[[tokens]]\nname='a'\nrole='boss'\nsha256=''", "boss"),
            ("[[tokens]]\nname='a'\nrole='read'\nsha256='12'", "64 hexadecimal digits"),
            ("[[tokens]]\nname='a'\nrole='read'\ntoken='x'\nsha256=''", "token"),
            ("nonsense", "line 1"),
        ] {
            let (_dir, path) = write("t.toml", text);
            let error = Tokens::load(path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let twice = format!("[[tokens]]\nname='a'\nrole='read'\nsha256='{DIGEST}'\n").repeat(2);
        let (_dir, path) = write("t.toml", &twice);
        assert!(matches!(Tokens::load(path).unwrap_err(), TokensError::Twice { .. }));
    }
}
