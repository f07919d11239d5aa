//! How the server has written what was applied: it writes some values in another way than people.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::fields::whole;
use super::replicas::uid;

/// Of so many objects it is remembered.
const MAX_OBJECTS: usize = 100_000;

/// By the uid of an object: what was applied, and what was then there of that, as hashes.
#[derive(Default)]
pub(super) struct Normal {
    hasher: RandomState,
    written: Mutex<HashMap<String, (u64, u64)>>,
}

impl Normal {
    fn hash(&self, value: &Value) -> u64 {
        // Equal values have equal text: the keys of maps are sorted.
        self.hasher.hash_one(value.to_string())
    }

    /// The server has made this object of a value, or would.
    pub(super) fn wrote(&self, object: &Value, value: &Value) {
        let Some(uid) = uid(object) else { return };
        let hashes = (self.hash(value), self.hash(&whole(object, value)));
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= MAX_OBJECTS {
            written.clear();
        }
        written.insert(uid, hashes);
    }

    /// Whether an object is what the server makes of a value, as far as is known.
    pub(super) fn is_as_written(&self, live: &Value, value: &Value) -> bool {
        let known = uid(live).and_then(|uid| {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.get(&uid).copied()
        });
        known.is_some_and(|known| known == (self.hash(value), self.hash(&whole(live, value))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_server_has_made_of_this_very_value_is_as_written() {
        let normal = Normal::default();
        let value = json!({"cpu": "0.5", "n": 1});
        let live = json!({"metadata": {"uid": "u"}, "cpu": "500m", "n": 1, "more": 2});
        assert!(!normal.is_as_written(&live, &value));
        normal.wrote(&live, &value);
        assert!(normal.is_as_written(&live, &value));
        let other = json!({"metadata": {"uid": "u"}, "cpu": "500m", "n": 1, "more": 3});
        assert!(normal.is_as_written(&other, &value));
        let changed = json!({"metadata": {"uid": "u"}, "cpu": "600m", "n": 1});
        assert!(!normal.is_as_written(&changed, &value));
        assert!(!normal.is_as_written(&live, &json!({"cpu": "0.50", "n": 1})));
        let another = json!({"metadata": {"uid": "v"}, "cpu": "500m", "n": 1});
        assert!(!normal.is_as_written(&another, &value));
    }
}
