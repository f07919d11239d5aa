//! What is asked of one API server: a few things at once, with a time limit for each.

use std::time::Duration;

use kube::api::Preconditions;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::discovery::{self, Scope, verbs};
use kube::{Client, Config};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::answer;
use super::kinds::{self, Kind, Kinds};
use super::manifest::Key;
use super::options::Propagation;
use crate::DriverError;

/// The name under which fields are owned.
pub(super) const MANAGER: &str = "khufu";
/// How many requests are under way at once.
const AT_ONCE: usize = 16;
/// How many a second, over a longer time, and how many at once after a pause.
const A_SECOND: u32 = 200;
const BURST: u32 = 100;
/// The longest that one request may take.
const LIMIT: Duration = Duration::from_secs(15);
/// The longest silence on a connection: servers end watches after less than five minutes.
const SILENCE: Duration = Duration::from_secs(295);
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// The most objects that are listed as those of one replicant.
const MAX_LISTED: usize = 10_000;

/// One API server.
pub(super) struct Server {
    pub(super) client: Client,
    kinds: Kinds,
    slots: Semaphore,
    /// When the next request may begin, if none had to wait.
    next: Mutex<Instant>,
}

impl Server {
    pub(super) fn new(mut config: Config) -> Result<Self, DriverError> {
        config.connect_timeout = Some(Duration::from_secs(5));
        // A watch that says nothing at all for so long has lost its connection; each request has its own limit here.
        config.read_timeout = Some(SILENCE);
        // Whoever asks for a pause is given it by the engine, and holds up nobody else meanwhile.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| DriverError::Unavailable {
            reason: format!("no client for the API server can be made: {error}"),
            retry_after: None,
        })?;
        let next = Mutex::new(Instant::now());
        Ok(Self { client, kinds: Kinds::default(), slots: Semaphore::new(AT_ONCE), next })
    }

    /// The kind of an object; see [`Kinds::find`].
    pub(super) async fn kind(&self, key: &Key, version: Option<&str>) -> Result<Kind, DriverError> {
        self.kinds.find(&self.client, key, version).await
    }

    /// The server may serve other kinds now.
    pub(super) fn forget_kinds(&self) {
        self.kinds.forget();
    }

    /// Waits for a turn.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, DriverError> {
        let permit = self
            .slots
            .acquire()
            .await
            .map_err(|error| DriverError::Unavailable { reason: error.to_string(), retry_after: None })?;
        let step = Duration::from_secs(1) / A_SECOND;
        let at = {
            let mut next = self.next.lock().await;
            *next = (*next).max(Instant::now().checked_sub(step * BURST).unwrap_or_else(Instant::now)) + step;
            *next
        };
        tokio::time::sleep_until(at).await;
        Ok(permit)
    }

    fn api(&self, kind: &Kind, key: &Key) -> Api<DynamicObject> {
        if kind.namespaced && !key.namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), &key.namespace, &kind.resource)
        } else {
            Api::all_with(self.client.clone(), &kind.resource)
        }
    }

    /// An object as it is; none if it is not there.
    pub(super) async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, DriverError> {
        let _turn = self.turn().await?;
        let api = self.api(kind, key);
        match reading(api.get(&key.name)).await? {
            Ok(object) => to_value(key, &object).map(Some),
            Err(error) if answer::is_missing(&error) => Ok(None),
            Err(error) if answer::is_no_place(&error) => {
                self.forget_kinds();
                Err(kinds::missing(key, None))
            }
            Err(error) => Err(answer::error(key, error)),
        }
    }

    /// Applies fields on the server's side; the object as it is then, or as it would be.
    pub(super) async fn apply(
        &self,
        kind: &Kind,
        key: &Key,
        value: &Value,
        force: bool,
        dry_run: bool,
    ) -> Result<Value, DriverError> {
        let _turn = self.turn().await?;
        let api = self.api(kind, key);
        let params = PatchParams { dry_run, force, field_manager: Some(MANAGER.into()), field_validation: None };
        let patch = Patch::Apply(value);
        let call = api.patch(&key.name, &params, &patch);
        let applied = if dry_run { reading(call).await? } else { writing(call).await? };
        applied.map_err(|error| answer::error(key, error)).and_then(|object| to_value(key, &object))
    }

    /// Merges a change into an object, if it is still of this version.
    pub(super) async fn merge(&self, kind: &Kind, key: &Key, change: &Value) -> Result<Value, DriverError> {
        let _turn = self.turn().await?;
        let api = self.api(kind, key);
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(change);
        let merged = writing(api.patch(&key.name, &params, &patch)).await?;
        merged.map_err(|error| answer::error(key, error)).and_then(|object| to_value(key, &object))
    }

    /// Removes the object that has this uid, and no other. Whether it was there.
    pub(super) async fn delete(
        &self,
        kind: &Kind,
        key: &Key,
        uid: Option<String>,
        propagation: Propagation,
    ) -> Result<bool, DriverError> {
        let _turn = self.turn().await?;
        let api = self.api(kind, key);
        let propagation = match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        };
        let params = DeleteParams {
            propagation_policy: Some(propagation),
            preconditions: uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteParams::default()
        };
        match writing(api.delete(&key.name, &params)).await? {
            Ok(_) => Ok(true),
            Err(error) if answer::is_missing(&error) => Ok(false),
            Err(error) => Err(answer::error(key, error)),
        }
    }

    /// The metadata of all objects of a kind with these labels, in all namespaces.
    pub(super) async fn labelled(&self, kind: &Kind, labels: &str) -> Result<Vec<Value>, DriverError> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind.resource);
        let mut found = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        if !labels.is_empty() {
            params = params.labels(labels);
        }
        let resource = &kind.resource;
        let all = Key {
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            namespace: String::new(),
            name: "*".to_owned(),
        };
        loop {
            let _turn = self.turn().await?;
            let page = match reading(api.list_metadata(&params)).await? {
                Ok(page) => page,
                Err(error) if answer::is_no_place(&error) => {
                    self.forget_kinds();
                    return Err(kinds::missing(&all, None));
                }
                Err(error) => return Err(answer::error(&all, error)),
            };
            for object in page.items {
                found.push(serde_json::to_value(object).unwrap_or_default());
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) if found.len() < MAX_LISTED => params.continue_token = Some(next),
                _ => return Ok(found),
            }
        }
    }
}

impl Server {
    /// Whether there is a definition of a kind that is not served: then there may be objects of it all the same. A server
    /// that has just started serves them a little later.
    pub(super) async fn is_defined(&self, key: &Key) -> Result<bool, DriverError> {
        let [group, kind] = ["apiextensions.k8s.io", "CustomResourceDefinition"].map(str::to_owned);
        let all = Key { group, kind, namespace: String::new(), name: "*".into() };
        let kind = self.kind(&all, None).await?;
        let definitions = self.labelled(&kind, "").await?;
        // They are called by the plural and the group.
        let lower = key.kind.to_lowercase();
        let begin = lower.get(..lower.len().saturating_sub(1)).unwrap_or(&lower);
        let end = format!(".{}", key.group);
        let named = |object: &Value| {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            name.starts_with(begin) && name.ends_with(&end)
        };
        Ok(definitions.iter().any(named))
    }

    /// All objects with these labels, of any kind that can be listed and removed here. What one may not list cannot have
    /// been made with the same credentials, and is left out.
    pub(super) async fn find(&self, labels: &str) -> Result<Vec<(Kind, Key)>, DriverError> {
        let all = Key { group: String::new(), kind: "*".into(), namespace: String::new(), name: "*".into() };
        let groups = reading(self.client.list_api_groups()).await?.map_err(|error| answer::error(&all, error))?;
        let core = std::iter::once(String::new());
        let mut served = Vec::new();
        for name in core.chain(groups.groups.into_iter().map(|group| group.name)) {
            match reading(discovery::group(&self.client, &name)).await {
                Ok(Ok(group)) => served.extend(group.resources_by_stability()),
                // Others go on while one of those that are served elsewhere is broken.
                Ok(Err(error)) if !name.is_empty() => {
                    tracing::warn!(group = name, %error, "what was made of the kinds of this group is not looked for");
                }
                Err(error) if !name.is_empty() => {
                    tracing::warn!(group = name, %error, "what was made of the kinds of this group is not looked for");
                }
                Ok(Err(error)) => return Err(answer::error(&all, error)),
                Err(error) => return Err(error),
            }
        }
        let mut found = Vec::new();
        for (resource, capabilities) in served {
            let can = |verb| capabilities.supports_operation(verb);
            if !can(verbs::LIST) || !can(verbs::DELETE) {
                continue;
            }
            let namespaced = capabilities.scope == Scope::Namespaced;
            let kind = Kind { resource, namespaced, watched: can(verbs::WATCH) };
            let objects = match self.labelled(&kind, labels).await {
                Ok(objects) => objects,
                Err(DriverError::Refused { reason, .. }) => {
                    tracing::warn!(kind = %kind.resource.kind, reason, "what was made of this kind is not looked for");
                    continue;
                }
                // It has just gone.
                Err(error) if kinds::is_missing(&error) => continue,
                Err(error) => return Err(error),
            };
            let text = |object: &Value, field: &str| {
                object.get("metadata").and_then(|metadata| metadata.get(field)?.as_str()).unwrap_or_default().to_owned()
            };
            found.extend(objects.iter().map(|object| {
                let [group, name] = [kind.resource.group.clone(), kind.resource.kind.clone()];
                let key = Key { group, kind: name, namespace: text(object, "namespace"), name: text(object, "name") };
                (kind.clone(), key)
            }));
        }
        Ok(found)
    }
}

fn to_value(key: &Key, object: &DynamicObject) -> Result<Value, DriverError> {
    serde_json::to_value(object).map_err(|error| DriverError::Unavailable {
        reason: format!("{key}: what the API server said is no object: {error}"),
        retry_after: None,
    })
}

async fn reading<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<Result<T, kube::Error>, DriverError> {
    tokio::time::timeout(LIMIT, call).await.map_err(|_| DriverError::Unavailable {
        reason: format!("the API server did not answer within {} s", LIMIT.as_secs()),
        retry_after: None,
    })
}

/// Where no answer comes, nobody knows whether it was done.
async fn writing<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<Result<T, kube::Error>, DriverError> {
    tokio::time::timeout(LIMIT, call).await.map_err(|_| DriverError::Timeout { after: LIMIT })
}
