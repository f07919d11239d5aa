//! Who asks, for the audit log, as the API server knows him.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::Front;
use super::answer::Refusal;
use super::upstream::{Answer, Question};

/// What is written where nobody says.
const NOBODY: &str = "kubernetes-front";
/// For so long it is remembered who somebody is.
const BELIEVED: Duration = Duration::from_secs(60);
/// For so long where the API server has no time to say so again.
const BELIEVED_MEANWHILE: Duration = Duration::from_secs(600);
/// Of so many.
const MAX_KNOWN: usize = 1_000;
/// So many are asked about at once, and others wait so long.
const MAX_ASKED: usize = 32;
const TURN: Duration = Duration::from_secs(10);
/// The longest name that is written down.
const MAX_NAME: usize = 256;
/// Where it is asked, the newest first.
const PLACES: [&str; 2] = ["authentication.k8s.io/v1", "authentication.k8s.io/v1beta1"];

/// Who is known by which credentials, which are kept as digests.
pub(super) struct Known {
    names: Mutex<BTreeMap<[u8; 32], (Instant, String)>>,
    /// Of whom the API server has said so.
    trusted: Mutex<BTreeMap<[u8; 32], Instant>>,
    asking: Semaphore,
}

impl Default for Known {
    fn default() -> Self {
        Self { names: Mutex::default(), trusted: Mutex::default(), asking: Semaphore::new(MAX_ASKED) }
    }
}

fn digest(headers: &HeaderMap) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (name, value) in headers {
        if name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-") {
            // Neither of them has a zero byte.
            digest.update(name.as_str().as_bytes());
            digest.update([0]);
            digest.update(value.as_bytes());
            digest.update([0]);
        }
    }
    digest.finalize().into()
}

/// The name of whoever sends these headers; asked after the API server has let him do something.
pub(super) async fn of(front: &Front, headers: &HeaderMap) -> String {
    let key = digest(headers);
    let known = || front.who.names.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, name)) = known().get(&key)
        && at.elapsed() < BELIEVED
    {
        return name.clone();
    }
    let told = ask(front, headers).await;
    let is_said = told.is_ok();
    let name = match told {
        Ok(Some(name)) => name,
        Ok(None) => named(headers),
        // Another time, it may say so.
        Err(_) => {
            let before = known().get(&key).filter(|(at, _)| at.elapsed() < BELIEVED_MEANWHILE).cloned();
            before.map_or_else(|| named(headers), |(_, name)| name)
        }
    };
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    if !is_said {
        return name;
    }
    let mut known = known();
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.insert(key, (Instant::now(), name.clone()));
    name
}

/// As whom he asks, or nobody.
fn named(headers: &HeaderMap) -> String {
    headers.get("impersonate-user").and_then(|name| name.to_str().ok()).unwrap_or(NOBODY).to_owned()
}

/// Whether the API server knows whoever sends these headers. Where it has no time to say so, what it has said before counts for a
/// while; who was not known then is told to come again.
pub(super) async fn is_known(front: &Front, headers: &HeaderMap) -> Result<bool, Refusal> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(false);
    }
    let key = digest(headers);
    let trusted = || front.who.trusted.lock().unwrap_or_else(PoisonError::into_inner);
    let believed = |long: Duration| trusted().get(&key).is_some_and(|at| at.elapsed() < long);
    if believed(BELIEVED) {
        return Ok(true);
    }
    let _turn = tokio::time::timeout(TURN, front.who.asking.acquire()).await;
    let _turn = _turn.map_err(|_| Refusal::too_many("too many ask whom the API server may not know"))?;
    let attributes = json!({"nonResourceAttributes": {"path": "/", "verb": "get"}});
    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": attributes});
    let answer = front.upstream.ask(Question {
        method: Method::POST,
        path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
        from: headers,
        body: Some((HeaderValue::from_static("application/json"), Bytes::from(review.to_string()))),
        accept: None,
    });
    let Some(is_known) = verdict(answer.await, believed(BELIEVED_MEANWHILE))? else { return Ok(true) };
    if is_known {
        let mut trusted = trusted();
        if trusted.len() >= MAX_KNOWN {
            trusted.clear();
        }
        trusted.insert(key, Instant::now());
    }
    Ok(is_known)
}

/// What an answer says of somebody; nothing where it says nothing, and he was known before.
fn verdict(answer: Result<Answer, Refusal>, was_known: bool) -> Result<Option<bool>, Refusal> {
    match answer.and_then(Answer::or_later) {
        Ok(answer) => Ok(Some(answer.status.is_success())),
        Err(_) if was_known => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Asks the API server. Those before 1.27 do not say.
async fn ask(front: &Front, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    for place in PLACES {
        let review = json!({"apiVersion": place, "kind": "SelfSubjectReview"});
        let answer = front.upstream.ask(Question {
            method: Method::POST,
            path: format!("/apis/{place}/selfsubjectreviews"),
            from: headers,
            body: Some((HeaderValue::from_static("application/json"), Bytes::from(review.to_string()))),
            accept: None,
        });
        let answer = answer.await.and_then(Answer::or_later)?.json();
        if let Some(name) = answer.pointer("/status/userInfo/username").and_then(Value::as_str) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::http::StatusCode;

    use super::*;

    #[test]
    fn whom_the_server_has_no_time_for_is_who_he_was_and_no_stranger() {
        let answer = |status: StatusCode, again: Option<&'static str>| {
            let again = again.map(|again| (header::RETRY_AFTER, HeaderValue::from_static(again)));
            Ok(Answer { status, headers: again.into_iter().collect(), body: Bytes::new() })
        };
        let of = |status: StatusCode, was_known: bool| verdict(answer(status, None), was_known);
        assert_eq!(of(StatusCode::CREATED, false).unwrap(), Some(true));
        assert_eq!(of(StatusCode::UNAUTHORIZED, true).unwrap(), Some(false), "it has said so");
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR] {
            assert_eq!(of(status, true).unwrap(), None);
            assert_eq!(of(status, false).unwrap_err().again, Some(1));
        }
        let later = verdict(answer(StatusCode::TOO_MANY_REQUESTS, Some("7")), false).unwrap_err();
        assert_eq!((later.code, later.again), (StatusCode::SERVICE_UNAVAILABLE, Some(7)));
        assert_eq!(verdict(Err(Refusal::unavailable("gone")), true).unwrap(), None);
    }
}
