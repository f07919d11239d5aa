//! Watching objects: who changed one that is a replicant's is to be looked at.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use khufu_crdt::ReplicantId;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::kinds::Kind;
use super::server::Server;
use super::stamp;

/// So many changes are kept for a receiver that is slow.
const CAPACITY: usize = 4096;
/// The most kinds that are watched; others are looked at now and then.
const MAX_KINDS: usize = 128;
/// Objects of one page when a watch begins.
const PAGE: u32 = 500;
/// What changes again within this time is looked at once.
const SETTLE: Duration = Duration::from_millis(500);
/// So many versions that were written here are remembered.
const MAX_WRITTEN: usize = 4096;

/// Watches of kinds, one for each that is in use. Only objects with Khufu's label, and only their metadata.
pub(super) struct Watcher {
    changes: broadcast::Sender<ReplicantId>,
    kinds: Mutex<HashMap<(String, String), AbortHandle>>,
    written: Arc<Mutex<Written>>,
}

/// The uid of an object and its version.
type Version = (String, String);

/// Versions of objects that were written here, so that nobody looks because of these.
#[derive(Default)]
struct Written(VecDeque<Version>);

impl Written {
    fn are_all(&self, versions: &[Version]) -> bool {
        versions.iter().all(|version| self.0.contains(version))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    pub(super) fn new() -> Self {
        let (changes, _) = broadcast::channel(CAPACITY);
        Self { changes, kinds: Mutex::default(), written: Arc::default() }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ReplicantId> {
        self.changes.subscribe()
    }

    /// An object was written here.
    pub(super) fn wrote(&self, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut written = lock(&self.written);
        if written.0.len() >= MAX_WRITTEN {
            written.0.pop_front();
        }
        written.0.push_back((text("/metadata/uid"), text("/metadata/resourceVersion")));
    }

    /// Watches a kind from now on, if it can be.
    pub(super) fn watch(&self, server: &Arc<Server>, kind: &Kind) {
        if !kind.watched {
            return;
        }
        let mut kinds = lock(&self.kinds);
        let name = (kind.resource.group.clone(), kind.resource.kind.clone());
        if kinds.get(&name).is_some_and(|task| !task.is_finished()) || kinds.len() >= MAX_KINDS {
            return;
        }
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(server.client.clone(), &kind.resource);
        let task = tokio::spawn(follow(api, self.changes.clone(), self.written.clone()));
        kinds.insert(name, task.abort_handle());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.kinds).values().for_each(AbortHandle::abort);
    }
}

/// Follows one kind for ever: lost connections and versions that are gone are made good, with a pause that grows.
async fn follow(
    api: Api<PartialObjectMeta<DynamicObject>>,
    changes: broadcast::Sender<ReplicantId>,
    written: Arc<Mutex<Written>>,
) {
    let config = watcher::Config::default().labels(stamp::REPLICANT).page_size(PAGE);
    let events = watcher(api, config).default_backoff();
    pin_mut!(events);
    let mut due: BTreeMap<ReplicantId, (Instant, Vec<Version>)> = BTreeMap::new();
    loop {
        let first = due.values().map(|(at, _)| *at).min();
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if let Some((id, version)) = changed(event) {
                        due.entry(id).or_insert_with(|| (Instant::now() + SETTLE, Vec::new())).1.push(version);
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "a watch is begun anew"),
                None => return,
            },
            () = until(first) => {
                let now = Instant::now();
                due.retain(|id, (at, versions)| {
                    if *at <= now && !lock(&written).are_all(versions) {
                        let _ = changes.send(id.clone());
                    }
                    *at > now
                });
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whose object has changed, and to which version; to none if it is gone. What is there when a watch begins counts, too: it
/// may have changed while there was none.
fn changed(event: watcher::Event<PartialObjectMeta<DynamicObject>>) -> Option<(ReplicantId, Version)> {
    let (mut object, gone) = match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => (object, false),
        watcher::Event::Delete(object) => (object, true),
        watcher::Event::Init | watcher::Event::InitDone => return None,
    };
    let id = object.metadata.annotations.as_mut()?.remove(stamp::REPLICANT)?.parse().ok()?;
    let version = object.metadata.resource_version.filter(|_| !gone).unwrap_or_default();
    Some((id, (object.metadata.uid.unwrap_or_default(), version)))
}
