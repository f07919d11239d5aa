//! What tells whose an object is: a label by which all of a replicant are found, and annotations.

use khufu_crdt::ReplicantId;
use serde_json::{Map, Value, json};

use super::manifest::Key;
use super::options::Adopt;
use crate::{DriverError, digest};

/// The label, whose value is made from the replicant's id, and the annotation with the id itself.
pub(super) const REPLICANT: &str = "khufu.dev/replicant";
/// The annotation of an object that was there before.
const ADOPTED: &str = "khufu.dev/adopted";
/// The annotation with the digest of what was applied: what is left out the next time is seen by it.
const APPLIED: &str = "khufu.dev/applied";

/// The value of the label: ids may be longer than labels, and hold more.
pub(super) fn label(id: &ReplicantId) -> String {
    digest(id.as_str().as_bytes()).chars().take(40).collect()
}

/// The selector of all objects of a replicant.
pub(super) fn selector(id: &ReplicantId) -> String {
    format!("{REPLICANT}={}", label(id))
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// The replicant that an object is of.
pub(super) fn replicant(object: &Value) -> Option<ReplicantId> {
    annotation(object, REPLICANT).and_then(|id| id.parse().ok())
}

/// Whether an object was there before it became a replicant's.
pub(super) fn is_adopted(object: &Value) -> bool {
    annotation(object, ADOPTED).is_some()
}

/// Whether an object that is there may be written for a replicant, and is then only taken over for as long as it lasts.
pub(super) fn take_over(key: &Key, live: &Value, id: &ReplicantId, adopt: Adopt) -> Result<bool, DriverError> {
    let refused = |reason: String| Err(DriverError::Refused { place: key.to_string(), reason });
    match replicant(live) {
        Some(of) if of == *id => Ok(is_adopted(live) && adopt != Adopt::Own),
        Some(of) => {
            refused(format!("it is of the replicant {of}: an object has one owner. Leave it out of one of the two"))
        }
        None => match adopt {
            Adopt::Keep => Ok(true),
            Adopt::Own => Ok(false),
            Adopt::Never => refused(
                "it is there already, and Khufu has not made it: remove it, or take it over with the policy option \
                 \"adopt\": \"keep\" (it stays when the replica goes) or \"own\" (it goes with it)"
                    .into(),
            ),
        },
    }
}

fn map<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = object.as_object_mut()?.entry(field).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// A manifest as it is applied: in its namespace, and with what tells whose it is.
///
/// # Errors
/// [`DriverError::Invalid`] where labels or annotations are no maps.
pub(super) fn stamped(key: &Key, value: &Value, id: &ReplicantId, adopted: bool) -> Result<Value, DriverError> {
    let mut value = value.clone();
    let wrong = |field: &str| DriverError::invalid(format!("{key}: metadata.{field}"), "a map of texts is wanted");
    let metadata = map(&mut value, "metadata").ok_or_else(|| DriverError::invalid("metadata", "a map is wanted"))?;
    if key.namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".into(), json!(key.namespace));
    }
    let mut metadata = Value::Object(std::mem::take(metadata));
    map(&mut metadata, "labels").ok_or_else(|| wrong("labels"))?.insert(REPLICANT.into(), json!(label(id)));
    let annotations = map(&mut metadata, "annotations").ok_or_else(|| wrong("annotations"))?;
    annotations.insert(REPLICANT.into(), json!(id.as_str()));
    if adopted {
        annotations.insert(ADOPTED.into(), json!("true"));
    }
    if let Some(whole) = value.as_object_mut() {
        whole.insert("metadata".into(), metadata);
    }
    let applied = digest(value.to_string().as_bytes());
    let metadata = map(&mut value, "metadata").and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(Value::Object(annotations)) = metadata {
        annotations.insert(APPLIED.into(), json!(applied));
    }
    Ok(value)
}

/// The merge patch that takes everything away that says whose an object is.
pub(super) fn released(live: &Value) -> Value {
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let nothing = Value::Null;
    json!({"metadata": {
        "resourceVersion": version,
        "labels": {REPLICANT: nothing},
        "annotations": {REPLICANT: nothing, ADOPTED: nothing, APPLIED: nothing},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        "ConfigMap/shop/a".parse().unwrap()
    }

    fn id(name: &str) -> ReplicantId {
        ReplicantId::new(name).unwrap()
    }

    #[test]
    fn a_stamped_object_says_whose_it_is_and_the_digest_what_was_applied() {
        let value = json!({"metadata": {"name": "a", "labels": {"app": "x"}}, "data": {"a": "1"}});
        let one = stamped(&key(), &value, &id("web"), false).unwrap();
        assert_eq!(replicant(&one), Some(id("web")));
        assert_eq!((&one["metadata"]["namespace"], &one["metadata"]["labels"]["app"]), (&json!("shop"), &json!("x")));
        assert!(label(&id("web")).len() <= 63 && !is_adopted(&one));
        assert_eq!(one, stamped(&key(), &value, &id("web"), false).unwrap());
        let mut less = value.clone();
        less["data"] = json!({});
        let two = stamped(&key(), &less, &id("web"), false).unwrap();
        assert_ne!(one["metadata"]["annotations"][APPLIED], two["metadata"]["annotations"][APPLIED]);
        for wrong in [json!({"metadata": {"labels": 3}}), json!({"metadata": 3})] {
            assert!(stamped(&key(), &wrong, &id("web"), false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let stranger = json!({"metadata": {"name": "a"}});
        let ours = stamped(&key(), &stranger, &id("web"), false).unwrap();
        let adopted = stamped(&key(), &stranger, &id("web"), true).unwrap();
        let may = |live: &Value, adopt| take_over(&key(), live, &id("web"), adopt).ok();
        assert_eq!(may(&stranger, Adopt::Never), None);
        assert_eq!(may(&stranger, Adopt::Keep), Some(true));
        assert_eq!(may(&stranger, Adopt::Own), Some(false));
        assert_eq!(may(&ours, Adopt::Never), Some(false));
        // What was taken over once stays so, until it is said that it is to go with the replica.
        assert_eq!((may(&adopted, Adopt::Never), may(&adopted, Adopt::Own)), (Some(true), Some(false)));
        assert!(take_over(&key(), &ours, &id("other"), Adopt::Own).is_err());
    }
}
