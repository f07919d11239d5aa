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
#[cfg(any(feature = "kubernetes", feature = "openstack"))]
pub(crate) fn clipped(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    format!("{}...", text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default())
}

/// The most bytes of the difference of two values.
#[cfg(any(feature = "http", feature = "kubernetes", feature = "openstack"))]
const MAX_DIFFERENCE_BYTES: usize = 16 << 10;

#[cfg(any(feature = "http", feature = "kubernetes", feature = "openstack"))]
fn yaml(value: Option<&serde_json::Value>) -> String {
    // What cannot be written as YAML is shown as JSON.
    value.map(|value| serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}"))).unwrap_or_default()
}

/// A unified diff of two values; empty if they are alike.
#[cfg(any(feature = "http", feature = "kubernetes", feature = "openstack"))]
pub(crate) fn between(name: &str, before: Option<&serde_json::Value>, after: Option<&serde_json::Value>) -> String {
    let (old, new) = (yaml(before), yaml(after));
    if old == new {
        return String::new();
    }
    let diff = similar::TextDiff::from_lines(&old, &new);
    cut(&diff.unified_diff().context_radius(3).header(name, name).to_string(), MAX_DIFFERENCE_BYTES)
}
