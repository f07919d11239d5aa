//! What an answer of a service means for what was tried.

use std::time::Duration;

use serde_json::Value;

use crate::DriverError;
use crate::text::clipped;

/// The longest message of a service that is passed on.
const MAX_MESSAGE_BYTES: usize = 1_500;
/// How long a service is left alone that has too much to do and does not say how long.
const BREATH: Duration = Duration::from_secs(1);
/// The longest that a service can ask to be left alone.
const LONGEST: Duration = Duration::from_secs(600);

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// To read something.
    Read,
    /// To make something.
    Create,
    /// To change something.
    Update,
    /// To remove something.
    Delete,
}

impl Tried {
    /// Whether, where no answer comes, something may have changed.
    pub(super) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// The words of a service: each puts them elsewhere, and Glance writes a page for browsers.
pub(super) fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let found = serde_json::from_slice::<Value>(body).ok().and_then(|value| {
        let inner = value.as_object()?.values().next()?.clone();
        let of = |value: &Value| value.get("message").and_then(Value::as_str).map(str::to_owned);
        let detail = inner.get("type").and_then(Value::as_str).unwrap_or_default();
        let message = of(&value).or_else(|| of(&inner)).or_else(|| inner.as_str().map(str::to_owned))?;
        Some(if detail.is_empty() { message } else { format!("{message} ({detail})") })
    });
    let plain = found.unwrap_or_else(|| {
        let mut inside = false;
        let letters = text.chars().filter(|letter| {
            match letter {
                '<' => inside = true,
                '>' => inside = false,
                _ => return !inside,
            }
            false
        });
        letters.collect()
    });
    clipped(&plain.split_whitespace().collect::<Vec<_>>().join(" "), MAX_MESSAGE_BYTES)
}

/// How long a service asks to be left alone.
pub(super) fn retry_after(header: Option<&str>) -> Option<Duration> {
    let seconds: u64 = header?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// What is said of an attempt that did not succeed.
pub(super) fn refused(place: &str, tried: Tried, status: u16, after: Option<Duration>, body: &[u8]) -> DriverError {
    let said = message(body);
    let reason = format!("{place}: {said} (status {status})");
    let unavailable = |retry_after| DriverError::Unavailable { reason: reason.clone(), retry_after };
    let place = place.to_owned();
    match (status, tried) {
        (401, _) => DriverError::Unavailable {
            reason: format!("{place}: the service does not know who asks (are the credentials still valid?): {said}"),
            retry_after: None,
        },
        // Quotas say so, too (Neutron with 409, Glance with 413): no attempt at once can do better.
        (403 | 413, _) => DriverError::Refused { place, reason: format!("the service forbids it: {said}") },
        (409, Tried::Create) if said.contains("OverQuota") || said.contains("uota exceeded") => {
            DriverError::Refused { place, reason: format!("the service forbids it: {said}") }
        }
        // Something of that name or address is there.
        (409, Tried::Create) => DriverError::Refused { place, reason: said },
        // It is in use, or being changed: that passes, and nobody else can end it.
        (409, _) => unavailable(None),
        (400 | 405 | 406 | 411 | 414 | 415 | 422, _) => DriverError::Invalid { field: place, reason: said },
        (404 | 410, _) => unavailable(None),
        (408, _) => unavailable(after),
        (429, _) => unavailable(Some(after.unwrap_or(BREATH))),
        // Whoever passes it on has not heard.
        (502 | 504, _) if tried.writes() => DriverError::Unanswered { reason },
        (500.., _) => unavailable(after),
        _ => DriverError::Refused { place, reason: format!("{said} (status {status})") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_each_service_are_found() {
        for (body, wanted) in [
            (r#"{"badRequest": {"code": 400, "message": "Invalid image"}}"#, "Invalid image"),
            (r#"{"NeutronError": {"type": "OverQuota", "message": "too many", "detail": ""}}"#, "too many (OverQuota)"),
            (r#"{"error": {"code": 401, "message": "who?", "title": "Unauthorized"}}"#, "who?"),
            (r#"{"message": "no"}"#, "no"),
            ("<html><h1>403 Forbidden</h1>\n <br />No &amp; no</html>", "403 Forbidden No &amp; no"),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes()), wanted);
        }
        assert!(message(&[b'x'; 10_000]).len() < 2_000);
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let permanent = |status, tried| refused("network shop", tried, status, None, b"{}").is_permanent();
        for status in [400, 403, 413, 409] {
            assert!(permanent(status, Tried::Create), "{status}");
        }
        for status in [401, 404, 408, 429, 500, 503, 502] {
            assert!(!permanent(status, Tried::Create), "{status}");
        }
        assert!(!permanent(409, Tried::Delete) && !permanent(409, Tried::Update));
        let lost = |tried| matches!(refused("x", tried, 504, None, b""), DriverError::Unanswered { .. });
        assert!(lost(Tried::Create) && !lost(Tried::Read));
        let pause = refused("x", Tried::Read, 429, retry_after(Some("7")), b"").retry_after();
        assert_eq!(pause, Some(Duration::from_secs(7)));
        assert_eq!(retry_after(Some("99999999")), Some(LONGEST));
    }
}
