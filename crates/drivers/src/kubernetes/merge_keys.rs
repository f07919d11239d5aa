//! By which fields lists of objects merge: asked of the API server's own schema, and remembered for each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::manifest::{self, Object};
use super::options::Options;
use super::rbac::is_built_in;
use super::replicas::Replicas;
use super::server::Server;

/// The longest that somebody waits for what the server says; what comes later is there the next time.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// For so long the server is believed, and so long it is not asked again for what it did not say.
const BELIEVED: Duration = Duration::from_secs(600);
const MISSED: Duration = Duration::from_secs(10);
/// The most bytes of a schema that are read, and the most versions of groups of which it is remembered.
const MAX_BYTES: usize = 64 << 20;
const MAX_VERSIONS: usize = 1_000;
/// The most parts of a schema that are walked through for one kind.
const MAX_PARTS: usize = 200_000;
/// What is so for kinds that are built in, where nobody can be asked. `name` is tried last: what has it and another of these is
/// told apart by the other (the mounts of a volume, the ports of a container).
const BUILT_IN: [&str; 5] = ["containerPort", "devicePath", "ip", "mountPath", "port"];
/// What anything is told apart by unless there is better.
const NAME: &str = "name";

/// The keys of each kind of one version of a group.
type Kinds = BTreeMap<String, BTreeSet<String>>;

/// A group and a version of it.
type Version = (String, String);
/// What the server said of a version, and when; nothing if it did not.
type Said = (Instant, Option<Arc<Kinds>>);

/// What the server said of each version of a group.
#[derive(Default)]
pub(super) struct Schemas(Mutex<BTreeMap<Version, Said>>);

impl Schemas {
    /// What is known; none if it is to be asked.
    fn known(&self, group: &str, version: &str) -> Option<Option<Arc<Kinds>>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, kinds) = all.get(&(group.to_owned(), version.to_owned()))?;
        let good = if kinds.is_some() { BELIEVED } else { MISSED };
        (at.elapsed() < good).then(|| kinds.clone())
    }

    fn remember(&self, found: BTreeMap<Version, Option<Kinds>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() + found.len() > MAX_VERSIONS {
            all.clear();
        }
        all.extend(found.into_iter().map(|(name, kinds)| (name, (Instant::now(), kinds.map(Arc::new)))));
    }

    /// Asks the server about a version of a group. A server before 1.27 tells of all at once.
    async fn ask(&self, server: &Server, group: &str, version: &str) {
        let name = (group.to_owned(), version.to_owned());
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let mut found = match server.text(&format!("/openapi/v3/{path}"), MAX_BYTES).await {
            Some(text) => of_schema(&text, "/components/schemas"),
            None => match server.text("/openapi/v2", MAX_BYTES).await {
                Some(text) => of_schema(&text, "/definitions"),
                None => BTreeMap::new(),
            },
        };
        found.entry(name).or_default();
        self.remember(found);
    }
}

/// The keys of all kinds that a schema tells of, by the version of their group.
fn of_schema(text: &str, at: &str) -> BTreeMap<Version, Option<Kinds>> {
    let Ok(schema) = serde_json::from_str::<Value>(text) else { return BTreeMap::new() };
    let Some(all) = schema.pointer(at).and_then(Value::as_object) else { return BTreeMap::new() };
    let mut found: BTreeMap<Version, Option<Kinds>> = BTreeMap::new();
    for of_kind in all.values() {
        let names = of_kind.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        for name in names.into_iter().flatten() {
            let text = |field: &str| name.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let kinds = found.entry((text("group"), text("version"))).or_default();
            kinds.get_or_insert_default().entry(text("kind")).or_insert_with(|| keys_of(of_kind, all));
        }
    }
    found
}

/// The fields by which the lists of a kind merge, without `name`, and without those by which also lists would be told apart
/// that are one value to the server.
fn keys_of(kind: &Value, all: &Map<String, Value>) -> BTreeSet<String> {
    // By the key, what elements it tells apart are called in the schema.
    let mut keyed: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    let mut others: BTreeSet<(&str, Option<&str>)> = BTreeSet::new();
    let mut seen = BTreeSet::new();
    // What a status says is nobody's to ask for, and metadata has no lists that people edit.
    let outer = properties(kind).filter(|(field, _)| !["status", "metadata"].contains(field));
    let mut left: Vec<&Value> = outer.map(|(_, value)| value).collect();
    let mut parts = 0;
    while let Some(part) = left.pop() {
        parts += 1;
        if parts > MAX_PARTS {
            break;
        }
        if let Some(name) = part.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
            if seen.insert(name) {
                left.extend(all.get(name));
            }
            continue;
        }
        left.extend(properties(part).filter(|(field, _)| *field != "metadata").map(|(_, value)| value));
        left.extend(part.get("additionalProperties").filter(|value| value.is_object()));
        left.extend(part.get("allOf").and_then(Value::as_array).into_iter().flatten());
        let Some(items) = part.get("items") else { continue };
        left.push(items);
        let mapped = part.get("x-kubernetes-list-map-keys").and_then(|keys| keys.get(0)).and_then(Value::as_str);
        let merged = || part.get("x-kubernetes-patch-merge-key").and_then(Value::as_str);
        match mapped.or_else(merged) {
            Some(key) => _ = keyed.entry(key).or_default().insert(called(items)),
            None => others.extend(fields_of(items, all).into_iter().map(|field| (field, called(items)))),
        }
    }
    // Of some elements it is not said everywhere by what they are told apart.
    keyed.retain(|key, elements| {
        *key != NAME && !others.iter().any(|(field, of)| field == key && (of.is_none() || !elements.contains(of)))
    });
    keyed.into_keys().map(str::to_owned).collect()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(field, value)| (field.as_str(), value))
}

/// What the elements of a list are called in the schema, if they are.
fn called(items: &Value) -> Option<&str> {
    let inner = items.get("allOf").and_then(|all| all.get(0)).unwrap_or(items);
    inner.get("$ref").and_then(Value::as_str)?.rsplit('/').next()
}

/// The fields of the elements of a list.
fn fields_of<'s>(items: &'s Value, all: &'s Map<String, Value>) -> Vec<&'s str> {
    let schema = called(items).and_then(|name| all.get(name)).unwrap_or(items);
    properties(schema).map(|(field, _)| field).collect()
}

/// Whether there are lists of objects anywhere in what is asked for.
fn has_lists(value: &Value) -> bool {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => return true,
            Value::Object(fields) => left.extend(fields.values()),
            _ => {}
        }
    }
    false
}

/// The keys that the definition of a custom resource among the objects gives the kind of another.
fn defined(object: &Object, objects: &[Object]) -> Option<BTreeSet<String>> {
    let text = |of: &Object, pointer: &str| of.value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let definition = objects.iter().find(|of| {
        of.kind == "CustomResourceDefinition"
            && text(of, "/spec/group").as_ref() == Some(&object.group)
            && text(of, "/spec/names/kind").as_ref() == Some(&object.kind)
    })?;
    let versions = definition.value.pointer("/spec/versions")?.as_array()?;
    let version =
        versions.iter().find(|version| version.get("name").and_then(Value::as_str) == Some(&object.version))?;
    Some(keys_of(version.pointer("/schema/openAPIV3Schema")?, &Map::new()))
}

impl Replicas {
    /// The fields by which the elements of lists in a desired state are told apart, in the order in which they are to be
    /// tried; nothing if there are no lists of objects in it, or it is no manifest.
    pub(super) async fn list_keys(&self, desired: &Value, options: &Map<String, Value>) -> Vec<String> {
        let Ok(options) = Options::read(options) else { return Vec::new() };
        let Ok(objects) = manifest::objects(desired, &options) else { return Vec::new() };
        let with_lists: Vec<_> = objects.iter().filter(|object| has_lists(&object.value)).collect();
        if with_lists.is_empty() {
            return Vec::new();
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut keys = BTreeSet::new();
        for object in with_lists {
            let said = match defined(object, &objects) {
                Some(keys) => Some(keys),
                None => self.schema(object, until).await,
            };
            match said {
                Some(said) => keys.extend(said),
                None if is_built_in(&object.group) => keys.extend(BUILT_IN.map(str::to_owned)),
                None => {}
            }
        }
        keys.into_iter().chain([NAME.to_owned()]).collect()
    }

    /// The keys of the kind of an object; none if the server does not say in time.
    async fn schema(&self, object: &Object, until: tokio::time::Instant) -> Option<BTreeSet<String>> {
        let (group, version) = (object.group.clone(), object.version.clone());
        let kinds = match self.schemas.known(&group, &version) {
            Some(kinds) => kinds,
            None => {
                let (schemas, server) = (self.schemas.clone(), self.server.clone());
                let asked = tokio::spawn(async move {
                    schemas.ask(&server, &group, &version).await;
                    schemas.known(&group, &version).flatten()
                });
                tokio::time::timeout_at(until, asked).await.ok()?.ok()?
            }
        };
        kinds?.get(&object.kind).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(reference: &str) -> Value {
        let list = |of: &str, more: Value| {
            let mut list = json!({"type": "array", "items": {"$ref": format!("{reference}{of}")}});
            list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            list
        };
        let scalars = |fields: &[&str]| {
            let fields: Map<_, _> = fields.iter().map(|&field| (field.to_owned(), json!({"type": "string"}))).collect();
            json!({"type": "object", "properties": fields})
        };
        json!({
            "Well": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "w", "version": "v1", "kind": "Well"}],
                "properties": {
                    "metadata": {"properties": {"owners": list("Port", json!({"x-kubernetes-patch-merge-key": "uid"}))}},
                    "status": {"properties": {"conditions": list("Port", json!({"x-kubernetes-list-map-keys": ["type"]}))}},
                    "spec": {"allOf": [{"$ref": format!("{reference}Spec")}]}}},
            "Spec": {"properties": {
                "ports": list("Port", json!({"x-kubernetes-list-map-keys": ["port", "protocol"]})),
                "deep": {"type": "object", "additionalProperties": {"properties": {
                    "mounts": list("Mount", json!({"x-kubernetes-patch-merge-key": "path"}))}}},
                "unsaid": list("Port", json!({})),
                "zones": list("Zone", json!({"x-kubernetes-patch-merge-key": "zone"})),
                "atomic": list("Other", json!({"x-kubernetes-list-type": "atomic"})),
                "again": {"$ref": format!("{reference}Spec")},
                "named": list("Mount", json!({"x-kubernetes-patch-merge-key": "name"}))}},
            "Port": scalars(&["port", "protocol"]), "Mount": scalars(&["path", "name"]), "Zone": scalars(&["zone"]),
            "Other": scalars(&["zone", "x"]),
        })
    }

    #[test]
    fn a_schema_says_by_what_lists_merge() {
        let two = json!({"definitions": schema("#/definitions/")}).to_string();
        let three = json!({"components": {"schemas": schema("#/components/schemas/")}}).to_string();
        for (text, at) in [(two, "/definitions"), (three, "/components/schemas")] {
            let found = of_schema(&text, at);
            let kinds = found[&("w".to_owned(), "v1".to_owned())].as_ref().unwrap();
            // Not by what tells also a list apart that is one value to the server.
            assert_eq!(kinds["Well"], BTreeSet::from(["path".to_owned(), "port".to_owned()]), "{at}");
        }
        assert!(of_schema("nonsense", "/definitions").is_empty());
    }

    #[test]
    fn a_definition_among_the_objects_says_it_as_well() {
        let list = json!({"type": "array", "x-kubernetes-list-map-keys": ["depth"], "items": {"type": "object"}});
        let schema = json!({"openAPIV3Schema": {"properties": {"spec": {"properties": {"pipes": list}}}}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "wells.w"}, "spec": {"group": "w", "names": {"kind": "Well"},
                "versions": [{"name": "v1", "schema": schema}]}});
        let well = json!({"apiVersion": "w/v1", "kind": "Well", "metadata": {"name": "a"}});
        let objects = manifest::objects(&json!({"objects": [definition, well]}), &Options::default()).unwrap();
        assert_eq!(defined(&objects[1], &objects), Some(BTreeSet::from(["depth".to_owned()])));
        assert_eq!(defined(&objects[0], &objects), None);
    }
}
