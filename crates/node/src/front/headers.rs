//! Headers that belong to one connection, and not to what is sent over it.

use hyper::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::answer::Refusal;

/// What HTTP/1.1 says is of a connection (RFC 9110, section 7.6.1).
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];

/// The headers that are named as being of the connection.
fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok())
}

/// Refuses what says that who asks, or as whom, is of the connection: without it, somebody else would ask.
pub(super) fn names_no_identity(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_identity = |name: &HeaderName| name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-");
    match named(headers).find(is_identity) {
        Some(name) => Err(Refusal::bad_request(format!("the header Connection must not name {name}"))),
        None => Ok(()),
    }
}

/// Takes out what is of a connection.
pub(super) fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = named(headers).collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_CONNECTION {
        headers.remove(name);
    }
}

/// The protocol that a request wants to change to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut wants = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted = wants.any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(header::UPGRADE).filter(|_| wanted).cloned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
