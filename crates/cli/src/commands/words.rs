//! Words for what the API says, as its JSON says them.

use khufu_crdt::{Condition, Fate, Payload, Status};
use khufu_engine::Liveness;
use serde::Serialize;

use crate::output::{Tone, liveness_tone, status_tone};

/// A value of an enumeration as the API writes it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// A status with its tone.
pub(crate) fn status(status: Status) -> (String, Tone) {
    let word = word(&status);
    let tone = status_tone(&word);
    (word, tone)
}

/// A site's liveness with its tone.
pub(crate) fn liveness(state: Liveness) -> (String, Tone) {
    let word = word(&state);
    let tone = liveness_tone(&word);
    (word, tone)
}

/// How a replica is doing, with its tone.
pub(crate) fn health(condition: Condition) -> (String, Tone) {
    let tone = match condition {
        Condition::Current => Tone::Good,
        Condition::InProgress | Condition::Terminating => Tone::Waiting,
        Condition::NotFound | Condition::Failed | Condition::Unknown => Tone::Bad,
    };
    (condition.as_str().to_owned(), tone)
}

/// A payload on one line.
pub(crate) fn payload(payload: &Payload) -> String {
    match payload {
        Payload::Value(value) => short(&value.to_string()),
        Payload::Blob(hash) => hash.clone(),
    }
}

/// Text cut where it gets too long for a column.
pub(crate) fn short(text: &str) -> String {
    const WIDTH: usize = 60;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    let cut: String = text.chars().take(WIDTH - 3).collect();
    format!("{cut}...")
}

/// Names with commas between them, `-` if there are none.
pub(crate) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<T> = names.into_iter().collect();
    if names.is_empty() {
        return "-".to_owned();
    }
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(",")
}

/// What became of an operation in the list, with its tone.
pub(crate) fn fate(fate: &Fate) -> (String, Tone) {
    match fate {
        Fate::Live => ("live".to_owned(), Tone::Good),
        Fate::Dead { by } => (format!("dead, replaced by {by}"), Tone::Dim),
        Fate::Dropped { by } => (format!("dropped, {} was taken", list(by)), Tone::Dim),
    }
}
