//! The policy of a replicant, as annotations ask for it.

use khufu_crdt::{DriftPolicy, Policy};
use serde_json::{Map, Value};

use super::answer::Refusal;
use super::marks::{DRIFT, OPTIONS, annotation};

/// Takes back what annotations of an object, as it was kept, have asked for.
pub(super) fn take_back(policy: &mut Policy, kept: &Value, names: &[&str]) {
    if names.contains(&OPTIONS) {
        let asked = annotation(kept, OPTIONS).and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        for name in asked.unwrap_or_default().keys() {
            policy.options.remove(name);
        }
    }
    if names.contains(&DRIFT) {
        policy.drift = DriftPolicy::default();
    }
}

/// Whether a policy lets the driver remove what the one before did not: that takes the right to delete.
pub(super) fn removes_more(before: &Policy, after: &Policy) -> bool {
    [("cascade", Value::Bool(true)), ("adopt", "own".into())].iter().any(|(name, value)| {
        let has = |policy: &Policy| policy.options.get(*name) == Some(value);
        has(after) && !has(before)
    })
}

/// Edits a policy as annotations ask for. Whether it is another then.
pub(super) fn edit(policy: &mut Policy, said: &Map<String, Value>) -> Result<bool, Refusal> {
    let before = policy.clone();
    let said = |name: &str| said.get(name).and_then(Value::as_str);
    if let Some(text) = said(OPTIONS) {
        let wrong = |error: String| Refusal::invalid(format!("metadata.annotations[{OPTIONS}]: {error}"));
        let options: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            wrong(format!("a JSON object is wanted, such as {{\"create-namespaces\": true}}: {error}"))
        })?;
        if options.contains_key("namespace") {
            return Err(wrong("the namespace is that of the object".to_owned()));
        }
        policy.options.extend(options);
    }
    if let Some(text) = said(DRIFT) {
        policy.drift = serde_json::from_value::<DriftPolicy>(text.into()).map_err(|_| {
            Refusal::invalid(format!("metadata.annotations[{DRIFT}]: {text:?} is not report, correct or ignore"))
        })?;
    }
    Ok(*policy != before)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_edit_a_policy() {
        let with = |annotations: Value| annotations.as_object().cloned().unwrap();
        let mut policy = Policy::default();
        assert!(!edit(&mut policy, &with(json!({}))).unwrap());
        let object = with(json!({OPTIONS: "{\"force\": true}", DRIFT: "correct"}));
        assert!(edit(&mut policy, &object).unwrap());
        assert_eq!((policy.drift, &policy.options["force"]), (DriftPolicy::Correct, &json!(true)));
        assert!(!edit(&mut policy, &object).unwrap());
        take_back(&mut policy, &json!({"metadata": {"annotations": object}}), &[OPTIONS, DRIFT]);
        assert_eq!(policy, Policy::default());
        let mut owns = Policy::default();
        edit(&mut owns, &with(json!({OPTIONS: "{\"adopt\": \"own\"}"}))).unwrap();
        assert!(removes_more(&policy, &owns) && !removes_more(&owns, &owns) && !removes_more(&owns, &policy));
        for wrong in [
            json!({OPTIONS: "[]"}),
            json!({OPTIONS: "{"}),
            json!({OPTIONS: "{\"namespace\": \"x\"}"}),
            json!({DRIFT: "sometimes"}),
        ] {
            let refusal = edit(&mut Policy::default(), &with(wrong)).unwrap_err();
            assert!(refusal.message.contains("khufu.dev/"), "{refusal:?}");
        }
    }
}
