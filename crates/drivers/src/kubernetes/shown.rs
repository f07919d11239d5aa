//! Objects as people see them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

use serde_json::Value;
use similar::TextDiff;

use super::stamp;
use crate::text::cut;

/// The most bytes of the difference of one object.
const MAX_BYTES: usize = 16 << 10;

/// An object without what a server keeps for itself.
pub(super) fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(stamp::MANIFEST);
        }
        for field in ["managedFields", "resourceVersion", "generation", "uid", "selfLink", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
    if let Some(whole) = object.as_object_mut() {
        whole.remove("status");
        if whole.get("kind").and_then(Value::as_str) == Some("Secret") {
            hide(whole);
        }
    }
    object
}

/// What a value is shown as by which it can be told from another, and not be guessed: it is another in each process.
fn told_apart(value: &Value) -> String {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    format!("(hidden, {:016x})", KEY.get_or_init(RandomState::new).hash_one(value.to_string()))
}

/// Leaves of a secret's values only by what they can be told apart.
fn hide(secret: &mut serde_json::Map<String, Value>) {
    for field in ["data", "stringData"] {
        for (_, value) in secret.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten() {
            *value = Value::String(told_apart(value));
        }
    }
    let annotations = secret.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

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
    cut(&diff.unified_diff().context_radius(3).header(name, name).to_string(), MAX_BYTES)
}
