//! From a resolution matrix to a policy.

use std::collections::BTreeSet;

use khufu_crdt::Policy;
use serde::Deserialize;
use serde_json::{Map, Value, json};

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

/// The policy that a matrix comes to.
///
/// The entries stay as they are. A type that takes the place of others is *absolute*: Cheops runs such an operation first at
/// sites that never ran those others, so it relies on that. A pair that is not mentioned promises nothing here, where Cheops
/// takes it to commute: an order that differs between sites is then mended by running again, not ignored.
pub(super) fn policy(config: &str) -> Result<Policy, Refused> {
    let bad = |reason: String| Refused::bad(format!("bad request: config: {reason}"));
    let config: Config = serde_json::from_str(config).map_err(|error| bad(error.to_string()))?;
    let replaces = |entry: &&Entry| matches!(entry.result.as_str(), "take-one" | "take-both-reverse-order");
    let absolute: BTreeSet<&str> = config.matrix.iter().filter(replaces).map(|entry| entry.after.as_str()).collect();
    let resolutions: Vec<Value> = config
        .matrix
        .iter()
        .map(|entry| json!({"before": entry.before, "after": entry.after, "result": entry.result}))
        .collect();
    let types: Map<String, Value> =
        absolute.into_iter().map(|name| (name.to_owned(), json!({"absolute": true}))).collect();
    Policy::parse(json!({"resolutions": resolutions, "types": types})).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_replaces_is_absolute_and_nothing_else() {
        let policy = policy(
            r#"{"ResolutionMatrix": [{"Before": "set", "After": "set", "Result": "take-one"},
                {"Before": "set", "After": "inc", "Result": "take-both-keep-order"},
                {"Before": "inc", "After": "set", "Result": "take-both-reverse-order"}]}"#,
        )
        .unwrap();
        assert!(policy.is_absolute("set") && !policy.is_absolute("inc"));
        assert_eq!(policy.resolutions.len(), 3);
    }

    #[test]
    fn mistakes_are_named() {
        for (config, said) in [
            ("{", "config"),
            (r#"{"ResolutionMatrix": [{"Before": "a", "After": "b"}]}"#, "Result"),
            (r#"{"ResolutionMatrix": [{"Before": "a", "After": "b", "Result": "take-two"}]}"#, "take-two"),
        ] {
            let Refused(status, reason) = policy(config).unwrap_err();
            assert!(status == 400 && reason.contains(said), "{reason}");
        }
        assert!(policy("{}").unwrap().resolutions.is_empty());
    }
}
