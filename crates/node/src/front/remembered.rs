//! What each manager has applied last, by server-side apply. The API server cannot know: to it, all fields are of the manager
//! `khufu`. It is kept with the desired state, so that all sites know it, as maps that merge by field, in the form of
//! `managedFields`: `{"f:spec": {"f:replicas": {}}}`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::difference::empty;
use super::keys::Keys;
use super::marks;

/// What the annotations begin with under which it is kept; the name of the manager follows.
const APPLIED_BY: &str = "khufu.dev/applied-by.";

/// What is kept in the place of a manager of what somebody has set who does not apply. No manager has this name.
pub(super) const OTHERWISE: &str = "";

/// What stands in a set for a map itself.
const ITSELF: &str = ".";

/// A set of fields. Without fields below it, it stands for a whole value.
pub(super) type Fields = Value;

/// The fields that a manifest sets, but for those that say which object is meant.
pub(super) fn fields(manifest: &Value, keys: Keys<'_>) -> Fields {
    let mut set = below(manifest, keys);
    if let Some(set) = set.as_object_mut() {
        set.remove("f:apiVersion");
        set.remove("f:kind");
        if let Some(Value::Object(metadata)) = set.get_mut("f:metadata") {
            metadata.remove("f:name");
            metadata.remove("f:namespace");
        }
    }
    set
}

/// The fields that an apply sets, with what is said in it as annotations of Khufu.
pub(super) fn applied(sent: &Value) -> Fields {
    let mut manifest = khufu_drivers::kubernetes::cleaned(sent);
    marks::annotate(&mut manifest, marks::said(sent));
    // What is remembered must be understood also when the policy is another.
    fields(&manifest, Keys::default())
}

fn field(name: &str) -> String {
    format!("f:{name}")
}

fn entry(key: &str, value: Option<&Value>) -> String {
    format!("k:{}", json!({key: value}))
}

fn below(value: &Value, keys: Keys<'_>) -> Fields {
    match value {
        // That there is a map says nothing of what is in it.
        Value::Object(fields) if fields.is_empty() => json!({ITSELF: {}}),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (field(name), below(value, keys))).collect())
        }
        Value::Array(list) => match keys.of(&[list]) {
            Some(key) => {
                Value::Object(list.iter().map(|value| (entry(key, value.get(key)), below(value, keys))).collect())
            }
            None => empty(),
        },
        _ => empty(),
    }
}

/// The fields in which two objects differ.
pub(super) fn differing(before: &Value, after: &Value, keys: Keys<'_>) -> Fields {
    let mut set = Map::new();
    let mut compare = |name: String, old: Option<&Value>, new: Option<&Value>| match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => drop(set.insert(name, differing(old, new, keys))),
        (one, other) => drop(set.insert(name, one.or(other).map_or_else(empty, |value| below(value, keys)))),
    };
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
                compare(field(name), before.get(name), after.get(name));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            let Some(key) = keys.of(&[before, after]) else { return empty() };
            let find =
                |list: &'_ [Value], name: &Value| list.iter().find(|value| value.get(key) == Some(name)).cloned();
            for name in before.iter().chain(after).filter_map(|value| value.get(key)) {
                compare(entry(key, Some(name)), find(before, name).as_ref(), find(after, name).as_ref());
            }
        }
        _ => {}
    }
    Value::Object(set)
}

fn is_leaf(fields: &Fields) -> bool {
    fields.as_object().is_none_or(Map::is_empty)
}

/// The fields of one set that are not in another.
pub(super) fn without(set: &Fields, other: &Fields) -> Fields {
    let (Some(set), Some(other)) = (set.as_object(), other.as_object()) else { return empty() };
    let mut rest = Map::new();
    for (name, value) in set {
        match other.get(name) {
            None => drop(rest.insert(name.clone(), value.clone())),
            Some(other) if is_leaf(value) || is_leaf(other) => {}
            Some(other) => {
                let value = without(value, other);
                if !is_leaf(&value) {
                    rest.insert(name.clone(), value);
                }
            }
        }
    }
    Value::Object(rest)
}

/// The fields of one set that are in another as well.
pub(super) fn in_both(set: &Fields, other: &Fields) -> Fields {
    without(set, &without(set, other))
}

/// Both sets.
fn either(one: &Fields, other: &Fields) -> Fields {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return empty() };
    // What stands for a whole value has all that is below it.
    if one.is_empty() || other.is_empty() {
        return empty();
    }
    let mut all = one.clone();
    for (name, value) in other {
        let both = all.get(name).map_or_else(|| value.clone(), |known| either(known, value));
        all.insert(name.clone(), both);
    }
    Value::Object(all)
}

/// Remembers of what a manager applies for the first time what was asked for already, and is no manager's: it stays when he
/// applies it no more.
pub(super) fn keep_others(all: &mut BTreeMap<String, Fields>, manager: &str, known: &Fields) {
    let managers = all.iter().filter(|(other, _)| *other != manager && *other != OTHERWISE);
    let found = managers.fold(known.clone(), |found, (_, set)| without(&found, set));
    if is_leaf(&found) {
        return;
    }
    let otherwise = all.get(OTHERWISE).map_or_else(|| found.clone(), |known| either(known, &found));
    all.insert(OTHERWISE.to_owned(), otherwise);
}

/// The fields that both sets have, as paths.
pub(super) fn common(one: &Fields, other: &Fields) -> Vec<String> {
    let mut found = Vec::new();
    collect(one, other, "", &mut found);
    found
}

fn collect(one: &Fields, other: &Fields, path: &str, found: &mut Vec<String>) {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return };
    for (name, value) in one {
        let Some(other) = other.get(name) else { continue };
        let path = match (name.strip_prefix("f:"), name.strip_prefix("k:")) {
            (Some(field), _) => format!("{path}.{field}"),
            (_, Some(key)) => format!("{path}[{}]", key.trim_matches(['{', '}']).replacen("\":", "\"=", 1)),
            _ => continue,
        };
        if is_leaf(value) || is_leaf(other) {
            found.push(path);
        } else {
            collect(value, other, &path, found);
        }
    }
}

/// Whether an object has one of these fields from somebody else than a manager who has applied it, as its `managedFields` say.
pub(super) fn others_have(object: &Value, set: &Fields, manager: &str) -> bool {
    let managers = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let text = |entry: &'_ Value, field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
    let others = managers.into_iter().flatten().filter(|entry| {
        text(entry, "manager").as_deref() != Some(manager) || text(entry, "operation").as_deref() != Some("Apply")
    });
    others.filter_map(|entry| entry.get("fieldsV1")).any(|theirs| meet(set, theirs))
}

/// Whether two sets have a field in common. An API server names the elements of some lists by more than one field.
fn meet(one: &Fields, other: &Fields) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return false };
    let key = |name: &str| name.strip_prefix("k:").and_then(|key| serde_json::from_str::<Map<String, Value>>(key).ok());
    one.iter().filter(|(name, _)| *name != ITSELF).any(|(name, value)| match key(name) {
        None => other.get(name).is_some_and(|other| is_leaf(value) || is_leaf(other) || meet(value, other)),
        Some(wanted) => other.iter().any(|(name, other)| {
            key(name).is_some_and(|key| wanted.iter().all(|(name, value)| key.get(name) == Some(value)))
                && (is_leaf(value) || is_leaf(other) || meet(value, other))
        }),
    })
}

/// Takes fields out of what is asked for, and what is empty without them.
pub(super) fn take_out(desired: &mut Value, gone: &Fields) {
    let Some(gone) = gone.as_object() else { return };
    for (name, below) in gone {
        match (name.strip_prefix("f:"), name.strip_prefix("k:"), &mut *desired) {
            (Some(field), _, Value::Object(fields)) => {
                let Some(value) = fields.get_mut(field) else { continue };
                take_out(value, below);
                if is_leaf(below) || is_empty(value) {
                    fields.remove(field);
                }
            }
            (_, Some(key), Value::Array(list)) => {
                if let Ok(Value::Object(key)) = serde_json::from_str(key) {
                    take_element(list, &key, below);
                }
            }
            _ => {}
        }
    }
}

/// The same in the element of a list. It is known by its key as long as there is anything else in it.
fn take_element(list: &mut Vec<Value>, key: &Map<String, Value>, gone: &Fields) {
    let is = |value: &Value| key.iter().all(|(name, wanted)| value.get(name) == Some(wanted));
    let Some(at) = list.iter().position(is) else { return };
    let Some(value) = list.get_mut(at) else { return };
    let mut gone = gone.clone();
    let Some(fields) = gone.as_object_mut() else { return };
    let goes = key.keys().filter(|name| fields.remove(&field(name)).is_some()).count() == key.len();
    take_out(value, &gone);
    if goes && value.as_object().is_some_and(|fields| fields.keys().all(|name| key.contains_key(name))) {
        list.remove(at);
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// What all managers have applied last, as it is kept in a manifest.
pub(super) fn read(manifest: &Value) -> BTreeMap<String, Fields> {
    let annotations = manifest.pointer("/metadata/annotations").and_then(Value::as_object);
    let kept = annotations.into_iter().flatten();
    kept.filter_map(|(name, set)| Some((name.strip_prefix(APPLIED_BY)?.to_owned(), set.clone()))).collect()
}

/// Keeps it in a manifest, instead of what is kept there.
pub(super) fn write(manifest: &mut Value, all: &BTreeMap<String, Fields>) {
    let metadata = manifest.as_object_mut().map(|fields| fields.entry("metadata").or_insert_with(empty));
    let Some(metadata) = metadata.and_then(Value::as_object_mut) else { return };
    let Some(annotations) = metadata.entry("annotations").or_insert_with(empty).as_object_mut() else { return };
    annotations.retain(|name, _| !name.starts_with(APPLIED_BY));
    for (manager, set) in all.iter().filter(|(_, set)| !is_leaf(set)) {
        annotations.insert(format!("{APPLIED_BY}{manager}"), set.clone());
    }
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: Keys<'static> = Keys(&[]);

    fn web() -> Value {
        let containers = json!([{"name": "one", "image": "a"}, {"name": "two", "image": "b"}]);
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "1", "b": "2"}},
            "spec": {"replicas": 2, "args": ["x"], "containers": containers}})
    }

    #[test]
    fn what_is_not_applied_any_more_goes() {
        let mut now = web();
        now["metadata"]["labels"] = json!({"a": "1"});
        now["spec"] = json!({"containers": [{"name": "one", "image": "a"}]});
        let gone = without(&fields(&web(), KEYS), &fields(&now, KEYS));
        let mut desired = web();
        desired["spec"]["containers"][0]["tty"] = json!(true);
        take_out(&mut desired, &gone);
        now["spec"]["containers"][0]["tty"] = json!(true);
        assert_eq!(desired, now);
    }

    #[test]
    fn a_map_without_anything_in_it_keeps_nothing() {
        let annotated = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        let all = annotated(json!({"a": "b"}));
        let gone = without(&fields(&all, KEYS), &fields(&annotated(json!({})), KEYS));
        let mut desired = annotated(json!({"a": "b", "c": "d"}));
        take_out(&mut desired, &gone);
        assert_eq!(desired, annotated(json!({"c": "d"})));
        // A map that is applied no more goes when nobody has anything in it.
        let volume = json!({"v": {"emptyDir": {}}});
        let mut desired = volume.clone();
        take_out(&mut desired, &without(&fields(&volume, KEYS), &fields(&json!({"v": {"x": 1}}), KEYS)));
        assert_eq!(desired, json!({}));
    }

    #[test]
    fn what_another_has_applied_as_well_stays() {
        let gone = without(&fields(&web(), KEYS), &fields(&json!({"kind": "Deployment"}), KEYS));
        let other = fields(&json!({"spec": {"containers": [{"name": "two", "image": "b"}]}}), KEYS);
        let mut desired = web();
        take_out(&mut desired, &without(&gone, &other));
        assert_eq!(desired["spec"], json!({"containers": [{"name": "two", "image": "b"}]}));
        assert_eq!(desired["metadata"], json!({"name": "web"}));
    }

    #[test]
    fn what_was_asked_for_before_anybody_applied_it_stays() {
        let set = |value: Value| fields(&json!({ "spec": value }), KEYS);
        let mut all = BTreeMap::from([("ci".to_owned(), set(json!({"a": 1})))]);
        keep_others(&mut all, "kubectl", &set(json!({"a": 1, "b": {"c": 1}})));
        assert_eq!(all[OTHERWISE], set(json!({"b": {"c": 1}})), "what another applies is his");
        keep_others(&mut all, "kubectl", &set(json!({"b": {"d": 1}})));
        assert_eq!(all[OTHERWISE], set(json!({"b": {"c": 1, "d": 1}})));
        assert_eq!(in_both(&all[OTHERWISE], &set(json!({"b": {"d": 1}, "e": 1}))), set(json!({"b": {"d": 1}})));
        let mut manifest = web();
        write(&mut manifest, &all);
        assert_eq!(read(&manifest), all);
    }

    #[test]
    fn an_element_stays_while_somebody_else_has_something_in_it() {
        let gone = fields(&json!({"l": [{"name": "one", "image": "a"}]}), KEYS);
        let mut desired = json!({"l": [{"name": "one", "image": "a", "tty": true}]});
        take_out(&mut desired, &gone);
        assert_eq!(desired, json!({"l": [{"name": "one", "tty": true}]}));
    }

    #[test]
    fn an_element_stays_while_its_key_is_applied() {
        let list = |value: Value| json!({"l": [value]});
        let (before, now) = (list(json!({"name": "one", "image": "a"})), list(json!({"name": "one"})));
        let mut desired = before.clone();
        take_out(&mut desired, &without(&fields(&before, KEYS), &fields(&now, KEYS)));
        assert_eq!(desired, now);
    }

    #[test]
    fn fields_that_differ_are_found() {
        let mut after = web();
        after["spec"]["replicas"] = json!(3);
        after["spec"]["containers"][1]["image"] = json!("c");
        after["metadata"]["labels"] = json!({"a": "1", "c": "3"});
        let set = differing(&web(), &after, KEYS);
        let mut paths = common(&set, &set);
        paths.sort();
        let image = ".spec.containers[\"name\"=\"two\"].image";
        assert_eq!(paths, [".metadata.labels.b", ".metadata.labels.c", image, ".spec.replicas"]);
        assert_eq!(common(&set, &fields(&json!({"spec": {"replicas": 1}}), KEYS)), [".spec.replicas"]);
    }

    #[test]
    fn what_somebody_else_has_set_is_found_in_what_the_server_says_of_managers() {
        let entry = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "fieldsV1": fields});
        let ports = json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
        let object = json!({"metadata": {"managedFields": [
            entry("khufu", "Apply", json!({"f:spec": {"f:replicas": {}}})),
            entry("khufu", "Update", json!({"f:spec": {"f:paused": {}}})),
            entry("hand", "Update", ports)]}});
        let others = |set: Value| others_have(&object, &fields(&json!({"spec": set}), KEYS), "khufu");
        assert!(!others(json!({"replicas": 1})));
        assert!(others(json!({"paused": true})), "what was not applied is another's");
        assert!(others(json!({"ports": [{"port": 80}]})) && !others(json!({"ports": [{"port": 81}]})));
        assert!(others(json!({"ports": []})) && !others(json!({})));
    }

    #[test]
    fn it_is_kept_in_a_manifest_and_leaves_no_trace() {
        let mut manifest = web();
        let all = BTreeMap::from([("kubectl".to_owned(), fields(&web(), KEYS)), ("none".to_owned(), empty())]);
        write(&mut manifest, &all);
        let back = read(&manifest);
        assert_eq!(back.keys().collect::<Vec<_>>(), ["kubectl"]);
        assert_eq!(back["kubectl"], all["kubectl"]);
        write(&mut manifest, &BTreeMap::new());
        assert_eq!(manifest, web());
    }

    fn fields_of(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["a", "b", "c"]);
        prop::collection::btree_map(name, inner, 0..3).prop_map(|map| json!(map))
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = (0..3).prop_map(|n: i32| json!(n));
        fields_of(leaf.prop_recursive(3, 16, 3, fields_of))
    }

    proptest! {
        /// Whoever applies something else has what he applies, and nothing that only he had applied before.
        #[test]
        fn applied_one_after_the_other(first in tree(), second in tree()) {
            let mut desired = first.clone();
            take_out(&mut desired, &without(&fields(&first, KEYS), &fields(&second, KEYS)));
            super::super::difference::overlay(&mut desired, &second, KEYS);
            prop_assert_eq!(desired, second);
        }
    }
}
