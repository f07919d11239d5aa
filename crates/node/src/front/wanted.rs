//! What is asked for of a new object.

use khufu_drivers::kubernetes::cleaned;
use serde_json::{Map, Value, json};

use super::difference::kept;
use super::keys::Keys;
use super::marks;
use super::place::Named;

/// What means something in one cluster only, by kind.
const OF_ONE_CLUSTER: &[(&str, &[&str])] = &[
    ("Service", &["/spec/clusterIP", "/spec/clusterIPs", "/spec/healthCheckNodePort"]),
    ("PersistentVolumeClaim", &["/spec/volumeName"]),
    ("PersistentVolume", &["/spec/claimRef"]),
    ("Pod", &["/spec/nodeName"]),
    ("ServiceAccount", &["/secrets"]),
    ("Namespace", &["/spec"]),
    ("Job", &["/spec/selector", "/spec/template/metadata/labels/controller-uid"]),
];
/// Annotations that controllers set.
const OF_CONTROLLERS: [&str; 3] = ["deployment.kubernetes.io/", "pv.kubernetes.io/", "volume.kubernetes.io/"];

/// What was sent of an object that the API server would make, `after`: without what it does not know, and by its name.
pub(super) fn as_sent(sent: &Value, after: &Value) -> Value {
    let mut sent = sent.clone();
    secret_text(&mut sent, after);
    let mut wanted = kept(&cleaned(&sent), &cleaned(after), Keys::default());
    name(&mut wanted, after);
    marks::annotate(&mut wanted, marks::said(after));
    marks::tidy(&mut wanted);
    wanted
}

/// All that was sent of an object that is there, by its name.
pub(super) fn whole(sent: &Value, after: &Value) -> Value {
    let mut sent = sent.clone();
    secret_text(&mut sent, after);
    let mut whole = cleaned(&sent);
    name(&mut whole, after);
    whole
}

/// An object without what means something in this cluster only, but for what one of these names: what is asked for of it, or
/// what was sent. When an API server tries a write, it makes up a port of the nodes, say, that no other has free.
pub(super) fn elsewhere(object: &Value, named: &[&Value]) -> Value {
    let mut object = object.clone();
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_named = |path: &str| {
        named.iter().any(|named| match named {
            Value::Array(patch) => mentions(patch, path.rsplit('/').next().unwrap_or_default()),
            named => named.pointer(path).is_some(),
        })
    };
    for path in OF_ONE_CLUSTER.iter().filter(|(of, _)| *of == kind).flat_map(|(_, paths)| *paths) {
        if let Some((parent, field)) = path.rsplit_once('/')
            // A Service without an address says so in the same place.
            && object.pointer(path).is_some_and(|value| *value != "None" && *value != json!(["None"]))
            && !is_named(path)
            && let Some(Value::Object(fields)) = object.pointer_mut(parent)
        {
            fields.remove(field);
        }
    }
    if kind == "Service"
        && let Some(Value::Array(ports)) = object.pointer_mut("/spec/ports")
    {
        for port in ports.iter_mut().filter(|port| !named.iter().any(|named| names_node_port(named, port))) {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    object
}

/// Whether a JSON patch speaks of a field, at whatever place.
fn mentions(patch: &[Value], field: &str) -> bool {
    fn has(value: &Value, field: &str) -> bool {
        match value {
            Value::Object(fields) => fields.iter().any(|(name, value)| name == field || has(value, field)),
            Value::Array(list) => list.iter().any(|value| has(value, field)),
            _ => false,
        }
    }
    let path = |step: &'_ Value| step.get("path").and_then(Value::as_str).map(str::to_owned);
    patch.iter().any(|step| {
        path(step).is_some_and(|path| path.rsplit('/').next() == Some(field))
            || step.get("value").is_some_and(|value| has(value, field))
    })
}

/// Whether something names the port of the nodes for a port of a Service.
fn names_node_port(named: &Value, port: &Value) -> bool {
    let which = |port: &'_ Value| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        (port.get("port").cloned(), protocol)
    };
    match named {
        Value::Array(patch) => mentions(patch, "nodePort"),
        named => named.pointer("/spec/ports").and_then(Value::as_array).is_some_and(|ports| {
            ports.iter().any(|named| named.get("nodePort").is_some() && which(named) == which(port))
        }),
    }
}

/// What is there of an object, as far as it means something elsewhere.
pub(super) fn as_there(live: &Value) -> Value {
    let mut wanted = elsewhere(&cleaned(live), &[]);
    if let Some(Value::Object(annotations)) = wanted.pointer_mut("/metadata/annotations") {
        annotations.retain(|name, _| !OF_CONTROLLERS.iter().any(|begin| name.starts_with(begin)));
    }
    name(&mut wanted, live);
    marks::annotate(&mut wanted, marks::said(live));
    marks::tidy(&mut wanted);
    wanted
}

/// Gives a manifest the name that the API server says.
fn name(wanted: &mut Value, object: &Value) {
    let Some(fields) = wanted.as_object_mut() else { return };
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get(field) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    let (Some(metadata), Some(named)) = (metadata.as_object_mut(), Named::of(object)) else { return };
    metadata.remove("generateName");
    metadata.insert("name".to_owned(), named.name.into());
    if !named.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), named.namespace.into());
    }
}

/// The texts of a Secret are kept by an API server in another form.
fn secret_text(sent: &mut Value, after: &Value) {
    if after.get("kind").and_then(Value::as_str) != Some("Secret") {
        return;
    }
    let Some(fields) = sent.as_object_mut() else { return };
    let Some(Value::Object(texts)) = fields.remove("stringData") else { return };
    let kept = |name: &String| Some((name.clone(), after.pointer("/data")?.get(name)?.clone()));
    let texts: Map<String, Value> = texts.keys().filter_map(kept).collect();
    if let Some(data) = fields.entry("data").or_insert_with(|| json!({})).as_object_mut() {
        data.extend(texts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_comes_without_defaults_and_by_its_name() {
        let sent = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "web-", "uid": "1",
            "annotations": {"khufu.dev/scope": "all", "khufu.dev/sites": "{}", "a": "b"}, "creationTimestamp": null},
            "spec": {"ports": [{"port": 80}], "unknown": 1, "clusterIP": null}, "status": {"x": 1}});
        let after = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-x1", "namespace": "shop",
            "annotations": {"khufu.dev/scope": "all", "khufu.dev/sites": "{}", "a": "b"}, "uid": "2"},
            "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}, "status": {}});
        let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-x1", "namespace": "shop",
            "annotations": {"khufu.dev/scope": "all", "a": "b"}}, "spec": {"ports": [{"port": 80}]}});
        assert_eq!(as_sent(&sent, &after), wanted);
    }

    #[test]
    fn the_texts_of_a_secret_are_taken_as_they_are_kept() {
        let sent = json!({"kind": "Secret", "stringData": {"a": "x"}});
        let after = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "eA=="}});
        assert_eq!(as_sent(&sent, &after)["data"], json!({"a": "eA=="}));
    }

    #[test]
    fn what_an_api_server_makes_up_is_no_part_of_a_write_unless_it_is_named() {
        let service = json!({"kind": "Service", "spec": {"clusterIP": "10.0.0.1", "healthCheckNodePort": 31000,
            "ports": [{"port": 80, "nodePort": 30000}, {"port": 80, "protocol": "UDP", "nodePort": 30001}]}});
        let with = |clean: Value| json!({"kind": "Service", "spec": clean});
        let bare = json!({"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]});
        assert_eq!(elsewhere(&service, &[&json!({"spec": {"type": "NodePort"}})]), with(bare.clone()));
        let one =
            json!({"spec": {"healthCheckNodePort": 1, "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}});
        let named = json!({"healthCheckNodePort": 31000,
            "ports": [{"port": 80, "nodePort": 30000}, {"port": 80, "protocol": "UDP"}]});
        assert_eq!(elsewhere(&service, &[&json!({}), &one]), with(named));
        let steps = json!([{"op": "add", "path": "/spec/ports/0/nodePort", "value": 30000},
            {"op": "replace", "path": "/spec", "value": {"clusterIP": "10.0.0.1"}}]);
        let mut named = service.clone();
        named["spec"].as_object_mut().map(|spec| spec.remove("healthCheckNodePort"));
        assert_eq!(elsewhere(&service, &[&steps]), named);
    }

    #[test]
    fn what_means_something_in_one_cluster_only_is_left_there() {
        let live = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "uid": "2"},
            "spec": {"ports": [{"port": 80, "nodePort": 30000}], "clusterIP": "10.0.0.1", "type": "NodePort"}});
        let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"ports": [{"port": 80}], "type": "NodePort"}});
        assert_eq!(as_there(&live), wanted);
        let headless = json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "None"}});
        assert_eq!(as_there(&headless)["spec"]["clusterIP"], "None");
    }
}
