//! Errors as RFC 9457 problem details.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use khufu_engine::RequestError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What went wrong, for programs and people alike (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Names the kind of problem for good: `urn:khufu:problem:` and a word such as `not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// What exactly is wrong here, and the way out.
    pub detail: String,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    #[schema(value_type = String)]
    pub instance: Box<str>,
    /// Figures and names that belong to some kinds of problem.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub more: Map<String, Value>,
}

impl Problem {
    /// A problem of a kind named by one word in kebab case.
    pub(crate) fn new(status: StatusCode, word: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:khufu:problem:{word}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            instance: Box::default(),
            more: Map::new(),
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", "The request makes no sense", detail)
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Larger than the limits allow", detail)
    }

    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much is going on", detail)
    }

    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// The problem that a bare status stands for, as the parts of the server give it that know no problems.
    fn of_status(status: StatusCode) -> Self {
        let (word, title, detail) = match status {
            StatusCode::NOT_FOUND => {
                ("no-route", "No such path", "nothing is served at this path: /openapi.json lists all paths")
            }
            StatusCode::METHOD_NOT_ALLOWED => (
                "method-not-allowed",
                "Method not allowed",
                "this path does not take this method: the header Allow lists those that it takes",
            ),
            _ => ("other", status.canonical_reason().unwrap_or("Error"), "the request was not carried out"),
        };
        Self::new(status, word, title, detail)
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::NotFound { unreachable, .. } => {
                let problem = Self::new(StatusCode::NOT_FOUND, "not-found", "No such replicant", detail);
                if unreachable.is_empty() { problem } else { problem.with("unreachable", json!(unreachable)) }
            }
            RequestError::Invalid { .. } => Self::bad_request(detail),
            RequestError::Conflict { .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", "The request contradicts what there is", detail)
            }
            RequestError::TooLarge { .. } => Self::too_large(detail),
            RequestError::Unreachable { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "unreachable", "A site cannot be reached", detail)
            }
            RequestError::Busy { .. } => Self::busy(detail),
            RequestError::Full { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "The disk is full", detail)
            }
            RequestError::Storage { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", "The disk failed", detail)
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "other", "The request failed", detail),
        }
    }
}

impl IntoResponse for Problem {
    // The body is written by `finish`, which knows the path.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        match status {
            StatusCode::UNAUTHORIZED => {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"khufu\""));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes every error as a problem, whichever part of the server it came from.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let mut problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => Problem::of_status(status),
    };
    problem.instance = path.into();
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    Response::from_parts(parts, Body::from(body))
}
