//! What a service says, and what that means.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LINK, LOCATION, RETRY_AFTER};
use serde_json::Value;

use crate::DriverError;
use crate::text::cut;

/// The longest pause that a service may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// What of an answer is shown in an error.
const MAX_SAID_BYTES: usize = 1024;

/// What a service has answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The rest of the body did not come.
    pub(super) is_cut: bool,
}

impl Answer {
    /// The body, if it is JSON.
    pub(super) fn json(&self) -> Option<Value> {
        if self.is_cut { None } else { serde_json::from_slice(&self.body).ok() }
    }

    fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the service says that something is.
    pub(super) fn location(&self) -> Option<&str> {
        self.header(LOCATION)
    }

    /// The next page, as RFC 8288 says it.
    pub(super) fn link_to_next(&self) -> Option<String> {
        let links = self.headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
        links.flat_map(|value| value.split(",<").flat_map(|part| part.split(", <"))).find_map(|link| {
            let (url, rest) = link.trim().trim_start_matches('<').split_once('>')?;
            let is_next = |parameter: &str| {
                let (name, value) = parameter.split_once('=')?;
                let rels = value.trim().trim_matches('"').to_ascii_lowercase();
                (name.trim().eq_ignore_ascii_case("rel") && rels.split(' ').any(|rel| rel == "next")).then_some(())
            };
            rest.split(';').find_map(is_next).map(|()| url.to_owned())
        })
    }

    /// How long the service wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header(RETRY_AFTER)?.trim();
        let pause = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
        };
        Some(pause.min(MAX_RETRY_AFTER))
    }

    /// What it says, for people.
    pub(super) fn text(&self, max_bytes: usize) -> String {
        let text: String = String::from_utf8_lossy(&self.body)
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
            .collect();
        let text = cut(text.trim(), max_bytes);
        if text.is_empty() { self.status.to_string() } else { format!("{}: {text}", self.status) }
    }

    /// Whether it says that nothing was done, and that asking again may help.
    pub(super) fn is_not_done(&self, not_done: &[u16]) -> bool {
        let status = self.status.as_u16();
        matches!(status, 425 | 429) || not_done.contains(&status) || (status == 503 && self.retry_after().is_some())
    }

    /// What an answer that is no success means for a request that changes something.
    pub(super) fn refused(&self, what: &str, retry: &[u16]) -> DriverError {
        let said = format!("{what}: {}", self.text(MAX_SAID_BYTES));
        match self.status.as_u16() {
            401 => DriverError::Unavailable {
                reason: format!("{said} (see to the credentials in the driver's file)"),
                retry_after: None,
            },
            300..=399 => {
                let reason = format!("{what}: it leads elsewhere ({}), and is not followed", self.status);
                DriverError::Failed { reason, again: false }
            }
            status @ 400..=499 => DriverError::Failed { reason: said, again: status == 408 || retry.contains(&status) },
            200..=299 => {
                DriverError::Failed { reason: format!("{said}: not what is configured as success"), again: false }
            }
            // A service may answer so after it has done what it was asked for.
            _ => DriverError::Unanswered { reason: said },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: b"no".to_vec(), is_cut: false }
    }

    #[test]
    fn pauses_are_read_as_seconds_and_as_dates() {
        let of = |text: &str| answer(429, &[("retry-after", text)]).retry_after();
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("99999999"), Some(MAX_RETRY_AFTER));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!((Duration::from_secs(95)..=Duration::from_secs(100)).contains(&of(&soon).unwrap()));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn only_what_says_so_was_not_done() {
        assert!(answer(429, &[]).is_not_done(&[]));
        assert!(answer(503, &[("retry-after", "1")]).is_not_done(&[]));
        assert!(!answer(503, &[]).is_not_done(&[]) && answer(503, &[]).is_not_done(&[503]));
        assert!(!answer(500, &[]).is_not_done(&[]));
        for status in [500, 502, 503, 504] {
            assert!(matches!(answer(status, &[]).refused("x", &[]), DriverError::Unanswered { .. }), "{status}");
        }
        for (status, again) in [(400, false), (409, true), (403, false), (301, false), (204, false)] {
            let error = answer(status, &[]).refused("x", &[409]);
            assert!(matches!(&error, DriverError::Failed { again: is, .. } if *is == again), "{status}: {error:?}");
        }
        assert!(!answer(401, &[]).refused("x", &[]).is_permanent());
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        let links = r#"</a?x=1,2>; rel="prev", </b?page=3>; title="n"; rel="last next""#;
        assert_eq!(answer(200, &[("link", links)]).link_to_next().as_deref(), Some("/b?page=3"));
        assert_eq!(answer(200, &[("link", "</a>; rel=prev")]).link_to_next(), None);
        assert_eq!(answer(200, &[]).link_to_next(), None);
    }
}
