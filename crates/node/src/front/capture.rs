//! Writes that become edits of replicants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::{Request, Response};
use khufu_crdt::Policy;
use khufu_drivers::kubernetes::{MANAGER, owner};
use khufu_engine::Put;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{Body, Refusal, boxed};
use super::difference::overlay;
use super::edit::{Changed, elsewhere};
use super::hangup::Begun;
use super::here;
use super::kept::{Telling, Written};
use super::keys::Keys;
use super::marks::{self, SCOPE, annotation};
use super::place::{Named, Place, find};
use super::rest::{Outcome, Rest};
use super::target::{Target, Verb, parameters, with_parameter};
use super::upstream::{Answer, Question};
use super::{Front, delete, edit, id, pass, policy, protobuf, remembered, scope, wanted};

/// What an apply is sent as.
pub(super) const APPLY: &str = "application/apply-patch+yaml";
/// How long a write waits for its place among those under way.
const PLACE: Duration = Duration::from_secs(10);
/// The deepest nesting of what is read as YAML; JSON has the same bound.
const MAX_YAML_DEPTH: usize = 128;

/// A write that may become an edit.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) target: Target,
    pub(super) verb: Verb,
    pub(super) method: Method,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// The scope of the path.
    pub(super) scope: Option<String>,
    pub(super) body: Bytes,
    /// Its place among those under way.
    pub(super) place: Mutex<Option<OwnedSemaphorePermit>>,
    /// Whether it has begun to change anything.
    pub(super) begun: Begun,
}

/// JSON.
pub(super) fn json_type() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

impl Captured {
    /// Waits for a place among those under way.
    pub(super) async fn take_place(&self, places: &Arc<Semaphore>) -> Result<(), Refusal> {
        let taken = tokio::time::timeout(PLACE, places.clone().acquire_owned()).await;
        let taken = taken.map_err(|_| Refusal::too_many("as many writes as can be are under way already"))?;
        let taken = taken.map_err(|error| Refusal::busy(error.to_string()))?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        Ok(())
    }

    /// Gives its place to others, since it only waits from now on.
    pub(super) fn leave_place(&self) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What the API server would have made, if that is what the path names: the rights were those for the path.
    pub(super) fn made(&self, tried: &Answer) -> Result<Value, Refusal> {
        let made = tried.json();
        if self.target.is(&made) {
            return Ok(made);
        }
        Err(Refusal::bad_request("what the API server has answered is not the object that the path names"))
    }

    /// The path of what is written, with a query.
    pub(super) fn path(&self, query: &str) -> String {
        let part = self.target.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        format!("{}{part}{query}", self.target.path)
    }

    /// The type of what was sent, without its parameters.
    pub(super) fn content_type(&self) -> &str {
        let text = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim()
    }

    /// Whether it is server-side apply.
    pub(super) fn is_apply(&self) -> bool {
        self.verb == Verb::Patch && self.content_type() == APPLY
    }

    /// What was sent, if it can be read here.
    pub(super) fn sent(&self) -> Result<Option<Value>, Refusal> {
        let mut sent = self.read()?;
        sent.iter_mut().for_each(marks::tidy);
        Ok(sent)
    }

    /// What was sent, or if it cannot be read here, what it says of itself.
    pub(super) fn headline(&self, sent: Option<&Value>) -> Option<Value> {
        let is_protobuf = self.content_type() == protobuf::PROTOBUF;
        sent.cloned().or_else(|| is_protobuf.then(|| protobuf::headline(&self.body)).flatten())
    }

    /// JSON or YAML.
    fn read(&self) -> Result<Option<Value>, Refusal> {
        let wrong = |error: String| Refusal::bad_request(format!("what was sent cannot be read: {error}"));
        match self.content_type() {
            "application/yaml" | APPLY => {
                // JSON is YAML, and read faster.
                if let Ok(value) = serde_json::from_slice(&self.body) {
                    return Ok(Some(value));
                }
                let text = std::str::from_utf8(&self.body).map_err(|error| wrong(error.to_string()))?;
                let value: Value = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
                if depth(&value) > MAX_YAML_DEPTH {
                    return Err(wrong(format!("it is nested deeper than {MAX_YAML_DEPTH} levels")));
                }
                Ok(Some(value))
            }
            kind if kind.is_empty() || kind.ends_with("json") => {
                serde_json::from_slice(&self.body).map(Some).map_err(|error| wrong(error.to_string()))
            }
            _ => Ok(None),
        }
    }

    /// The manager that an apply names.
    pub(super) fn manager(&self) -> String {
        parameters(&self.query, "fieldManager").next().unwrap_or_else(|| "unknown".to_owned())
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Makes an edit of a write, or passes it on.
pub(super) async fn capture(front: &Front, captured: Captured) -> Result<Response<Body>, Refusal> {
    match captured.verb {
        Verb::Create => create(front, &captured).await,
        Verb::Update | Verb::Patch | Verb::Scale => edit::edit(front, &captured).await,
        Verb::Delete => delete::delete(front, &captured).await,
        Verb::DeleteAll => delete::delete_all(front, &captured).await,
        Verb::Read => front.pass_on(&captured).await,
    }
}

impl Front {
    /// Passes a write on as it is, but for what is only shown.
    pub(super) async fn pass_on(&self, captured: &Captured) -> Result<Response<Body>, Refusal> {
        let mut body = captured.body.clone();
        if matches!(captured.verb, Verb::Create | Verb::Update)
            && marks::may_be_in(&body)
            && let Ok(Some(mut sent)) = captured.sent()
        {
            marks::without_shown(&mut sent);
            body = Bytes::from(sent.to_string());
        }
        self.pass_body(captured, &captured.query, body).await
    }

    /// Passes a write on with another query and body.
    pub(super) async fn pass_body(
        &self,
        captured: &Captured,
        query: &str,
        body: Bytes,
    ) -> Result<Response<Body>, Refusal> {
        let mut request = Request::new(boxed(Full::new(body)));
        *request.method_mut() = captured.method.clone();
        *request.headers_mut() = captured.headers.clone();
        request.headers_mut().remove(header::CONTENT_LENGTH);
        pass::pass_as(self, request, &captured.path(query)).await
    }

    /// Has the API server try a write without doing it.
    pub(super) async fn try_it(&self, captured: &Captured, body: Bytes) -> Result<Answer, Refusal> {
        self.write_it(captured, body, &with_parameter(&captured.query, "dryRun", "All")).await
    }

    /// Has the API server do a write, with a query of its own.
    pub(super) async fn write_it(&self, captured: &Captured, body: Bytes, query: &str) -> Result<Answer, Refusal> {
        let kind = captured.headers.get(header::CONTENT_TYPE).cloned().unwrap_or_else(json_type);
        let ask = |query: String| {
            self.upstream.ask(Question {
                method: captured.method.clone(),
                path: captured.path(&query),
                from: &captured.headers,
                body: Some((kind.clone(), body.clone())),
                accept: None,
            })
        };
        let tried = ask(query.to_owned()).await?;
        if captured.is_apply() && tried.status == StatusCode::CONFLICT && only_ours(&tried.json()) {
            // All fields are the driver's, whoever has applied them: who that was is remembered elsewhere.
            return ask(with_parameter(query, "force", "true")).await;
        }
        Ok(tried)
    }

    /// Something as it is, as whoever asks may see it.
    pub(super) async fn read(&self, captured: &Captured, path: String) -> Result<Answer, Refusal> {
        let question = Question { method: Method::GET, path, from: &captured.headers, body: None, accept: None };
        self.upstream.ask(question).await
    }
}

/// Whether a refusal names conflicts, and only with the driver.
fn only_ours(status: &Value) -> bool {
    let causes = status.pointer("/details/causes").and_then(Value::as_array);
    let ours = format!("conflict with \"{MANAGER}\"");
    causes.is_some_and(|causes| {
        let conflicts = |cause: &Value| {
            let message = cause.get("message").and_then(Value::as_str).unwrap_or_default();
            cause.get("reason").and_then(Value::as_str) == Some("FieldManagerConflict") && message.starts_with(&ours)
        };
        !causes.is_empty() && causes.iter().all(conflicts)
    })
}

/// A new object, or one that only the replicant is new of.
async fn create(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    let sent = captured.sent()?;
    let headline = captured.headline(sent.as_ref());
    let named =
        headline.as_ref().map_or_else(|| marks::may_be_in(&captured.body), |sent| annotation(sent, SCOPE).is_some());
    let name = headline.as_ref().and_then(|sent| sent.pointer("/metadata/name")).and_then(Value::as_str);
    let turn = Target { name: name.map(str::to_owned), ..captured.target.clone() }.turn();
    let _turn = match turn {
        Some(object) => Some(front.turns.take(object).await?),
        None => None,
    };
    let is_meant = named || captured.scope.is_some() || is_asked_for(front, captured, headline.as_ref()).await?;
    if is_meant { new(front, captured, sent).await } else { front.pass_on(captured).await }
}

/// Whether a replicant asks here for an object that is not there: made past it, it would stand in its way.
pub(super) async fn is_asked_for(front: &Front, captured: &Captured, sent: Option<&Value>) -> Result<bool, Refusal> {
    let Some(named) = sent.and_then(Named::of) else { return Ok(false) };
    let namespace = captured.target.namespace.as_deref().unwrap_or_default();
    let named = Named { namespace, ..named };
    let id = id::of(&captured.target.kind(), Some(namespace), named.name)?;
    let view = if front.is_held(&id).await? { front.view(&id).await? } else { None };
    let view = view.filter(|view| here::lives(front.handle.site(), view));
    Ok(view.is_some_and(|view| find(&view.desired, &view.policy.options, named).is_some()))
}

/// Makes a replicant of what is sent of an object that is not there.
pub(super) async fn new(front: &Front, captured: &Captured, sent: Option<Value>) -> Result<Response<Body>, Refusal> {
    // What is read here is what the API server reads: a text can be read in several ways.
    let body = sent.as_ref().map_or_else(|| captured.body.clone(), |sent| Bytes::from(sent.to_string()));
    let tried = front.try_it(captured, body).await?;
    if !tried.status.is_success() {
        return Ok(tried.pass());
    }
    let after = captured.made(&tried)?;
    if marks::is_helms_own(&after) {
        return front.pass_on(captured).await;
    }
    let scope = annotation(&after, SCOPE).map(str::to_owned).or_else(|| captured.scope.clone());
    if let Some(scope) = &scope {
        front.explain(scope).await?;
    }
    let manifest = match &sent {
        Some(sent) => wanted::as_sent(sent, &after),
        None => wanted::as_there(&after),
    };
    let said = marks::said(&after);
    adopt_or_make(front, captured, &tried, New { manifest, scope, said, live: None }).await
}

/// An object that is to be a replicant.
pub(super) struct New<'a> {
    pub(super) manifest: Value,
    /// None where there must be a replicant of it already.
    pub(super) scope: Option<String>,
    /// What the write itself says.
    pub(super) said: Map<String, Value>,
    /// The object as it is, if there is one, which is of no replicant.
    pub(super) live: Option<&'a Value>,
}

/// Makes a replicant of one object, or edits the one that there is of it already.
pub(super) async fn adopt_or_make(
    front: &Front,
    captured: &Captured,
    tried: &Answer,
    new: New<'_>,
) -> Result<Response<Body>, Refusal> {
    let New { mut manifest, scope, said, live } = new;
    let after = tried.json();
    let named = Named::of(&after).ok_or_else(|| Refusal::unavailable("what it has answered is no object"))?;
    let id = id::of(&captured.target.kind(), Some(named.namespace), named.name)?;
    let path = match &captured.target.name {
        Some(_) => captured.target.path.clone(),
        None => format!("{}/{}", captured.target.path, percent_encoding::utf8_percent_encode(named.name, PATH)),
    };
    let before = front.view(&id).await?.filter(|view| view.deleted.is_none());
    if before.is_none() && scope.is_none() {
        return front.pass_on(captured).await;
    }
    // Who may make what is not there may not be allowed to change what is elsewhere.
    let change = || {
        let Target { group, version, resource, .. } = &captured.target;
        json!({"verb": "patch", "group": group, "version": version, "resource": resource, "namespace": named.namespace,
            "name": named.name})
    };
    if before.is_some() && captured.verb == Verb::Create && !front.may(captured, change()).await? {
        let message = format!("{id} exists as a replicant already: to change it takes the right to patch the object");
        return Err(Refusal::forbidden(message));
    }
    let earlier = before.as_ref().map(|view| view.policy.clone()).unwrap_or_default();
    let mut policy = earlier.clone();
    let lives_here = before.as_ref().is_some_and(|view| here::lives(front.handle.site(), view));
    if let (Some(view), Some(_), false) = (&before, live, lives_here) {
        let message = format!(
            "there is an object of this name here, which is of no replicant, and {id} lives at {}: to have it here, too, set its \
             scope where it lives, with \"adopt\" among its options; else give the object another name",
            view.scope
        );
        return Err(Refusal::conflict(message));
    }
    if live.is_some() && before.is_none() {
        // It is taken over as it is wanted, and stays when the replicant goes.
        for (name, value) in [("adopt", json!("keep")), ("force", json!(true))] {
            policy.options.entry(name.to_owned()).or_insert(value);
        }
    }
    policy::edit(&mut policy, &said)?;
    if policy::removes_more(&earlier, &policy)
        && let Some(refused) = delete::forbidden(front, captured, &path).await?
    {
        return Ok(refused);
    }
    let sent = captured.sent()?.filter(|_| captured.is_apply());
    let edited = policy != earlier;
    let (desired, warnings) = match &before {
        None => {
            let mut all = std::collections::BTreeMap::new();
            if let Some(sent) = &sent {
                all.insert(captured.manager(), remembered::applied(sent));
            }
            if captured.is_apply() {
                remembered::write(&mut manifest, &all);
            }
            (manifest, Vec::new())
        }
        // It lives elsewhere, or is missing here. kubectl cannot know, and makes it again to apply it.
        Some(view) => {
            let Some(place) = find(&view.desired, &view.policy.options, named) else {
                let message = format!("the replicant {id} is of something else: give the object another name");
                return Err(Refusal::conflict(message));
            };
            if !captured.is_apply() && marks::last_applied(&after).is_none() {
                let hint = if lives_here {
                    ", and has been removed here by somebody: apply it to have it made again"
                } else {
                    ""
                };
                let message = format!("{id} already exists as a replicant at {}{hint}", view.scope);
                return Err(Refusal::new(StatusCode::CONFLICT, "AlreadyExists", message));
            }
            // Who may write here may not be allowed to take it away there.
            let moves = said.get(SCOPE).and_then(Value::as_str).filter(|said| !scope::is_same(said, &view.scope));
            if let Some(to) = moves {
                let message =
                    format!("{id} lives at {}, and not at {to}: write it where it lives to move it", view.scope);
                return Err(Refusal::conflict(message));
            }
            if place != Place::All && edited {
                let message = format!("the replicant {id} is of several objects: edit its policy with khufu");
                return Err(Refusal::invalid(message));
            }
            let kept = place.get(&view.desired).cloned().unwrap_or_default();
            let mut object = kept.clone();
            let keys = Keys(&policy.list_keys);
            if let Some(applied) = marks::last_applied(&kept).map(|applied| wanted::as_sent(&applied, &kept)) {
                let (before, after) = (&applied, &manifest);
                super::difference::Write { before, after, sent: None, is_whole: false, keys }.carry(&mut object);
            }
            overlay(&mut object, &manifest, keys);
            let cleaned = khufu_drivers::kubernetes::cleaned;
            let mut changed = Changed { before: cleaned(&kept), after: cleaned(&object), object: kept };
            changed.carry(captured, sent.as_ref(), None, view)?;
            marks::annotate(&mut changed.object, said);
            let mut desired = view.desired.clone();
            place.set(&mut desired, changed.object.clone());
            if lives_here && live.is_none() && desired == view.desired {
                // Somebody has removed it past Khufu. A site makes again what is edited.
                marks::annotate(&mut changed.object, marks::again(front.handle.site()));
                place.set(&mut desired, changed.object);
            }
            (desired, elsewhere(captured, view))
        }
    };
    let base = before.as_ref().map(|view| view.heads.clone());
    let is_new = before.is_none();
    let put = Put {
        id,
        kind: is_new.then(|| "kubernetes".to_owned()),
        scope: scope.filter(|_| is_new),
        policy: (is_new || edited).then(|| policy.clone()),
        desired: Some(desired),
        overrides: None,
        base,
    };
    let written = live.map(|live| {
        let [live, after] = [live, &after].map(|object| wanted::elsewhere(&marks::others_own(object), &[]));
        Written { fields: remembered::differing(&live, &after, keys(&policy)), after }
    });
    // What the write takes out of an object that is to be adopted: the driver leaves what others have set.
    let rest = live.filter(|_| is_new).map(|live| Rest { live, after: &after, keys: keys(&policy), taking: None });
    if let Some(rest) = &rest {
        front.may_keep(captured, &put, &policy).await?;
        match rest.tried(front, captured).await? {
            Outcome::Done => {}
            Outcome::Moved => return Err(Refusal::conflict("somebody else has written in between: try again")),
            Outcome::Refused(answer) => return Ok(answer.pass()),
        }
    }
    front.keep(captured, put, &policy, rest, Telling { tried, path, warnings, written, left: None }).await
}

/// What must not stand as it is in a segment of a path.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b'%').add(b'/').add(b'?').add(b'#').add(b'[').add(b']');

/// The replicant that an object is of, if it is of one.
pub(super) fn replicant(object: &Value) -> Option<khufu_crdt::ReplicantId> {
    khufu_crdt::ReplicantId::new(owner(object)?.replicant).ok()
}

/// The policy in whose sense lists are read.
pub(super) fn keys(policy: &Policy) -> Keys<'_> {
    Keys(&policy.list_keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_conflicts_with_the_driver_alone_are_passed_over() {
        let cause = |by: &str| json!({"reason": "FieldManagerConflict", "message": format!("conflict with \"{by}\""), "field": ".x"});
        let status = |causes: Value| json!({"details": {"causes": causes}});
        assert!(only_ours(&status(json!([cause("khufu"), cause("khufu")]))));
        assert!(!only_ours(&status(json!([cause("khufu"), cause("khufu-x")]))));
        assert!(!only_ours(&status(json!([]))));
        assert!(!only_ours(&json!({"code": 409})));
    }
}
