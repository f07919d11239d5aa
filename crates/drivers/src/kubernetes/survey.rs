//! All kinds that an API server serves, and of which of them it has something.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use kube::core::{ApiResource, ObjectMeta};
use kube::discovery::{self, ApiCapabilities, ApiGroup, Scope, verbs};
use tokio::time::Instant;

use super::answer;
use super::kinds::{self, Kind, Name};
use super::manifest::Key;
use super::server::{PAGE, Server, reading};
use super::stamp;
use super::used::Owners;
use crate::DriverError;

/// Of so many kinds is asked at once: those that do not answer leave room for what else is under way.
const AT_ONCE: usize = 4;
/// How long is waited for what is defined and not served yet, and how often is looked meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Groups whose objects are only another view of others: nobody makes or removes them.
const VIEWS: [&str; 3] = ["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];

/// What a look at all kinds has shown.
#[derive(Default)]
pub(super) struct Survey {
    /// The kinds of which there are objects, and whose these are.
    pub(super) found: Vec<(Kind, Owners)>,
    /// The kinds that were listed as a whole.
    pub(super) listed: BTreeSet<Name>,
    /// The kinds that could not be listed, and why.
    pub(super) unlisted: Vec<(Kind, String)>,
    /// Whether there are no other kinds of which there may have been something.
    pub(super) knows_all: bool,
    /// Why one of those that may not be listed was not.
    pub(super) refused: Option<String>,
    /// Why one of those that may be listed was not.
    pub(super) missed: Option<String>,
}

/// The kinds that a server serves, whose objects can be listed and removed.
pub(super) struct Served {
    pub(super) kinds: Vec<Kind>,
    /// Why there are others: a group does not say which it has, or what is defined is not served.
    pub(super) missed: Option<String>,
    /// Why nobody here may see whether something is defined that is not served.
    pub(super) refused: Option<String>,
}

impl Server {
    /// Whose objects of a kind there are, of those with these labels.
    async fn owners(&self, kind: &Kind, labels: &str) -> Result<Owners, DriverError> {
        let mut owners = Owners::default();
        let look = |object: ObjectMeta| {
            let label = object.labels.as_ref().and_then(|labels| labels.get(stamp::REPLICANT));
            owners.add(label.and_then(|label| stamp::number(label)));
            ControlFlow::Continue(())
        };
        self.each(kind, labels, None, PAGE, look).await?;
        Ok(owners)
    }

    /// The kinds of which there are objects with these labels, of those that can be listed and removed here.
    pub(super) async fn survey(&self, labels: &str) -> Result<Survey, DriverError> {
        // Whoever may not see what is defined is to have nothing of kinds that are not served.
        let Served { kinds, missed, refused } = self.settled_kinds().await?;
        let knows_all = missed.is_none() && refused.is_none();
        let mut survey = Survey { knows_all, missed, ..Survey::default() };
        let mut calls = Vec::<BoxFuture<'_, _>>::new();
        for kind in kinds {
            calls.push(Box::pin(async move { (self.owners(&kind, labels).await, kind) }));
        }
        let mut calls = stream::iter(calls).buffer_unordered(AT_ONCE);
        while let Some((looked, kind)) = calls.next().await {
            match looked {
                Ok(owners) => {
                    survey.listed.insert(kind.named());
                    survey.found.extend((!owners.is_empty()).then_some((kind, owners)));
                }
                Err(DriverError::Refused { reason, .. }) => {
                    survey.refused.get_or_insert_with(|| reason.clone());
                    survey.unlisted.push((kind, reason));
                }
                Err(error) => {
                    let error = if kinds::is_missing(&error) {
                        match self.kind_if_served(&kind.of(String::new(), "*".to_owned())).await {
                            // It has just gone.
                            Ok(None) => continue,
                            Ok(Some(_)) => error,
                            Err(error) => error,
                        }
                    } else {
                        error
                    };
                    // One kind that is broken holds up none of the others.
                    if !self.is_ready().await {
                        return Err(error);
                    }
                    let reason = error.to_string();
                    survey.missed.get_or_insert_with(|| reason.clone());
                    survey.unlisted.push((kind, reason));
                }
            }
        }
        Ok(survey)
    }

    /// All kinds, once all that is defined is served, or after some time: what is just being defined, and what a server defines
    /// that has just started, is served a moment later.
    pub(super) async fn settled_kinds(&self) -> Result<Served, DriverError> {
        self.says_all().await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let (kinds, missed) = self.all_kinds().await?;
            if missed.is_some() {
                return Ok(Served { kinds, missed, refused: None });
            }
            let (missed, refused) = match self.unserved(&kinds).await {
                Ok(Some(_)) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Ok(unserved) => (unserved, None),
                Err(DriverError::Refused { reason, .. }) => (None, Some(reason)),
                Err(error) if self.is_ready().await => (Some(error.to_string()), None),
                Err(error) => return Err(error),
            };
            return Ok(Served { kinds, missed, refused });
        }
    }

    /// All kinds whose objects can be listed and removed, and why one of the groups has not said its kinds, if one has not.
    async fn all_kinds(&self) -> Result<(Vec<Kind>, Option<String>), DriverError> {
        let all = Key { group: String::new(), kind: "*".into(), namespace: String::new(), name: "*".into() };
        let groups = reading(self.client().list_api_groups()).await?.map_err(|error| answer::error(&all, error))?;
        let core = std::iter::once(String::new());
        let mut calls = Vec::<BoxFuture<'_, (String, Result<ApiGroup, DriverError>)>>::new();
        let groups = groups.groups.into_iter().map(|group| group.name).filter(|name| !VIEWS.contains(&name.as_str()));
        for name in core.chain(groups) {
            let all = &all;
            calls.push(Box::pin(async move {
                let said = reading(discovery::group(&self.client(), &name)).await;
                let said = said.and_then(|group| group.map_err(|error| answer::error(all, error)));
                (name, said)
            }));
        }
        let mut calls = stream::iter(calls).buffered(AT_ONCE);
        let mut served = Vec::new();
        let mut missed = None;
        while let Some((name, said)) = calls.next().await {
            match said {
                Ok(group) => served.extend(group.resources_by_stability()),
                // Others go on while one of those that are served elsewhere is broken.
                Err(error) if !name.is_empty() => {
                    tracing::warn!(group = name, %error, "what was made of the kinds of this group is not looked for");
                    missed.get_or_insert_with(|| format!("the group {name} does not say which kinds it has: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        let can = |capabilities: &ApiCapabilities, verb| capabilities.supports_operation(verb);
        let kinds = served.into_iter().filter(|(_, all)| can(all, verbs::LIST) && can(all, verbs::DELETE));
        let kind = |(resource, all): (ApiResource, ApiCapabilities)| Kind {
            resource,
            namespaced: all.scope == Scope::Namespaced,
            watched: can(&all, verbs::WATCH),
        };
        Ok((kinds.map(kind).collect(), missed))
    }
}
