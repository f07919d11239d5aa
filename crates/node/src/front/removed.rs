//! What a JSON patch takes out of an object.

use serde_json::{Map, Value};

/// What a JSON patch (RFC 6902) takes out, as null in an object of that shape; none if that is nothing. What is in lists is
/// left alone: its place is another after each step of the patch.
pub(super) fn read(patch: &[Value], object: &Value) -> Option<Value> {
    let text = |step: &'_ Value, field: &str| step.get(field).and_then(Value::as_str).map(str::to_owned);
    let removes = patch.iter().filter(|step| text(step, "op").as_deref() == Some("remove"));
    let mut all = Map::new();
    for pointer in removes.filter_map(|step| text(step, "path")) {
        let names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        let names: Vec<String> = names.collect();
        if let Some((last, way)) = names.split_last()
            && !passes_a_list(object, way)
        {
            take_out(&mut all, way, last);
        }
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

fn passes_a_list(object: &Value, way: &[String]) -> bool {
    let mut place = Some(object);
    for name in way {
        if place.is_some_and(Value::is_array) {
            return true;
        }
        place = place.and_then(|place| place.get(name));
    }
    place.is_some_and(Value::is_array)
}

fn take_out(fields: &mut Map<String, Value>, way: &[String], last: &str) {
    match way.split_first() {
        None => drop(fields.insert(last.to_owned(), Value::Null)),
        Some((name, rest)) => {
            let below = fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Some(below) = below.as_object_mut() {
                take_out(below, rest, last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_patch_removes_is_null_but_for_what_is_in_lists() {
        let object = json!({"spec": {"replicas": 3, "list": [{"a": 1}]}, "metadata": {"annotations": {"a/b": "c"}}});
        let remove = |path: &str| json!({"op": "remove", "path": path});
        let patch = [
            remove("/spec/replicas"),
            remove("/metadata/annotations/a~1b"),
            remove("/spec/list/0/a"),
            remove("/spec/list/0"),
            json!({"op": "add", "path": "/spec/x", "value": 1}),
        ];
        let read = read(&patch, &object).unwrap();
        assert_eq!(read, json!({"spec": {"replicas": null}, "metadata": {"annotations": {"a/b": null}}}));
        assert_eq!(super::read(&patch[4..], &object), None);
        // Nothing is below what is gone.
        assert!(super::read(&[remove("/spec"), remove("/spec/replicas")], &object).unwrap()["spec"].is_null());
    }
}
