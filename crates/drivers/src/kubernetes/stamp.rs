//! What tells whose an object is: a label by which all of a replicant are found, and annotations.

use khufu_crdt::{OperationId, ReplicantId, SiteName};
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use super::manifest::Key;
use super::options::Adopt;
use crate::{DriverError, digest};

/// The label, whose value is made from the replicant's id, and the annotation with the id itself.
pub(super) const REPLICANT: &str = "khufu.dev/replicant";
/// The annotations with the site, and with what the object is called.
const SITE: &str = "khufu.dev/site";
const OBJECT: &str = "khufu.dev/object";
/// The annotation of an object that was there before.
const ADOPTED: &str = "khufu.dev/adopted";
/// The annotation with the digest of what was applied: what is left out the next time is seen by it.
const APPLIED: &str = "khufu.dev/applied";

/// The annotation with the operation that changed an object last, after its number, and the one with the manifest that it
/// came to.
const OPERATION: &str = "khufu.dev/operation";
pub(super) const MANIFEST: &str = "khufu.dev/manifest";

/// The value of the label: ids may be longer than labels, and hold more.
pub(super) fn label(id: &ReplicantId) -> String {
    digest(id.as_str().as_bytes()).chars().take(40).collect()
}

/// A number for each value of the label, which hardly two have in common; none of a value that nobody here has written.
pub(super) fn number(label: &str) -> Option<u64> {
    u64::from_str_radix(label.get(..16)?, 16).ok()
}

/// The selector of all objects of a replicant.
pub(super) fn selector(id: &ReplicantId) -> String {
    format!("{REPLICANT}={}", label(id))
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// Whose objects are meant: those of one replicant at one site. Two sites may have one cluster, and must not take or remove
/// each other's.
#[derive(Clone, Copy)]
pub(super) struct Mark<'a> {
    pub(super) id: &'a ReplicantId,
    pub(super) site: &'a SiteName,
}

/// What an object is called in its own annotation: a copy of it is another. The group is left out, since one object may be
/// served in several.
fn name_of(key: &Key) -> String {
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}

/// The replicant and the site that an object is of; none of a copy, which has the annotations of what it was copied from.
pub(super) fn owner<'a>(key: &Key, object: &'a Value) -> Option<(&'a str, &'a str)> {
    annotation(object, OBJECT).filter(|name| *name == name_of(key))?;
    Some((annotation(object, REPLICANT)?, annotation(object, SITE)?))
}

/// Whether an object is one of those that are meant.
pub(super) fn is_of(key: &Key, object: &Value, mark: Mark<'_>) -> bool {
    owner(key, object) == Some((mark.id.as_str(), mark.site.as_str()))
}

/// The same by the metadata alone.
pub(super) fn is_marked(key: &Key, metadata: &ObjectMeta, mark: Mark<'_>) -> bool {
    is_of(key, &json!({"metadata": {"annotations": metadata.annotations}}), mark)
}

/// Whether what was applied last to an object is what is to be applied now.
pub(super) fn is_applied(live: &Value, value: &Value) -> bool {
    annotation(value, APPLIED).is_some_and(|applied| annotation(live, APPLIED) == Some(applied))
}

/// Whether an object was there before it became a replicant's.
pub(super) fn is_adopted(object: &Value) -> bool {
    annotation(object, ADOPTED).is_some()
}

/// Whether an object that is there may be written for a replicant, and is then only taken over for as long as it lasts.
pub(super) fn take_over(key: &Key, live: &Value, mark: Mark<'_>, adopt: Adopt) -> Result<bool, DriverError> {
    let refused = |reason: String| Err(DriverError::Refused { place: key.to_string(), reason });
    match owner(key, live) {
        Some(of) if of == (mark.id.as_str(), mark.site.as_str()) => Ok(is_adopted(live) && adopt != Adopt::Own),
        Some((of, site)) => refused(format!(
            "it is of the replicant {of} at the site {site}: an object has one owner. Leave it out of one of the two"
        )),
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
pub(super) fn stamped(key: &Key, value: &Value, mark: Mark<'_>, adopted: bool) -> Result<Value, DriverError> {
    let mut value = value.clone();
    let wrong = |field: &str| DriverError::invalid(format!("{key}: metadata.{field}"), "a map of texts is wanted");
    let metadata = map(&mut value, "metadata").ok_or_else(|| DriverError::invalid("metadata", "a map is wanted"))?;
    if key.namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".into(), json!(key.namespace));
    }
    let mut metadata = Value::Object(std::mem::take(metadata));
    map(&mut metadata, "labels").ok_or_else(|| wrong("labels"))?.insert(REPLICANT.into(), json!(label(mark.id)));
    let annotations = map(&mut metadata, "annotations").ok_or_else(|| wrong("annotations"))?;
    annotations.insert(REPLICANT.into(), json!(mark.id.as_str()));
    annotations.insert(SITE.into(), json!(mark.site.as_str()));
    annotations.insert(OBJECT.into(), json!(name_of(key)));
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

/// A manifest that an operation has made, with what tells so.
pub(super) fn operated(manifest: &Value, marker: Option<(u64, &OperationId)>) -> Value {
    let mut value = manifest.clone();
    let text = manifest.to_string();
    let annotations = map(&mut value, "metadata").and_then(|metadata| {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        // What is no map is refused when it is stamped.
        annotations.as_object_mut()
    });
    if let Some(annotations) = annotations {
        annotations.insert(MANIFEST.into(), json!(text));
        annotations.extend(marker.map(|(number, id)| (OPERATION.to_owned(), json!(format!("{number} {id}")))));
    }
    value
}

/// A manifest with what an object that was made from it carries of operations.
pub(super) fn as_operated(manifest: &Value, live: &Value) -> Value {
    match (annotation(live, MANIFEST), marker_of(live)) {
        (None, None) => manifest.clone(),
        (_, marker) => operated(manifest, marker.as_ref().map(|(number, id)| (*number, id))),
    }
}

/// The number and the id of the operation that changed an object last.
pub(super) fn marker_of(object: &Value) -> Option<(u64, OperationId)> {
    let (number, id) = annotation(object, OPERATION)?.split_once(' ')?;
    Some((number.parse().ok()?, OperationId::new(id).ok()?))
}

/// The manifest that operations have made of an object.
pub(super) fn manifest_of(object: &Value) -> Option<Value> {
    serde_json::from_str(annotation(object, MANIFEST)?).ok()
}

/// The merge patch that takes everything away that says whose an object is.
pub(super) fn released(live: &Value) -> Value {
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let nothing = Value::Null;
    json!({"metadata": {
        "resourceVersion": version,
        "labels": {REPLICANT: nothing},
        "annotations": {REPLICANT: nothing, SITE: nothing, OBJECT: nothing, ADOPTED: nothing, APPLIED: nothing,
            OPERATION: nothing, MANIFEST: nothing},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        "ConfigMap/shop/a".parse().unwrap()
    }

    fn names() -> (ReplicantId, ReplicantId, SiteName, SiteName) {
        ("web".parse().unwrap(), "other".parse().unwrap(), "paris".parse().unwrap(), "rennes".parse().unwrap())
    }

    #[test]
    fn a_stamped_object_says_whose_it_is_and_the_digest_what_was_applied() {
        let (id, _, site, _) = names();
        let mark = Mark { id: &id, site: &site };
        let value = json!({"metadata": {"name": "a", "labels": {"app": "x"}}, "data": {"a": "1"}});
        let one = stamped(&key(), &value, mark, false).unwrap();
        assert!(is_of(&key(), &one, mark));
        assert_eq!((&one["metadata"]["namespace"], &one["metadata"]["labels"]["app"]), (&json!("shop"), &json!("x")));
        assert!(label(&id).len() <= 63 && !is_adopted(&one));
        assert_eq!(one, stamped(&key(), &value, mark, false).unwrap());
        let mut less = value.clone();
        less["data"] = json!({});
        let two = stamped(&key(), &less, mark, false).unwrap();
        assert_ne!(one["metadata"]["annotations"][APPLIED], two["metadata"]["annotations"][APPLIED]);
        for wrong in [json!({"metadata": {"labels": 3}}), json!({"metadata": 3})] {
            assert!(stamped(&key(), &wrong, mark, false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let (id, other, site, elsewhere) = names();
        let mark = Mark { id: &id, site: &site };
        let stranger = json!({"metadata": {"name": "a"}});
        let ours = stamped(&key(), &stranger, mark, false).unwrap();
        let adopted = stamped(&key(), &stranger, mark, true).unwrap();
        let may = |live: &Value, adopt| take_over(&key(), live, mark, adopt).ok();
        assert_eq!(may(&stranger, Adopt::Never), None);
        assert_eq!(may(&stranger, Adopt::Keep), Some(true));
        assert_eq!(may(&stranger, Adopt::Own), Some(false));
        assert_eq!(may(&ours, Adopt::Never), Some(false));
        // What was taken over once stays so, until it is said that it is to go with the replica.
        assert_eq!((may(&adopted, Adopt::Never), may(&adopted, Adopt::Own)), (Some(true), Some(false)));
        for mark in [Mark { id: &other, site: &site }, Mark { id: &id, site: &elsewhere }] {
            assert!(take_over(&key(), &ours, mark, Adopt::Own).is_err() && !is_of(&key(), &ours, mark));
        }
        // A copy under another name is nobody's.
        let copy: Key = "ConfigMap/shop/b".parse().unwrap();
        assert!(!is_of(&copy, &ours, mark) && take_over(&copy, &ours, mark, Adopt::Never).is_err());
        // The same in another group is the same.
        let same: Key = "ConfigMap.elsewhere/shop/a".parse().unwrap();
        assert!(is_of(&same, &ours, mark));
    }
}
