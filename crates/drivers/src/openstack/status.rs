//! How resources are doing.

use khufu_crdt::{Condition, Health};
use serde_json::Value;

use super::kinds::Kind;
use crate::text::clipped;

/// The longest message of a service that is passed on.
const MAX_MESSAGE_BYTES: usize = 500;

/// What the service says of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It can be used.
    Ready,
    /// The service is at work on it; in its words.
    Working(String),
    /// It cannot be used, and that stays so; why.
    Failed(String),
}

/// What the service says of a resource.
pub(super) fn state(kind: &Kind, live: &Value) -> State {
    let (Some(known), Some(status)) = (kind.status, live.get("status").and_then(Value::as_str)) else {
        return State::Ready;
    };
    let is_in = |list: &[&str]| list.iter().any(|one| one.eq_ignore_ascii_case(status));
    if is_in(known.failed) {
        let fault = live.pointer(known.fault).and_then(Value::as_str).filter(|_| !known.fault.is_empty());
        let fault = fault.map(|fault| format!(": {}", clipped(fault, MAX_MESSAGE_BYTES))).unwrap_or_default();
        return State::Failed(format!("{status}{fault}"));
    }
    if is_in(known.ready) {
        return State::Ready;
    }
    let task = live.get("OS-EXT-STS:task_state").and_then(Value::as_str);
    State::Working(task.map_or_else(|| status.to_owned(), |task| format!("{status}, {task}")))
}

/// The same as health.
pub(super) fn health(state: &State) -> Health {
    let (condition, message) = match state {
        State::Ready => (Condition::Current, String::new()),
        State::Working(status) => (Condition::InProgress, status.clone()),
        State::Failed(why) => (Condition::Failed, why.clone()),
    };
    Health { condition, message }
}

/// The worst of several, with what it is called. None of nothing: that must not look as if all were well.
pub(super) fn worst(all: &[(String, Health)]) -> Option<Health> {
    let (name, health) = all.iter().rev().max_by_key(|(_, health)| health.condition)?;
    let others = all.iter().filter(|(_, other)| other.condition == health.condition).count() - 1;
    let mut message = health.message.clone();
    if !message.is_empty() {
        message = format!("{name}: {message}");
    }
    if others > 0 && health.condition != Condition::Current {
        message.push_str(&format!(" (and {others} more)"));
    }
    Some(Health { condition: health.condition, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_is_not_known_is_waited_for_and_a_failed_one_says_why() {
        let server = Kind::named("server").unwrap();
        let of = |live: Value| state(server, &live);
        assert_eq!(of(json!({"status": "ACTIVE"})), State::Ready);
        let building = of(json!({"status": "BUILD", "OS-EXT-STS:task_state": "spawning"}));
        assert_eq!(building, State::Working("BUILD, spawning".to_owned()));
        let failed = of(json!({"status": "ERROR", "fault": {"message": "No valid host"}}));
        assert_eq!(failed, State::Failed("ERROR: No valid host".to_owned()));
        assert_eq!(state(Kind::named("subnet").unwrap(), &json!({"status": "ERROR"})), State::Ready);
        assert_eq!(
            state(Kind::named("image").unwrap(), &json!({"status": "saving"})),
            State::Working("saving".to_owned())
        );
    }

    #[test]
    fn the_worst_counts() {
        let one = |name: &str, state: State| (name.to_owned(), health(&state));
        let all = [
            one("net", State::Ready),
            one("web", State::Failed("ERROR".to_owned())),
            one("db", State::Failed("ERROR".to_owned())),
            one("new", State::Working("BUILD".to_owned())),
        ];
        let worst = worst(&all).unwrap();
        assert_eq!((worst.condition, &*worst.message), (Condition::Failed, "web: ERROR (and 1 more)"));
        assert_eq!(super::worst(&all[..1]).unwrap(), Health { condition: Condition::Current, message: String::new() });
        assert_eq!(super::worst(&[]), None);
    }
}
