//! The key that all peers of a private network share, in the standard `swarm.key` format.

use std::fmt;
use std::path::{Path, PathBuf};

use libp2p::pnet::PreSharedKey;

use crate::secret_file::{self, SecretFileError};

const HEADER: &str = "/key/swarm/psk/1.0.0/";
const ENCODING: &str = "/base16/";
const KEY_BYTES: usize = 32;
const MAX_FILE_BYTES: u64 = 4096;

/// Why a pre-shared key could not be had. No variant holds any part of the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PskError {
    /// The file could not be read or written, or others may read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file is there, but is no `swarm.key`.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PskFormatError,
    },
}

/// What is wrong with the text of a `swarm.key`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PskFormatError {
    /// The file is not UTF-8 text.
    #[error("not a text file; a swarm.key has three lines: `{HEADER}`, `{ENCODING}` and 64 hexadecimal digits")]
    NotText,
    /// The first line is another.
    #[error("line 1 must be `{HEADER}`")]
    Header,
    /// The second line is another.
    #[error("line 2 must be `{ENCODING}`, the only encoding this version reads")]
    Encoding,
    /// The third line has another length.
    #[error("line 3 must be 64 hexadecimal digits, it has {found} characters")]
    Length {
        /// How many characters it has.
        found: usize,
    },
    /// The third line has something else than hexadecimal digits.
    #[error("line 3 must be 64 hexadecimal digits, character {column} is none")]
    Digit {
        /// The first character that is no digit, counted from 1.
        column: usize,
    },
    /// Something follows the key.
    #[error("line {line} should not be there: a swarm.key has three lines")]
    Trailing {
        /// The first line too many, counted from 1.
        line: usize,
    },
}

/// A pre-shared key of 32 bytes. `Debug` and `Display` show the fingerprint only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Psk([u8; KEY_BYTES]);

impl Psk {
    /// Reads a `swarm.key` file, which must be readable by its owner only.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is no `swarm.key`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PskError> {
        let path = path.as_ref();
        let bytes = secret_file::read(path, MAX_FILE_BYTES)?;
        let malformed = |source| PskError::Malformed { path: path.to_owned(), source };
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed(PskFormatError::NotText))?;
        Self::parse(text).map_err(malformed)
    }

    /// Reads the text of a `swarm.key`: a header, an encoding, and 64 hexadecimal digits, each on its line.
    ///
    /// The text is checked here and never given to libp2p's own parser, which panics on a third line of 64 bytes that
    /// is not ASCII and takes `+b` for a byte.
    ///
    /// # Errors
    /// The line that is wrong, and what should be there.
    pub fn parse(text: &str) -> Result<Self, PskFormatError> {
        let mut lines = text.lines().map(|line| line.trim_end_matches([' ', '\t', '\r']));
        if lines.next() != Some(HEADER) {
            return Err(PskFormatError::Header);
        }
        if lines.next() != Some(ENCODING) {
            return Err(PskFormatError::Encoding);
        }
        let digits = lines.next().unwrap_or_default();
        if let Some(index) = digits.chars().position(|digit| !digit.is_ascii_hexdigit()) {
            return Err(PskFormatError::Digit { column: index + 1 });
        }
        if digits.len() != 2 * KEY_BYTES {
            return Err(PskFormatError::Length { found: digits.len() });
        }
        if let Some(index) = lines.position(|line| !line.is_empty()) {
            return Err(PskFormatError::Trailing { line: index + 4 });
        }
        let mut key = [0; KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = pair.iter().fold(0, |value, digit| (value << 4) | nibble(*digit));
        }
        Ok(Self(key))
    }

    /// Makes a key from the random source of the operating system.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Writes a new `swarm.key` with mode 0600; never overwrites.
    ///
    /// # Errors
    /// A file is there already, or it cannot be written.
    pub fn to_file(&self, path: impl AsRef<Path>) -> Result<(), PskError> {
        Ok(secret_file::create(path.as_ref(), self.shared().to_key_file().as_bytes())?)
    }

    /// What two operators compare to see that they hold the same key: 32 hexadecimal digits that say nothing about it.
    /// The same as other libp2p implementations print.
    pub fn fingerprint(&self) -> String {
        self.shared().fingerprint().to_string()
    }

    pub(crate) fn shared(&self) -> PreSharedKey {
        PreSharedKey::new(self.0)
    }
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psk(fingerprint {})", self.fingerprint())
    }
}

impl fmt::Display for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key with fingerprint {}", self.fingerprint())
    }
}
