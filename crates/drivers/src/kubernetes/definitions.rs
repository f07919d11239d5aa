//! Definitions of kinds that are not served: what was stored of such a kind is there, and comes back with it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde_json::Value;

use super::answer;
use super::kinds::{Kind, is_missing};
use super::manifest::Key;
use super::rbac::is_built_in;
use super::server::{PAGE, Server};
use crate::DriverError;

/// The most definitions of one group, or that are not served, that are looked at.
const MAX_LOOKED_AT: usize = 1_000;

fn text<'d>(definition: &'d Value, pointer: &str) -> &'d str {
    definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a definition was ever served. That is not taken back when it is not served any more: neither where none of its
/// versions is served, nor while an API server that has just started gets ready.
pub(super) fn was_served(definition: &Value) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    let is_true = |condition: &Value| {
        text(condition, "/status") == "True" && ["Established", "NamesAccepted"].contains(&text(condition, "/type"))
    };
    conditions.into_iter().flatten().any(is_true)
}

impl Server {
    /// A server that has just started does not serve all of its groups yet, and says nothing of those.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] until it is ready.
    pub(super) async fn says_all(&self) -> Result<(), DriverError> {
        let why = match self.readiness().await {
            Ok(()) => return Ok(()),
            // It cannot even be asked.
            Err(Some(error)) if !matches!(&error, kube::Error::Api(status) if status.code >= 500) => {
                let all = Key { group: String::new(), kind: "*".into(), namespace: String::new(), name: "*".into() };
                return Err(answer::error(&all, error));
            }
            Err(error) => error.map(|error| format!(": {error}")).unwrap_or_default(),
        };
        let reason =
            format!("the API server does not say that it is ready (/readyz), so it may not tell of all kinds yet{why}");
        Err(DriverError::Unavailable { reason, retry_after: None })
    }

    /// What definitions are.
    async fn definitions(&self) -> Result<Kind, DriverError> {
        let [group, kind] = ["apiextensions.k8s.io", "CustomResourceDefinition"].map(str::to_owned);
        self.kind(&Key { group, kind, namespace: String::new(), name: "*".into() }, None).await
    }

    /// The definitions whose names are looked for. They are called by the plural and the group.
    async fn definitions_called(
        &self,
        definitions: &Kind,
        is_it: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<Vec<String>, DriverError> {
        let mut names = Vec::new();
        self.each(definitions, "", None, PAGE, |object| {
            names.extend(object.name.filter(|name| is_it(name)));
            if names.len() > MAX_LOOKED_AT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        Ok(names)
    }

    /// Whether there is a definition of a kind that is not served: then there may be objects of it all the same. A server
    /// that has just started serves them a little later.
    pub(super) async fn is_defined(&self, key: &Key) -> Result<bool, DriverError> {
        self.says_all().await?;
        if is_built_in(&key.group) {
            return Ok(false);
        }
        let definitions = self.definitions().await?;
        let end = format!(".{}", key.group);
        let mut names = self.definitions_called(&definitions, |name| name.ends_with(&end)).await?;
        if names.len() > MAX_LOOKED_AT {
            return Ok(true);
        }
        // Most plurals begin as the kind does. Which it is, only the definition says.
        let lower = key.kind.to_lowercase();
        let begin = lower.get(..lower.len().saturating_sub(1)).unwrap_or(&lower);
        names.sort_by_key(|name| !name.starts_with(begin));
        for name in names {
            if let Some(definition) = self.listed(&definitions, &name).await?
                && text(&definition, "/spec/group") == key.group
                && text(&definition, "/spec/names/kind") == key.kind
                && was_served(&definition)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which definition was served once and is not among these kinds, if there is one.
    ///
    /// # Errors
    /// [`DriverError::Refused`] if definitions may not be listed.
    pub(super) async fn unserved(&self, kinds: &[Kind]) -> Result<Option<String>, DriverError> {
        let served = kinds.iter().map(|kind| format!("{}.{}", kind.resource.plural, kind.resource.group));
        let served: BTreeSet<_> = served.collect();
        let definitions = match self.definitions().await {
            Ok(definitions) => definitions,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let names = self.definitions_called(&definitions, |name| !served.contains(name)).await?;
        let are_too_many = names.len() > MAX_LOOKED_AT;
        for name in names {
            if self.listed(&definitions, &name).await?.as_ref().is_some_and(was_served) {
                return Ok(Some(format!("what is defined by {name} is not served now")));
            }
        }
        Ok(are_too_many.then(|| format!("more than {MAX_LOOKED_AT} definitions are not served now")))
    }
}
