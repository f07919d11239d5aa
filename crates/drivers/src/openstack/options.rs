//! What a policy tells the driver, in `options`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::DriverError;

/// Whether fields that nobody else is to know may be replicated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Secrets {
    /// No: a document goes to all its sites, and stays in their histories.
    #[default]
    Refuse,
    /// Yes.
    Allow,
}

/// What a policy tells the driver. Everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Options {
    /// Where the site leaves the scope, resources stay and are no longer Khufu's.
    pub(super) retain: bool,
    /// Passwords.
    pub(super) secrets: Secrets,
    /// Fields in which somebody else may change resources: they are written when one is made, and then left alone.
    pub(super) ignore: Vec<String>,
}

impl Options {
    /// # Errors
    /// [`DriverError::Invalid`] names what is not understood, since it may be what keeps a resource.
    pub(super) fn read(options: &Map<String, Value>) -> Result<Self, DriverError> {
        Self::deserialize(Value::Object(options.clone()))
            .map_err(|error| DriverError::invalid("policy.options", error.to_string()))
    }

    /// Whether differences in a field are nobody's concern.
    pub(super) fn ignores(&self, field: &str) -> bool {
        self.ignore.iter().any(|ignored| ignored == field)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_kept_or_ignored_unless_it_is_said_and_what_is_not_understood_is_refused() {
        let read = |options: Value| Options::read(options.as_object().unwrap());
        assert_eq!(read(json!({})).unwrap(), Options::default());
        let options = read(json!({"retain": true, "ignore": ["admin_state_up"], "secrets": "allow"})).unwrap();
        assert!(options.retain && options.ignores("admin_state_up") && !options.ignores("admin"));
        for wrong in [json!({"retian": true}), json!({"secrets": "maybe"}), json!({"ignore": "name"})] {
            let error = read(wrong).unwrap_err();
            assert!(error.is_permanent() && error.to_string().contains("policy.options"), "{error}");
        }
    }
}
