//! What a policy tells the driver, in `options`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::manifest::is_plain;
use crate::DriverError;

/// What is done about objects that are there already and that this replicant did not create.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Adopt {
    /// They are left alone, and the replica is reported failed.
    #[default]
    Never,
    /// They are taken over, and left there when the replica is removed.
    Keep,
    /// They are taken over, and removed with the replica.
    Own,
}

/// Whether objects of the kind `Secret` may be replicated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Secrets {
    /// No: a document goes to all its sites, and stays in their histories.
    #[default]
    Refuse,
    /// Yes.
    Allow,
}

/// What becomes of the dependents of a removed object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Propagation {
    /// They go after it.
    #[default]
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// What a policy tells the driver. Everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Options {
    /// Fields that another manager has set to something else are taken from it.
    pub(super) force: bool,
    /// Objects that are there already.
    pub(super) adopt: Adopt,
    /// Where the site leaves the scope, objects stay and are no longer Khufu's.
    pub(super) retain: bool,
    /// Namespaces that are missing are created (and never removed).
    pub(super) create_namespaces: bool,
    /// The namespace of objects that name none; `default` unless given.
    pub(super) namespace: Option<String>,
    /// Secrets.
    pub(super) secrets: Secrets,
    /// Dependents of removed objects.
    pub(super) propagation: Propagation,
    /// What others have put into a namespace, or have made of a defined kind, goes with it.
    pub(super) cascade: bool,
    /// Fields in which somebody else may change objects: paths such as `spec.replicas`, below which everything counts.
    pub(super) ignore: Vec<String>,
}

impl Options {
    /// # Errors
    /// [`DriverError::Invalid`] names what is not understood, since it may be what keeps an object.
    pub(super) fn read(options: &Map<String, Value>) -> Result<Self, DriverError> {
        let options = Self::deserialize(Value::Object(options.clone()))
            .map_err(|error| DriverError::invalid("policy.options", error.to_string()))?;
        match &options.namespace {
            Some(namespace) if !is_plain(namespace) => Err(DriverError::invalid(
                "policy.options.namespace",
                format!("{namespace:?} is no name of a namespace"),
            )),
            _ => Ok(options),
        }
    }

    /// The namespace of objects that name none.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// Whether differences in a field are nobody's concern.
    pub(super) fn ignores(&self, path: &str) -> bool {
        let below = |ignored: &String| {
            path.strip_prefix(ignored.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.ignore.iter().any(below)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> Result<Options, DriverError> {
        Options::read(options.as_object().unwrap())
    }

    #[test]
    fn nothing_is_adopted_forced_or_kept_unless_it_is_said() {
        let options = read(json!({})).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!((options.adopt, options.force, options.retain), (Adopt::Never, false, false));
        let options = read(json!({"adopt": "keep", "create-namespaces": true, "propagation": "orphan"})).unwrap();
        assert_eq!((options.adopt, options.create_namespaces), (Adopt::Keep, true));
        assert_eq!(options.propagation, Propagation::Orphan);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        for options in [
            json!({"retian": true}),
            json!({"adopt": "always"}),
            json!({"ignore": "spec"}),
            json!({"namespace": "a/b?x"}),
        ] {
            let error = read(options.clone()).unwrap_err();
            assert!(error.to_string().contains("policy.options"), "{options}: {error}");
            assert!(error.is_permanent());
        }
    }

    #[test]
    fn a_path_is_ignored_with_all_that_is_below_it() {
        let options = read(json!({"ignore": ["spec.replicas", "metadata.labels"]})).unwrap();
        for (path, ignored) in [
            ("spec.replicas", true),
            ("metadata.labels.team", true),
            ("metadata.labels[0]", true),
            ("spec.replicasets", false),
            ("spec", false),
        ] {
            assert_eq!(options.ignores(path), ignored, "{path}");
        }
    }
}
