//! Headers of the front: those of one connection, and those that say who asks.

use hyper::http::{HeaderMap, HeaderName, header};

use super::answer::Refusal;
use crate::headers::named;
pub(super) use crate::headers::{end_to_end, end_to_end_or_upgrade, upgrade};

/// Refuses what says that who asks, or as whom, is of the connection: without it, somebody else would ask.
pub(super) fn names_no_identity(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_identity = |name: &HeaderName| name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-");
    match named(headers).find(is_identity) {
        Some(name) => Err(Refusal::bad_request(format!("the header Connection must not name {name}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_connection_names_as_its_own_goes_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert_eq!(upgrade(&headers), None);
        assert!(names_no_identity(&headers).is_ok());
        for name in ["Authorization", "x, impersonate-user"] {
            let asks = HeaderMap::from_iter([(header::CONNECTION, HeaderValue::from_static(name))]);
            assert_eq!(names_no_identity(&asks).unwrap_err().code.as_u16(), 400, "{name}");
        }
        end_to_end(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["authorization"]);
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(upgrade(&headers), None);
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert_eq!(upgrade(&headers).unwrap(), "SPDY/3.1");
    }
}
