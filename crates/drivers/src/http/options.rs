//! What a policy tells the driver, in `options`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::DriverError;

/// What a policy tells the driver. Everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Options {
    /// The kind of resource, if the driver's file has several.
    pub(super) resource: Option<String>,
    /// Where the site leaves the scope, or the replicant is deleted, what the service has stays.
    pub(super) retain: bool,
}

impl Options {
    /// # Errors
    /// [`DriverError::Invalid`] names what is not understood, since it may be what keeps an object.
    pub(super) fn read(options: &Map<String, Value>) -> Result<Self, DriverError> {
        Self::deserialize(Value::Object(options.clone()))
            .map_err(|error| DriverError::invalid("policy.options", error.to_string()))
    }
}
