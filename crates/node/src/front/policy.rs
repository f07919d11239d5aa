//! The policy of a replicant, as annotations ask for it.

use khufu_crdt::{DriftPolicy, Policy};
use khufu_engine::ReplicantView;
use serde_json::{Map, Value};

use super::answer::Refusal;
use super::marks::{DRIFT, OPTIONS, SCOPE, annotation};
use super::scope;

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

/// A warning where a write says again what was said before and is not so any more: it was edited in another way since.
pub(super) fn not_so(sent: &Value, new: &Map<String, Value>, view: &ReplicantView) -> Option<String> {
    let said = |name: &str| annotation(sent, name).filter(|_| !new.contains_key(name));
    let scope = said(SCOPE).is_some_and(|text| !scope::is_same(text, &view.scope));
    let mut policy = view.policy.clone();
    let again = [OPTIONS, DRIFT].into_iter().filter_map(|name| Some((name.to_owned(), said(name)?.into()))).collect();
    let others = edit(&mut policy, &again).unwrap_or(false);
    let names: Vec<&str> = [
        (SCOPE, scope),
        (OPTIONS, others && policy.options != view.policy.options),
        (DRIFT, policy.drift != view.policy.drift),
    ]
    .into_iter()
    .filter_map(|(name, not_so)| not_so.then_some(name))
    .collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} has been edited in another way since {} was written, and what is said again changes nothing: see `khufu describe \
             {}`, and edit it with khufu, or write another value here",
            view.id,
            names.join(" and "),
            view.id
        )
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
    fn what_is_said_again_and_not_so_any_more_is_warned_of() {
        let view: ReplicantView = serde_json::from_value(json!({
            "id": "web", "epoch": 0, "kind": "kubernetes", "scope": "paris & rennes", "placement": null,
            "policy": {"options": {"force": true}}, "desired": {}, "overrides": {}, "resolved": [], "operations": [],
            "deleted": null, "heads": [], "conflicts": 0, "status": "pending", "sites": {}, "bytes": 1, "warnings": [],
        }))
        .unwrap();
        let warning = |annotations: Value, new: &[&str]| {
            let new = new.iter().map(|name| ((*name).to_owned(), json!("x"))).collect();
            not_so(&json!({"metadata": {"annotations": annotations}}), &new, &view)
        };
        assert!(warning(json!({SCOPE: "paris"}), &[]).unwrap().contains(SCOPE));
        assert_eq!(warning(json!({SCOPE: "paris"}), &[SCOPE]), None);
        let both = warning(json!({OPTIONS: "{\"force\": false}", DRIFT: "correct"}), &[]).unwrap();
        assert!(both.contains(OPTIONS) && both.contains(DRIFT) && !both.contains(SCOPE), "{both}");
        let so = json!({SCOPE: "paris&rennes", OPTIONS: "{\"force\": true}", DRIFT: "report"});
        assert_eq!(warning(so, &[]), None);
    }

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
