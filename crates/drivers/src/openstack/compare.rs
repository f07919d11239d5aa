//! How a resource differs from what is asked for.

use serde_json::{Map, Number, Value};

use super::kinds::Kind;
use super::options::Options;

/// A field that is not as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub(super) field: String,
    /// What is there; none if it is not shown.
    pub(super) is: Option<Value>,
    pub(super) wanted: Value,
    /// Whether it can be changed.
    pub(super) can_change: bool,
}

/// Whether a value is as it is to be: of maps, all that is asked for is there; of lists, each element has its own in the other,
/// in any order. Services write some numbers as text.
pub(super) fn is_as(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(field, wanted)| is_as(live.get(field).unwrap_or(&Value::Null), wanted))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            let mut rest: Vec<&Value> = live.iter().collect();
            live.len() == wanted.len()
                && wanted.iter().all(|wanted| {
                    let found = rest.iter().position(|live| is_as(live, wanted));
                    found.map(|found| rest.swap_remove(found)).is_some()
                })
        }
        (Value::String(text), Value::Number(number)) | (Value::Number(number), Value::String(text)) => {
            text.parse::<Number>().is_ok_and(|read| read == *number)
        }
        // What is not set is shown as nothing or as an empty text.
        (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) => text.is_empty(),
        (live, wanted) => live == wanted,
    }
}

/// Where a resource is not as it is to be, by its fields with local ids in the places of references.
pub(super) fn differences(
    kind: &Kind,
    live: &Value,
    wanted: &Map<String, Value>,
    options: &Options,
) -> Vec<Difference> {
    let compared = wanted.iter().filter(|(field, _)| kind.is_compared(field) && !options.ignores(field));
    let differ = compared.filter_map(|(field, wanted)| {
        let is = kind.seen(live, field);
        let nothing = Value::Null;
        if is_as(is.unwrap_or(&nothing), wanted) {
            return None;
        }
        let can_change = !kind.fixed.contains(&field.as_str());
        Some(Difference { field: field.clone(), is: is.cloned(), wanted: wanted.clone(), can_change })
    });
    differ.collect()
}

/// What is compared between sites: the fields that are asked for, as they were written where they are so, and else as they are.
pub(super) fn part(
    kind: &Kind,
    live: &Value,
    written: &Map<String, Value>,
    wanted: &Map<String, Value>,
    options: &Options,
) -> Value {
    let differ = differences(kind, live, wanted, options);
    let of = |field: &String, value: &Value| match differ.iter().find(|difference| difference.field == *field) {
        Some(difference) => difference.is.clone().unwrap_or_default(),
        None => value.clone(),
    };
    written
        .iter()
        .filter(|(field, _)| !options.ignores(field) && !kind.secret.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), of(field, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_asked_for_counts_in_whatever_way_services_write_it() {
        for (live, wanted, same) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": null}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!([{"x": 1, "y": 2}, {"x": 3}]), json!([{"x": 3}, {"x": 1}]), true),
            (json!([1, 2]), json!([1]), false),
            (json!([1, 1]), json!([1, 2]), false),
            (json!("64"), json!(64), true),
            (json!(64), json!("65"), false),
            (json!(null), json!(""), true),
            (json!(null), json!("x"), false),
            (json!(true), json!("true"), false),
        ] {
            assert_eq!(is_as(&live, &wanted), same, "{live} {wanted}");
        }
    }

    #[test]
    fn what_can_be_changed_is_told_from_what_cannot_and_the_digest_has_no_local_ids() {
        let kind = Kind::named("subnet").unwrap();
        let options = Options { ignore: vec!["enable_dhcp".to_owned()], ..Options::default() };
        let map = |value: Value| value.as_object().unwrap().clone();
        let live = json!({"id": "s", "name": "old", "cidr": "10.0.0.0/24", "network_id": "n-1", "enable_dhcp": false});
        let written =
            map(json!({"name": "new", "cidr": "10.1.0.0/24", "network_id": {"$ref": "net"}, "enable_dhcp": true,
            "subnetpool_id": "p"}));
        let mut wanted = written.clone();
        wanted.insert("network_id".into(), json!("n-1"));
        let found = differences(kind, &live, &wanted, &options);
        let said: Vec<_> = found.iter().map(|one| (one.field.as_str(), one.can_change)).collect();
        assert_eq!(said, [("cidr", false), ("name", true)]);
        let part = part(kind, &live, &written, &wanted, &options);
        let as_seen =
            json!({"name": "old", "cidr": "10.0.0.0/24", "network_id": {"$ref": "net"}, "subnetpool_id": "p"});
        assert_eq!(part, as_seen);
    }
}
