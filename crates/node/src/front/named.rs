//! What a write names: it is asked for from then on, also where the object is so already.

use serde_json::{Map, Value, json};

use super::capture::Captured;
use super::difference::{kept, overlay};
use super::keys::{Keys, element};
use super::target::Verb;

/// What a write names, in the shape of the object that it is about: `after` is that object as it would be, and `desired` what is
/// asked for of it so far.
pub(super) fn of(
    captured: &Captured,
    sent: Option<&Value>,
    after: &Value,
    desired: &Value,
    keys: Keys<'_>,
) -> Option<Value> {
    match (captured.verb, sent) {
        (Verb::Scale, _) => after.pointer("/spec/replicas").map(|replicas| json!({"spec": {"replicas": replicas}})),
        // What was read and is sent back has an uid: it names what there was, whoever has set it.
        (Verb::Update, Some(sent)) => sent.pointer("/metadata/uid").is_none_or(Value::is_null).then(|| sent.clone()),
        (_, Some(Value::Array(patch))) => by_steps(patch, after, desired, keys),
        (_, sent) => sent.filter(|sent| sent.is_object()).cloned(),
    }
}

/// What a JSON patch (RFC 6902) adds and replaces.
fn by_steps(patch: &[Value], after: &Value, desired: &Value, keys: Keys<'_>) -> Option<Value> {
    let text = |step: &'_ Value, field: &str| step.get(field).and_then(Value::as_str).map(str::to_owned);
    let is_replace = |step: &Value| matches!(text(step, "op").as_deref(), Some("replace" | "test"));
    let of_list = |step: &Value| {
        let parent = text(step, "path").and_then(|path| after.pointer(path.rsplit_once('/')?.0).map(Value::is_array));
        parent.unwrap_or(true)
    };
    // Else what is in lists has another place after each step.
    let stays = patch.iter().all(|step| is_replace(step) || !of_list(step));
    let mut all = Value::Object(Map::new());
    for step in patch.iter().filter(|step| matches!(text(step, "op").as_deref(), Some("add" | "replace"))) {
        let (Some(path), Some(value)) = (text(step, "path"), step.get("value")) else { continue };
        let names = path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        let names: Vec<String> = names.collect();
        let way = Way { value, stays, keys };
        if let Some(named) = way.at(after, Some(desired), &names) {
            overlay(&mut all, &named, keys);
        }
    }
    all.as_object().is_some_and(|all| !all.is_empty()).then_some(all)
}

/// A value, and how it is found.
#[derive(Clone, Copy)]
struct Way<'a> {
    value: &'a Value,
    stays: bool,
    keys: Keys<'a>,
}

impl Way<'_> {
    /// The value at its place, and nothing beside it but what says which elements of lists are meant.
    fn at(&self, after: &Value, desired: Option<&Value>, names: &[String]) -> Option<Value> {
        let Some((name, rest)) = names.split_first() else { return Some(kept(self.value, after, self.keys)) };
        match after {
            Value::Object(fields) => {
                let below = self.at(fields.get(name)?, desired.and_then(|desired| desired.get(name)), rest)?;
                Some(json!({ name: below }))
            }
            Value::Array(list) if self.stays => {
                let known = desired?.as_array()?;
                let key = self.keys.of(&[list, known])?;
                let meant = list.get(name.parse::<usize>().ok()?)?;
                let which = meant.get(key)?;
                let mut found = self.at(meant, Some(element(known, key, which)?), rest)?;
                found.as_object_mut()?.insert(key.to_owned(), which.clone());
                Some(json!([found]))
            }
            _ => None,
        }
    }
}

/// Takes out of what is asked for what was sent as null.
pub(super) fn without_nulls(desired: &mut Value, sent: &Value) {
    let (Some(fields), Some(sent)) = (desired.as_object_mut(), sent.as_object()) else { return };
    for (name, value) in sent {
        match (value, fields.get_mut(name)) {
            (Value::Null, _) => drop(fields.remove(name)),
            (value, Some(below)) => without_nulls(below, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_json_patch_names_is_found_again_by_its_names() {
        let containers = |image: &str| json!([{"name": "a", "image": "x"}, {"name": "b", "image": image}]);
        let after = json!({"spec": {"replicas": 3, "containers": containers("new"), "args": ["x"]}});
        let desired = json!({"spec": {"replicas": 3, "containers": containers("old")}});
        let of = |patch: Value| by_steps(patch.as_array()?, &after, &desired, Keys::default());
        let replace = |path: &str, value: Value| json!({"op": "replace", "path": path, "value": value});
        let (image, replicas) =
            (replace("/spec/containers/1/image", json!("new")), replace("/spec/replicas", json!(3)));
        assert_eq!(
            of(json!([image, replicas])),
            Some(json!({"spec": {"replicas": 3, "containers": [{"name": "b", "image": "new"}]}}))
        );
        let moved = json!({"op": "remove", "path": "/spec/containers/0"});
        assert_eq!(
            of(json!([image, replicas, moved])),
            Some(json!({"spec": {"replicas": 3}})),
            "its place was another"
        );
        assert_eq!(of(json!([replace("/spec/args/0", json!("x"))])), None);
        assert_eq!(of(json!([{"op": "test", "path": "/spec/replicas", "value": 3}])), None);
    }

    #[test]
    fn nulls_are_taken_out() {
        let mut desired = json!({"a": 1, "b": {"c": 1, "d": 2}});
        without_nulls(&mut desired, &json!({"a": null, "b": {"c": null, "e": null}, "x": null}));
        assert_eq!(desired, json!({"b": {"d": 2}}));
    }
}
