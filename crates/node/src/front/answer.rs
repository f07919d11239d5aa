//! Answers of the front itself, in the words of a Kubernetes API server.

use hyper::Response;
use hyper::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use khufu_engine::RequestError;
use serde_json::{Value, json};

use crate::body::full;
pub(super) use crate::body::{Body, BoxError, boxed};
use crate::turns::Late;

const WARNING: HeaderName = header::WARNING;

/// JSON.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Why the front does not do what it was asked, as a `Status`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) causes: Vec<Value>,
    /// Nothing was done, and it can be asked for again after so many seconds.
    pub(super) again: Option<u32>,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), causes: Vec::new(), again: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// Later, it may be possible.
    pub(super) fn too_many(message: impl Into<String>) -> Self {
        Self { again: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message) }
    }

    /// The API server has no time.
    pub(super) fn later(message: impl Into<String>) -> Self {
        Self { again: Some(1), ..Self::busy(message) }
    }

    /// The API server cannot be asked.
    pub(super) fn unavailable(reason: impl AsRef<str>) -> Self {
        let message = format!("the API server of this site cannot be asked: {}", reason.as_ref());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// The words of the driver at this site.
    pub(super) fn of_driver(words: &str, kept: &str) -> Self {
        let (code, reason) = if words.contains("others have set fields") || words.contains("it is there already") {
            (StatusCode::CONFLICT, "Conflict")
        } else if words.contains("the API server forbids it") {
            (StatusCode::FORBIDDEN, "Forbidden")
        } else if words.contains("not available") || words.contains("did not answer") {
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
        } else {
            (StatusCode::UNPROCESSABLE_ENTITY, "Invalid")
        };
        Self::new(code, reason, format!("{words} ({kept})"))
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if !self.causes.is_empty() {
            status["details"] = json!({"causes": self.causes});
        }
        let mut response = json_answer(self.code, &status);
        if let Some(seconds) = self.again {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Late> for Refusal {
    fn from(_: Late) -> Self {
        Self::too_many("other writes to this object are still under way")
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let (code, reason) = match &error {
            RequestError::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            RequestError::Invalid { .. } => (StatusCode::BAD_REQUEST, "BadRequest"),
            RequestError::Conflict { .. } => (StatusCode::CONFLICT, "Conflict"),
            RequestError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            RequestError::Unreachable { .. } | RequestError::Busy { .. } | RequestError::Full { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        };
        Self::new(code, reason, error.to_string())
    }
}

/// Adds a warning, which kubectl prints.
pub(super) fn warn(headers: &mut HeaderMap, words: &str) {
    // Nothing of it may end the text or the header.
    let plain = |c: char| match c {
        '"' => '\'',
        c if c == ' ' || c.is_ascii_graphic() => c,
        _ => ' ',
    };
    let words: String = words.chars().map(plain).take(1_000).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 khufu \"{}\"", words.replace('\\', "/"))) {
        headers.append(WARNING, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_warning_is_one_text_whatever_is_in_it() {
        let mut headers = HeaderMap::new();
        warn(&mut headers, "a \"b\"\r\nX: y\\ é");
        assert_eq!(headers[WARNING], "299 khufu \"a 'b'  X: y/  \"");
    }

    #[test]
    fn the_words_of_the_driver_become_what_a_client_understands() {
        for (words, code) in [
            ("a: others have set fields to something else: spec.replicas", 409),
            ("a: the API server forbids it: quota", 403),
            ("a: spec.x: is wrong", 422),
            ("the platform is not available: gone", 503),
        ] {
            assert_eq!(Refusal::of_driver(words, "kept").code.as_u16(), code, "{words}");
        }
    }
}
