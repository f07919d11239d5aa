//! Watching objects: who changed one that is a replicant's is to be looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use khufu_crdt::ReplicantId;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::sync::{Notify, broadcast};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::kinds::Kind;
use super::server::Server;
use super::stamp;

/// So many changes are kept for a receiver that is slow.
const CAPACITY: usize = 4096;
/// The most watches; objects of other kinds are looked at now and then.
const MAX_WATCHES: usize = 128;
/// Objects of one page when a watch begins.
const PAGE: u32 = 500;
/// What changes again within this time is looked at once.
const SETTLE: Duration = Duration::from_millis(500);
/// Of so many objects of a kind it is remembered how they were when they were last looked at.
const MAX_SEEN: usize = 50_000;
/// A watch that was refused is begun anew after so long, if its kind is still in use.
const REFUSED: Duration = Duration::from_secs(60);

type Meta = PartialObjectMeta<DynamicObject>;

/// A group and a kind in it.
type Name = (String, String);

/// What is watched: a kind, in one namespace or in all.
type Place = (Name, Option<String>);

/// Watches of kinds, one for each that is in use. Only objects with Khufu's label, and only their metadata.
pub(super) struct Watcher {
    changes: broadcast::Sender<ReplicantId>,
    suspect: Arc<Notify>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    watches: HashMap<Place, Watch>,
    /// The kinds that may only be watched in single namespaces.
    narrow: HashSet<Name>,
    seen: HashMap<Name, Seen>,
}

struct Watch {
    kind: Kind,
    begun: Instant,
    task: AbortHandle,
}

/// Objects of one kind by their uid, as they were when they were last written or looked at here.
type Seen = HashMap<String, Known>;

struct Known {
    id: ReplicantId,
    namespace: String,
    version: String,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(kind: &Kind) -> Name {
    (kind.resource.group.clone(), kind.resource.kind.clone())
}

impl Watcher {
    pub(super) fn new(suspect: Arc<Notify>) -> Self {
        let (changes, _) = broadcast::channel(CAPACITY);
        Self { changes, suspect, state: Arc::default() }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ReplicantId> {
        self.changes.subscribe()
    }

    /// An object was written or looked at here: nobody need look because of this version of it.
    pub(super) fn saw(&self, kind: &Kind, id: &ReplicantId, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = Known {
            id: id.clone(),
            namespace: text("/metadata/namespace"),
            version: text("/metadata/resourceVersion"),
        };
        let mut state = lock(&self.state);
        let seen = state.seen.entry(name(kind)).or_default();
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        seen.insert(text("/metadata/uid"), known);
    }

    /// Watches a kind from now on, if it can be: where the rights do not suffice for all namespaces, in this one.
    pub(super) fn watch(&self, server: &Arc<Server>, kind: &Kind, namespace: &str) {
        if !kind.watched {
            return;
        }
        let mut state = lock(&self.state);
        let narrow = !namespace.is_empty() && state.narrow.contains(&name(kind));
        self.begin(&mut state, server, kind, narrow.then(|| namespace.to_owned()), false);
    }

    fn begin(&self, state: &mut State, server: &Arc<Server>, kind: &Kind, namespace: Option<String>, again: bool) {
        let place = (name(kind), namespace);
        let again = match state.watches.get(&place) {
            Some(watch) if !again && !watch.task.is_finished() => return,
            // One that cannot be is not tried with every object.
            Some(watch) if !again && watch.begun.elapsed() < REFUSED => return,
            Some(watch) => {
                watch.task.abort();
                true
            }
            None if state.watches.values().filter(|watch| !watch.task.is_finished()).count() >= MAX_WATCHES => {
                tracing::warn!(
                    kind = place.0.1,
                    "changes by hand are not seen: there are too many kinds to watch them all"
                );
                return;
            }
            None => false,
        };
        let api: Api<Meta> = match &place.1 {
            Some(namespace) => Api::namespaced_with(server.client(), namespace, &kind.resource),
            None => Api::all_with(server.client(), &kind.resource),
        };
        let follower = Follower {
            place: place.clone(),
            changes: self.changes.clone(),
            suspect: self.suspect.clone(),
            state: self.state.clone(),
            due: BTreeMap::new(),
            listed: None,
            complete: again,
        };
        let task = tokio::spawn(follower.follow(api)).abort_handle();
        state.watches.insert(place, Watch { kind: kind.clone(), begun: Instant::now(), task });
    }

    /// Watches all anew: the server is reached in another way.
    pub(super) fn begin_anew(&self, server: &Arc<Server>) {
        let mut state = lock(&self.state);
        let all: Vec<_> =
            state.watches.iter().map(|((_, namespace), watch)| (watch.kind.clone(), namespace.clone())).collect();
        for (kind, namespace) in all {
            self.begin(&mut state, server, &kind, namespace, true);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.state).watches.values().for_each(|watch| watch.task.abort());
    }
}

/// One watch.
struct Follower {
    place: Place,
    changes: broadcast::Sender<ReplicantId>,
    suspect: Arc<Notify>,
    state: Arc<Mutex<State>>,
    /// Who is to be looked at, when, and because of which versions of which objects.
    due: BTreeMap<ReplicantId, (Instant, BTreeMap<String, String>)>,
    /// The objects that are there, while they are being listed.
    listed: Option<BTreeSet<String>>,
    /// They were listed before.
    complete: bool,
}

impl Follower {
    /// Follows for ever: lost connections and versions that are gone are made good, with a pause that grows. Ends when the
    /// kind is served no more, or may not be watched.
    async fn follow(mut self, api: Api<Meta>) {
        let config = watcher::Config::default().labels(stamp::REPLICANT).page_size(PAGE);
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        loop {
            let first = self.due.values().map(|(at, _)| *at).min();
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(event),
                    Some(Err(error)) => if self.is_over(&error) {
                        break;
                    },
                    None => break,
                },
                () = until(first) => self.tell(Instant::now()),
            }
        }
        // What happens from now on is not seen: who looks begins another watch.
        let known =
            lock(&self.state).seen.get(&self.place.0).map(|seen| seen.values().map(|known| known.id.clone()).collect());
        let known: BTreeSet<ReplicantId> = known.unwrap_or_default();
        known.into_iter().chain(self.due.into_keys()).for_each(|id| drop(self.changes.send(id)));
    }

    /// Whether it is of no use to go on.
    fn is_over(&self, error: &watcher::Error) -> bool {
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => status.code,
            _ => 0,
        };
        let ((group, kind), namespace) = &self.place;
        match code {
            404 => {
                tracing::info!(group, kind, "the API server does not serve the kind any more as it was watched");
                true
            }
            403 => {
                tracing::warn!(group, kind, namespace, %error, "changes by hand are not seen: the kind may not be watched");
                if namespace.is_none() {
                    lock(&self.state).narrow.insert(self.place.0.clone());
                }
                true
            }
            _ => {
                tracing::debug!(group, kind, namespace, %error, "a watch is begun anew");
                if code == 0 || code == 401 || code >= 500 {
                    self.suspect.notify_one();
                }
                false
            }
        }
    }

    fn event(&mut self, event: watcher::Event<Meta>) {
        match event {
            watcher::Event::Apply(object) => self.changed(object, false),
            watcher::Event::Delete(object) => self.changed(object, true),
            watcher::Event::Init => self.listed = Some(BTreeSet::new()),
            watcher::Event::InitApply(object) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                let seen = || lock(&self.state).seen.get(&self.place.0).is_some_and(|seen| seen.contains_key(&uid));
                // What is there when the first watch begins, and nobody has looked at yet, is looked at anyway.
                if self.complete || seen() {
                    self.changed(object, false);
                }
                if let Some(listed) = &mut self.listed {
                    listed.insert(uid);
                }
            }
            watcher::Event::InitDone => {
                self.complete = true;
                let listed = self.listed.take().unwrap_or_default();
                self.gone(&listed);
            }
        }
    }

    /// What was there and is not in the list was removed while nobody watched.
    fn gone(&mut self, listed: &BTreeSet<String>) {
        let mut state = lock(&self.state);
        let Some(seen) = state.seen.get_mut(&self.place.0) else { return };
        let here = |known: &Known| self.place.1.as_ref().is_none_or(|namespace| *namespace == known.namespace);
        let at = Instant::now() + SETTLE;
        seen.retain(|uid, known| {
            let is_gone = here(known) && !listed.contains(uid);
            if is_gone {
                let due = self.due.entry(known.id.clone()).or_insert_with(|| (at, BTreeMap::new()));
                due.1.insert(uid.clone(), String::new());
            }
            !is_gone
        });
    }

    /// Somebody has written or removed an object.
    fn changed(&mut self, mut object: Meta, gone: bool) {
        let annotation = object.metadata.annotations.as_mut().and_then(|all| all.remove(stamp::REPLICANT));
        let uid = object.metadata.uid.unwrap_or_default();
        // Somebody may have taken away what says whose it is.
        let known = || lock(&self.state).seen.get(&self.place.0)?.get(&uid).map(|known| known.id.clone());
        let Some(id) = annotation.and_then(|id| id.parse().ok()).or_else(known) else { return };
        let version = object.metadata.resource_version.filter(|_| !gone).unwrap_or_default();
        if gone && let Some(seen) = lock(&self.state).seen.get_mut(&self.place.0) {
            seen.remove(&uid);
        }
        let due = self.due.entry(id).or_insert_with(|| (Instant::now() + SETTLE, BTreeMap::new()));
        due.1.insert(uid, version);
    }

    /// Tells of whom it is time to look at: not if what has changed was written or seen here meanwhile.
    fn tell(&mut self, now: Instant) {
        let state = lock(&self.state);
        let seen = state.seen.get(&self.place.0);
        let is_seen = |(uid, version): (&String, &String)| {
            seen.and_then(|seen| seen.get(uid)).is_some_and(|known| known.version == *version)
        };
        self.due.retain(|id, (at, versions)| {
            if *at <= now && !versions.iter().all(is_seen) {
                let _ = self.changes.send(id.clone());
            }
            *at > now
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
