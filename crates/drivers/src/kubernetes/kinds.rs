//! Which kinds an API server serves, and where: asked when needed, and remembered for a while.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::core::{ApiResource, GroupVersion};
use kube::discovery::{self, ApiCapabilities, Scope, verbs};
use tokio::sync::Mutex;

use super::manifest::Key;
use crate::DriverError;

const NOT_SERVED: &str = "the API server does not serve the kind";
/// For so long it is believed what a server serves.
const BELIEVED: Duration = Duration::from_secs(600);
/// And that it does not serve something.
const MISSED: Duration = Duration::from_secs(2);
/// The longest that a server may take to say it.
const LIMIT: Duration = Duration::from_secs(10);

/// A kind as a server serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
    /// Whether it can be listed and watched.
    pub(super) watched: bool,
}

/// What a kind is called in all its versions: its group, and its own name.
pub(super) type Name = (String, String);

impl Kind {
    pub(super) fn named(&self) -> Name {
        (self.resource.group.clone(), self.resource.kind.clone())
    }

    /// An object of this kind.
    pub(super) fn of(&self, namespace: String, name: String) -> Key {
        Key { group: self.resource.group.clone(), kind: self.resource.kind.clone(), namespace, name }
    }

    /// Objects of this kind that nobody remembers stay: their server does not let them be listed.
    pub(super) fn is_not_looked_for(&self, reason: &str) {
        tracing::warn!(kind = self.resource.kind, reason, "what was made of this kind is not looked for");
    }
}

type Served = Vec<(ApiResource, ApiCapabilities)>;

/// What was asked last of one group and version, and when. One asks at a time.
type Asked = Arc<Mutex<Option<(Instant, Result<Served, DriverError>)>>>;

/// What was asked last of each group and version; an empty version stands for any.
#[derive(Debug, Default)]
pub(super) struct Kinds(std::sync::Mutex<HashMap<(String, String), Asked>>);

fn found((resource, capabilities): &(ApiResource, ApiCapabilities)) -> Kind {
    Kind {
        resource: resource.clone(),
        namespaced: capabilities.scope == Scope::Namespaced,
        watched: capabilities.supports_operation(verbs::WATCH) && capabilities.supports_operation(verbs::LIST),
    }
}

impl Kinds {
    /// The kind of an object, in a version or in the most stable one that the server has of it.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] also if the server does not serve it: it may do so once its definition is there.
    pub(super) async fn find(&self, client: &Client, key: &Key, version: Option<&str>) -> Result<Kind, DriverError> {
        let place = (key.group.clone(), version.unwrap_or_default().to_owned());
        // Others are asked of at the same time: one group that hangs holds up nobody else.
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default().clone();
        let mut asked = asked.lock().await;
        let of = |served: &Served| served.iter().find(|(resource, _)| resource.kind == key.kind).map(found);
        if let Some((at, served)) = &*asked {
            match served {
                Ok(served) => match of(served) {
                    Some(kind) if at.elapsed() < BELIEVED => return Ok(kind),
                    None if at.elapsed() < MISSED => return Err(missing(key, version)),
                    _ => {}
                },
                Err(error) if at.elapsed() < MISSED => return Err(error.clone()),
                Err(_) => {}
            }
        }
        let served = match tokio::time::timeout(LIMIT, ask(client, key, version)).await {
            Ok(Ok(served)) => Ok(served),
            Ok(Err(kube::Error::Discovery(_))) => Ok(Vec::new()),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Vec::new()),
            Ok(Err(error)) => Err(super::answer::error(key, error)),
            Err(_) => Err(DriverError::Unavailable {
                reason: format!("the API server did not say within {} s which kinds it serves", LIMIT.as_secs()),
                retry_after: None,
            }),
        };
        let kind = served.as_ref().map(of).map_err(Clone::clone);
        *asked = Some((Instant::now(), served));
        kind?.ok_or_else(|| missing(key, version))
    }

    /// What is served has changed: a definition was made.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn ask(client: &Client, key: &Key, version: Option<&str>) -> Result<Served, kube::Error> {
    match version {
        Some(version) => {
            let version = GroupVersion::gv(&key.group, version);
            let group = discovery::pinned_group(client, &version).await?;
            Ok(group.versioned_resources(&version.version))
        }
        None => discovery::group(client, &key.group).await.map(|group| group.resources_by_stability()),
    }
}

/// Whether an error says that a kind is not served.
pub(super) fn is_missing(error: &DriverError) -> bool {
    matches!(error, DriverError::Unavailable { reason, .. } if reason.contains(NOT_SERVED))
}

/// A kind is not served.
pub(super) fn missing(key: &Key, version: Option<&str>) -> DriverError {
    let version = version.map(|version| format!(" in version {version}")).unwrap_or_default();
    let kind = if key.group.is_empty() { key.kind.clone() } else { format!("{}.{}", key.kind, key.group) };
    DriverError::Unavailable {
        reason: format!("{key}: {NOT_SERVED} {kind}{version}: it is waited for; is its definition there?"),
        retry_after: None,
    }
}
