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
use super::upstream::Question;

/// What is written where nobody says.
const NOBODY: &str = "kubernetes-front";
/// For so long it is remembered who somebody is.
const BELIEVED: Duration = Duration::from_secs(60);
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
    let name = match ask(front, headers).await {
        Some(name) => name,
        None => headers.get("impersonate-user").and_then(|name| name.to_str().ok()).unwrap_or(NOBODY).to_owned(),
    };
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let mut known = known();
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.insert(key, (Instant::now(), name.clone()));
    name
}

/// Whether the API server knows whoever sends these headers.
pub(super) async fn is_known(front: &Front, headers: &HeaderMap) -> Result<bool, Refusal> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(false);
    }
    let key = digest(headers);
    let trusted = || front.who.trusted.lock().unwrap_or_else(PoisonError::into_inner);
    if trusted().get(&key).is_some_and(|at| at.elapsed() < BELIEVED) {
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
    let is_known = answer.await?.status.is_success();
    if is_known {
        let mut trusted = trusted();
        if trusted.len() >= MAX_KNOWN {
            trusted.clear();
        }
        trusted.insert(key, Instant::now());
    }
    Ok(is_known)
}

/// Asks the API server. Those before 1.27 do not say.
async fn ask(front: &Front, headers: &HeaderMap) -> Option<String> {
    for place in PLACES {
        let review = json!({"apiVersion": place, "kind": "SelfSubjectReview"});
        let answer = front.upstream.ask(Question {
            method: Method::POST,
            path: format!("/apis/{place}/selfsubjectreviews"),
            from: headers,
            body: Some((HeaderValue::from_static("application/json"), Bytes::from(review.to_string()))),
            accept: None,
        });
        let answer = answer.await.ok()?.json();
        if let Some(name) = answer.pointer("/status/userInfo/username").and_then(Value::as_str) {
            return Some(name.to_owned());
        }
    }
    None
}
