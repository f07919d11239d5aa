//! What others may know of the objects of replicants: whose an object is, and what of it can be asked for.

use std::path::Path;

use khufu_crdt::{ReplicantId, SiteName};
use kube::Config;
use serde_json::{Map, Value};

use super::fields;
use super::manifest::{self, Key, OURS, Object};
use super::options::Options;
use super::replicas::as_applied;
use super::source::Source;
use super::stamp::{self, Mark};
use crate::DriverError;

/// The label of all objects of replicants.
pub const LABEL: &str = stamp::REPLICANT;
/// The name under which the driver owns fields.
pub const MANAGER: &str = super::server::MANAGER;

/// Whose an object is: a replicant at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The id of the replicant.
    pub replicant: &'a str,
    /// The site whose driver has made it.
    pub site: &'a str,
    /// Whether it was there before.
    pub adopted: bool,
}

/// What an object that is there is called.
fn key(object: &Value) -> Option<Key> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let version = text("/apiVersion").unwrap_or_default();
    Some(Key {
        group: version.split_once('/').map(|(group, _)| group).unwrap_or_default().to_owned(),
        kind: text("/kind")?.to_owned(),
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: text("/metadata/name")?.to_owned(),
    })
}

/// Whose an object is, if it is a replicant's. A copy of such an object is nobody's.
#[must_use]
pub fn owner(object: &Value) -> Option<Owner<'_>> {
    let (replicant, site) = stamp::owner(&key(object)?, object)?;
    Some(Owner { replicant, site, adopted: stamp::is_adopted(object) })
}

/// An object without what only an API server sets, and without labels and annotations of Khufu: what may be asked for.
#[must_use]
pub fn cleaned(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        manifest::clean(map);
    }
    object
}

/// What the driver would apply to an object that is there, but with the values that the object has after a write. Applied under
/// [`MANAGER`] by force, it makes the fields that are asked for the driver's, whoever had set them, and changes none that the
/// write has not.
///
/// # Errors
/// [`DriverError`] where what is asked for cannot be applied to this object.
pub fn taken(
    wanted: &Value,
    live: &Value,
    after: &Value,
    replicant: &ReplicantId,
    site: &SiteName,
    options: &Map<String, Value>,
) -> Result<Value, DriverError> {
    let options = Options::read(options)?;
    let nothing = || DriverError::invalid("metadata.name", "is missing: a Kubernetes object names it");
    let Object { value, .. } = manifest::objects(wanted, &options)?.pop().ok_or_else(nothing)?;
    let mark = Mark { id: replicant, site };
    let marked = as_applied(&key(live).ok_or_else(nothing)?, &value, Some(live), mark, &options)?;
    let mut taken = fields::part(after, &marked);
    for field in ["labels", "annotations"] {
        let marks = marked.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).into_iter().flatten();
        let marks = marks.filter(|(name, _)| name.starts_with(OURS));
        let metadata = taken.get_mut("metadata").and_then(Value::as_object_mut).ok_or_else(nothing)?;
        let all = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if let Some(all) = all.as_object_mut() {
            all.extend(marks.map(|(name, mark)| (name.clone(), mark.clone())));
        }
    }
    Ok(taken)
}

/// Whether a desired state and the options of a policy can be understood by the driver.
///
/// # Errors
/// [`DriverError::Invalid`] names the first place that is not understood, or not allowed.
pub fn check(desired: &Value, options: &Map<String, Value>) -> Result<(), DriverError> {
    manifest::objects(desired, &Options::read(options)?).map(drop)
}

/// How to reach the API server of a file with clusters and credentials, in one of its contexts (the current one unless
/// given).
///
/// # Errors
/// [`DriverError::Invalid`] if the file cannot be read or has no such context.
pub async fn config(path: &Path, context: Option<&str>) -> Result<Config, DriverError> {
    Source { path: path.to_owned(), context: context.map(str::to_owned) }.read().await
}

/// How to reach the API server of the cluster that this process runs in.
///
/// # Errors
/// [`DriverError::Invalid`] if it does not run in a cluster.
pub fn config_in_cluster() -> Result<Config, DriverError> {
    Config::incluster().map_err(|error| DriverError::invalid("in-cluster", error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_taken_has_the_values_of_the_write_and_the_marks_of_what_is_asked_for() {
        let object = |spec: Value| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
                "spec": spec})
        };
        let (id, site) = ("web".parse().unwrap(), "paris".parse().unwrap());
        let stamped = |spec: Value| {
            let [group, kind, namespace, name] = ["apps", "Deployment", "shop", "web"].map(str::to_owned);
            let key = Key { group, kind, namespace, name };
            stamp::stamped(&key, &object(spec), Mark { id: &id, site: &site }, false).unwrap()
        };
        // Somebody has set replicas and paused by hand; the write is about paused, and about what is nobody's.
        let wanted = json!({"replicas": 2, "paused": false});
        let live = stamped(json!({"replicas": 9, "paused": true, "more": 1}));
        let mut after = live.clone();
        after["spec"] = json!({"replicas": 9, "paused": false});
        let taken = taken(&object(wanted.clone()), &live, &after, &id, &site, &Map::new()).unwrap();
        assert_eq!(taken["spec"], json!({"replicas": 9, "paused": false}));
        assert!(stamp::is_applied(&taken, &stamped(wanted)), "the driver has nothing to say of it otherwise");
        assert_eq!(owner(&taken).unwrap().replicant, "web");
        // What is another's is not taken.
        let other = "other".parse().unwrap();
        assert!(super::taken(&object(json!({})), &live, &after, &other, &site, &Map::new()).is_err());
    }
}
