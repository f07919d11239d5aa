//! One watch: of a kind, in one namespace or in all. Where there can be none, a list now and then takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use khufu_crdt::ReplicantId;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::kinds::Kind;
use super::server::{PAGE, Server};
use super::stamp;
use super::watching::{Blind, Known, Place, Shared};

/// What changes again within this time is looked at once.
const SETTLE: Duration = Duration::from_millis(500);

type Meta = PartialObjectMeta<DynamicObject>;

/// One watch.
pub(super) struct Follower {
    place: Place,
    kind: Kind,
    server: Arc<Server>,
    shared: Arc<Shared>,
    /// Somebody has to do with the kind, so it is served.
    wake: Arc<Notify>,
    /// Who is to be looked at, when, and because of which versions of which objects.
    due: BTreeMap<ReplicantId, (Instant, BTreeMap<String, Version>)>,
    /// The objects that are there, while they are being listed.
    listed: Option<BTreeSet<String>>,
    /// They were listed before.
    complete: bool,
}

/// A version of an object in a namespace; none of one that is gone.
struct Version {
    namespace: String,
    version: Option<String>,
}

/// How listening ended.
enum End {
    /// All was listed, and is not watched: for this reason, if it was refused.
    Listed(Option<Blind>),
    /// It may not even be listed.
    Unseen(Blind),
}

impl Follower {
    pub(super) fn new(
        place: Place,
        kind: Kind,
        server: Arc<Server>,
        shared: Arc<Shared>,
        wake: Arc<Notify>,
        complete: bool,
    ) -> Self {
        Self { place, kind, server, shared, wake, due: BTreeMap::new(), listed: None, complete }
    }

    /// Follows for ever: lost connections and versions that are gone are made good, with a pause that grows; and so is what
    /// was refused, since rights and kinds come and go.
    pub(super) async fn follow(mut self) {
        let pace = self.shared.pace;
        let mut pause = pace.first;
        loop {
            let slot = if self.kind.watched { self.slot().await } else { None };
            let end = self.listen(slot.is_some(), &mut pause).await;
            let blind = match &end {
                End::Listed(refused) => refused.unwrap_or(match self.kind.watched {
                    true => Blind::TooMany,
                    false => Blind::NotOffered,
                }),
                End::Unseen(blind) => *blind,
            };
            let was_watched = slot.is_some();
            drop(slot);
            let is_new = self.set_blind(Some(blind));
            if matches!(end, End::Unseen(_)) && !is_new {
                // Nothing is seen from here: whoever has such objects has to look at them.
                self.tell_all();
            }
            if !was_watched {
                pause = pace.longest;
            }
            self.rest(pause, blind).await;
            pause = (pause * 2).min(pace.longest);
        }
    }

    /// A place among the watches. Who has just ended gives his away a moment later.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = self.shared.slots.clone().acquire_owned();
        tokio::time::timeout(self.shared.pace.first, slot).await.ok()?.ok()
    }

    /// Waits; of a kind that was gone and is back, not for longer than the first pause.
    async fn rest(&self, pause: Duration, blind: Blind) {
        let first = self.shared.pace.first.min(pause);
        tokio::time::sleep(first).await;
        tokio::select! {
            () = tokio::time::sleep(pause - first) => {}
            () = self.wake.notified(), if blind == Blind::Gone => {}
        }
    }

    /// Lists, and then watches if it may, until that is refused.
    async fn listen(&mut self, may_watch: bool, pause: &mut Duration) -> End {
        let api: Api<Meta> = match &self.place.1 {
            Some(namespace) => Api::namespaced_with(self.server.client(), namespace, &self.kind.resource),
            None => Api::all_with(self.server.client(), &self.kind.resource),
        };
        let config = watcher::Config::default().labels(stamp::REPLICANT).page_size(PAGE);
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        let (mut well, mut is_listed, mut end) = (None, false, None);
        loop {
            if is_listed && !may_watch && end.is_none() {
                end = Some(End::Listed(None));
            }
            if let Some(end) = end.take_if(|_| self.due.is_empty()) {
                return end;
            }
            let first = self.due.values().map(|(at, _)| *at).min();
            tokio::select! {
                event = events.next(), if end.is_none() => match event {
                    Some(Ok(event)) => {
                        if matches!(event, watcher::Event::InitDone) {
                            is_listed = true;
                            well = Some(Instant::now() + self.shared.pace.well);
                        }
                        self.event(event);
                    }
                    Some(Err(error)) => if let Some(blind) = self.is_over(&error) {
                        end = Some(if is_listed { End::Listed(Some(blind)) } else { End::Unseen(blind) });
                        well = None;
                    },
                    None => end = Some(End::Unseen(Blind::Gone)),
                },
                () = until(first) => self.tell(Instant::now()),
                () = until(well), if may_watch => {
                    well = None;
                    *pause = self.shared.pace.first;
                    self.is_well();
                }
            }
        }
    }

    /// Why it is of no use to go on, if it is of none.
    fn is_over(&self, error: &watcher::Error) -> Option<Blind> {
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => status.code,
            _ => 0,
        };
        let ((group, kind), namespace) = &self.place;
        match code {
            404 => Some(Blind::Gone),
            403 | 405 => {
                if code == 403 && namespace.is_none() && self.kind.namespaced {
                    self.shared.state().narrow.insert(self.place.0.clone());
                }
                Some(Blind::Refused)
            }
            _ => {
                tracing::debug!(group, kind, namespace, %error, "a watch is begun anew");
                if code == 0 || code == 401 || code >= 500 {
                    self.shared.suspect.notify_one();
                }
                None
            }
        }
    }

    /// Notes that changes are seen from now on, or are not any more. Whether that is new; then all replicas say so.
    fn set_blind(&self, blind: Option<Blind>) -> bool {
        if !self.shared.state().set_blind(&self.place, blind) {
            return false;
        }
        let ((group, kind), namespace) = &self.place;
        match blind {
            Some(blind) => {
                let every_s = self.shared.pace.longest.as_secs();
                tracing::warn!(group, kind, namespace, every_s, "changes by hand are seen late: {}", blind.as_str());
            }
            None => tracing::info!(group, kind, namespace, "changes by hand are seen at once again"),
        }
        self.tell_all();
        true
    }

    fn is_well(&self) {
        if self.place.1.is_none() {
            self.shared.state().widen(&self.place.0);
        }
        self.set_blind(None);
    }

    fn tell_all(&self) {
        let unseen = self.shared.state().unseen(&self.place);
        unseen.into_iter().for_each(|id| drop(self.shared.changes.send(id)));
    }

    fn event(&mut self, event: watcher::Event<Meta>) {
        match event {
            watcher::Event::Apply(object) => self.changed(object, false),
            watcher::Event::Delete(object) => self.changed(object, true),
            watcher::Event::Init => self.listed = Some(BTreeSet::new()),
            watcher::Event::InitApply(object) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                let seen = || self.shared.state().seen.get(&self.place.0).is_some_and(|seen| seen.contains_key(&uid));
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
        let mut state = self.shared.state();
        let Some(seen) = state.seen.get_mut(&self.place.0) else { return };
        let here = |known: &Known| self.place.1.as_ref().is_none_or(|namespace| *namespace == known.namespace);
        let at = Instant::now() + SETTLE;
        seen.retain(|uid, known| {
            let is_gone = here(known) && !listed.contains(uid);
            if is_gone {
                let due = self.due.entry(known.id.clone()).or_insert_with(|| (at, BTreeMap::new()));
                due.1.insert(uid.clone(), Version { namespace: known.namespace.clone(), version: None });
            }
            !is_gone
        });
    }

    /// Somebody has written or removed an object.
    fn changed(&mut self, mut object: Meta, gone: bool) {
        let annotation = object.metadata.annotations.as_mut().and_then(|all| all.remove(stamp::REPLICANT));
        let uid = object.metadata.uid.unwrap_or_default();
        // Somebody may have taken away what says whose it is.
        let known = || self.shared.state().seen.get(&self.place.0)?.get(&uid).map(|known| known.id.clone());
        let Some(id) = annotation.and_then(|id| id.parse().ok()).or_else(known) else { return };
        let version = object.metadata.resource_version.filter(|_| !gone);
        let namespace = object.metadata.namespace.unwrap_or_default();
        if gone && let Some(seen) = self.shared.state().seen.get_mut(&self.place.0) {
            seen.remove(&uid);
        }
        let due = self.due.entry(id).or_insert_with(|| (Instant::now() + SETTLE, BTreeMap::new()));
        due.1.insert(uid, Version { namespace, version });
    }

    /// Tells of whom it is time to look at: not if what has changed was written or seen here meanwhile. Of one version it is
    /// told once, also of what is another's and never looked at.
    fn tell(&mut self, now: Instant) {
        let mut state = self.shared.state();
        for (id, (_, versions)) in self.due.extract_if(.., |_, (at, _)| *at <= now) {
            let seen = state.seen.get(&self.place.0);
            let is_seen = |(uid, of): (&String, &Version)| {
                seen.and_then(|seen| seen.get(uid)).is_some_and(|known| Some(&known.version) == of.version.as_ref())
            };
            if versions.iter().all(is_seen) {
                continue;
            }
            let _ = self.shared.changes.send(id.clone());
            for (uid, Version { namespace, version }) in versions {
                if let Some(version) = version {
                    state.know(&self.place.0, uid, Known { id: id.clone(), namespace, version });
                }
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
