//! What others may know of the objects of replicants: whose an object is, and what of it can be asked for.

use std::path::Path;

use kube::Config;
use serde_json::{Map, Value};

use super::manifest::{self, Key};
use super::options::Options;
use super::server::Source;
use super::stamp;
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

/// Whose an object is, if it is a replicant's. A copy of such an object is nobody's.
#[must_use]
pub fn owner(object: &Value) -> Option<Owner<'_>> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let key = Key {
        group: String::new(),
        kind: text("/kind")?.to_owned(),
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: text("/metadata/name")?.to_owned(),
    };
    let (replicant, site) = stamp::owner(&key, object)?;
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
