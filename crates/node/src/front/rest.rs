//! What is left to be done here of a write besides what the driver makes of its edit: what the driver leaves alone. It is done with
//! the rights of whoever writes, and after the edit is kept: whatever stops it, no site has what the others do not hear of.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::{HeaderValue, Method, StatusCode};
use khufu_drivers::kubernetes::{MANAGER, cleaned};
use serde_json::{Map, Value, json};

use super::answer::Refusal;
use super::capture::{APPLY, Captured};
use super::difference::Write;
use super::keys::Keys;
use super::take::Taking;
use super::target::{parameters, with_parameter};
use super::upstream::{Answer, Question};
use super::{Front, marks, wanted};

/// What a merging patch is sent as.
const MERGE: &str = "application/merge-patch+json";
/// How often it is tried where somebody else writes in between, or nothing sensible is answered.
const TRIES: u32 = 5;
/// The pause before the second time. Each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(100);
/// How long all of it may take: the driver waits meanwhile.
const LIMIT: Duration = Duration::from_secs(30);

/// What is left to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    /// The object as it was read, and as the API server would make it of that.
    pub(super) live: &'a Value,
    pub(super) after: &'a Value,
    pub(super) keys: Keys<'a>,
    /// What others have set and the write takes. Without, only what the write takes out of the object goes.
    pub(super) taking: Option<Taking<'a>>,
}

/// What has come of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is as it was written, as far as whoever writes may do that himself.
    Done,
    /// Somebody else has written in between, and nothing was done.
    Moved,
    /// The API server does not do it.
    Refused(Answer),
}

/// How far it is.
struct Now {
    live: Value,
    after: Value,
    /// What is taken is the driver's.
    is_taken: bool,
}

/// What has come of one attempt.
enum Step {
    Done,
    Not(Answer),
    /// It must not be tried again.
    Last(Answer),
}

impl Rest<'_> {
    /// Has the API server try the first step of it, before an edit is kept: what it refuses then is no edit.
    pub(super) async fn tried(&self, front: &Front, captured: &Captured) -> Result<Outcome, Refusal> {
        let now = self.begin();
        let (kind, query, patch) = match (&self.taking, self.left(&now)) {
            (Some(taking), _) => (APPLY, by_driver(), taking.applied(front, &now.live, &now.after)?),
            (None, Some(left)) => (MERGE, by_client(captured), left),
            (None, None) => return Ok(Outcome::Done),
        };
        let query = with_parameter(&query, "dryRun", "All");
        let answer = patched(front, captured, kind, &query, at(patch, &now.live)).await?;
        Ok(match answer.status {
            // What he may not do himself is left to the driver, as far as it does it.
            status if status.is_success() || status == StatusCode::FORBIDDEN => Outcome::Done,
            status if has_moved(status) => Outcome::Moved,
            _ => Outcome::Refused(answer),
        })
    }

    /// Does it where there is no edit to be kept, since all of it is asked for already.
    pub(super) async fn alone(&self, front: &Front, captured: &Captured) -> Result<Outcome, Refusal> {
        self.run(front, captured, false).await
    }

    /// Does it after the edit is kept. Says why not, where it cannot.
    pub(super) async fn after_edit(&self, front: &Front, captured: &Captured) -> Option<String> {
        match self.run(front, captured, true).await {
            Ok(Outcome::Done | Outcome::Moved) => None,
            Ok(Outcome::Refused(answer)) => {
                let status = answer.json();
                let words = status.get("message").and_then(Value::as_str).map(str::to_owned);
                Some(words.unwrap_or_else(|| format!("the API server says {}", answer.status)))
            }
            Err(refusal) => Some(refusal.message),
        }
    }

    fn begin(&self) -> Now {
        Now { live: self.live.clone(), after: self.after.clone(), is_taken: self.taking.is_none() }
    }

    async fn run(&self, front: &Front, captured: &Captured, is_kept: bool) -> Result<Outcome, Refusal> {
        let late = |_| Refusal::unavailable(format!("it has not come to an end within {} s", LIMIT.as_secs()));
        tokio::time::timeout(LIMIT, self.steps(front, captured, is_kept)).await.map_err(late)?
    }

    async fn steps(&self, front: &Front, captured: &Captured, is_kept: bool) -> Result<Outcome, Refusal> {
        let mut now = self.begin();
        let mut tries = 0;
        loop {
            let step = self.step(front, captured, &mut now).await;
            let is_nothing_done = !is_kept && !now.is_taken;
            tries += 1;
            match step {
                Ok(Step::Done) => return Ok(Outcome::Done),
                Ok(Step::Not(answer) | Step::Last(answer)) if is_nothing_done && has_moved(answer.status) => {
                    return Ok(Outcome::Moved);
                }
                Ok(Step::Not(answer)) if is_passing(answer.status) && tries < TRIES => {}
                Ok(Step::Not(answer) | Step::Last(answer)) => return Ok(Outcome::Refused(answer)),
                Err(refusal) if is_nothing_done || tries == TRIES => return Err(refusal),
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
            // What cannot be read now may be the next time.
            if self.look(front, captured, &mut now).await == Ok(false) {
                return Ok(Outcome::Done);
            }
        }
    }

    /// One attempt, at the object as it was seen last.
    async fn step(&self, front: &Front, captured: &Captured, now: &mut Now) -> Result<Step, Refusal> {
        if let Some(taking) = self.taking.filter(|_| !now.is_taken) {
            let applied = at(taking.applied(front, &now.live, &now.after)?, &now.live);
            let answer = patched(front, captured, APPLY, &by_driver(), applied).await?;
            match answer.status {
                status if status.is_success() => {}
                // Who may do nothing but what he asks for does that. An edit is left to the driver, whose fields they would not be.
                StatusCode::FORBIDDEN if taking.is_asked_for() => {
                    let answer = taking.as_asked(front, captured, &now.live, &now.after).await?;
                    return Ok(match answer {
                        Some(answer) if !answer.status.is_success() => Step::Last(answer),
                        _ => Step::Done,
                    });
                }
                StatusCode::FORBIDDEN => return Ok(Step::Done),
                _ => return Ok(Step::Not(answer)),
            }
            now.is_taken = true;
            now.live = answer.json();
        }
        let Some(left) = self.left(now) else { return Ok(Step::Done) };
        let answer = patched(front, captured, MERGE, &by_client(captured), at(left, &now.live)).await?;
        Ok(match answer.status {
            status if status.is_success() => Step::Done,
            // The warning says of what is not so.
            StatusCode::FORBIDDEN if self.taking.is_none() => Step::Done,
            _ => Step::Not(answer),
        })
    }

    /// What makes of the object as it is that which was written.
    fn left(&self, now: &Now) -> Option<Value> {
        let named: Vec<&Value> = self.taking.iter().flat_map(|taking| [taking.was, taking.wanted]).collect();
        let [is, wanted] = [&now.live, &now.after].map(|object| wanted::elsewhere(&marks::others_own(object), &named));
        difference(&is, &wanted).filter(|patch| self.taking.is_some() || takes_away(patch))
    }

    /// Looks at the object again: what somebody else has written meanwhile stays, and what this write changes is made there.
    /// False if it is not there any more.
    async fn look(&self, front: &Front, captured: &Captured, now: &mut Now) -> Result<bool, Refusal> {
        let read = front.read(captured, captured.target.path.clone()).await?;
        if read.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        if !read.status.is_success() {
            return Err(Refusal::unavailable(format!("it says {}", read.status)));
        }
        let live = read.json();
        if live.pointer("/metadata/uid") != self.live.pointer("/metadata/uid") {
            return Ok(false);
        }
        now.after = again(self.live, self.after, &live, self.keys);
        now.live = live;
        Ok(true)
    }
}

/// The change that has made one object of another, made in a third.
fn again(before: &Value, after: &Value, now: &Value, keys: Keys<'_>) -> Value {
    let [before, after, mut now] = [before, after, now].map(cleaned);
    Write { before: &before, after: &after, sent: None, is_whole: false, keys }.carry(&mut now);
    now
}

/// Whether an answer says that an object is not as it was read.
fn has_moved(status: StatusCode) -> bool {
    matches!(status, StatusCode::CONFLICT | StatusCode::NOT_FOUND)
}

/// Whether another answer may be given to the same a moment later.
fn is_passing(status: StatusCode) -> bool {
    has_moved(status) || status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// Whether a merge patch takes anything away. A list may have lost something.
fn takes_away(patch: &Value) -> bool {
    match patch {
        Value::Object(fields) => fields.values().any(takes_away),
        value => value.is_null() || value.is_array(),
    }
}

/// Under the manager of the driver, whoever has set the fields.
fn by_driver() -> String {
    format!("fieldManager={MANAGER}&force=true")
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

/// The same for the version of an object that was read, and for none that comes after it.
pub(super) fn at(mut value: Value, read: &Value) -> Value {
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

    #[test]
    fn a_change_is_made_again_in_what_somebody_else_has_written_and_once() {
        let spec = |spec: Value| json!({"spec": spec});
        let before = spec(json!({"image": "a", "args": ["x"], "ports": [{"name": "http", "port": 80}], "gone": 1}));
        let after = spec(json!({"image": "b", "args": ["x", "y"], "ports": [{"name": "http", "port": 80},
            {"name": "https", "port": 443}]}));
        let meanwhile = spec(json!({"image": "a", "args": ["x"], "ports": [{"name": "http", "port": 8080}], "gone": 1,
            "paused": true}));
        let both = spec(json!({"image": "b", "args": ["x", "y"], "paused": true,
            "ports": [{"name": "http", "port": 8080}, {"name": "https", "port": 443}]}));
        assert_eq!(again(&before, &after, &meanwhile, Keys::default()), both);
        assert_eq!(again(&before, &after, &both, Keys::default()), both);
    }
}
