//! What has to be remembered of a replica: what was sent and not answered, and what has run.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use khufu_crdt::OperationId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most operations that are remembered for being taken back.
const MAX_RAN: usize = 1000;

/// What is known of a replica.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    /// Which kind of resource it is.
    pub(super) resource: Option<String>,
    /// What the service calls it.
    pub(super) local_id: Option<String>,
    /// The desired state that was written last.
    pub(super) desired: Option<Value>,
    /// All that it may have of what the service was told it should have, also by updates that were not answered.
    pub(super) object: Option<Value>,
    /// An update of these was sent, and not answered as far as is known.
    pub(super) updating: bool,
    /// A creation that was sent, and not answered as far as is known.
    pub(super) creating: Option<Sent>,
    /// An operation that was sent, and not answered as far as is known.
    pub(super) begun: Option<Begun>,
    /// What has run since it was created, or since the desired state was written; the last of them, unless they can be taken
    /// back.
    pub(super) ran: Vec<Ran>,
}

/// When something was sent, and by which word the service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) key: String,
    pub(super) at_ms: u64,
}

impl Sent {
    pub(super) fn now(key: String) -> Self {
        Self { key, at_ms: now_ms() }
    }

    /// How long the service may still be at it: until so long after the request would have been given up.
    pub(super) fn may_go_on(&self, limit: Duration) -> Duration {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        // A clock that was set back must not make anybody wait for longer.
        let since = now_ms().checked_sub(self.at_ms).unwrap_or(limit_ms);
        Duration::from_millis(limit_ms.saturating_sub(since))
    }
}

/// How it is found out whether an operation has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// It need not be: it can be sent again.
    Again,
    /// It is looked for, as the configuration says of what is allowed at this place.
    Find(usize),
    /// It creates the replica, which is looked for.
    Create,
    /// Not at all.
    Unknown,
}

/// An operation that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) operation: OperationId,
    pub(super) sent: Sent,
    pub(super) how: How,
    /// Whether it creates the replica.
    #[serde(default)]
    pub(super) creates: bool,
}

/// An operation that has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ran {
    pub(super) operation: OperationId,
    /// What was kept of its answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) kept: BTreeMap<String, String>,
}

impl Note {
    /// An operation has run. Those before it are remembered if they can be taken back.
    pub(super) fn has_run(&mut self, ran: Ran, undo: bool) {
        self.begun = None;
        let keep = if undo { MAX_RAN } else { 1 };
        let beyond = (self.ran.len() + 1).saturating_sub(keep);
        self.ran.drain(..beyond);
        self.ran.push(ran);
    }

    /// The operation that ran last.
    pub(super) fn marker(&self) -> Option<&OperationId> {
        self.ran.last().map(|ran| &ran.operation)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(operation: &str) -> Ran {
        Ran { operation: OperationId::new(operation).unwrap(), kept: BTreeMap::new() }
    }

    #[test]
    fn as_much_is_remembered_as_can_be_taken_back() {
        let mut note = Note::default();
        for operation in ["a", "b"] {
            note.has_run(ran(operation), false);
        }
        assert_eq!(note.ran, [ran("b")]);
        for nth in 0..MAX_RAN {
            note.has_run(ran(&format!("n{nth}")), true);
        }
        assert_eq!((note.ran.len(), &note.ran[0]), (MAX_RAN, &ran("n0")));
    }

    #[test]
    fn nobody_waits_for_longer_than_the_limit() {
        let limit = Duration::from_secs(5);
        let at = |at_ms| Sent { key: String::new(), at_ms };
        assert!(at(now_ms()).may_go_on(limit) > Duration::from_secs(4));
        assert_eq!(at(now_ms() + 60_000).may_go_on(limit), Duration::ZERO);
        assert_eq!(at(0).may_go_on(limit), Duration::ZERO);
    }
}
