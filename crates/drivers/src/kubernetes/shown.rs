//! Objects as people see them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

use serde_json::Value;

use super::stamp;

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
