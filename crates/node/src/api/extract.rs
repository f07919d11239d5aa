//! What handlers take out of requests; each refuses with a [`Problem`] that names the place.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt as _;
use khufu_crdt::{ReplicantId, SiteName, Status};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Problem;

/// The most bytes of a request's body: the largest document that is allowed, and room for what is around it.
pub(crate) const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;
/// How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// A sender that pauses for longer within a body is given up.
const BODY_IDLE: Duration = Duration::from_secs(20);
/// A body that takes longer in all is given up.
const BODY_TOTAL: Duration = Duration::from_secs(120);

/// A JSON body, `application/json`, that is an object.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        demand_type(request.headers(), &["application/json"])?;
        let body = read(request).await?;
        // serde would fill the fields of a structure from an array as well, in the order in which they are declared.
        match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[' | b'"' | b'0'..=b'9' | b'-' | b't' | b'f' | b'n') => {
                Err(Problem::bad_request("the body is not as it should be: send a JSON object, {\"name\": value, ...}"))
            }
            _ => Ok(Self(parse(&body)?)),
        }
    }
}

/// A JSON merge patch (RFC 7386), `application/merge-patch+json` or `application/json`.
#[derive(Debug)]
pub(crate) struct MergePatch(pub(crate) serde_json::Value);

impl<S: Send + Sync> FromRequest<S> for MergePatch {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        demand_type(request.headers(), &["application/merge-patch+json", "application/json"])?;
        Ok(Self(parse(&read(request).await?)?))
    }
}

/// Also keeps web pages out: a page of another origin may not send these types without asking first, which is refused.
fn demand_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), Problem> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if allowed.contains(&essence.as_str()) {
        return Ok(());
    }
    let found = if essence.is_empty() { "no Content-Type".to_owned() } else { format!("Content-Type {essence:?}") };
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "media-type",
        "Content type not understood",
        format!("the request has {found}: send {}", allowed.join(" or ")),
    ))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(Problem::bad_request("the body is empty: send a JSON value"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "the body is not as it should be" } else { "the body is not valid JSON" };
        Problem::bad_request(format!("{what}: {error}"))
            .with("line", error.line().into())
            .with("column", error.column().into())
    })
}

async fn read(request: Request) -> Result<Vec<u8>, Problem> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    let late = || {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            "The request took too long to arrive",
            format!("the body did not arrive in {} s, or paused for {} s", BODY_TOTAL.as_secs(), BODY_IDLE.as_secs()),
        )
    };
    tokio::time::timeout(BODY_TOTAL, async {
        let mut body = Vec::with_capacity(announced.unwrap_or(0).min(64 * 1024));
        let mut seen = 0_usize;
        let mut stream = request.into_body().into_data_stream();
        while let Some(chunk) = tokio::time::timeout(BODY_IDLE, stream.next()).await.map_err(|_| late())? {
            let chunk =
                chunk.map_err(|error| Problem::bad_request(format!("the body broke off after {seen} bytes: {error}")))?;
            seen = seen.saturating_add(chunk.len());
            if seen > MAX_DISCARDED_BYTES {
                break;
            }
            if seen <= MAX_BODY_BYTES {
                body.extend_from_slice(&chunk);
            } else {
                body = Vec::new();
            }
        }
        if seen > MAX_BODY_BYTES {
            let size = announced.unwrap_or(seen);
            return Err(Problem::too_large(format!(
                "the body has {size} bytes and at most {MAX_BODY_BYTES} are taken: keep large data outside of replicants"
            ))
            .with("limit_bytes", MAX_BODY_BYTES.into()));
        }
        Ok(body)
    })
    .await
    .unwrap_or_else(|_| Err(late()))
}

/// The `{id}` of a path.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) ReplicantId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(format!("the path cannot be read: {}", error.body_text())))?;
        ReplicantId::new(id).map(Self).map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// The query of an address; unknown names are refused where `T` refuses them.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| Problem::bad_request(format!("the query of the address: {}", error.body_text())))
    }
}

/// For requests that take no query: one that has any is refused, so that no misspelt wish is silently ignored.
#[derive(Debug)]
pub(crate) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(query) => {
                Err(Problem::bad_request(format!("the query of the address: this path takes none, and got {query:?}")))
            }
        }
    }
}

/// A time to wait, as `"30s"`, `"500ms"`, `"2m"` or a number of milliseconds.
pub(crate) fn parse_wait(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is no time to wait: write 30s, 500ms, 2m or a number of milliseconds");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit.trim() {
        "" | "ms" => number,
        "s" => number.saturating_mul(1000),
        "m" => number.saturating_mul(60_000),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(milliseconds))
}

/// `wait` of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Duration);

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a time to wait such as \"30s\", or a number of milliseconds")]
        enum Form {
            Milliseconds(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Milliseconds(number) => Ok(Self(Duration::from_millis(number))),
            Form::Text(text) => parse_wait(&text).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// Reads a status as it is written in answers.
pub(crate) fn status(text: &str) -> Result<Status, Problem> {
    serde_json::from_value(text.into()).map_err(|_| {
        Problem::bad_request(format!(
            "{text:?} is no status: use pending, applied, failed, skipped, needs-attention or removed"
        ))
    })
}

/// Reads a site's name out of a query.
pub(crate) fn site(text: String) -> Result<SiteName, Problem> {
    SiteName::new(text).map_err(|error| Problem::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_to_wait() {
        for (text, milliseconds) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("0", 0), ("250", 250)] {
            assert_eq!(parse_wait(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "s", "-1", "1.5s", "1h", "99999999999999999999"] {
            assert!(parse_wait(text).is_err(), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<Wait>("1500").unwrap().0, Duration::from_millis(1500));
        assert_eq!(serde_json::from_str::<Wait>("\"3s\"").unwrap().0, Duration::from_secs(3));
        assert!(serde_json::from_str::<Wait>("\"soon\"").unwrap_err().to_string().contains("write 30s"));
    }
}
