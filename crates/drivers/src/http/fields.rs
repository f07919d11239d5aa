//! Fields of JSON: found and set by pointers (RFC 6901), compared, and brought to a merge patch (RFC 7386).

use serde_json::{Map, Value};

/// Whether a text is a JSON pointer.
pub(super) fn is_pointer(text: &str) -> bool {
    text.is_empty() || text.starts_with('/')
}

/// The text of a field that is text or a number.
pub(super) fn text_at(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn names(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"))
}

/// The pointer to a field of what another one leads to.
fn below(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Sets a field; objects on the way to it are made. Whether that was possible.
pub(super) fn set(value: &mut Value, pointer: &str, to: Value) -> bool {
    let mut place = value;
    for name in names(pointer) {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(map) = place else { return false };
        place = map.entry(name).or_insert(Value::Null);
    }
    *place = to;
    true
}

/// Removes a field of objects, if it is there.
pub(super) fn remove(value: &mut Value, pointer: &str) {
    let mut names: Vec<String> = names(pointer).collect();
    let Some(last) = names.pop() else { return };
    let mut place = value;
    for name in names {
        let Some(next) = place.get_mut(&name) else { return };
        place = next;
    }
    if let Value::Object(map) = place {
        map.remove(&last);
    }
}

/// What of a value a wanted one speaks of: the fields that it has, and lists as a whole.
pub(super) fn project(value: &Value, wanted: &Value) -> Value {
    let (Value::Object(value), Value::Object(wanted)) = (value, wanted) else { return value.clone() };
    let fields = wanted.iter().filter_map(|(name, wanted)| Some((name.clone(), project(value.get(name)?, wanted))));
    Value::Object(fields.collect())
}

/// The fields in which a value is not as wanted, with what it has; what it has beyond that does not matter, and a field that
/// is null is as good as none.
pub(super) fn differing<'a>(
    value: Option<&'a Value>,
    wanted: &'a Value,
    path: &str,
    found: &mut Vec<(String, Option<&'a Value>, &'a Value)>,
) {
    match (value, wanted) {
        (Some(Value::Object(value)), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                differing(value.get(name), wanted, &below(path, name), found);
            }
        }
        (None, Value::Null) => {}
        (value, wanted) if value.is_some_and(|value| is_same(value, wanted)) => {}
        (value, wanted) => found.push((path.to_owned(), value, wanted)),
    }
}

/// Whether two values are the same, also where one writes a number as 1 and the other as 1.0.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.as_f64().is_some() && x.as_f64() == y.as_f64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| is_same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| is_same(x, y)))
        }
        _ => a == b,
    }
}

/// The merge patch that brings a value to what is wanted, and takes away what was wanted before and is no more. Null if there
/// is nothing to change. Without a value, it has all that is wanted.
pub(super) fn patch(value: Option<&Value>, before: Option<&Value>, wanted: &Value) -> Value {
    let mut found = Vec::new();
    differing(value, wanted, "", &mut found);
    let mut changes: Vec<(String, Value)> = found.into_iter().map(|(path, _, wanted)| (path, wanted.clone())).collect();
    if let Some(before) = before {
        let mut changed = Vec::new();
        // A service may not show all that it was given, such as a password.
        differing(Some(before), wanted, "", &mut changed);
        changes.extend(changed.into_iter().map(|(path, _, wanted)| (path, wanted.clone())));
        removed(before, wanted, "", &mut changes);
    }
    let mut patch = Value::Null;
    for (path, wanted) in changes {
        set(&mut patch, &path, wanted);
    }
    patch
}

/// All that one of two values has; where both have a field, that of the second.
pub(super) fn merged(a: &Value, b: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return b.clone() };
    let mut merged_fields = a.clone();
    for (name, b) in b {
        let field = a.get(name).map_or_else(|| b.clone(), |a| merged(a, b));
        merged_fields.insert(name.clone(), field);
    }
    Value::Object(merged_fields)
}

/// The fields that a value has and another does not.
fn removed(before: &Value, wanted: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let (Value::Object(before), Value::Object(wanted)) = (before, wanted) else { return };
    for (name, before) in before {
        let path = below(path, name);
        match wanted.get(name) {
            Some(wanted) => removed(before, wanted, &path, found),
            None if before.is_null() => {}
            None => found.push((path, Value::Null)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_set_and_removed_by_pointer() {
        let mut value = json!({"a": {"b": 1}});
        assert!(set(&mut value, "/a/c~1d", json!(2)) && set(&mut value, "/x/y", json!(3)));
        assert!(!set(&mut value, "/a/b/c", json!(4)));
        remove(&mut value, "/a/b");
        remove(&mut value, "/none/at/all");
        assert_eq!(value, json!({"a": {"c/d": 2}, "x": {"y": 3}}));
        assert_eq!(text_at(&value, "/x/y").as_deref(), Some("3"));
    }

    #[test]
    fn what_a_service_adds_does_not_count() {
        let live = json!({"id": 7, "title": "x", "n": 1.0, "labels": {"a": "b", "other": 1}, "list": [1]});
        let wanted = json!({"title": "x", "n": 1, "labels": {"a": "b"}, "none": null, "list": [1]});
        assert_eq!(patch(Some(&live), None, &wanted), Value::Null);
        assert_eq!(project(&live, &wanted), json!({"title": "x", "n": 1.0, "labels": {"a": "b"}, "list": [1]}));
    }

    #[test]
    fn a_patch_has_what_differs_what_is_not_shown_and_what_is_wanted_no_more() {
        let live = json!({"title": "hand", "labels": {"a": "b", "c": "d"}, "own": 1});
        let before = json!({"title": "x", "labels": {"a": "b", "c": "d"}, "password": "old", "gone/": 1, "kept": null});
        let wanted = json!({"title": "x", "labels": {"a": "e"}, "password": "new"});
        let expected = json!({"title": "x", "labels": {"a": "e", "c": null}, "password": "new", "gone/": null});
        assert_eq!(patch(Some(&live), Some(&before), &wanted), expected);
        let hidden = json!({"title": "x", "labels": {"a": "e"}});
        assert_eq!(patch(Some(&hidden), Some(&wanted), &wanted), json!({"password": "new"}));
        let whole = json!({"title": "x", "labels": {"a": "e", "c": null}, "password": "new", "gone/": null});
        assert_eq!(patch(None, Some(&before), &wanted), whole);
        assert_eq!(merged(&before, &wanted)["labels"], json!({"a": "e", "c": "d"}));
    }
}
