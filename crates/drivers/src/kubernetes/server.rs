//! What is asked of one API server: a few things at once, with a time limit for each.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use kube::api::Preconditions;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::ObjectMeta;
use kube::{Client, Config};
use serde_json::Value;

use super::answer;
use super::definitions::Defined;
use super::kinds::{self, Kind, Kinds};
use super::manifest::Key;
use super::options::Propagation;
use super::source::Sourced;
use crate::DriverError;
use crate::turns::Turns;

/// The name under which fields are owned.
pub(super) const MANAGER: &str = "khufu";
/// How many requests are under way at once.
const AT_ONCE: usize = 16;
/// How many a second, over a longer time, and how many at once after a pause.
const A_SECOND: u32 = 200;
const BURST: u32 = 100;
/// The longest that one request may take.
const LIMIT: Duration = Duration::from_secs(15);
/// The longest that a server may take to say that it can serve.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// The longest silence on a connection: servers end watches after less than five minutes.
const SILENCE: Duration = Duration::from_secs(295);
/// Objects of one page of a list.
pub(super) const PAGE: u32 = 500;

/// What a write of an object is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write<'u> {
    /// What would become of it: nothing is written.
    Try,
    /// An object that is not there yet.
    New,
    /// The one that has this uid.
    Over(&'u str),
}

impl Write<'_> {
    /// What is to be applied, with a condition by which the server takes it for no other object.
    fn conditional<'v>(&self, value: &'v Value) -> Cow<'v, Value> {
        let (field, is) = match self {
            Self::Try => return Cow::Borrowed(value),
            // No object that is there has this version; of one that is not, none is asked for.
            Self::New => ("resourceVersion", "1"),
            Self::Over(uid) => ("uid", *uid),
        };
        let mut value = value.clone();
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            metadata.insert(field.to_owned(), Value::String(is.to_owned()));
        }
        Cow::Owned(value)
    }
}

/// One API server.
pub(super) struct Server {
    client: RwLock<Client>,
    /// How often it was said anew how the server is reached: it may be another since.
    moves: AtomicU64,
    sourced: Option<Sourced>,
    kinds: Kinds,
    pub(super) defined: Defined,
    turns: Turns,
}

/// A client for an API server.
fn client(mut config: Config) -> Result<Client, DriverError> {
    config.connect_timeout = Some(Duration::from_secs(5));
    // A watch that says nothing at all for so long has lost its connection; each request has its own limit here.
    config.read_timeout = Some(SILENCE);
    // Whoever asks for a pause is given it by the engine, and holds up nobody else meanwhile.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| DriverError::Unavailable {
        reason: format!("no client for the API server can be made: {error}"),
        retry_after: None,
    })
}

impl Server {
    /// The server of a configuration, and where that was read, if it is to be read again when it is written anew.
    pub(super) fn new(config: Config, sourced: Option<Sourced>) -> Result<Self, DriverError> {
        let client = RwLock::new(client(config)?);
        Ok(Self {
            client,
            moves: AtomicU64::default(),
            sourced,
            kinds: Kinds::default(),
            defined: Defined::default(),
            turns: Turns::new(AT_ONCE, A_SECOND, BURST),
        })
    }

    /// A number that is another once the server may be another.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    pub(super) fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what has been written anew of how the server is reached. Whether anything has.
    pub(super) async fn reload(&self) -> bool {
        let Some(sourced) = &self.sourced else { return false };
        let Some((config, files)) = sourced.anew().await else { return false };
        match client(config) {
            Ok(client) => *self.client.write().unwrap_or_else(PoisonError::into_inner) = client,
            Err(error) => {
                sourced.failed(files, &error);
                return false;
            }
        }
        self.moves.fetch_add(1, Ordering::Relaxed);
        sourced.took(files);
        self.forget_kinds();
        tracing::info!(file = %sourced.path().display(), "the API server is reached as is written there now");
        true
    }

    /// Whether the server says that it can serve.
    pub(super) async fn is_ready(&self) -> bool {
        self.readiness().await.is_ok()
    }

    /// The same, and what it says instead, if it says anything.
    pub(super) async fn readiness(&self) -> Result<(), Option<kube::Error>> {
        let request = http::Request::get("/readyz").body(Vec::new()).map_err(|_| None)?;
        let client = self.client();
        match tokio::time::timeout(READY_LIMIT, client.request_text(request)).await {
            Ok(Ok(_)) => Ok(()),
            // It answers, and does not tell everybody; but whom it does not know can do nothing there.
            Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 401 => Ok(()),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }

    /// The text at a path; none if there is none, if it is longer, or if it does not come in time.
    pub(super) async fn text(&self, path: &str, max_bytes: usize) -> Option<String> {
        let _turn = self.turns.turn().await.ok()?;
        let request = http::Request::get(path).header("Accept", "application/json").body(Vec::new()).ok()?;
        let client = self.client();
        let text = tokio::time::timeout(LIMIT, client.request_text(request)).await.ok()?.ok()?;
        (text.len() <= max_bytes).then_some(text)
    }

    /// The kind of an object; see [`Kinds::find`].
    pub(super) async fn kind(&self, key: &Key, version: Option<&str>) -> Result<Kind, DriverError> {
        self.kinds.find(&self.client(), key, version).await
    }

    /// The server may serve other kinds now.
    pub(super) fn forget_kinds(&self) {
        self.kinds.forget();
        self.defined.forget();
    }

    fn api(&self, kind: &Kind, key: &Key) -> Api<DynamicObject> {
        if kind.namespaced && !key.namespace.is_empty() {
            Api::namespaced_with(self.client(), &key.namespace, &kind.resource)
        } else {
            Api::all_with(self.client(), &kind.resource)
        }
    }

    /// An object as it is; none if it is not there.
    pub(super) async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, DriverError> {
        let _turn = self.turns.turn().await?;
        let api = self.api(kind, key);
        match reading(api.get(&key.name)).await? {
            Ok(object) => to_value(key, &object).map(Some),
            Err(error) if answer::is_missing(&error) => Ok(None),
            Err(error) if answer::is_no_place(&error) => {
                self.kinds.forget();
                Err(kinds::missing(key, None))
            }
            Err(error) => Err(answer::error(key, error)),
        }
    }

    /// An object in no namespace, for whom may list such and perhaps not get them; none if it is not there.
    pub(super) async fn listed(&self, kind: &Kind, name: &str) -> Result<Option<Value>, DriverError> {
        let _turn = self.turns.turn().await?;
        let key = kind.of(String::new(), name.to_owned());
        let api: Api<DynamicObject> = Api::all_with(self.client(), &kind.resource);
        let params = ListParams::default().fields(&format!("metadata.name={name}")).limit(1);
        let mut found = reading(api.list(&params)).await?.map_err(|error| answer::error(&key, error))?;
        found.items.pop().map(|object| to_value(&key, &object)).transpose()
    }

    /// Applies fields on the server's side; the object as it is then, or as it would be.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] also if meanwhile somebody has made another object of that name than the write is about.
    pub(super) async fn apply(
        &self,
        kind: &Kind,
        key: &Key,
        value: &Value,
        force: bool,
        write: Write<'_>,
    ) -> Result<Value, DriverError> {
        let said = self.patch(kind, key, &write.conditional(value), force, write).await?;
        let applied = match (said, write) {
            (Err(error), Write::New) if answer::may_be_there(key, &error) => {
                if self.get(kind, key).await?.is_some() {
                    return Err(answer::not_the_same(key));
                }
                // Some servers take no condition of that kind, for some kinds.
                self.patch(kind, key, value, force, write).await?
            }
            (Err(error), Write::Over(_)) if answer::is_another(&error) => return Err(answer::not_the_same(key)),
            (said, _) => said,
        };
        applied.map_err(|error| answer::error(key, error)).and_then(|object| to_value(key, &object))
    }

    async fn patch(
        &self,
        kind: &Kind,
        key: &Key,
        value: &Value,
        force: bool,
        write: Write<'_>,
    ) -> Result<Result<DynamicObject, kube::Error>, DriverError> {
        let _turn = self.turns.turn().await?;
        let api = self.api(kind, key);
        let dry_run = matches!(write, Write::Try);
        let params = PatchParams { dry_run, force, field_manager: Some(MANAGER.into()), field_validation: None };
        let patch = Patch::Apply(value);
        let call = api.patch(&key.name, &params, &patch);
        if dry_run { reading(call).await } else { writing(call).await }
    }

    /// Merges a change into an object, if it is still of this version.
    pub(super) async fn merge(&self, kind: &Kind, key: &Key, change: &Value) -> Result<Value, DriverError> {
        let _turn = self.turns.turn().await?;
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
        let _turn = self.turns.turn().await?;
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

    /// Looks at the metadata of all objects of a kind with these labels, in one namespace or in all, one page after the other
    /// until enough was seen. However many there are, no more than a page is in memory; whoever asks has a time limit.
    pub(super) async fn each(
        &self,
        kind: &Kind,
        labels: &str,
        namespace: Option<&str>,
        page: u32,
        mut look: impl FnMut(ObjectMeta) -> ControlFlow<()> + Send,
    ) -> Result<(), DriverError> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &kind.resource),
            None => Api::all_with(self.client(), &kind.resource),
        };
        let mut params = ListParams::default().limit(page);
        if !labels.is_empty() {
            params = params.labels(labels);
        }
        let all = kind.of(namespace.unwrap_or_default().to_owned(), "*".to_owned());
        loop {
            let _turn = self.turns.turn().await?;
            let page = match reading(api.list_metadata(&params)).await? {
                Ok(page) => page,
                Err(error) if answer::is_no_place(&error) => {
                    self.kinds.forget();
                    return Err(kinds::missing(&all, None));
                }
                Err(error) => return Err(answer::error(&all, error)),
            };
            if page.items.into_iter().try_for_each(|object| look(object.metadata)).is_break() {
                return Ok(());
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params.continue_token = Some(next),
                None => return Ok(()),
            }
        }
    }
}

fn to_value(key: &Key, object: &DynamicObject) -> Result<Value, DriverError> {
    serde_json::to_value(object).map_err(|error| DriverError::Unavailable {
        reason: format!("{key}: what the API server said is no object: {error}"),
        retry_after: None,
    })
}

pub(super) async fn reading<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, DriverError> {
    tokio::time::timeout(LIMIT, call).await.map_err(|_| DriverError::Unavailable {
        reason: format!("the API server did not answer within {} s", LIMIT.as_secs()),
        retry_after: None,
    })
}

/// Where no answer comes, nobody knows whether it was done.
async fn writing<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<Result<T, kube::Error>, DriverError> {
    let said = tokio::time::timeout(LIMIT, call).await.map_err(|_| DriverError::Timeout { after: LIMIT })?;
    said.map_or_else(|error| answer::unanswered(&error).map_or(Ok(Err(error)), Err), |done| Ok(Ok(done)))
}
