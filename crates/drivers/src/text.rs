//! Texts for people that must not become too long.

/// The begin of a text, with how much is left out.
pub(crate) fn cut(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes);
    format!("{}\n[{} more bytes]", text.get(..end).unwrap_or_default(), text.len() - end)
}

/// The begin of a line.
#[cfg(feature = "kubernetes")]
pub(crate) fn clipped(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    format!("{}...", text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default())
}
