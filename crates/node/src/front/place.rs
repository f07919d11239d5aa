//! Where in a desired state an object is asked for.

use serde_json::{Map, Value};

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It is all of the desired state.
    All,
    /// Under this name.
    Named(String),
    /// In the list of this name, at this place.
    Listed(&'static str, usize),
}

/// Which object is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    /// Empty where the kind has none.
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Named<'a> {
    /// The name of an object as an API server gives it.
    pub(super) fn of(object: &'a Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        Some(Self {
            group: group(object),
            kind: text("/kind")?,
            namespace: text("/metadata/namespace").unwrap_or_default(),
            name: text("/metadata/name")?,
        })
    }

    fn is(&self, object: &Value, options: &Map<String, Value>) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let default = || options.get("namespace").and_then(Value::as_str).unwrap_or("default");
        let namespace = || text("/metadata/namespace").filter(|name| !name.is_empty()).unwrap_or_else(default);
        group(object) == self.group
            && text("/kind") == Some(self.kind)
            && text("/metadata/name") == Some(self.name)
            && (self.namespace.is_empty() || namespace() == self.namespace)
    }
}

/// The group of an object.
fn group(object: &Value) -> &str {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Finds an object.
pub(super) fn find(desired: &Value, options: &Map<String, Value>, named: Named<'_>) -> Option<Place> {
    let is_list = desired.get("kind").and_then(Value::as_str) == Some("List");
    let several = desired.get("objects").filter(|_| desired.get("kind").is_none());
    let items = desired.get("items").filter(|_| is_list);
    let at = |list: &Vec<Value>| list.iter().position(|object| named.is(object, options));
    match (several, items) {
        (Some(Value::Object(objects)), _) => {
            let found = objects.iter().find(|(_, object)| named.is(object, options));
            found.map(|(name, _)| Place::Named(name.clone()))
        }
        (Some(Value::Array(list)), _) => at(list).map(|at| Place::Listed("objects", at)),
        (_, Some(Value::Array(list))) => at(list).map(|at| Place::Listed("items", at)),
        _ => named.is(desired, options).then_some(Place::All),
    }
}

impl Place {
    /// What is asked for there.
    pub(super) fn get<'a>(&self, desired: &'a Value) -> Option<&'a Value> {
        match self {
            Self::All => Some(desired),
            Self::Named(name) => desired.get("objects")?.get(name),
            Self::Listed(list, at) => desired.get(*list)?.get(*at),
        }
    }

    /// Asks for something else there.
    pub(super) fn set(&self, desired: &mut Value, object: Value) {
        let slot = match self {
            Self::All => Some(desired),
            Self::Named(name) => desired.get_mut("objects").and_then(|objects| objects.get_mut(name)),
            Self::Listed(list, at) => desired.get_mut(*list).and_then(|list| list.get_mut(*at)),
        };
        if let Some(slot) = slot {
            *slot = object;
        }
    }

    /// Asks for it no more. False if nothing would be left.
    pub(super) fn take(&self, desired: &mut Value) -> bool {
        match self {
            Self::All => false,
            Self::Named(name) => {
                let objects = desired.get_mut("objects").and_then(Value::as_object_mut);
                objects.is_some_and(|objects| {
                    objects.remove(name);
                    !objects.is_empty()
                })
            }
            Self::Listed(list, at) => {
                let list = desired.get_mut(*list).and_then(Value::as_array_mut);
                list.is_some_and(|list| {
                    if *at < list.len() {
                        list.remove(*at);
                    }
                    !list.is_empty()
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn map(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    }

    #[test]
    fn an_object_is_found_in_every_form_of_a_desired_state() {
        let none = Map::new();
        let mut live = map("b");
        live["metadata"]["namespace"] = json!("default");
        let named = Named::of(&live).unwrap();
        let (both, only) = (json!({"x": map("a"), "y": map("b")}), json!({"x": map("a")}));
        for (desired, place, left) in [
            (map("b"), Place::All, None),
            (json!({"objects": both}), Place::Named("y".into()), Some(json!({"objects": only}))),
            (
                json!({"objects": [map("a"), map("b")]}),
                Place::Listed("objects", 1),
                Some(json!({"objects": [map("a")]})),
            ),
            (json!({"kind": "List", "items": [map("b")]}), Place::Listed("items", 0), None),
        ] {
            let found = find(&desired, &none, named).unwrap();
            assert_eq!(found, place);
            assert_eq!(found.get(&desired), Some(&map("b")));
            let mut without = desired.clone();
            assert_eq!(found.take(&mut without).then_some(without), left);
            let mut with = desired.clone();
            found.set(&mut with, json!(1));
            assert_eq!(found.get(&with), Some(&json!(1)));
        }
    }

    #[test]
    fn another_namespace_group_or_kind_is_another_object() {
        let mut live = map("b");
        live["metadata"]["namespace"] = json!("shop");
        let options = json!({"namespace": "shop"});
        assert_eq!(find(&map("b"), &Map::new(), Named::of(&live).unwrap()), None);
        assert_eq!(find(&map("b"), options.as_object().unwrap(), Named::of(&live).unwrap()), Some(Place::All));
        live["apiVersion"] = json!("example.org/v1");
        assert_eq!(find(&map("b"), options.as_object().unwrap(), Named::of(&live).unwrap()), None);
    }
}
