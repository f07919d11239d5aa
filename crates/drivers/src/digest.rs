//! How contents are told apart.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// SHA-256 of contents as 64 hexadecimal digits: what reports and `verify` compare between sites.
#[must_use]
pub fn digest(contents: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(contents) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_nothing_is_the_known_value() {
        assert_eq!(super::digest(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
