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

/// What is there of an object, as far as it means something elsewhere.
pub(super) fn as_there(live: &Value) -> Value {
    let mut wanted = cleaned(live);
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or_default();
    for path in OF_ONE_CLUSTER.iter().filter(|(of, _)| *of == kind).flat_map(|(_, paths)| *paths) {
        if let Some((parent, field)) = path.rsplit_once('/')
            // A Service without an address says so in the same place.
            && wanted.pointer(path).is_some_and(|value| *value != "None" && *value != json!(["None"]))
            && let Some(Value::Object(fields)) = wanted.pointer_mut(parent)
        {
            fields.remove(field);
        }
    }
    if kind == "Service"
        && let Some(Value::Array(ports)) = wanted.pointer_mut("/spec/ports")
    {
        ports.iter_mut().filter_map(Value::as_object_mut).for_each(|port| drop(port.remove("nodePort")));
    }
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
