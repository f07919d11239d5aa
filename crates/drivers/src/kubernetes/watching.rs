//! Watching objects: who changed one that is a replicant's is to be looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use khufu_crdt::{Health, ReplicantId};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::task::AbortHandle;

use super::follower::Follower;
use super::kinds::Kind;
use super::manifest::Key;
use super::server::Server;

/// So many changes are kept for a receiver that is slow.
const CAPACITY: usize = 4096;
/// Of so many objects of a kind it is remembered how they were when they were last looked at or told of.
const MAX_SEEN: usize = 50_000;
/// The most kinds and namespaces that are watched, or listed now and then.
const MAX_PLACES: usize = 1_024;

/// A group and a kind in it.
pub(super) type Name = (String, String);

/// What is watched: a kind, in one namespace or in all.
pub(super) type Place = (Name, Option<String>);

/// How much is watched, and how often what is not is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The most watches at once.
    pub(super) watches: usize,
    /// The first pause after a watch was refused; it doubles.
    pub(super) first: Duration,
    /// The longest pause, and the one between two lists of what is not watched.
    pub(super) longest: Duration,
    /// A watch that has been going on for so long is one.
    pub(super) well: Duration,
    /// The pause before what could not be looked for, of what an earlier process has made, is looked for again.
    pub(super) again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let [first, longest, well, again] = [5, 300, 10, 60].map(Duration::from_secs);
        Self { watches: 128, first, longest, well, again }
    }
}

/// Why something is not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blind {
    /// The rights do not suffice.
    Refused,
    /// The kind is not served any more as it was.
    Gone,
    /// The API server offers no watch of the kind.
    NotOffered,
    /// As much as may be is watched already.
    TooMany,
}

impl Blind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "the API server does not let it be watched",
            Self::Gone => "the API server does not serve it as it was watched",
            Self::NotOffered => "the API server offers no watch of it",
            Self::TooMany => "so many kinds and namespaces are watched already as may be",
        }
    }
}

/// Watches of kinds, one for each that is in use. Only objects with Khufu's label, and only their metadata.
pub(super) struct Watcher(Arc<Shared>);

/// What all watches have in common.
pub(super) struct Shared {
    pub(super) changes: broadcast::Sender<ReplicantId>,
    pub(super) suspect: Arc<Notify>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) pace: Pace,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    watches: HashMap<Place, Watch>,
    /// The kinds that may only be watched in single namespaces.
    pub(super) narrow: HashSet<Name>,
    pub(super) seen: HashMap<Name, Seen>,
    /// What is not watched now, and why.
    blind: HashMap<Place, Blind>,
}

struct Watch {
    kind: Kind,
    task: AbortHandle,
    wake: Arc<Notify>,
}

/// Objects of one kind by their uid, as they were when they were last written, looked at or told of here.
pub(super) type Seen = HashMap<String, Known>;

pub(super) struct Known {
    pub(super) id: ReplicantId,
    pub(super) namespace: String,
    pub(super) version: String,
}

fn name(kind: &Kind) -> Name {
    (kind.resource.group.clone(), kind.resource.kind.clone())
}

impl Shared {
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether it is seen there when objects of this namespace change.
    fn sees(&self, place: &Place) -> bool {
        self.watches.contains_key(place) && !self.blind.contains_key(place)
    }

    /// Nobody need be told of this version of an object.
    pub(super) fn know(&mut self, name: &Name, uid: String, known: Known) {
        let seen = self.seen.entry(name.clone()).or_default();
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        seen.insert(uid, known);
    }

    /// Whose objects of a place are seen by no other watch.
    pub(super) fn unseen(&self, (name, within): &Place) -> BTreeSet<ReplicantId> {
        let of = |known: &&Known| match within {
            Some(namespace) => *namespace == known.namespace,
            None => !self.sees(&(name.clone(), Some(known.namespace.clone()))),
        };
        self.seen.get(name).into_iter().flat_map(HashMap::values).filter(of).map(|known| known.id.clone()).collect()
    }

    /// A place is watched from now on, or is not any more. Whether that is new.
    pub(super) fn set_blind(&mut self, place: &Place, blind: Option<Blind>) -> bool {
        match blind {
            Some(blind) => self.blind.insert(place.clone(), blind) != Some(blind),
            None => self.blind.remove(place).is_some(),
        }
    }

    /// A kind may be watched in all namespaces: watches of single ones are of no use any more.
    pub(super) fn widen(&mut self, name: &Name) {
        if !self.narrow.remove(name) {
            return;
        }
        let is_narrow = |place: &Place| place.0 == *name && place.1.is_some();
        self.blind.retain(|place, _| !is_narrow(place));
        self.watches.retain(|place, watch| {
            if is_narrow(place) {
                watch.task.abort();
            }
            !is_narrow(place)
        });
    }
}

impl Watcher {
    pub(super) fn new(suspect: Arc<Notify>, pace: Pace) -> Self {
        let (changes, _) = broadcast::channel(CAPACITY);
        let slots = Arc::new(Semaphore::new(pace.watches));
        Self(Arc::new(Shared { changes, suspect, slots, pace, state: Mutex::default() }))
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ReplicantId> {
        self.0.changes.subscribe()
    }

    /// An object was written or looked at here: nobody need look because of this version of it.
    pub(super) fn saw(&self, kind: &Kind, id: &ReplicantId, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = Known {
            id: id.clone(),
            namespace: text("/metadata/namespace"),
            version: text("/metadata/resourceVersion"),
        };
        self.0.state().know(&name(kind), text("/metadata/uid"), known);
    }

    /// Watches a kind from now on: where the rights do not suffice for all namespaces, in this one. What cannot be watched is
    /// listed now and then.
    pub(super) fn watch(&self, server: &Arc<Server>, kind: &Kind, namespace: &str) {
        let mut state = self.0.state();
        self.begin(&mut state, server, kind, None, false);
        if !namespace.is_empty() && state.narrow.contains(&name(kind)) {
            self.begin(&mut state, server, kind, Some(namespace.to_owned()), false);
        }
    }

    fn begin(&self, state: &mut State, server: &Arc<Server>, kind: &Kind, namespace: Option<String>, again: bool) {
        let place = (name(kind), namespace);
        let again = match state.watches.get(&place) {
            // One kind may be served in several versions: another is watched once the one that is watched is gone.
            Some(watch) if !again && (watch.kind == *kind || state.blind.get(&place) != Some(&Blind::Gone)) => {
                // And what was gone may be back.
                watch.wake.notify_one();
                return;
            }
            Some(watch) => {
                watch.task.abort();
                true
            }
            None if state.watches.len() >= MAX_PLACES => {
                tracing::warn!(
                    kind = place.0.1,
                    "changes by hand are not seen: too many kinds and namespaces are in use"
                );
                return;
            }
            None => false,
        };
        let wake = Arc::new(Notify::new());
        let follower = Follower::new(place.clone(), kind.clone(), server.clone(), self.0.clone(), wake.clone(), again);
        let task = tokio::spawn(follower.follow()).abort_handle();
        state.watches.insert(place, Watch { kind: kind.clone(), task, wake });
    }

    /// Watches all anew: the server is reached in another way.
    pub(super) fn begin_anew(&self, server: &Arc<Server>) {
        let mut state = self.0.state();
        let all: Vec<_> =
            state.watches.iter().map(|((_, namespace), watch)| (watch.kind.clone(), namespace.clone())).collect();
        for (kind, namespace) in all {
            self.begin(&mut state, server, &kind, namespace, true);
        }
    }

    /// Says of a replica what of it is not watched: it may be another than it seems.
    pub(super) fn with_blind<'k>(&self, health: Option<Health>, keys: impl Iterator<Item = &'k Key>) -> Option<Health> {
        let mut health = health?;
        let state = self.0.state();
        let blind = |key: &Key| {
            let name = (key.group.clone(), key.kind.clone());
            let places = [(name.clone(), None), (name, Some(key.namespace.clone()))];
            if places.iter().any(|place| state.sees(place)) {
                return None;
            }
            let why = places.iter().rev().find_map(|place| state.blind.get(place).copied());
            let is_listed = places.iter().any(|place| state.watches.contains_key(place));
            Some((key.kind.clone(), why.unwrap_or(Blind::TooMany), is_listed))
        };
        let Some((kind, why, is_listed)) = { keys }.find_map(blind) else { return Some(health) };
        let often = if is_listed {
            format!("only every {} s", self.0.pace.longest.as_secs())
        } else {
            "only when the replicas are compared".to_owned()
        };
        let said = format!("changes of {kind} by hand are looked for {often}: {}", why.as_str());
        let before = if health.message.is_empty() { String::new() } else { format!("{}; ", health.message) };
        health.message = format!("{before}{said}");
        Some(health)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.state().watches.values().for_each(|watch| watch.task.abort());
    }
}
