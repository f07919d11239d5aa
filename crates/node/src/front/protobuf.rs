//! What is written as protobuf, as programs may be told to do that are built with the types of Kubernetes. Of such an object only
//! that is read which says what it is: its fields are numbered, and only whoever has the types knows what they are called. What
//! else a write changes, the API server says when it tries it.

use std::collections::HashMap;

use prost::Message as _;
use serde_json::{Map, Value, json};

/// What a body of this kind is sent as.
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What it begins with.
const MAGIC: &[u8] = b"k8s\0";

/// What is around what is sent (`runtime.Unknown`).
#[derive(prost::Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    of: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
    #[prost(string, tag = "3")]
    encoding: String,
}

#[derive(prost::Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

/// Any object.
#[derive(prost::Message)]
struct Object {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

#[derive(prost::Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(map = "string, string", tag = "11")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "12")]
    annotations: HashMap<String, String>,
}

#[derive(prost::Message)]
struct DeleteOptions {
    #[prost(int64, optional, tag = "1")]
    grace_period_seconds: Option<i64>,
    #[prost(message, optional, tag = "2")]
    preconditions: Option<Preconditions>,
    #[prost(bool, optional, tag = "3")]
    orphan_dependents: Option<bool>,
    #[prost(string, optional, tag = "4")]
    propagation_policy: Option<String>,
    #[prost(string, repeated, tag = "5")]
    dry_run: Vec<String>,
}

#[derive(prost::Message)]
struct Preconditions {
    #[prost(string, optional, tag = "1")]
    uid: Option<String>,
    #[prost(string, optional, tag = "2")]
    resource_version: Option<String>,
}

/// What is sent, and what it is.
fn open(body: &[u8]) -> Option<(TypeMeta, Vec<u8>)> {
    let Envelope { of, raw, encoding } = Envelope::decode(body.strip_prefix(MAGIC)?).ok()?;
    encoding.is_empty().then_some((of?, raw))
}

/// What an object says of itself, as JSON; none if it is not read.
pub(super) fn headline(body: &[u8]) -> Option<Value> {
    let (TypeMeta { api_version, kind }, raw) = open(body)?;
    let meta = Object::decode(raw.as_slice()).ok()?.metadata?;
    let texts = [
        ("name", meta.name),
        ("namespace", meta.namespace),
        ("uid", meta.uid),
        ("resourceVersion", meta.resource_version),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut metadata: Map<String, Value> = texts.map(|(name, text)| (name.to_owned(), text.into())).collect();
    for (name, map) in [("labels", meta.labels), ("annotations", meta.annotations)] {
        if !map.is_empty() {
            metadata.insert(name.to_owned(), json!(map));
        }
    }
    Some(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}))
}

/// The options of a deletion, as JSON.
pub(super) fn delete_options(body: &[u8]) -> Option<Map<String, Value>> {
    let (TypeMeta { api_version, kind }, raw) = open(body)?;
    let options = DeleteOptions::decode(raw.as_slice()).ok().filter(|_| kind == "DeleteOptions")?;
    let conditions = options.preconditions.map(|conditions| {
        let Preconditions { uid, resource_version } = conditions;
        let all = [("uid", uid), ("resourceVersion", resource_version)];
        let all = all.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
        Value::Object(all.collect())
    });
    let dry = (!options.dry_run.is_empty()).then(|| options.dry_run.into());
    let all = [
        ("apiVersion", Some(api_version.into())),
        ("kind", Some(kind.into())),
        ("gracePeriodSeconds", options.grace_period_seconds.map(Value::from)),
        ("preconditions", conditions),
        ("orphanDependents", options.orphan_dependents.map(Value::from)),
        ("propagationPolicy", options.propagation_policy.map(Value::from)),
        ("dryRun", dry),
    ];
    Some(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A field that has a length, as protobuf has it.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2];
        prost::encoding::encode_varint(value.len() as u64, &mut all);
        [all, value.to_vec()].concat()
    }

    fn sent(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let of = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &of), field(2, raw)].concat()
    }

    #[test]
    fn what_an_object_is_called_is_read_and_the_rest_is_passed_over() {
        let entry = [field(1, b"khufu.dev/scope"), field(2, b"all")].concat();
        let meta =
            [field(1, b"settings"), field(3, b"shop"), field(5, b"u"), field(6, b"7"), field(12, &entry)].concat();
        let data = [field(1, b"a"), field(2, b"1")].concat();
        let raw = [field(1, &meta), field(2, &data)].concat();
        let metadata = json!({"name": "settings", "namespace": "shop", "uid": "u", "resourceVersion": "7",
            "annotations": {"khufu.dev/scope": "all"}});
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        let whole = sent("v1", "ConfigMap", &raw);
        assert_eq!(headline(&whole), Some(wanted));
        for end in 0..whole.len() {
            // Nothing of it is a reason to panic.
            headline(&whole[..end]);
            delete_options(&whole[..end]);
        }
        assert_eq!(headline(b"{}"), None);
        assert_eq!(delete_options(&whole), None, "it is no deletion");
    }

    #[test]
    fn the_options_of_a_deletion_are_read() {
        let raw =
            [vec![1 << 3, 5], field(2, &field(1, b"u")), vec![3 << 3, 0], field(4, b"Foreground"), field(5, b"All")];
        let wanted = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5, "preconditions": {"uid": "u"},
            "orphanDependents": false, "propagationPolicy": "Foreground", "dryRun": ["All"]});
        let read = delete_options(&sent("v1", "DeleteOptions", &raw.concat()));
        assert_eq!(read.map(Value::Object), Some(wanted));
    }
}
