//! Operations: what each makes of the manifests of a replica. A pure function of these and of the operation, so that all
//! sites that run the same end with the same.

use k8s_openapi::jiff::Timestamp;
use khufu_crdt::{Operation, Payload, lay_over};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::manifest::{self, Key, Object};
use super::options::Options;
use super::rbac::is_built_in;
use super::strategic::strategic;
use crate::DriverError;

/// The object that an operation is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Target {
    api_version: String,
    kind: String,
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    Merge,
    Strategic,
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apply {
    manifest: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    target: Option<Target>,
    #[serde(rename = "type")]
    how: How,
    patch: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    #[serde(default)]
    target: Option<Target>,
    replicas: u32,
}

/// Of what has no more than a target.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    #[serde(default)]
    target: Option<Target>,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// These objects are all there is from now on.
    Apply(Vec<Object>),
    /// One object becomes another.
    Change(Option<Target>, Change),
    /// One object goes.
    Delete(Option<Target>),
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Merge(Map<String, Value>),
    Strategic(Map<String, Value>),
    Json(Value),
    Scale(u32),
    /// The time that pods are to be newer than.
    Restart(String),
}

fn invalid(field: &str, reason: impl Into<String>) -> DriverError {
    DriverError::invalid(field, reason)
}

fn read<T: DeserializeOwned>(payload: &Value) -> Result<T, DriverError> {
    T::deserialize(payload).map_err(|error| invalid("payload", error.to_string()))
}

impl Action {
    /// # Errors
    /// [`DriverError::Invalid`] names what is not understood.
    pub(super) fn read(operation: &Operation, options: &Options) -> Result<Self, DriverError> {
        let payload = match &operation.payload {
            Payload::Value(Value::Null) => &json!({}),
            Payload::Value(payload) => payload,
            Payload::Blob(_) => return Err(invalid("payload", "a value is wanted, not a blob")),
        };
        match operation.op_type.as_str() {
            "apply" => {
                let Apply { manifest } = read(payload)?;
                let objects = manifest::objects(&manifest, options)?;
                objects.iter().try_for_each(|object| allowed(&object.group, &object.kind))?;
                Ok(Self::Apply(objects))
            }
            "patch" => {
                let Patch { target, how, patch } = read(payload)?;
                let change = match (how, patch) {
                    (How::Json, patch @ Value::Array(_)) => Change::Json(patch),
                    (How::Json, _) => return Err(invalid("payload.patch", "a JSON patch is a list of steps")),
                    (How::Merge, Value::Object(patch)) => Change::Merge(patch),
                    (How::Strategic, Value::Object(patch)) => Change::Strategic(patch),
                    (_, _) => return Err(invalid("payload.patch", "a merge patch is an object")),
                };
                Ok(Self::Change(target, change))
            }
            "scale" => {
                let Scale { target, replicas } = read(payload)?;
                if options.ignores("spec.replicas") {
                    let reason = "the policy's option \"ignore\" leaves spec.replicas to others";
                    return Err(invalid("payload.replicas", reason));
                }
                Ok(Self::Change(target, Change::Scale(replicas)))
            }
            "restart" => {
                let Only { target } = read(payload)?;
                // Of the operation, and not of any clock here: the same at all sites, and when it is run again.
                let at = i64::try_from(operation.at.ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
                let at = at.ok_or_else(|| invalid("at", "the operation is of no time that can be written"))?;
                Ok(Self::Change(target, Change::Restart(at.to_string())))
            }
            "delete" => {
                let Only { target } = read(payload)?;
                Ok(Self::Delete(target))
            }
            other => Err(invalid("type", format!("{other:?}: there are apply, patch, scale, restart and delete"))),
        }
    }
}

/// Whether operations may be about objects of a kind: the manifests of what they have made are kept in annotations, where values
/// of secrets have no business.
///
/// # Errors
/// [`DriverError::Invalid`] if they may not.
pub(super) fn allowed(group: &str, kind: &str) -> Result<(), DriverError> {
    if group.is_empty() && kind == "Secret" {
        return Err(invalid("payload", "a Secret is changed by the desired state only, not by operations"));
    }
    Ok(())
}

impl Target {
    /// Whether an object is meant. Where no namespace is given, it is in any.
    fn is(&self, key: &Key) -> bool {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        let namespace = self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        group == key.group && self.kind == key.kind && self.name == key.name && namespace
    }

    fn words(&self) -> String {
        let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {} {namespace}{}", self.api_version, self.kind, self.name)
    }
}

/// The place of the object that is meant; none if there is none such.
///
/// # Errors
/// [`DriverError::Invalid`] if several are meant.
pub(super) fn place<'k>(
    target: Option<&Target>,
    keys: impl Iterator<Item = &'k Key>,
) -> Result<Option<usize>, DriverError> {
    let mut meant = keys.enumerate().filter(|(_, key)| target.is_none_or(|target| target.is(key)));
    match (meant.next(), meant.next(), target) {
        (found, None, _) => Ok(found.map(|(place, _)| place)),
        (_, Some(_), None) => Err(invalid("payload.target", "is missing: the replicant has several objects")),
        (_, Some(_), Some(_)) => Err(invalid("payload.target.namespace", "is missing: several objects are called so")),
    }
}

/// There is no object such as is meant.
pub(super) fn nothing(target: Option<&Target>) -> DriverError {
    let words = target.map(|target| format!(" {}", target.words())).unwrap_or_default();
    invalid("payload.target", format!("the replicant has no object{words} here"))
}

impl Change {
    /// Makes of the manifest of an object what it is to be.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] if it does not fit, or makes another object of it.
    pub(super) fn make(&self, key: &Key, manifest: &Value) -> Result<Value, DriverError> {
        allowed(&key.group, &key.kind)?;
        let mut value = manifest.clone();
        match self {
            Self::Merge(patch) => value = laid(manifest, &Value::Object(patch.clone()))?,
            Self::Json(patch) => value = laid(manifest, patch)?,
            Self::Strategic(patch) => {
                if !is_built_in(&key.group) {
                    let reason = "custom resources have no strategic merge patches: use merge or json";
                    return Err(invalid("payload.type", reason));
                }
                strategic(&mut value, patch).map_err(|reason| invalid("payload.patch", reason))?;
            }
            Self::Scale(replicas) => set(&mut value, &["spec", "replicas"], json!(replicas)),
            Self::Restart(at) => {
                let can = ["Deployment", "StatefulSet", "DaemonSet"].contains(&key.kind.as_str());
                if key.group != "apps" || !can {
                    let reason = format!("a {} cannot be restarted", key.kind);
                    return Err(invalid("payload.target", reason));
                }
                let path = ["spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt"];
                set(&mut value, &path, json!(at));
            }
        }
        let same = |pointer: &str| value.pointer(pointer) == manifest.pointer(pointer);
        if ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"].into_iter().all(same) {
            Ok(value)
        } else {
            Err(invalid("payload.patch", "it would make another object of it: kind, name and namespace stay"))
        }
    }
}

fn laid(manifest: &Value, patch: &Value) -> Result<Value, DriverError> {
    lay_over(manifest, patch).map_err(|error| invalid("payload.patch", error.to_string()))
}

fn set(value: &mut Value, path: &[&str], to: Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = to;
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    if let Value::Object(fields) = value {
        set(fields.entry((*first).to_owned()).or_insert(Value::Null), rest, to);
    }
}
