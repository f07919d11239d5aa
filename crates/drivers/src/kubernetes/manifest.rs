//! Manifests: the objects that a desired state asks for, in the order in which they are made.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::options::{Options, Secrets};
use crate::DriverError;

/// The most objects of one replicant.
pub(super) const MAX_OBJECTS: usize = 1_000;
/// Fields of `metadata` that only an API server sets, or that mean something in one cluster only.
const SERVERS_OWN: [&str; 9] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
];
/// What labels and annotations of Khufu begin with.
pub(super) const OURS: &str = "khufu.dev/";

/// One object, by kind and name: what a replica is known by at its site. The version is left out, since the same object is
/// served in several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) group: String,
    pub(super) kind: String,
    /// Empty where the kind has none.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    /// Whether its values are nobody else's business.
    pub(super) fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('/');
        let (Some(kind), Some(first), second, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(());
        };
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        let (namespace, name) = second.map_or(("", first), |second| (first, second));
        if kind.is_empty() || name.is_empty() {
            return Err(());
        }
        let [group, kind, namespace, name] = [group, kind, namespace, name].map(str::to_owned);
        Ok(Self { group, kind, namespace, name })
    }
}

/// An object that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    /// As it is written, if it is.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// All of it, without what only a server sets.
    pub(super) value: Value,
}

impl Object {
    /// When it is made; see [`rank`].
    pub(super) fn rank(&self) -> u8 {
        rank(&self.group, &self.kind)
    }
}

/// When objects of a kind are made, since others of the same manifest may need them: the lowest first.
pub(super) fn rank(group: &str, kind: &str) -> u8 {
    match (group, kind) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
        ("scheduling.k8s.io", "PriorityClass") | ("storage.k8s.io", "StorageClass") => 2,
        ("", "ServiceAccount" | "ResourceQuota" | "LimitRange") => 3,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => 4,
        ("rbac.authorization.k8s.io", _) => 5,
        ("", "ConfigMap" | "Secret" | "PersistentVolume" | "PersistentVolumeClaim") => 6,
        ("", "Service") | ("policy" | "networking.k8s.io", _) => 7,
        // They call what is made before them.
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 10,
        ("" | "apps" | "batch" | "autoscaling", _) => 8,
        _ => 9,
    }
}

fn invalid(place: &str, reason: impl Into<String>) -> DriverError {
    DriverError::invalid(place, reason)
}

fn text<'a>(map: &'a Map<String, Value>, field: &str, place: &str) -> Result<&'a str, DriverError> {
    match map.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(invalid(&format!("{place}{field}"), "a text is wanted that is not empty")),
        None => Err(invalid(&format!("{place}{field}"), "is missing: a Kubernetes object names it")),
    }
}

/// A name as a part of a path in a request: nothing in it may lead elsewhere.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.is_ascii()
        && name != "."
        && name != ".."
        && !name.contains(['/', '%', '?', '#', ',', '\\'])
        && { !name.chars().any(|c| c.is_whitespace() || c.is_control()) }
}

/// Takes out what only an API server sets, and what says whose an object is: what `kubectl get` shows is often given back.
pub(super) fn clean(object: &mut Map<String, Value>) {
    object.remove("status");
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        for field in SERVERS_OWN {
            metadata.remove(field);
        }
        for field in ["labels", "annotations"] {
            if let Some(Value::Object(marks)) = metadata.get_mut(field) {
                marks.retain(|name, _| !name.starts_with(OURS));
            }
        }
    }
}

/// Ports of services are told apart by protocol as well, and servers before 1.21 do not put in the usual one.
fn name_protocols(service: &mut Map<String, Value>) {
    let ports = service.get_mut("spec").and_then(|spec| spec.get_mut("ports")?.as_array_mut());
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.entry("protocol").or_insert_with(|| "TCP".into());
    }
}

fn object(value: &Value, place: &str, options: &Options) -> Result<Object, DriverError> {
    let map = value.as_object().ok_or_else(|| invalid(place.trim_end_matches('.'), "a Kubernetes object is wanted"))?;
    let api_version = text(map, "apiVersion", place)?;
    let kind = text(map, "kind", place)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    for (field, text) in [("apiVersion", group), ("apiVersion", version), ("kind", kind)] {
        if !text.is_empty() && !is_plain(text) {
            return Err(invalid(&format!("{place}{field}"), format!("{text:?} is no such name")));
        }
    }
    let none = Map::new();
    let metadata = match map.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        None => &none,
        Some(_) => return Err(invalid(&format!("{place}metadata"), "an object is wanted")),
    };
    if metadata.get("name").is_none() && metadata.contains_key("generateName") {
        return Err(invalid(
            &format!("{place}metadata.generateName"),
            "each site would make up another name: give the object a name",
        ));
    }
    let place_of = |field: &str| format!("{place}metadata.{field}");
    let name = text(metadata, "name", &format!("{place}metadata."))?;
    if !is_plain(name) {
        return Err(invalid(&place_of("name"), format!("{name:?} is no name of an object")));
    }
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => None,
        Some(Value::String(namespace)) if is_plain(namespace) => {
            Some(namespace.clone()).filter(|text| !text.is_empty())
        }
        Some(other) => return Err(invalid(&place_of("namespace"), format!("{other} is no name of a namespace"))),
    };
    if kind == "Secret" && group.is_empty() && options.secrets == Secrets::Refuse {
        return Err(invalid(
            &format!("{place}kind"),
            format!(
                "the Secret {name} is not replicated: its value would be in the document at all sites and in their \
                 histories, where all who may read replicants see it. Make it at each site by itself, or allow it with \
                 the policy option \"secrets\": \"allow\""
            ),
        ));
    }
    let mut value = map.clone();
    clean(&mut value);
    if kind == "Service" && group.is_empty() {
        name_protocols(&mut value);
    }
    let [group, version, kind, name] = [group, version, kind, name].map(str::to_owned);
    Ok(Object { group, version, kind, namespace, name, value: Value::Object(value) })
}

/// The objects of a desired state, in the order in which they are made: one object; a `List`; or `objects`, a map or a
/// list of them.
///
/// # Errors
/// [`DriverError::Invalid`] names the first place that is not understood.
pub(super) fn objects(desired: &Value, options: &Options) -> Result<Vec<Object>, DriverError> {
    let whole = desired.as_object().ok_or_else(|| invalid("desired", "a Kubernetes manifest is an object"))?;
    let is_list = whole.get("kind").and_then(Value::as_str) == Some("List");
    let mut found = Vec::new();
    match (whole.get("objects").filter(|_| !whole.contains_key("kind")), whole.get("items").filter(|_| is_list)) {
        (Some(Value::Object(objects)), _) => {
            for (key, value) in objects {
                found.push(object(value, &format!("objects[{key:?}]."), options)?);
            }
        }
        (Some(Value::Array(list)), _) => {
            for (number, value) in list.iter().enumerate() {
                found.push(object(value, &format!("objects[{number}]."), options)?);
            }
        }
        (_, Some(Value::Array(list))) => {
            for (number, value) in list.iter().enumerate() {
                found.push(object(value, &format!("items[{number}]."), options)?);
            }
        }
        (Some(_), _) | (_, Some(_)) => return Err(invalid("desired", "its objects are neither a map nor a list")),
        (None, None) => found.push(object(desired, "", options)?),
    }
    if found.len() > MAX_OBJECTS {
        let reason = format!("{} objects: a replicant has at most {MAX_OBJECTS}, make several", found.len());
        return Err(invalid("desired", reason));
    }
    let mut seen = BTreeSet::new();
    for object in &found {
        let namespace = object.namespace.as_deref().unwrap_or_else(|| options.namespace());
        if !seen.insert((&object.group, &object.kind, namespace, &object.name)) {
            let reason = format!("{} {namespace}/{} is there twice", object.kind, object.name);
            return Err(invalid("desired", reason));
        }
    }
    found.sort_by(|a, b| (a.rank(), &a.kind, &a.namespace, &a.name).cmp(&(b.rank(), &b.kind, &b.namespace, &b.name)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(desired: Value) -> Result<Vec<Object>, DriverError> {
        objects(&desired, &Options::default())
    }

    fn map(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
    }

    #[test]
    fn one_object_a_list_and_a_map_are_manifests() {
        let one = read(map("ConfigMap", "a")).unwrap();
        for desired in [
            json!({"apiVersion": "v1", "kind": "List", "items": [map("ConfigMap", "a")]}),
            json!({"objects": [map("ConfigMap", "a")]}),
            json!({"objects": {"any": map("ConfigMap", "a")}}),
        ] {
            assert_eq!(read(desired).unwrap(), one);
        }
    }

    #[test]
    fn what_others_need_comes_first() {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "wells.example.org"}});
        let well = json!({"apiVersion": "example.org/v1", "kind": "Well", "metadata": {"name": "w"}});
        let list = [well, deployment, map("Service", "web"), map("ConfigMap", "c"), crd, map("Namespace", "n")];
        let kinds: Vec<_> = read(json!({"objects": list})).unwrap().into_iter().map(|object| object.kind).collect();
        let expected = ["Namespace", "CustomResourceDefinition", "ConfigMap", "Service", "Deployment", "Well"];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_only_a_server_sets_is_left_out() {
        let mut given = map("ConfigMap", "a");
        given["status"] = json!({"phase": "x"});
        given["metadata"]["uid"] = json!("1");
        given["metadata"]["managedFields"] = json!([]);
        assert_eq!(read(given).unwrap()[0].value, map("ConfigMap", "a"));
    }

    #[test]
    fn ports_of_services_have_a_protocol() {
        let mut service = map("Service", "s");
        service["spec"] = json!({"ports": [{"port": 1}, {"port": 1, "protocol": "UDP"}]});
        let read = read(service).unwrap();
        assert_eq!(
            read[0].value["spec"]["ports"],
            json!([{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}])
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        let twice = json!({"objects": [map("ConfigMap", "a"), map("ConfigMap", "a")]});
        let mut elsewhere = map("ConfigMap", "a");
        elsewhere["metadata"]["namespace"] = json!("../kube-system");
        for (desired, place) in [
            (json!([]), "desired"),
            (json!({"objects": 3}), "desired"),
            (json!({"objects": [3]}), "objects[0]"),
            (json!({"kind": "ConfigMap"}), "apiVersion"),
            (json!({"apiVersion": "v1", "kind": "ConfigMap"}), "metadata.name"),
            (json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-"}}), "metadata.generateName"),
            (map("ConfigMap", "a/b"), "metadata.name"),
            (map("ConfigMap", ".."), "metadata.name"),
            (json!({"objects": {"x": map("Secret", "s")}}), "objects[\"x\"].kind"),
            (elsewhere, "metadata.namespace"),
            (twice, "desired"),
        ] {
            match read(desired.clone()) {
                Err(DriverError::Invalid { field, .. }) => assert_eq!(field, place, "{desired}"),
                other => panic!("{desired}: {other:?}"),
            }
        }
    }

    #[test]
    fn secrets_are_allowed_by_policy() {
        let options = Options { secrets: Secrets::Allow, ..Options::default() };
        assert_eq!(objects(&map("Secret", "s"), &options).unwrap().len(), 1);
    }

    #[test]
    fn keys_are_written_and_read() {
        for text in ["ConfigMap/default/a", "Deployment.apps/shop/web", "ClusterRole.rbac.authorization.k8s.io/reader"]
        {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for text in ["", "a", "/", "a/", "/b", "a/b/c/d"] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
