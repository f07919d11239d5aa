//! Many requests in one.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::{Extension, Router};
use futures::StreamExt as _;
use khufu_crdt::ReplicantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::Problem;
use super::extract::{Json, MAX_BODY_BYTES, NoQuery};
use super::guard::Caller;
use super::replicants::{MINIMAL, PREFER};

/// The most requests in one.
const MAX_REQUESTS: usize = 1000;
/// How many replicants are worked on at once for one who asks.
const AT_ONCE: usize = 64;
/// What has not begun by then is left.
const BEGIN_WITHIN: Duration = Duration::from_secs(20);
/// What these requests are about.
const PATHS: &str = "/v1/replicants/";

/// The routes that each of the requests goes to, without what was done for all of them.
#[derive(Clone)]
pub(crate) struct Inner(pub(crate) Router);

/// Many requests.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bulk {
    /// At most 1,000. Those about one replicant are carried out in their order, those about different ones at once.
    requests: Vec<BulkRequest>,
}

/// One of them.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkRequest {
    /// `PUT`, `PATCH`, `POST` or `DELETE`.
    method: String,
    /// Below `/v1/replicants/`, with its query.
    path: String,
    /// As the header `If-Match`.
    #[serde(default)]
    if_match: Option<String>,
    /// As the header `If-None-Match`.
    #[serde(default)]
    if_none_match: Option<String>,
    /// What the request would have as its body.
    #[serde(default)]
    body: Option<Value>,
}

/// What became of each, in the order of the requests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BulkAnswer {
    /// Whether none of them failed.
    ok: bool,
    responses: Vec<BulkResponse>,
}

/// What became of one.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BulkResponse {
    /// The status that the request alone would have been answered with.
    status: u16,
    /// The ETag of the replicant afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// The id of the operation that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    /// Why it was refused, or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Problem>)]
    problem: Option<Value>,
}

impl BulkResponse {
    fn refused(problem: &Problem) -> Self {
        Self { status: problem.status, etag: None, operation: None, problem: serde_json::to_value(problem).ok() }
    }
}

#[utoipa::path(post, path = "/v1/bulk", tag = "replicants", request_body = Bulk,
    responses((status = 200, description = "What became of each; some may have failed", body = BulkAnswer),
        (status = "4XX", description = "Refused, and none of them was carried out", body = Problem, content_type = "application/problem+json")))]
/// Carry out many requests that change replicants
pub(crate) async fn bulk(
    Extension(Inner(router)): Extension<Inner>,
    Extension(caller): Extension<Caller>,
    _: NoQuery,
    Json(bulk): Json<Bulk>,
) -> Result<axum::Json<BulkAnswer>, Problem> {
    let count = bulk.requests.len();
    if count > MAX_REQUESTS {
        return Err(Problem::too_large(format!(
            "{count} requests in one, and at most {MAX_REQUESTS} are taken: send several"
        )));
    }
    let begin_by = Instant::now() + BEGIN_WITHIN;
    // All are looked at before any is carried out.
    let mut by_replicant = BTreeMap::<ReplicantId, Vec<(usize, HttpRequest)>>::new();
    for (nth, request) in bulk.requests.into_iter().enumerate() {
        let (replicant, request) = prepare(request, &caller)
            .map_err(|detail| Problem::bad_request(format!("requests[{nth}]: {detail}")).with("request", nth.into()))?;
        by_replicant.entry(replicant).or_default().push((nth, request));
    }
    let one_by_one = by_replicant.into_values().map(|requests| {
        let router = router.clone();
        async move {
            let mut responses = Vec::new();
            for (nth, request) in requests {
                let response = if Instant::now() > begin_by {
                    let seconds = BEGIN_WITHIN.as_secs();
                    let mut problem = Problem::busy(format!("not begun within {seconds} s: ask for it again"));
                    problem.instance = request.uri().path().into();
                    BulkResponse::refused(&problem)
                } else {
                    carry_out(router.clone(), request).await
                };
                responses.push((nth, response));
            }
            responses
        }
    });
    let mut responses: Vec<(usize, BulkResponse)> =
        futures::stream::iter(one_by_one).buffer_unordered(AT_ONCE).concat().await;
    responses.sort_by_key(|(nth, _)| *nth);
    let responses: Vec<_> = responses.into_iter().map(|(_, response)| response).collect();
    Ok(axum::Json(BulkAnswer { ok: responses.iter().all(|response| response.status < 400), responses }))
}

/// A request as it would have come alone, and which replicant it is about.
fn prepare(request: BulkRequest, caller: &Caller) -> Result<(ReplicantId, HttpRequest), String> {
    let BulkRequest { method, path, if_match, if_none_match, body } = request;
    let kind = match method.as_str() {
        "PUT" | "POST" => "application/json",
        "PATCH" => "application/merge-patch+json",
        "DELETE" if body.is_none() => "application/json",
        "DELETE" => return Err("DELETE takes no body".to_owned()),
        _ => return Err(format!("method: {method:?} is none of PUT, PATCH, POST and DELETE")),
    };
    let Some(replicant) = path.strip_prefix(PATHS).and_then(|rest| rest.split(['/', '?']).next()) else {
        return Err(format!("path: {path:?} is not below {PATHS}"));
    };
    // As it is written everywhere, so that all that is about one replicant is known to be.
    let replicant = ReplicantId::new(replicant).map_err(|error| format!("path: {error}"))?;
    let method: Method = method.parse().map_err(|error| format!("method: {error}"))?;
    let bytes = body.map(|body| serde_json::to_vec(&body)).transpose().map_err(|error| format!("body: {error}"))?;
    let mut alone = HttpRequest::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, kind)
        .header(PREFER, MINIMAL)
        .body(Body::from(bytes.unwrap_or_default()))
        .map_err(|error| format!("path: {error}"))?;
    let mut set = |name: HeaderName, value: Option<String>| {
        let Some(value) = value else { return Ok(()) };
        let value = HeaderValue::from_str(&value).map_err(|error| format!("{name}: {error}"))?;
        alone.headers_mut().insert(name, value);
        Ok::<(), String>(())
    };
    set(header::IF_MATCH, if_match)?;
    set(header::IF_NONE_MATCH, if_none_match)?;
    alone.extensions_mut().insert(caller.clone());
    Ok((replicant, alone))
}

async fn carry_out(router: Router, request: HttpRequest) -> BulkResponse {
    let Ok(response) = router.oneshot(request).await;
    let status = response.status();
    let etag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let body = match axum::body::to_bytes(response.into_body(), MAX_BODY_BYTES).await {
        Ok(body) if body.is_empty() => Value::Null,
        Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let failed = status.is_client_error() || status.is_server_error();
    let operation = body["operation"]["id"].as_str().map(str::to_owned);
    let problem = failed.then_some(body);
    BulkResponse { status: status.as_u16(), etag, operation, problem }
}
