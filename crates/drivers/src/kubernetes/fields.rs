//! Fields of objects: those that a manifest speaks of, where two objects differ, and who has set them.

use serde_json::{Map, Value};

/// The fields by which elements of lists are told apart, in the order in which they are tried.
const LIST_KEYS: [&str; 9] =
    ["name", "containerPort", "port", "mountPath", "devicePath", "key", "topologyKey", "ip", "type"];
/// How deep objects are looked into.
const MAX_DEPTH: usize = 64;

/// A step on the way to a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Field(String),
    /// The element of a list whose field has this value.
    Element(&'static str, Value),
    Index(usize),
}

/// Where a field is.
pub(super) type Path = Vec<Step>;

/// A path as people write it: `spec.containers[name=web].image`.
pub(super) fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Step::Element(field, Value::String(value)) => text.push_str(&format!("[{field}={value}]")),
            Step::Element(field, value) => text.push_str(&format!("[{field}={value}]")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// A field in which an object is not as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub(super) path: Path,
    /// None if it is not there.
    pub(super) is: Option<Value>,
    pub(super) wanted: Value,
}

/// The field by which the elements of a list are told apart: all have it, and no two have the same.
fn list_key(list: &[Value]) -> Option<&'static str> {
    LIST_KEYS.into_iter().find(|key| {
        let values: Vec<_> = list.iter().map(|element| element.get(*key).filter(|value| !value.is_object())).collect();
        !values.is_empty()
            && values.iter().all(Option::is_some)
            && values
                .iter()
                .enumerate()
                .all(|(number, value)| values.iter().skip(number + 1).all(|other| other != value))
    })
}

fn element<'a>(list: &'a [Value], key: &str, value: &Value) -> Option<&'a Value> {
    list.iter().find(|element| element.get(key) == Some(value))
}

/// That part of an object of which a pattern speaks, with the values that the object has.
pub(super) fn part(object: &Value, pattern: &Value) -> Value {
    part_at(object, pattern, MAX_DEPTH)
}

fn part_at(object: &Value, pattern: &Value, depth: usize) -> Value {
    if depth == 0 {
        return object.clone();
    }
    match (object, pattern) {
        (Value::Object(object), Value::Object(pattern)) => {
            let both = pattern.iter().filter_map(|(field, below)| Some((field, object.get(field)?, below)));
            Value::Object(both.map(|(field, value, below)| (field.clone(), part_at(value, below, depth - 1))).collect())
        }
        (Value::Array(object), Value::Array(pattern)) => match list_key(pattern) {
            Some(key) => {
                let found = pattern.iter().filter_map(|below| Some((element(object, key, below.get(key)?)?, below)));
                Value::Array(found.map(|(value, below)| part_at(value, below, depth - 1)).collect())
            }
            None if object.len() == pattern.len() => {
                let both = object.iter().zip(pattern);
                Value::Array(both.map(|(value, below)| part_at(value, below, depth - 1)).collect())
            }
            None => Value::Array(object.clone()),
        },
        (object, _) => object.clone(),
    }
}

/// The same with all elements of lists, also of those whose elements are told apart by a field.
pub(super) fn whole(object: &Value, pattern: &Value) -> Value {
    whole_at(object, pattern, MAX_DEPTH)
}

fn whole_at(object: &Value, pattern: &Value, depth: usize) -> Value {
    match (object, pattern) {
        (Value::Object(object), Value::Object(pattern)) if depth > 0 => {
            let both = pattern.iter().filter_map(|(field, below)| Some((field, object.get(field)?, below)));
            Value::Object(
                both.map(|(field, value, below)| (field.clone(), whole_at(value, below, depth - 1))).collect(),
            )
        }
        (Value::Array(object), Value::Array(pattern)) if depth > 0 => {
            let key = list_key(pattern);
            let of = |(number, value): (usize, &Value)| {
                let below = match key {
                    Some(key) => value.get(key).and_then(|named| element(pattern, key, named)),
                    None => pattern.get(number),
                };
                below.map_or_else(|| value.clone(), |below| whole_at(value, below, depth - 1))
            };
            Value::Array(object.iter().enumerate().map(of).collect())
        }
        (object, _) => object.clone(),
    }
}

/// The elements of lists that an object has and a pattern does not speak of: where the list is one thing, they are somebody's
/// change of it.
pub(super) fn more(object: &Value, pattern: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    gather_more(object, pattern, &mut Vec::new(), &mut found);
    found
}

fn gather_more(object: &Value, pattern: &Value, path: &mut Path, found: &mut Vec<Difference>) {
    if path.len() >= MAX_DEPTH {
        return;
    }
    match (object, pattern) {
        (Value::Object(object), Value::Object(pattern)) => {
            for (field, below) in pattern {
                if let Some(value) = object.get(field) {
                    path.push(Step::Field(field.clone()));
                    gather_more(value, below, path, found);
                    path.pop();
                }
            }
        }
        (Value::Array(object), Value::Array(pattern)) => {
            let Some(key) = list_key(pattern) else { return };
            for value in object {
                let named = value.get(key).cloned().unwrap_or_default();
                let below = element(pattern, key, &named);
                path.push(Step::Element(key, named));
                match below {
                    Some(below) => gather_more(value, below, path, found),
                    None => {
                        found.push(Difference { path: path.clone(), is: Some(value.clone()), wanted: Value::Null });
                    }
                }
                path.pop();
            }
        }
        _ => {}
    }
}

/// Where an object is not as a pattern wants it. What the pattern does not speak of counts nothing.
pub(super) fn differences(object: &Value, pattern: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(Some(object), pattern, &mut Vec::new(), &mut found);
    found
}

fn compare(object: Option<&Value>, pattern: &Value, path: &mut Path, found: &mut Vec<Difference>) {
    let deep = path.len() < MAX_DEPTH;
    match (object, pattern) {
        (Some(Value::Object(object)), Value::Object(pattern)) if deep => {
            for (field, below) in pattern {
                path.push(Step::Field(field.clone()));
                compare(object.get(field), below, path, found);
                path.pop();
            }
        }
        (Some(Value::Array(object)), Value::Array(pattern)) if deep && list_key(pattern).is_some() => {
            let Some(key) = list_key(pattern) else { return };
            for below in pattern {
                let value = below.get(key).cloned().unwrap_or_default();
                let other = element(object, key, &value);
                path.push(Step::Element(key, value));
                compare(other, below, path, found);
                path.pop();
            }
        }
        (Some(Value::Array(object)), Value::Array(pattern)) if deep && object.len() == pattern.len() => {
            for (number, (value, below)) in object.iter().zip(pattern).enumerate() {
                path.push(Step::Index(number));
                compare(Some(value), below, path, found);
                path.pop();
            }
        }
        (Some(object), pattern) if object == pattern => {}
        // Nothing, and not being there, are the same.
        (None, Value::Null) => {}
        (None, Value::Object(map)) if map.is_empty() => {}
        (None, Value::Array(list)) if list.is_empty() => {}
        _ => found.push(Difference { path: path.clone(), is: object.cloned(), wanted: pattern.clone() }),
    }
}

/// Sets the field at a path to what another object has there. Where a list on the way has no such element, nothing happens.
pub(super) fn copy(into: &mut Value, from: &Value, path: &[Step]) {
    let Some((step, rest)) = path.split_first() else {
        into.clone_from(from);
        return;
    };
    match step {
        Step::Field(name) => {
            let (Value::Object(into), Some(from)) = (into, from.get(name)) else { return };
            if rest.is_empty() || into.contains_key(name) {
                copy(into.entry(name.clone()).or_insert(Value::Null), from, rest);
            }
        }
        Step::Element(key, value) => {
            let (Value::Array(into), Value::Array(from)) = (into, from) else { return };
            let into = into.iter_mut().find(|element| element.get(*key) == Some(value));
            if let (Some(into), Some(from)) = (into, element(from, key, value)) {
                copy(into, from, rest);
            }
        }
        Step::Index(number) => {
            if let (Some(into), Some(from)) = (into.get_mut(*number), from.get(*number)) {
                copy(into, from, rest);
            }
        }
    }
}

/// Takes the field at a path away.
pub(super) fn remove(from: &mut Value, path: &[Step]) {
    let Some((step, rest)) = path.split_first() else { return };
    let below = match step {
        Step::Field(name) if rest.is_empty() => {
            from.as_object_mut().map(|map| map.remove(name));
            return;
        }
        Step::Field(name) => from.get_mut(name),
        Step::Element(key, value) => {
            let Value::Array(list) = from else { return };
            if rest.is_empty() {
                list.retain(|element| element.get(*key) != Some(value));
                return;
            }
            list.iter_mut().find(|element| element.get(*key) == Some(value))
        }
        Step::Index(number) => from.get_mut(*number),
    };
    if let Some(below) = below {
        remove(below, rest);
    }
}

/// Takes all fields away of which something is said.
pub(super) fn without(value: &mut Value, unwanted: &impl Fn(&str) -> bool) {
    take_out(value, &mut Vec::new(), unwanted);
}

fn take_out(value: &mut Value, path: &mut Path, unwanted: &impl Fn(&str) -> bool) {
    if path.len() >= MAX_DEPTH {
        return;
    }
    let mut stays = |step: Step, below: &mut Value| {
        path.push(step);
        let stays = !unwanted(&written(path));
        if stays {
            take_out(below, path, unwanted);
        }
        path.pop();
        stays
    };
    match value {
        Value::Object(map) => {
            let mut names: Vec<_> = map.keys().cloned().collect();
            names.retain(|name| map.get_mut(name).is_some_and(|below| !stays(Step::Field(name.clone()), below)));
            names.iter().for_each(|name| drop(map.remove(name)));
        }
        Value::Array(list) => {
            let key = list_key(list);
            let mut number = 0;
            list.retain_mut(|below| {
                let named = key.map(|key| Step::Element(key, below.get(key).cloned().unwrap_or_default()));
                number += 1;
                stays(named.unwrap_or(Step::Index(number - 1)), below)
            });
        }
        _ => {}
    }
}

/// Who else has set a field last, as the API server keeps it: the manager, and when.
pub(super) fn set_by(object: &Value, path: &[Step], not: &str) -> Option<(String, String)> {
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let owners = entries.iter().filter(|entry| {
        let fields = entry.get("fieldsV1").and_then(Value::as_object);
        fields.is_some_and(|fields| owns(fields, path)) && entry.get("subresource").is_none_or(|of| of != "status")
    });
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    owners
        .map(|entry| (text(entry, "time"), text(entry, "manager")))
        .filter(|(_, manager)| manager != not)
        .max()
        .map(|(time, manager)| (manager, time))
}

fn owns(fields: &Map<String, Value>, path: &[Step]) -> bool {
    let Some((step, rest)) = path.split_first() else { return true };
    let below = match step {
        Step::Field(name) => fields.get(&format!("f:{name}")),
        Step::Element(key, value) => fields.iter().find_map(|(name, below)| {
            let keys: Value = serde_json::from_str(name.strip_prefix("k:")?).ok()?;
            (keys.get(*key) == Some(value)).then_some(below)
        }),
        // A list without keys is owned as a whole.
        Step::Index(_) => return fields.is_empty(),
    };
    match below.and_then(Value::as_object) {
        Some(below) if below.is_empty() => true,
        Some(below) => owns(below, rest),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(object: Value, pattern: Value) -> Vec<String> {
        differences(&object, &pattern).into_iter().map(|difference| written(&difference.path)).collect()
    }

    #[test]
    fn only_what_is_spoken_of_counts() {
        let live = json!({"spec": {"replicas": 3, "paused": false}, "status": {"x": 1}});
        assert_eq!(said(live.clone(), json!({"spec": {"replicas": 3}})), Vec::<String>::new());
        assert_eq!(said(live.clone(), json!({"spec": {"replicas": 2, "more": 1}})), ["spec.more", "spec.replicas"]);
        assert_eq!(said(live, json!({"spec": {"none": null, "empty": {}}})), Vec::<String>::new());
    }

    #[test]
    fn elements_of_lists_are_found_by_their_names() {
        let live = json!([{"name": "side", "image": "s"}, {"name": "web", "image": "1", "tty": false}]);
        let wanted = json!([{"name": "web", "image": "2"}]);
        assert_eq!(said(live.clone(), wanted.clone()), ["[name=web].image"]);
        assert_eq!(part(&live, &wanted), json!([{"name": "web", "image": "1"}]));
        assert_eq!(said(live.clone(), json!([{"name": "db", "image": "2"}])), ["[name=db]"]);
        assert_eq!(said(json!(["a", "b"]), json!(["a", "c"])), ["[1]"]);
        assert_eq!(said(json!(["a"]), json!(["a", "c"])), [""]);
    }

    #[test]
    fn a_field_is_copied_where_both_have_it() {
        let live = json!({"spec": {"replicas": 7, "list": [{"name": "a", "n": 1}]}});
        let mut wanted = json!({"spec": {"replicas": 2, "list": [{"name": "a", "n": 5}]}});
        let path = |fields: &[&str]| fields.iter().map(|field| Step::Field((*field).into())).collect::<Path>();
        copy(&mut wanted, &live, &path(&["spec", "replicas"]));
        copy(&mut wanted, &live, &path(&["spec", "nothing"]));
        let mut below = path(&["spec", "list"]);
        below.extend([Step::Element("name", json!("a")), Step::Field("n".into())]);
        copy(&mut wanted, &live, &below);
        assert_eq!(wanted, live);
    }

    #[test]
    fn what_is_more_than_is_wanted_is_found() {
        let wanted = json!({"subjects": [{"name": "alice", "kind": "User"}], "args": ["x"]});
        let live = json!({"subjects": [{"name": "alice", "kind": "User", "apiGroup": "g"}, {"name": "mallory"}], "args": ["x"]});
        let found: Vec<_> = more(&live, &wanted).into_iter().map(|difference| written(&difference.path)).collect();
        assert_eq!(found, ["subjects[name=mallory]"]);
        assert_eq!(
            whole(&live, &wanted),
            json!({"subjects": [{"name": "alice", "kind": "User"}, {"name": "mallory"}], "args": ["x"]})
        );
        assert!(more(&live, &whole(&live, &wanted)).is_empty());
    }

    #[test]
    fn fields_are_taken_away() {
        let value = json!({"spec": {"replicas": 2, "list": [{"name": "a", "n": 5}, {"name": "b", "n": 6}], "args": ["x", "y"]}});
        let mut other = value.clone();
        for difference in differences(&json!({"spec": {"list": [{"name": "a", "n": 7}], "args": ["x", "z"]}}), &value) {
            remove(&mut other, &difference.path);
        }
        assert_eq!(other, json!({"spec": {"list": [{"name": "a"}], "args": ["x", "y"]}}));
        let mut other = value;
        without(&mut other, &|path| ["spec.replicas", "spec.list[name=a]", "spec.list[name=b].n"].contains(&path));
        assert_eq!(other, json!({"spec": {"list": [{"name": "b"}], "args": ["x", "y"]}}));
    }

    #[test]
    fn who_has_set_a_field_last_is_found() {
        let object = json!({"metadata": {"managedFields": [
            {"manager": "khufu", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z", "fieldsV1":
                {"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}}}}},
        ]}});
        let replicas = [Step::Field("spec".into()), Step::Field("replicas".into())];
        let manager = |path: &[Step]| set_by(&object, path, "khufu").map(|(manager, _)| manager);
        assert_eq!(manager(&replicas).as_deref(), Some("kubectl-edit"));
        let mut image = vec![Step::Field("spec".into()), Step::Field("containers".into())];
        image.extend([Step::Element("name", json!("web")), Step::Field("image".into())]);
        assert_eq!(manager(&image).as_deref(), Some("kubectl-edit"));
        assert_eq!(manager(&[Step::Field("data".into())]), None);
    }
}
