//! Definitions of kinds that are not served: what was stored of such a kind is there, and comes back with it.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use super::answer;
use super::kinds::{Kind, Name, is_missing};
use super::manifest::Key;
use super::rbac::is_built_in;
use super::server::{PAGE, Server};
use crate::DriverError;

/// The most definitions of one group, or that are not served, that are looked at.
const MAX_LOOKED_AT: usize = 1_000;
/// For so long it is believed whether a kind is defined: whoever has many objects of one asks for each.
const BELIEVED: Duration = Duration::from_secs(2);
/// Of so many kinds it is remembered.
const MAX_REMEMBERED: usize = 1_000;

/// Whether a kind is defined, as was seen last, and when. One looks at a time.
type Asked = Arc<Mutex<Option<(Instant, Result<bool, DriverError>)>>>;

/// What was seen last of each kind that is not served.
#[derive(Default)]
pub(super) struct Defined(std::sync::Mutex<HashMap<Name, Asked>>);

impl Defined {
    fn of(&self, key: &Key) -> Asked {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_REMEMBERED {
            all.clear();
        }
        all.entry((key.group.clone(), key.kind.clone())).or_default().clone()
    }

    /// A definition was made, or the server may be another.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

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
        let asked = self.defined.of(key);
        let mut asked = asked.lock().await;
        if let Some((at, said)) = &*asked
            && at.elapsed() < BELIEVED
        {
            return said.clone();
        }
        let said = self.sees_definition(key).await;
        *asked = Some((Instant::now(), said.clone()));
        said
    }

    /// The kind of an object that was made once; none if there is no such kind any more, and so no such object.
    pub(super) async fn kind_if_served(&self, key: &Key) -> Result<Option<Kind>, DriverError> {
        match self.kind(key, None).await {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if is_missing(&error) && !self.is_defined(key).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn sees_definition(&self, key: &Key) -> Result<bool, DriverError> {
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
