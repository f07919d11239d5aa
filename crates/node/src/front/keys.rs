//! By which field the elements of a list are told apart.

use std::collections::BTreeSet;

use serde_json::Value;

/// The fields that are tried, in this order, after those that a policy names.
const LIST_KEYS: [&str; 9] =
    ["name", "containerPort", "port", "mountPath", "devicePath", "key", "topologyKey", "ip", "type"];

/// What a policy says of lists.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keys<'a>(pub(super) &'a [String]);

fn tells_apart(list: &[Value], key: &str) -> bool {
    let scalar = |value: &&Value| value.is_string() || value.is_number() || value.is_boolean();
    let mut seen = BTreeSet::new();
    list.iter().all(|element| element.get(key).filter(scalar).is_some_and(|value| seen.insert(value.to_string())))
}

impl<'a> Keys<'a> {
    /// The field that tells the elements of each of these lists apart: all have it, and no two in one list have the same.
    /// None if all are empty.
    pub(super) fn of(&self, lists: &[&[Value]]) -> Option<&'a str> {
        if lists.iter().all(|list| list.is_empty()) {
            return None;
        }
        let mut candidates = self.0.iter().map(String::as_str).chain(LIST_KEYS);
        candidates.find(|key| lists.iter().all(|list| tells_apart(list, key)))
    }
}

/// The element that has this value in this field.
pub(super) fn element<'a>(list: &'a [Value], key: &str, value: &Value) -> Option<&'a Value> {
    list.iter().find(|element| element.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_must_tell_the_elements_of_all_lists_apart() {
        let list = |value: Value| value.as_array().cloned().unwrap_or_default();
        let ports = list(json!([{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]));
        let bare = list(json!([{"port": 1}]));
        let twice = list(json!([{"port": 1}, {"port": 1}]));
        assert_eq!(Keys::default().of(&[&ports]), Some("name"));
        assert_eq!(Keys::default().of(&[&ports, &bare]), Some("port"));
        assert_eq!(Keys::default().of(&[&ports, &twice]), None);
        assert_eq!(Keys::default().of(&[&ports, &[]]), Some("name"));
        assert_eq!(Keys::default().of(&[&[], &[]]), None);
        assert_eq!(Keys(&["port".to_owned()]).of(&[&ports]), Some("port"));
        assert_eq!(Keys::default().of(&[&list(json!([1, 2]))]), None);
    }
}
