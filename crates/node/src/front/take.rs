//! Writes of what others have set here. The driver leaves what others have set alone; whoever writes it through the front
//! takes it, with his own rights, as he would at the API server: it is as he has written it, and the driver's from then on.

use hyper::Response;
use hyper::body::Bytes;
use hyper::http::{HeaderValue, Method, StatusCode};
use khufu_crdt::Policy;
use khufu_drivers::kubernetes::{MANAGER, cleaned, taken};
use khufu_engine::ReplicantView;
use serde_json::{Map, Value, json};

use super::Front;
use super::answer::{Body, Refusal};
use super::capture::{APPLY, Captured, json_type};
use super::keys::Keys;
use super::marks;
use super::remembered::{self, Fields};
use super::target::{Verb, parameters, with_parameter};
use super::upstream::{Answer, Question};
use super::wanted;

/// What a merging patch is sent as.
const MERGE: &str = "application/merge-patch+json";

/// A write to an object that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taking<'a> {
    pub(super) view: &'a ReplicantView,
    /// The policy that counts from now on.
    pub(super) policy: &'a Policy,
    /// What was asked for, and what is from now on.
    pub(super) was: &'a Value,
    pub(super) wanted: &'a Value,
    /// The object as it is, and as the API server would make it.
    pub(super) live: &'a Value,
    pub(super) after: &'a Value,
    /// The fields in which these two differ.
    pub(super) touched: &'a Fields,
}

/// What has come of it.
pub(super) enum Taken {
    /// It is as it was written, as far as whoever writes may do that himself.
    Done,
    /// Somebody else has written in between.
    Moved,
    /// The API server does not do it.
    Refused(Response<Body>),
}

impl Taking<'_> {
    /// Whether the write is about what the driver would leave alone.
    pub(super) fn is_needed(&self) -> bool {
        let asked = |object: &Value| remembered::fields(&cleaned(object), Keys::default());
        let nothing = |fields: &Fields| fields.as_object().is_none_or(Map::is_empty);
        let of_others = remembered::without(&remembered::without(self.touched, &asked(self.was)), &asked(self.wanted));
        !nothing(self.touched)
            && (self.is_asked_for()
                || !nothing(&of_others)
                || remembered::others_have(self.live, self.touched, MANAGER))
    }

    /// Whether it asks for nothing else than what is asked for.
    fn is_asked_for(&self) -> bool {
        cleaned(self.was) == cleaned(self.wanted)
    }

    /// Makes the object as it was written.
    pub(super) async fn take(&self, front: &Front, captured: &Captured) -> Result<Taken, Refusal> {
        let options = &self.policy.options;
        let applied = taken(self.wanted, self.live, self.after, &self.view.id, front.handle.site(), options);
        let applied = applied.map_err(|error| Refusal::invalid(error.to_string()))?;
        let query = format!("fieldManager={MANAGER}&force=true");
        let answer = patched(front, captured, APPLY, &query, at(applied, self.live)).await?;
        match answer.status {
            status if status.is_success() => {}
            // Who may do nothing but what he asks for does that. An edit is left to the driver then, whose fields they would not be.
            StatusCode::FORBIDDEN if self.is_asked_for() => return done(self.as_asked(front, captured).await?),
            StatusCode::FORBIDDEN => return Ok(Taken::Done),
            _ => return done(Some(answer)),
        }
        let now = answer.json();
        let [is, wanted] =
            [&now, self.after].map(|object| wanted::elsewhere(&marks::others_own(object), &[self.was, self.wanted]));
        let Some(rest) = difference(&is, &wanted) else {
            return Ok(Taken::Done);
        };
        done(Some(patched(front, captured, MERGE, &by_client(captured), at(rest, &now)).await?))
    }

    /// The write itself. None where it would take away whose the object is.
    async fn as_asked(&self, front: &Front, captured: &Captured) -> Result<Option<Answer>, Refusal> {
        if captured.verb == Verb::Update {
            let mut whole = at(self.after.clone(), self.live);
            marks::as_in(&mut whole, self.live);
            if let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            let question = Question {
                method: Method::PUT,
                path: captured.path(&captured.query),
                from: &captured.headers,
                body: Some((json_type(), Bytes::from(whole.to_string()))),
                accept: None,
            };
            return front.upstream.ask(question).await.map(Some);
        }
        if marks::may_be_in(&captured.body) {
            return Ok(None);
        }
        front.write_it(captured, captured.body.clone(), &captured.query).await.map(Some)
    }
}

/// Takes out of an object that is to be adopted what the write takes out of it: the driver leaves what others have set.
pub(super) async fn without_what_goes(
    front: &Front,
    captured: &Captured,
    live: &Value,
    after: &Value,
) -> Result<Taken, Refusal> {
    let [is, wanted] = [live, after].map(|object| wanted::elsewhere(&marks::others_own(object), &[]));
    let Some(patch) = difference(&is, &wanted).filter(takes_away) else { return Ok(Taken::Done) };
    let answer = patched(front, captured, MERGE, &by_client(captured), at(patch, live)).await?;
    // The warning says of what is not so.
    if answer.status == StatusCode::FORBIDDEN { Ok(Taken::Done) } else { done(Some(answer)) }
}

/// Whether a merge patch takes anything away. A list may have lost something.
fn takes_away(patch: &Value) -> bool {
    match patch {
        Value::Object(fields) => fields.values().any(takes_away),
        value => value.is_null() || value.is_array(),
    }
}

/// Under the manager that a write names.
fn by_client(captured: &Captured) -> String {
    let manager = parameters(&captured.query, "fieldManager").next();
    manager.map(|manager| with_parameter("", "fieldManager", &manager)).unwrap_or_default()
}

async fn patched(
    front: &Front,
    captured: &Captured,
    kind: &'static str,
    query: &str,
    patch: Value,
) -> Result<Answer, Refusal> {
    let question = Question {
        method: Method::PATCH,
        path: format!("{}?{query}", captured.target.path),
        from: &captured.headers,
        body: Some((HeaderValue::from_static(kind), Bytes::from(patch.to_string()))),
        accept: None,
    };
    front.upstream.ask(question).await
}

/// What an answer of the API server means.
fn done(answer: Option<Answer>) -> Result<Taken, Refusal> {
    Ok(match answer {
        Some(answer) if matches!(answer.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND) => Taken::Moved,
        Some(answer) if !answer.status.is_success() => Taken::Refused(answer.pass()),
        _ => Taken::Done,
    })
}

/// The same for the version of an object that was read, and for none that comes after it.
fn at(mut value: Value, read: &Value) -> Value {
    let version = read.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let metadata = value.as_object_mut().map(|fields| fields.entry("metadata").or_insert_with(|| json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), version);
    }
    value
}

/// The merge patch (RFC 7386) that makes one object of another; none if they are the same.
fn difference(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), Value::Null));
            let other = after.iter().filter_map(|(name, value)| {
                let before = before.get(name).unwrap_or(&Value::Null);
                Some((name.clone(), difference(before, value)?))
            });
            let patch: Map<String, Value> = gone.chain(other).collect();
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (before, after) => (before != after).then(|| after.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_difference_is_a_merge_patch() {
        let before = json!({"a": 1, "b": {"x": 1, "y": [1, 2]}, "c": 3});
        let after = json!({"a": 1, "b": {"y": [2], "z": {}}, "d": {"e": 1}});
        let patch = json!({"b": {"x": null, "y": [2], "z": {}}, "c": null, "d": {"e": 1}});
        assert_eq!(difference(&before, &after), Some(patch.clone()));
        assert_eq!(difference(&before, &before), None);
        assert!(takes_away(&patch) && takes_away(&json!({"a": [1]})) && !takes_away(&json!({"d": {"e": 1}})));
        let marked = json!({"metadata": {"labels": {"khufu.dev/replicant": "x", "a": "b"}}});
        let bare = json!({"metadata": {}});
        let patch = difference(&marks::others_own(&marked), &marks::others_own(&bare));
        assert_eq!(patch, Some(json!({"metadata": {"labels": {"a": null}}})), "the marks stay");
        let read = json!({"metadata": {"resourceVersion": "7"}});
        assert_eq!(at(json!({"spec": 1}), &read), json!({"spec": 1, "metadata": {"resourceVersion": "7"}}));
    }
}
