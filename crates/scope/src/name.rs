//! Names of sites and services, as written in a scope.

use std::{fmt, ops::Range};

/// The most bytes that the name of a site or a service may have.
pub const MAX_NAME_BYTES: usize = 100;

/// A name in a scope, and where it stands.
///
/// It holds ASCII letters, digits, `-`, `_` and `.`, does not start with a dot nor hold two in a row, and is neither
/// `all` nor `here`. Only [`parse`](crate::parse) makes one, so that this always holds. Two names are equal if they
/// are spelled alike, wherever they stand.
#[derive(Clone)]
pub struct Name {
    text: String,
    span: Range<usize>,
}

impl Name {
    pub(crate) fn new(text: &str, span: Range<usize>) -> Self {
        Self { text: text.to_owned(), span }
    }

    /// The name as it is spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it stands in the text of the scope, in bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// What is wrong with a word as a name; `None` if nothing is. The word holds only characters of the lexer's words.
pub(crate) fn problem(word: &str) -> Option<String> {
    if word.len() > MAX_NAME_BYTES {
        return Some(format!("a name has at most {MAX_NAME_BYTES} bytes, this one has {}", word.len()));
    }
    if word.contains('/') {
        return Some("`/` may stand in labels only: a name holds letters, digits, `-`, `_` and `.`".to_owned());
    }
    if word.starts_with('.') || word.contains("..") {
        return Some("a name must not start with a dot, nor hold two dots in a row".to_owned());
    }
    None
}
