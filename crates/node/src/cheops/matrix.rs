//! What a resolution matrix says of a policy.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{Combine, Policy, Resolution};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Refused;

/// The configuration of a resource, as a part of the form has it.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(rename = "ResolutionMatrix", default)]
    matrix: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "Before")]
    before: String,
    #[serde(rename = "After")]
    after: String,
    #[serde(rename = "Result")]
    result: String,
}

/// A resolution matrix.
#[derive(Debug)]
pub(super) struct Matrix(Vec<Resolution>);

impl Matrix {
    /// Reads a configuration.
    pub(super) fn read(config: &str) -> Result<Self, Refused> {
        let bad = |reason: String| Refused::bad(format!("bad request: config: {reason}"));
        let config: Config = serde_json::from_str(config).map_err(|error| bad(error.to_string()))?;
        let resolutions: Vec<Value> = config
            .matrix
            .iter()
            .map(|entry| json!({"before": entry.before, "after": entry.after, "result": entry.result}))
            .collect();
        let policy = Policy::parse(json!({ "resolutions": resolutions })).map_err(|error| bad(error.to_string()))?;
        Ok(Self(policy.resolutions))
    }

    /// A policy with what this says, and all else as it was.
    ///
    /// A pair that is mentioned has the result that is written first for it. A type that begins to take the place of others
    /// with this is *absolute* from now on, and one that ceases to is not: Cheops runs such an operation first at sites that
    /// never ran those others, so it relies on that. A pair that is not mentioned promises nothing here, where Cheops takes it
    /// to commute: an order that differs between sites is then mended by running again, not ignored.
    pub(super) fn laid_over(&self, policy: &Policy) -> Policy {
        let pair = |entry: &Resolution| (entry.before.clone(), entry.after.clone());
        let mut wanted: BTreeMap<_, &Resolution> = BTreeMap::new();
        for entry in &self.0 {
            wanted.entry(pair(entry)).or_insert(entry);
        }
        let mut new = policy.clone();
        let mut there = BTreeSet::new();
        new.resolutions.retain_mut(|entry| {
            let Some(wanted) = wanted.get(&pair(entry)) else { return true };
            entry.result.clone_from(&wanted.result);
            there.insert(pair(entry))
        });
        new.resolutions.extend(self.0.iter().filter(|entry| there.insert(pair(entry))).cloned());
        let (before, after) = (replacing(policy), replacing(&new));
        for name in after.symmetric_difference(&before) {
            let replaces = after.contains(name);
            if replaces || new.types.contains_key(name) {
                new.types.entry(name.clone()).or_default().absolute = replaces;
            }
        }
        new
    }
}

/// The types that take the place of others.
fn replacing(policy: &Policy) -> BTreeSet<String> {
    let replaces = |entry: &&Resolution| matches!(entry.result, Combine::TakeOne | Combine::TakeBothReverseOrder);
    policy.resolutions.iter().filter(replaces).map(|entry| entry.after.clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FILES: &str = r#"{"ResolutionMatrix": [{"Before": "set", "After": "set", "Result": "take-one"},
        {"Before": "set", "After": "inc", "Result": "take-both-keep-order"},
        {"Before": "inc", "After": "set", "Result": "take-both-reverse-order"}]}"#;

    fn laid(config: &str, over: &Policy) -> Policy {
        Matrix::read(config).unwrap().laid_over(over)
    }

    #[test]
    fn what_replaces_is_absolute_and_nothing_else() {
        let policy = laid(FILES, &Policy::default());
        assert!(policy.is_absolute("set") && !policy.is_absolute("inc"));
        assert_eq!((policy.resolutions.len(), policy.types.len()), (3, 1));
        assert_eq!(laid(FILES, &policy), policy);
    }

    #[test]
    fn what_a_matrix_does_not_speak_of_stays() {
        let said = json!({
            "resolutions": [{"before": "inc", "after": "inc", "result": "take-both-any-order"},
                {"before": "set", "after": "inc", "result": "take-both-reverse-order"},
                {"before": "set", "after": "inc", "result": "take-one"}],
            "types": {"inc": {"idempotent": true, "undo": "dec", "absolute": true}, "load": {"absolute": true}},
            "retry": {"attempts": 2}, "after_failure": "wait", "drift": "correct", "options": {"a": 1},
        });
        let before = Policy::parse(said).unwrap();
        let after = laid(FILES, &before);
        let result = |before: &str, after_: &str| -> Vec<String> {
            let of = |entry: &&Resolution| entry.before == before && entry.after == after_;
            after.resolutions.iter().filter(of).map(|entry| entry.result.clone().into()).collect()
        };
        assert_eq!(result("inc", "inc"), ["take-both-any-order"]);
        assert_eq!(result("set", "inc"), ["take-both-keep-order"], "one entry, with the new result");
        assert_eq!(after.resolutions.len(), 4);
        let (retry, options) = (after.retry.clone(), after.options.clone());
        assert_eq!((retry, options), (before.retry.clone(), before.options.clone()));
        assert_eq!((after.after_failure, after.drift), (before.after_failure, before.drift));
        // An increment was said to replace what is before it, and is not any more; what else was said of it stays.
        let inc = &after.types["inc"];
        assert!(!inc.absolute && inc.idempotent && inc.undo.as_deref() == Some("dec"), "{inc:?}");
        assert!(after.is_absolute("set") && after.is_absolute("load"));
    }

    #[test]
    fn what_was_said_otherwise_of_a_type_stays_while_the_matrix_is_the_same() {
        let mut policy = laid(FILES, &Policy::default());
        policy.types.get_mut("set").unwrap().absolute = false;
        assert_eq!(laid(FILES, &policy), policy);
    }

    #[test]
    fn mistakes_are_named() {
        for (config, said) in [
            ("{", "config"),
            (r#"{"ResolutionMatrix": [{"Before": "a", "After": "b"}]}"#, "Result"),
            (r#"{"ResolutionMatrix": [{"Before": "a", "After": "b", "Result": "take-two"}]}"#, "take-two"),
        ] {
            let Refused(status, reason) = Matrix::read(config).unwrap_err();
            assert!(status == 400 && reason.contains(said), "{reason}");
        }
        assert_eq!(laid("{}", &Policy::default()), Policy::default());
    }
}
