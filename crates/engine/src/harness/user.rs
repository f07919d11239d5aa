//! What users do in a simulation, and what they can check.

use std::collections::BTreeSet;
use std::time::Duration;

use khufu_crdt::{Policy, ReplicantId, Status};
use serde_json::Value;

use super::World;
use crate::{Input, Operate, Put, Request, RequestError, RequestId, Response};

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replicant's name.
///
/// # Panics
/// If it is not one.
#[allow(clippy::expect_used, reason = "this is how a scenario fails")]
fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).expect("a name for a replicant")
}

impl World {
    /// A user asks at a site and does not wait. The number of the question.
    pub fn ask(&mut self, site: &str, request: Request) -> RequestId {
        self.requests += 1;
        let number = RequestId(self.requests);
        self.hand(site, Input::Request { id: number, who: "user".into(), request });
        number
    }

    /// The answer to a question, once it is there.
    pub fn answer(&mut self, site: &str, number: RequestId) -> Option<Result<Response, RequestError>> {
        self.sites.get_mut(site)?.answers.remove(&number)
    }

    /// A user asks at a site and waits for the answer.
    ///
    /// # Errors
    /// What the site says.
    pub fn request(&mut self, site: &str, request: Request) -> Result<Response, RequestError> {
        let number = self.ask(site, request);
        let mut answer = None;
        self.until("an answer", PATIENCE, |world| {
            answer = world.answer(site, number);
            answer.is_some()
        });
        answer.unwrap_or_else(|| Err(RequestError::Busy { message: "no answer".into() }))
    }

    /// Puts a replicant of the simulated kind.
    ///
    /// # Panics
    /// If that is refused.
    #[allow(clippy::expect_used, reason = "this is how a scenario fails")]
    pub fn put(&mut self, site: &str, name: &str, scope: &str, desired: Value) {
        self.try_put(site, name, scope, Some(desired), None).expect("a replicant that can be put");
    }

    /// Puts a replicant with a policy and no desired state.
    ///
    /// # Panics
    /// If that is refused.
    #[allow(clippy::expect_used, reason = "this is how a scenario fails")]
    pub fn put_with(&mut self, site: &str, name: &str, scope: &str, policy: &Policy) {
        self.try_put(site, name, scope, None, Some(policy.clone())).expect("a replicant that can be put");
    }

    /// Puts a replicant.
    ///
    /// # Errors
    /// What the site says.
    pub fn try_put(
        &mut self,
        site: &str,
        name: &str,
        scope: &str,
        desired: Option<Value>,
        policy: Option<Policy>,
    ) -> Result<Response, RequestError> {
        let put = Put {
            id: id(name),
            kind: Some("text".into()),
            scope: Some(scope.to_owned()),
            policy,
            desired,
            overrides: None,
            base: None,
        };
        self.request(site, Request::Put(put))
    }

    /// Patches the desired state.
    ///
    /// # Errors
    /// What the site says.
    pub fn patch(&mut self, site: &str, name: &str, patch: Value) -> Result<Response, RequestError> {
        self.request(site, Request::Patch { id: id(name), patch })
    }

    /// Asks for an operation and does not wait for others.
    ///
    /// # Errors
    /// What the site says.
    pub fn operate(&mut self, site: &str, name: &str, op_type: &str, payload: &str) -> Result<Response, RequestError> {
        self.request(site, operation(name, op_type, payload, 0))
    }

    /// What a replica holds on the platform of a site.
    #[must_use]
    pub fn text(&self, site: &str, name: &str) -> Option<String> {
        self.sites.get(site)?.platform.text(&id(name)).map(ToOwned::to_owned)
    }

    /// Why not all is at rest and the same everywhere, if it is not: the first reason found.
    #[must_use]
    pub fn disagreement(&self) -> Option<String> {
        self.disagreement_but(&BTreeSet::new())
    }

    /// The same without some replicants.
    #[must_use]
    pub fn disagreement_but(&self, without: &BTreeSet<String>) -> Option<String> {
        let running: Vec<_> = self.sites.iter().filter_map(|(name, site)| Some((name, site, site.engine()?))).collect();
        let mut ids = BTreeSet::new();
        for (name, _, engine) in &running {
            for (id, entry) in engine.replicants.index.iter() {
                if entry.dropped || without.contains(id.as_str()) {
                    continue;
                }
                if !entry.settled {
                    return Some(format!("{name} is not done with {id}"));
                }
                ids.insert(id.clone());
            }
            if engine.outbox.outstanding() > 0 {
                return Some(format!("{name} is writing"));
            }
        }
        for id in ids {
            let mut seen = None;
            for (name, site, engine) in &running {
                let Some(entry) = engine.replicants.held(&id) else { continue };
                let placed = entry.placement.as_ref().is_some_and(|placement| {
                    placement.sites().iter().any(|at| at.as_str() == *name && placement.has_replica(at))
                });
                let value = (entry.epoch, &entry.heads, entry.deleted);
                match &seen {
                    None => seen = Some(value),
                    Some(seen) if *seen != value => return Some(format!("{name} has another document of {id}")),
                    Some(_) => {}
                }
                for site in entry.placement.iter().flat_map(|placement| placement.sites()) {
                    let other = running.iter().find(|(other, _, _)| *other == site.as_str());
                    if let Some((_, _, other)) = other
                        && other.replicants.held(&id).is_none()
                    {
                        return Some(format!("{site} has not heard of {id}"));
                    }
                    let reported = entry.reports.get(site);
                    if !entry.deleted && !entry.current.contains(site) {
                        return Some(format!("{name} has no report of {site} on the newest heads of {id}"));
                    }
                    if entry.deleted && reported.is_none_or(|(_, status, _)| *status != Status::Removed) {
                        return Some(format!("{name} has not heard that {site} removed {id}"));
                    }
                }
                if (entry.deleted || !placed) && site.platform.text(&id).is_some() {
                    return Some(format!("{name} still has a replica of {id}"));
                }
            }
        }
        None
    }
}

/// A request for an operation.
#[must_use]
pub(crate) fn operation(name: &str, op_type: &str, payload: &str, wait_ms: u64) -> Request {
    Request::Operate(Operate {
        id: id(name),
        operation: None,
        op_type: op_type.to_owned(),
        payload: Value::String(payload.to_owned()),
        wait_ms,
    })
}
