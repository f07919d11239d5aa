//! What is shown of other sites, as annotations of objects that are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::http::{HeaderMap, StatusCode, header};
use hyper::{Request, Response};
use khufu_crdt::{ReplicantId, Status};
use khufu_engine::{Liveness, ReplicantView, SiteStatus};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::answer::{Body, BoxError, Refusal};
use super::capture::Captured;
use super::marks::{self, LIVES_AT, SCOPE, SITES, STATUS};
use super::target::{Target, is_set};
use super::upstream::Answer;
use super::{Front, here, pass, scope};

/// The most bytes of an answer that is looked into.
const MAX_BYTES: usize = 4 << 20;
/// The most replicants that are asked for, for one answer, and how long that may take.
const MAX_ASKED: usize = 500;
const ASKING: Duration = Duration::from_secs(1);

/// Reads an object or all of a kind.
pub(super) async fn read(
    front: &Front,
    mut request: Request<Incoming>,
    target: &Target,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let watches = is_set(query, "watch");
    let accepted = request.headers().get_all(header::ACCEPT);
    // As a table, or as metadata only: of these there is nothing to be told.
    let plain = accepted.iter().filter_map(|value| value.to_str().ok()).all(|value| !value.contains("as="));
    if watches || !plain {
        return pass::pass(front, request, &target.path).await;
    }
    request.headers_mut().remove(header::ACCEPT_ENCODING);
    let response = pass::pass(front, request, &target.path).await?;
    if response.status() != StatusCode::OK || !is_json(response.headers()) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let whole = match up_to(body, MAX_BYTES).await? {
        Ok(whole) => whole,
        Err(rest) => return Ok(Response::from_parts(parts, rest)),
    };
    let mut answer = Answer { status: parts.status, headers: parts.headers, body: whole };
    self::answer(front, &mut answer).await;
    Ok(answer.pass())
}

/// Tries an apply that is only to be tried.
pub(super) async fn tried(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    let mut tried = front.try_it(captured, captured.body.clone()).await?;
    answer(front, &mut tried).await;
    Ok(tried.pass())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json")
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Reads a body if it is no longer than that; else it is given back as it was.
async fn up_to(mut body: Body, most: usize) -> Result<Result<Bytes, Body>, Refusal> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::unavailable(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > most {
            let begin = stream::once(async { Ok::<_, BoxError>(Frame::data(Bytes::from(read))) });
            return Ok(Err(StreamBody::new(Box::pin(begin.chain(BodyStream::new(body)))).boxed_unsync()));
        }
    }
    Ok(Ok(Bytes::from(read)))
}

/// Adds to an answer what is known of its objects.
pub(super) async fn answer(front: &Front, answer: &mut Answer) {
    let ours = khufu_drivers::kubernetes::LABEL.as_bytes();
    if answer.body.len() > MAX_BYTES || !answer.body.windows(ours.len()).any(|window| window == ours) {
        return;
    }
    // Further ones come as they are.
    let Ok(_place) = front.annotated.try_acquire() else { return };
    let mut known = Known { until: Instant::now() + ASKING, views: BTreeMap::new() };
    let mut value = answer.json();
    let of_list = value.get("items").is_some().then(|| kind_of_items(&value)).flatten();
    let changed = match (of_list, value.get_mut("items").and_then(Value::as_array_mut)) {
        (Some((version, kind)), Some(items)) => {
            let mut changed = false;
            for item in items.iter_mut().filter(|item| item.get("metadata").is_some()) {
                // The objects of a list do not say what they are.
                let mut named = item.clone();
                if let Some(fields) = named.as_object_mut() {
                    fields.entry("apiVersion").or_insert_with(|| version.clone().into());
                    fields.entry("kind").or_insert_with(|| kind.clone().into());
                }
                changed |= one(front, &mut known, &named, item).await;
            }
            changed
        }
        _ => {
            let named = value.clone();
            one(front, &mut known, &named, &mut value).await
        }
    };
    if changed {
        answer.body = Bytes::from(value.to_string());
    }
}

/// What the objects of a list are.
pub(super) fn kind_of_items(list: &Value) -> Option<(String, String)> {
    let kind = list.get("kind")?.as_str()?.strip_suffix("List")?;
    Some((list.get("apiVersion")?.as_str()?.to_owned(), kind.to_owned()))
}

/// What is known of replicants for one answer, also that there is nothing to know.
struct Known {
    until: Instant,
    views: BTreeMap<ReplicantId, Option<Arc<ReplicantView>>>,
}

impl Known {
    async fn view(&mut self, front: &Front, id: ReplicantId) -> Option<Arc<ReplicantView>> {
        if let Some(view) = self.views.get(&id) {
            return view.clone();
        }
        if self.views.len() >= MAX_ASKED {
            return None;
        }
        let asked = tokio::time::timeout_at(self.until, front.view(&id)).await;
        let view = asked.ok().and_then(Result::ok).flatten().map(Arc::from);
        self.views.insert(id, view.clone());
        view
    }
}

/// Adds to an object what is known of its replicant. Whether it is of one.
async fn one(front: &Front, known: &mut Known, named: &Value, object: &mut Value) -> bool {
    let site = front.handle.site();
    let Some(id) = here::named(site, named) else { return false };
    let Some(view) = known.view(front, id).await else { return false };
    let Some(place) = here::place(site, &view, named) else { return false };
    let said = place.get(&view.desired).map(marks::said).unwrap_or_default();
    add(object, &view, said);
    true
}

/// Adds to an object what is known of its replicant.
pub(super) fn add(object: &mut Value, view: &ReplicantView, mut said: Map<String, Value>) {
    let sites: Map<String, Value> =
        view.sites.iter().map(|(site, status)| (site.to_string(), site_status(status))).collect();
    // What is in the object is newer: it was sent just now.
    // Clients send back what they have read: what is not so any more would move it.
    said.retain(|name, value| name != SCOPE || value.as_str().is_some_and(|said| scope::is_same(said, &view.scope)));
    said.insert(LIVES_AT.to_owned(), view.scope.clone().into());
    said.extend(marks::said(object));
    said.insert(SITES.to_owned(), Value::Object(sites).to_string().into());
    let health = view.health.as_ref().map(|health| format!(", {}", health.condition.as_str())).unwrap_or_default();
    said.insert(STATUS.to_owned(), format!("{}{health}", word(view.status)).into());
    marks::annotate(object, said);
}

fn word(status: Status) -> String {
    serde_json::to_value(status).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// How it is at one site. Of one that cannot be reached nothing is said to be well.
fn site_status(status: &SiteStatus) -> Value {
    let report = status.report.as_ref();
    let status_word = match report {
        _ if status.state == Liveness::Down => "unknown".to_owned(),
        Some(report) if status.current || report.status == Status::Removed => word(report.status),
        _ => word(Status::Pending),
    };
    let mut told = json!({"status": status_word});
    let mut at = report.and_then(|report| report.desired.as_ref()).map(|desired| desired.at);
    if let Some(health) = &status.health {
        told["health"] = health.condition.as_str().into();
        if !health.message.is_empty() {
            told["message"] = health.message.clone().into();
        }
        at = Some(health.at);
    }
    let failed = report.filter(|report| matches!(report.status, Status::Failed | Status::NeedsAttention));
    if let Some(why) = failed.and_then(|report| report.desired.as_ref()).filter(|desired| !desired.output.is_empty()) {
        told["message"] = why.output.clone().into();
    }
    let since = at.and_then(|at| jiff::Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
    if let Some(since) = since {
        told["since"] = since.to_string().into();
    }
    told
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(value: Value) -> Value {
        site_status(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_site_is_never_called_well_by_what_it_said_of_something_else() {
        let report = json!({"replicant": "web", "epoch": 0, "site": "paris", "seq": 1, "status": "applied",
            "desired": {"status": "applied", "at": 1_000}});
        let of = |state: &str, current: bool| json!({"state": state, "report": report, "current": current, "leaving": false});
        assert_eq!(status(of("alive", true)), json!({"status": "applied", "since": "1970-01-01T00:00:01Z"}));
        assert_eq!(status(of("alive", false))["status"], "pending");
        assert_eq!(status(of("down", true))["status"], "unknown");
        assert_eq!(
            status(json!({"state": "alive", "report": null, "current": false, "leaving": false})),
            json!({"status": "pending"})
        );
    }

    #[tokio::test]
    async fn what_is_too_long_to_be_looked_into_comes_as_it_was() {
        let body = |chunks: Vec<&'static str>| {
            let frames = chunks.into_iter().map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
            StreamBody::new(stream::iter(frames)).boxed_unsync()
        };
        assert_eq!(up_to(body(vec!["ab", "c"]), 3).await.unwrap().unwrap(), "abc");
        let rest = up_to(body(vec!["ab", "cd", "ef"]), 3).await.unwrap().unwrap_err();
        assert_eq!(rest.collect().await.unwrap().to_bytes(), "abcdef");
    }
}
