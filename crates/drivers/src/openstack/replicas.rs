//! The resources of replicants in one cloud, and what all that is done with them has in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use khufu_crdt::ReplicantId;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::api::{self, place};
use super::cloud::Source;
use super::desired::{self, Reference, Resource, To};
use super::kinds::{Kind, Mark};
use super::local::Local;
use super::mark::{self, Whose};
use super::session::Session;
use super::status::{State, state};
use crate::pulse::Pulse;
use crate::{DriverError, Replica, digest};

/// How long is waited in one turn for what a service is at work on; afterwards it is looked at again in the next.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);
/// The first pause between two looks; it doubles until it is as long as the other.
const SOON: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(2);
/// So long a service may be at a request whose answer was not waited for.
const LATE: Duration = Duration::from_secs(180);
/// Of so many replicants it is remembered what was done.
const MAX_KNOWN: usize = 100_000;

/// What is known of the resources of a replicant since this process began.
#[derive(Debug, Clone)]
pub(super) enum Trace {
    /// There are none but those that its local id names: the last that was done with them succeeded.
    Tidy,
    /// Some of these kinds may have been made that nobody has heard of.
    Touched(BTreeSet<&'static str>),
}

/// The resources of replicants in one cloud.
pub(super) struct Replicas {
    pub(super) session: Arc<Session>,
    pub(super) pulse: Pulse,
    traces: Mutex<BTreeMap<ReplicantId, Trace>>,
    /// When something with this mark was asked for last, if nobody knows what came of it.
    asked: Mutex<BTreeMap<String, Instant>>,
}

pub(super) fn whose(replica: &Replica) -> Whose<'_> {
    Whose { id: &replica.id, site: &replica.site }
}

/// A resource in words.
pub(super) fn words(replica: &Replica, kind: &Kind, name: &str) -> String {
    place(kind, if name.is_empty() { replica.id.as_str() } else { name })
}

/// The contents of a replica, by which sites are compared: of each resource what is asked for.
pub(super) fn digest_of(parts: &BTreeMap<String, Value>) -> String {
    digest(json!(parts).to_string().as_bytes())
}

/// The pauses between looks at something that takes its time.
pub(super) struct Pauses {
    next: Duration,
    until: Instant,
}

impl Pauses {
    pub(super) fn new(until: Instant) -> Self {
        Self { next: SOON, until }
    }

    /// Waits a while; false if there is no time left.
    pub(super) async fn pause(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        tokio::time::sleep(self.next).await;
        self.next = LONGEST.min(self.next * 2);
        true
    }
}

impl Replicas {
    pub(super) fn new(source: Source) -> Self {
        let pulse = Pulse::new();
        Self {
            session: Arc::new(Session::new(source, pulse.suspect())),
            pulse,
            traces: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    pub(super) fn trace(&self, id: &ReplicantId) -> Option<Trace> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Something of these kinds may be made from now on.
    pub(super) fn touch(&self, id: &ReplicantId, kinds: impl Iterator<Item = &'static str>) {
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if traces.len() >= MAX_KNOWN {
            traces.clear();
        }
        match traces.get_mut(id) {
            Some(Trace::Touched(touched)) => touched.extend(kinds),
            _ => _ = traces.insert(id.clone(), Trace::Touched(kinds.collect())),
        }
    }

    /// All that there is of a replicant is known now.
    pub(super) fn tidied(&self, id: &ReplicantId) {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Trace::Tidy);
    }

    /// Something with this mark is asked for now.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] while an earlier request without an answer may still be carried out: a second one would
    /// make another.
    pub(super) fn ask(&self, mark: &str, place: &str) -> Result<(), DriverError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| at.elapsed() < LATE);
        if asked.contains_key(mark) {
            let reason = format!(
                "{place}: it was asked for, and nobody has answered; it is looked for until it cannot come any more"
            );
            return Err(DriverError::Unavailable { reason, retry_after: Some(LONGEST) });
        }
        asked.insert(mark.to_owned(), Instant::now());
        Ok(())
    }

    /// It is known what came of it.
    pub(super) fn answered(&self, mark: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(mark);
    }

    /// What was asked for under the mark of this has come.
    pub(super) fn came(&self, kind: &Kind, live: &Value) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|mark, _| mark::begins(kind, live, mark) != Some(true));
    }

    /// Whether nothing of a replicant may still be made by a request that nobody has answered.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] while something may.
    pub(super) fn nothing_is_in_doubt(&self, replica: &Replica) -> Result<(), DriverError> {
        let prefix = whose(replica).prefix();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| at.elapsed() < LATE);
        if !asked.keys().any(|mark| mark.starts_with(&prefix)) {
            return Ok(());
        }
        let reason = format!(
            "something of {} was asked for, and nobody has answered; it is looked for until it cannot come any more",
            replica.id
        );
        Err(DriverError::Unavailable { reason, retry_after: Some(LONGEST) })
    }

    /// What a reference names here.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] while it is not there, or not ready.
    async fn resolve(&self, replica: &Replica, reference: &Reference, own: &[Local]) -> Result<String, DriverError> {
        let kind = reference.kind;
        let missing = |what: String| DriverError::Unavailable {
            reason: format!("it waits for the {what}, which is not there yet"),
            retry_after: None,
        };
        let (id, name) = match &reference.to {
            To::Own(name) => {
                let found = own.iter().find(|local| local.name == *name && local.kind.name == kind.name);
                return found.map(|local| local.id.clone()).ok_or_else(|| missing(place(kind, name)));
            }
            To::Called(name) => {
                let found = self.session.called(kind, name).await?;
                return found.ok_or_else(|| missing(format!("{} that is called so here", place(kind, name))));
            }
            To::Other(id, name) => (id, name),
        };
        let mark = Whose { id, site: &replica.site }.mark(name);
        let what = match name.is_empty() {
            true => format!("{} of the replicant {id}", kind.name),
            false => format!("{} of the replicant {id}", place(kind, name)),
        };
        let live = match kind.mark {
            Mark::Name => {
                let reason = format!("{what} carries no mark: write its name, {{$name: NAME}}");
                return Err(DriverError::invalid("$ref", reason));
            }
            // Nothing else is known of it by which it could be asked for.
            Mark::Beside(_) => self.session.marked(kind, &mark).await?.pop(),
            _ => self.session.find(kind, &mark, &Map::new(), &what).await?,
        };
        let live = live.ok_or_else(|| missing(what.clone()))?;
        match state(kind, &live) {
            State::Ready => api::id(kind, &live).ok_or_else(|| missing(what)),
            State::Working(status) | State::Failed(status) => Err(DriverError::Unavailable {
                reason: format!("it waits for the {what}, which is {status}"),
                retry_after: None,
            }),
        }
    }

    /// A resource with what its references name here, as they were written.
    pub(super) async fn ids(
        &self,
        replica: &Replica,
        resource: &Resource,
        all: &[Resource],
        own: &[Local],
    ) -> Result<Ids, DriverError> {
        let mut ids = Ids(Vec::new());
        for (written, reference) in resource.references(all) {
            if !ids.0.iter().any(|(known, _)| *known == written) {
                let id = self.resolve(replica, &reference, own).await?;
                ids.0.push((written, id));
            }
        }
        Ok(ids)
    }

    /// Waits for what has to be there before a resource and is not named in its fields.
    pub(super) async fn await_needs(
        &self,
        replica: &Replica,
        resource: &Resource,
        own: &[Local],
    ) -> Result<(), DriverError> {
        for reference in &resource.after {
            self.resolve(replica, reference, own).await?;
        }
        Ok(())
    }
}

/// What references name here.
pub(super) struct Ids(Vec<(Value, String)>);

impl Ids {
    /// Fields with local ids in the places of references.
    pub(super) fn put(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        let id = |written: &Value| self.0.iter().find(|(known, _)| known == written).map(|(_, id)| id.clone());
        let one = |(field, value): (&String, &Value)| (field.clone(), desired::resolved(value, &id));
        fields.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_and_not_answered_is_not_asked_for_again() {
        let replicas = Replicas::new(Source::Environment);
        assert!(replicas.ask("one", "server web").is_ok() && replicas.ask("two", "server db").is_ok());
        let error = replicas.ask("one", "server web").unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("nobody has answered"), "{error}");
        replicas.answered("one");
        assert!(replicas.ask("one", "server web").is_ok());
        // Nor is the replicant called tidy.
        let [web, db] = ["web", "db"].map(|id| Replica::new(id.parse().unwrap(), "paris".parse().unwrap()));
        let mark = whose(&web).mark("a");
        replicas.ask(&mark, "server a").unwrap();
        assert!(replicas.nothing_is_in_doubt(&web).is_err() && replicas.nothing_is_in_doubt(&db).is_ok());
        replicas.answered(&mark);
        assert!(replicas.nothing_is_in_doubt(&web).is_ok());
    }
}
