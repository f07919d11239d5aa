//! Differences between objects for people.

use serde_json::Value;
use similar::TextDiff;

/// The most bytes of the difference of one object.
const MAX_BYTES: usize = 16 << 10;

fn yaml(object: Option<&Value>) -> String {
    // What cannot be written as YAML is shown as JSON.
    object.map(|object| serde_saphyr::to_string(object).unwrap_or_else(|_| format!("{object:#}"))).unwrap_or_default()
}

/// A unified diff of two objects; empty if they are alike.
pub(super) fn between(name: &str, before: Option<&Value>, after: Option<&Value>) -> String {
    let (old, new) = (yaml(before), yaml(after));
    if old == new {
        return String::new();
    }
    let diff = TextDiff::from_lines(&old, &new);
    let mut text = diff.unified_diff().context_radius(3).header(name, name).to_string();
    if text.len() > MAX_BYTES {
        let mut end = MAX_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("\n(cut)\n");
    }
    text
}
