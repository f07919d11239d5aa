//! Sends a request to one of several sites: the first that answers.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Body as _, Bytes};
use hyper::http::request::Parts;
use khufu_crdt::SiteName;

use super::refusal::{FRONT, Refusal, UNSEEN};
use super::upstream::ANSWER;
use super::{Front, edge, is_idempotent};
use crate::body::{Body, full};

/// The longest body that is kept, to be sent to another site where one does not answer.
const MAX_KEPT: usize = 256 << 10;
/// How long such a body may take to come in.
const COMES_IN: Duration = Duration::from_secs(30);

/// What is to be sent.
enum Outgoing {
    /// As it comes: it can be sent once.
    Once(Body),
    /// As often as need be.
    Again(Bytes),
}

/// Sends it to the first of the sites that answers. What is not idempotent goes to another only where nobody has seen it.
pub(super) async fn send(
    front: &Front,
    parts: Parts,
    body: Body,
    sites: &[SiteName],
) -> Result<Response<Body>, Refusal> {
    let body = match sites {
        [site] => return to(front, site, parts, body).await,
        _ => kept(body).await?,
    };
    let body = match body {
        Outgoing::Again(body) => body,
        Outgoing::Once(body) => {
            for site in sites {
                if front.forward.reaches(site).await {
                    return to(front, site, parts, body).await;
                }
            }
            return Err(none(&[], sites));
        }
    };
    let mut failures = Vec::new();
    for site in sites {
        let refusal = match to(front, site, again(&parts), full(body.clone())).await {
            Ok(answer) => match failed(&answer) {
                None => return Ok(answer),
                Some(true) if !is_idempotent(&parts.method) => return Ok(answer),
                Some(_) => format!("the site {site} answers {} for its service", answer.status()),
            },
            Err(refusal) if refusal.seen && !is_idempotent(&parts.method) => return Err(refusal),
            Err(refusal) => refusal.message,
        };
        failures.push(refusal);
    }
    Err(none(&failures, sites))
}

fn none(failures: &[String], sites: &[SiteName]) -> Refusal {
    let names: Vec<_> = sites.iter().map(SiteName::as_str).collect();
    let why = failures.join("; ");
    Refusal::unreachable(format!("none of the sites {} can be asked: {why}", names.join(", ")))
}

/// Whether the front of another site has answered for its service; and if so, whether that may have seen the request.
fn failed(answer: &Response<Body>) -> Option<bool> {
    answer.headers().get(FRONT).map(|seen| seen != UNSEEN)
}

/// The same head of a request.
fn again(parts: &Parts) -> Parts {
    let mut request = hyper::Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    request.into_parts().0
}

async fn to(front: &Front, site: &SiteName, mut parts: Parts, body: Body) -> Result<Response<Body>, Refusal> {
    if site == front.handle.site() {
        return front.upstream.send(front, parts, body).await;
    }
    edge::via(&mut parts.headers, &front.pseudonym);
    let request = hyper::Request::from_parts(parts, body);
    let mut answer = front.forward.to(site, &front.service, request, ANSWER).await?;
    edge::via(answer.headers_mut(), &front.pseudonym);
    Ok(answer)
}

/// Keeps a body that is short enough, and says that it is.
async fn kept(body: Body) -> Result<Outgoing, Refusal> {
    if body.size_hint().upper().is_none_or(|bytes| bytes > MAX_KEPT as u64) {
        return Ok(Outgoing::Once(body));
    }
    let late = |_| Refusal::slow_body(format!("the body has not come in within {} s", COMES_IN.as_secs()));
    let bytes = tokio::time::timeout(COMES_IN, whole(body)).await.map_err(late)??;
    Ok(Outgoing::Again(bytes.into()))
}

/// All of a body, whose length is known and no more than [`MAX_KEPT`].
async fn whole(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::bad_request(error.to_string()))?;
        bytes.extend(frame.into_data().unwrap_or_default());
    }
    Ok(bytes)
}
