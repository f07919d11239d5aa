//! An object as it came, read without trust in its shape: what is of the wrong type counts as not there.

use serde_json::Value;

/// An object as it came.
pub(super) struct Object<'a>(&'a Value);

impl<'a> Object<'a> {
    pub(super) const fn new(value: &'a Value) -> Self {
        Self(value)
    }

    pub(super) fn is_object(&self) -> bool {
        self.0.is_object()
    }

    /// The API group, empty for the core.
    pub(super) fn group(&self) -> &'a str {
        self.text("/apiVersion").split_once('/').map_or("", |(group, _)| group)
    }

    pub(super) fn kind(&self) -> &'a str {
        self.text("/kind")
    }

    /// The text at a JSON pointer, empty where there is none.
    pub(super) fn text(&self, pointer: &str) -> &'a str {
        text(self.0, pointer)
    }

    /// Whether there is `true` at a JSON pointer.
    pub(super) fn flag(&self, pointer: &str) -> bool {
        self.0.pointer(pointer) == Some(&Value::Bool(true))
    }

    /// The items at a JSON pointer.
    pub(super) fn items(&self, pointer: &str) -> &'a [Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// How many there are by a JSON pointer: 0 where it does not say, since a status leaves zeros out.
    pub(super) fn count(&self, pointer: &str) -> i64 {
        self.integer(pointer).unwrap_or(0).max(0)
    }

    /// The whole number at a JSON pointer.
    pub(super) fn integer(&self, pointer: &str) -> Option<i64> {
        self.0.pointer(pointer).and_then(integer)
    }

    pub(super) fn generation(&self) -> Option<i64> {
        self.integer("/metadata/generation")
    }

    /// The last generation that the controller has seen.
    pub(super) fn observed_generation(&self) -> Option<i64> {
        self.integer("/status/observedGeneration")
    }

    /// The first condition of a type.
    pub(super) fn condition(&self, name: &str) -> Option<Condition<'a>> {
        let found = self.items("/status/conditions").iter().find(|condition| text(condition, "/type") == name)?;
        Some(Condition {
            status: text(found, "/status"),
            reason: text(found, "/reason"),
            message: text(found, "/message"),
            observed_generation: found.pointer("/observedGeneration").and_then(integer),
        })
    }

    /// The first of several conditions that holds.
    pub(super) fn first_true(&self, names: &[&str]) -> Option<Condition<'a>> {
        names.iter().filter_map(|name| self.condition(name)).find(Condition::is_true)
    }
}

/// What a controller says of one thing.
pub(super) struct Condition<'a> {
    status: &'a str,
    pub(super) reason: &'a str,
    message: &'a str,
    observed_generation: Option<i64>,
}

impl Condition<'_> {
    pub(super) fn is_true(&self) -> bool {
        self.status == "True"
    }

    pub(super) fn is_false(&self) -> bool {
        self.status == "False"
    }

    /// Whether it speaks of an earlier generation. One that does not say which is taken for fresh.
    pub(super) fn is_stale(&self, object: &Object<'_>) -> bool {
        self.observed_generation.zip(object.generation()).is_some_and(|(seen, now)| seen < now)
    }

    /// Its reason and message, or something else where it has neither.
    pub(super) fn words_or(&self, otherwise: &str) -> String {
        words(self.reason, self.message).unwrap_or_else(|| otherwise.to_owned())
    }
}

/// A reason and a message, each of which may be empty.
pub(super) fn words(reason: &str, message: &str) -> Option<String> {
    match (reason.trim(), message.trim()) {
        ("", "") => None,
        ("", text) | (text, "") => Some(text.to_owned()),
        (reason, message) => Some(format!("{reason}: {message}")),
    }
}

/// The text at a JSON pointer, empty where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A whole number. Those beyond 64 bits are as far as these go, and some controllers (Istio's) write theirs as text, as
/// protobuf does with numbers of 64 bits.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        // The cast of a float stops at the ends.
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
