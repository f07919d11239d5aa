//! What a JSON patch (RFC 6902) names and what it takes out. Its steps say where by places in lists, which are others after each
//! step: each is looked up in the object as it is then, and known from then on by what tells it apart.

use json_patch::PatchOperation;
use serde_json::{Map, Value, json};

use super::difference::{kept, overlay};
use super::keys::{Keys, element};

/// The most elements of lists that are looked at for one patch. What is beyond is known by what has changed alone.
const MAX_ELEMENTS: usize = 200_000;

/// What the steps say, each in the shape of the object.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Steps {
    /// The values that they name: also those that were so before.
    pub(super) named: Option<Value>,
    /// What they take out, as null.
    pub(super) removed: Option<Value>,
}

/// Reads a patch of an object that was `before`, is `after` then, and of which `desired` was asked for.
pub(super) fn read(patch: &[Value], before: &Value, after: &Value, desired: &Value, keys: Keys<'_>) -> Steps {
    let mut reading = Reading {
        now: before.clone(),
        after,
        desired,
        keys,
        left: MAX_ELEMENTS,
        named: Value::Object(Map::new()),
        removed: Value::Object(Map::new()),
    };
    for step in patch {
        if reading.step(step).is_none() {
            break;
        }
    }
    let something = |value: Value| value.as_object().is_some_and(|fields| !fields.is_empty()).then_some(value);
    Steps { named: something(reading.named), removed: something(reading.removed) }
}

/// A part of a way to a place, by what stays.
#[derive(Debug, Clone, PartialEq)]
enum Stop {
    Field(String),
    /// The element of a list that has this value in this field.
    Element(String, Value),
}

struct Reading<'a> {
    /// The object as it is after the steps that were read.
    now: Value,
    after: &'a Value,
    desired: &'a Value,
    keys: Keys<'a>,
    /// How many elements may still be looked at.
    left: usize,
    named: Value,
    removed: Value,
}

impl Reading<'_> {
    /// Reads a step, and makes it. None where it cannot be made: the API server has made it, so it was another object.
    fn step(&mut self, step: &Value) -> Option<()> {
        let text = |field: &str| step.get(field).and_then(Value::as_str);
        let (op, path) = (text("op")?, text("path")?);
        let operation: PatchOperation = serde_json::from_value(step.clone()).ok()?;
        let goes = match op {
            "remove" => Some(path),
            "move" => text("from"),
            _ => None,
        };
        // Where something is taken from is said of the object before.
        if let Some(way) = goes.and_then(|path| self.way(&names(path))) {
            // What is no more in a list is known by that.
            let is_field = matches!(way.last(), Some(Stop::Field(_)));
            mark(&mut self.removed, &way, is_field.then_some(Value::Null));
        }
        json_patch::patch_unsafe(&mut self.now, &[operation]).ok()?;
        if matches!(op, "add" | "replace" | "move" | "copy") {
            let names = names(&self.by_number(path));
            if let Some(way) = self.way(&names) {
                mark(&mut self.removed, &way, None);
                let value = self.now.pointer(&self.by_number(path)).cloned()?;
                self.name(&way, &value);
            }
        }
        Some(())
    }

    /// The end of a list, as the place that what was added there has.
    fn by_number(&self, path: &str) -> String {
        let last = |list: &str| Some(self.now.pointer(list)?.as_array()?.len().saturating_sub(1));
        let end = path.strip_suffix("/-").and_then(|list| Some(format!("{list}/{}", last(list)?)));
        end.unwrap_or_else(|| path.to_owned())
    }

    /// The way to a place in the object as it is now. None where there is nothing, or where an element of a list is told apart by
    /// nothing but its place.
    fn way(&mut self, names: &[String]) -> Option<Vec<Stop>> {
        let mut places = [Some(&self.now), Some(self.after), Some(self.desired)];
        let mut way = Vec::new();
        for name in names {
            match places[0]? {
                Value::Object(fields) => {
                    fields.get(name)?;
                    places = places.map(|place| place.and_then(|place| place.get(name)));
                    way.push(Stop::Field(name.clone()));
                }
                Value::Array(list) => {
                    let lists: Vec<&[Value]> =
                        places.iter().flatten().filter_map(|place| place.as_array()).map(Vec::as_slice).collect();
                    self.left = self.left.checked_sub(lists.iter().map(|list| list.len()).sum())?;
                    let key = self.keys.of(&lists)?;
                    let which = list.get(name.parse::<usize>().ok()?)?.get(key)?.clone();
                    places = places.map(|place| element(place?.as_array()?, key, &which));
                    way.push(Stop::Element(key.to_owned(), which));
                }
                _ => return None,
            }
        }
        Some(way)
    }

    /// Takes a value as named, as far as it is there at the end. Of an element that nobody asks for, what is new is known by that.
    fn name(&mut self, way: &[Stop], value: &Value) {
        let (mut after, mut desired) = (Some(self.after), Some(self.desired));
        for stop in way {
            match stop {
                Stop::Field(name) => {
                    after = after.and_then(|after| after.get(name));
                    desired = desired.and_then(|desired| desired.get(name));
                }
                Stop::Element(key, which) => {
                    after = after.and_then(Value::as_array).and_then(|list| element(list, key, which));
                    desired = desired.and_then(Value::as_array).and_then(|list| element(list, key, which));
                    if desired.is_none() {
                        return;
                    }
                }
            }
        }
        let Some(after) = after else { return };
        let mut named = kept(value, after, self.keys);
        for stop in way.iter().rev() {
            named = match stop {
                Stop::Field(name) => json!({ name: named }),
                Stop::Element(key, which) => {
                    if let Some(fields) = named.as_object_mut() {
                        fields.insert(key.clone(), which.clone());
                    }
                    json!([named])
                }
            };
        }
        overlay(&mut self.named, &named, self.keys);
    }
}

fn names(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// Sets a value at the end of a way, or takes out what is there.
fn mark(all: &mut Value, way: &[Stop], value: Option<Value>) {
    let Some((stop, rest)) = way.split_first() else { return };
    match stop {
        Stop::Field(name) => {
            let Some(fields) = all.as_object_mut() else { return };
            match (rest.is_empty(), value) {
                (true, Some(value)) => drop(fields.insert(name.clone(), value)),
                (true, None) => drop(fields.remove(name)),
                (false, None) => {
                    if let Some(below) = fields.get_mut(name) {
                        mark(below, rest, None);
                    }
                }
                (false, value) => {
                    let empty = || if matches!(rest[0], Stop::Field(_)) { json!({}) } else { json!([]) };
                    let below = fields.entry(name.clone()).or_insert_with(empty);
                    if below.is_null() {
                        return;
                    }
                    mark(below, rest, value);
                }
            }
        }
        Stop::Element(key, which) => {
            let Some(list) = all.as_array_mut() else { return };
            let at = list.iter().position(|element| element.get(key) == Some(which));
            match (rest.is_empty(), value, at) {
                (true, _, Some(at)) => drop(list.remove(at)),
                (true, _, None) => {}
                (false, None, Some(at)) => mark(&mut list[at], rest, None),
                (false, None, None) => {}
                (false, value, at) => {
                    let at = at.unwrap_or_else(|| {
                        list.push(json!({ key: which }));
                        list.len() - 1
                    });
                    mark(&mut list[at], rest, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(patch: Value, before: &Value, desired: &Value) -> Steps {
        let (mut after, patch) = (before.clone(), patch.as_array().cloned().unwrap_or_default());
        for step in &patch {
            let operation: PatchOperation = serde_json::from_value(step.clone()).expect("a step");
            json_patch::patch_unsafe(&mut after, &[operation]).expect("it can be made");
        }
        read(&patch, before, &after, desired, Keys::default())
    }

    fn step(op: &str, path: &str, value: Value) -> Value {
        json!({"op": op, "path": path, "value": value})
    }

    fn from(op: &str, from: &str, path: &str) -> Value {
        json!({"op": op, "from": from, "path": path})
    }

    fn web() -> Value {
        let containers = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y", "tty": true}]);
        json!({"spec": {"replicas": 3, "containers": containers, "args": ["x"], "limits": {"cpu": 1}}})
    }

    #[test]
    fn what_is_named_is_found_again_by_its_name_however_its_place_changes() {
        let desired = json!({"spec": {"replicas": 2, "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "old"}]}});
        let image = step("replace", "/spec/containers/1/image", json!("y"));
        let named = |patch: Value| of(patch, &web(), &desired).named;
        let b = |fields: Value| Some(json!({"spec": {"containers": [fields]}}));
        assert_eq!(named(json!([image])), b(json!({"name": "b", "image": "y"})));
        // After it was named, and before.
        let first = json!({"op": "remove", "path": "/spec/containers/0"});
        assert_eq!(named(json!([image, first])), b(json!({"name": "b", "image": "y"})));
        let moved = step("replace", "/spec/containers/0/image", json!("y"));
        assert_eq!(named(json!([first, moved])), b(json!({"name": "b", "image": "y"})));
        let new = step("add", "/spec/containers/0", json!({"name": "new", "image": "z"}));
        let pushed = step("replace", "/spec/containers/2/image", json!("y"));
        assert_eq!(named(json!([new, pushed])), b(json!({"name": "b", "image": "y"})));
        // What is new is known by that, and so is what is told apart by its place alone.
        assert_eq!(named(json!([step("add", "/spec/containers/-", json!({"name": "c"}))])), None);
        assert_eq!(named(json!([step("replace", "/spec/args/0", json!("x"))])), None);
        assert_eq!(named(json!([step("test", "/spec/replicas", json!(3))])), None);
        assert_eq!(named(json!([step("add", "/spec/replicas", json!(3))])), Some(json!({"spec": {"replicas": 3}})));
        let copied = from("copy", "/spec/replicas", "/spec/limits/cpu");
        assert_eq!(named(json!([copied])), Some(json!({"spec": {"limits": {"cpu": 3}}})));
    }

    #[test]
    fn what_is_removed_is_null_unless_it_comes_again() {
        let removed = |patch: Value| of(patch, &web(), &web()).removed;
        let remove = |path: &str| json!({"op": "remove", "path": path});
        assert_eq!(removed(json!([remove("/spec/replicas")])), Some(json!({"spec": {"replicas": null}})));
        let tty = Some(json!({"spec": {"containers": [{"name": "b", "tty": null}]}}));
        assert_eq!(removed(json!([remove("/spec/containers/1/tty")])), tty);
        assert_eq!(removed(json!([remove("/spec/containers/0"), remove("/spec/containers/0/tty")])), tty);
        assert_eq!(removed(json!([remove("/spec/containers/0"), remove("/spec/args/0")])), None);
        for again in [
            step("add", "/spec/replicas", json!(3)),
            from("copy", "/spec/limits/cpu", "/spec/replicas"),
            step("replace", "/spec", json!({"replicas": 1})),
        ] {
            assert_eq!(
                removed(json!([remove("/spec/replicas"), again])).filter(|all| *all != json!({"spec": {}})),
                None
            );
        }
        let moved = json!([remove("/spec/replicas"), from("move", "/spec/limits", "/spec/replicas")]);
        assert_eq!(removed(moved), Some(json!({"spec": {"limits": null}})));
        // Nothing is below what is gone.
        let whole = removed(json!([remove("/spec/limits/cpu"), remove("/spec/limits")]));
        assert_eq!(whole, Some(json!({"spec": {"limits": null}})));
    }

    #[test]
    fn a_patch_of_another_object_and_one_that_is_too_long_say_nothing() {
        let patch = [json!({"op": "test", "path": "/spec/replicas", "value": 4}), step("add", "/spec/x", json!(1))];
        assert_eq!(read(&patch, &web(), &web(), &web(), Keys::default()), Steps::default());
        let list: Vec<_> = (0..MAX_ELEMENTS).map(|name| json!({"name": name, "x": 1})).collect();
        let object = json!({"list": list});
        let patch = [step("replace", "/list/1/x", json!(1))];
        assert_eq!(read(&patch, &object, &object, &object, Keys::default()), Steps::default());
    }
}
