//! Keeping an edit: the engine takes it, the driver here makes it so, and whoever asked is told in the API server's words.

use hyper::Response;
use hyper::http::{HeaderMap, Method, StatusCode};
use khufu_crdt::Policy;
use khufu_drivers::kubernetes::check;
use khufu_engine::{Put, ReplicantView, Request, Response as Said};
use serde_json::{Value, json};

use super::Front;
use super::answer::{Body, Refusal, json_answer, warn};
use super::capture::Captured;
use super::keys::Keys;
use super::remembered::{self, Fields};
use super::rest::Rest;
use super::settled::{Settled, now_ms};
use super::upstream::{Answer, Question};
use super::{annotate, marks, who};

/// How an edit is answered.
pub(super) struct Telling<'a> {
    /// What the API server has said when it tried the write.
    pub(super) tried: &'a Answer,
    /// The path of what is told: the object, or a part of it.
    pub(super) path: String,
    pub(super) warnings: Vec<String>,
    /// What was changed of an object that was there.
    pub(super) written: Option<Written>,
    /// What the API server says to what is left to be done of the write, where it does not do it.
    pub(super) left: Option<String>,
}

/// What a write has changed.
pub(super) struct Written {
    /// The object as it would be.
    pub(super) after: Value,
    /// The fields that were not so before.
    pub(super) fields: Fields,
}

impl Written {
    /// The fields that are not as they were written.
    fn not_so(&self, now: &Value, keys: Keys<'_>) -> Vec<String> {
        remembered::common(&self.fields, &remembered::differing(&marks::others_own(now), &self.after, keys))
    }
}

impl Front {
    /// Makes an edit, does here what the driver would not do of it, waits for this site, and tells what came of it. The edit
    /// comes first: from then on it is known to all sites, whatever happens here, and no error is told.
    pub(super) async fn keep(
        &self,
        captured: &Captured,
        put: Put,
        policy: &Policy,
        rest: Option<Rest<'_>>,
        mut telling: Telling<'_>,
    ) -> Result<Response<Body>, Refusal> {
        self.may_keep(captured, &put, policy).await?;
        let who = who::of(self, &captured.headers).await;
        captured.begun.begin()?;
        let (events, since, id) = (self.handle.follow(None), now_ms(), put.id.clone());
        // The driver would be refused what is about to be taken.
        let held = rest.is_some().then(|| self.handle.hold(id.clone()));
        let view = match self.handle.request(who, Request::Put(put)).await? {
            Said::Created(view) | Said::Replicant(view) => view,
            _ => return Err(Refusal::busy("the node has answered something else")),
        };
        if let Some(rest) = rest {
            telling.left = rest.after_edit(self, captured).await;
        }
        drop(held);
        captured.leave_place();
        let settled = self.settled(&id, events, since, None).await;
        let settled = settled.unwrap_or_else(|refusal| Settled::Late(refusal.message));
        // How it has gone here and elsewhere is known better now.
        let view = self.view(&id).await.ok().flatten().unwrap_or(view);
        self.tell(captured, &view, settled, telling).await
    }

    /// Refuses an edit that the driver could make nothing of, or that whoever asks may not make.
    pub(super) async fn may_keep(&self, captured: &Captured, put: &Put, policy: &Policy) -> Result<(), Refusal> {
        if let Some(desired) = &put.desired {
            check(desired, &policy.options).map_err(|error| Refusal::invalid(error.to_string()))?;
        }
        self.allowed(captured, policy, put.policy.is_some()).await
    }

    /// What whoever asked expects to be told.
    pub(super) async fn tell(
        &self,
        captured: &Captured,
        view: &ReplicantView,
        settled: Settled,
        telling: Telling<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let Telling { tried, path, mut warnings, written, left } = telling;
        let site = self.handle.site();
        // It is accepted, and is so elsewhere, or will be: an error would be taken for nothing having been done.
        let (status, warning) = match settled {
            Settled::Applied => (None, None),
            Settled::Failed(words) => {
                let message = format!(
                    "{} is kept, but {site} cannot make it now: {words}. It is tried again now and then",
                    view.id
                );
                (Some(StatusCode::ACCEPTED), Some(message))
            }
            Settled::Late(words) => {
                let message = format!("{} is kept, and not made at {site} yet: {words}", view.id);
                (Some(StatusCode::ACCEPTED), Some(message))
            }
            Settled::Elsewhere => {
                let message = format!("{} is not kept at {site}: it lives at {}", view.id, view.scope);
                (Some(tried.status), Some(message))
            }
        };
        warnings.extend(warning);
        let is_left = left.is_some();
        warnings.extend(
            left.map(|words| format!("{} is kept, and what others have set here is not taken: {words}", view.id)),
        );
        let mut response = match status {
            None => {
                let (live, now) = self.live(captured, &path, tried, view).await?;
                let not_so = written.map(|written| written.not_so(&now, Keys(&view.policy.list_keys)));
                if let Some(fields) = not_so.filter(|fields| !fields.is_empty() && !now.is_null()) {
                    warnings.push(format!(
                        "here it is not as written: {}. The site has values of its own, an operation is laid over it, or \
                         somebody has written since",
                        fields.join(", ")
                    ));
                }
                live
            }
            Some(status) => shown(tried, status, view),
        };
        pass_warnings(&tried.headers, response.headers_mut());
        for warning in &warnings {
            warn(response.headers_mut(), warning);
        }
        if is_left {
            *response.status_mut() = StatusCode::ACCEPTED;
        }
        Ok(response)
    }

    /// What is there now, as whoever asked may see it; and the same as JSON, if it is some.
    async fn live(
        &self,
        captured: &Captured,
        path: &str,
        tried: &Answer,
        view: &ReplicantView,
    ) -> Result<(Response<Body>, Value), Refusal> {
        let accept = captured.headers.get(hyper::http::header::ACCEPT).cloned();
        let question =
            Question { method: Method::GET, path: path.to_owned(), from: &captured.headers, body: None, accept };
        // It is done: an error would be taken for nothing having been done.
        let Ok(mut answer) = self.upstream.ask(question).await else {
            return Ok((shown(tried, tried.status, view), Value::Null));
        };
        if answer.status == StatusCode::NOT_FOUND {
            let message = format!(
                "{} is kept, and the object is not at {}: somebody has removed it past Khufu. Apply it again to have it made again",
                view.id,
                self.handle.site()
            );
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", message));
        }
        if !answer.status.is_success() {
            // It may be created and not be read by whoever asks.
            return Ok((shown(tried, tried.status, view), Value::Null));
        }
        let now = answer.json();
        answer.status = tried.status;
        annotate::answer(self, &mut answer).await;
        Ok((answer.pass(), now))
    }

    /// Whether whoever asks may have the options that a policy has now. The driver has rights that he may not have.
    async fn allowed(&self, captured: &Captured, policy: &Policy, edited: bool) -> Result<(), Refusal> {
        let makes_namespaces = policy.options.get("create-namespaces") == Some(&Value::Bool(true));
        let namespaces = json!({"verb": "create", "version": "v1", "resource": "namespaces"});
        if !edited || !makes_namespaces || self.may(captured, namespaces).await? {
            return Ok(());
        }
        Err(Refusal::forbidden("the option create-namespaces needs the right to create namespaces"))
    }

    /// Whether the API server would let whoever asks do something, as `resourceAttributes` say what.
    pub(super) async fn may(&self, captured: &Captured, what: Value) -> Result<bool, Refusal> {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what}});
        let answer = self.upstream.ask(Question {
            method: Method::POST,
            path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
            from: &captured.headers,
            body: Some((super::capture::json_type(), review.to_string().into())),
            accept: None,
        });
        let answer = answer.await.and_then(Answer::or_later)?;
        Ok(answer.json().pointer("/status/allowed") == Some(&Value::Bool(true)))
    }
}

/// What the API server would have made, with what people said.
fn shown(tried: &Answer, status: StatusCode, view: &ReplicantView) -> Response<Body> {
    let mut object = tried.json();
    annotate::add(&mut object, view, serde_json::Map::new());
    json_answer(status, &object)
}

/// Passes on what the API server has warned of.
fn pass_warnings(from: &HeaderMap, to: &mut HeaderMap) {
    for warning in from.get_all(hyper::http::header::WARNING) {
        to.append(hyper::http::header::WARNING, warning.clone());
    }
}
