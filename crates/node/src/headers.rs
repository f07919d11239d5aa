//! Headers that belong to one connection, and not to what is sent over it.

use hyper::body::Body;
use hyper::http::{HeaderMap, HeaderName, HeaderValue, header};

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
pub(crate) fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok())
}

/// Takes out what is of a connection.
pub(crate) fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = named(headers).collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_CONNECTION {
        headers.remove(name);
    }
}

/// The protocol that a request wants to change to.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut wants = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted = wants.any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(header::UPGRADE).filter(|_| wanted).cloned()
}

/// Takes out what is of a connection, but for a change of the protocol that is asked for or agreed to.
pub(crate) fn end_to_end_or_upgrade(headers: &mut HeaderMap) -> bool {
    let protocol = upgrade(headers);
    end_to_end(headers);
    let Some(protocol) = protocol else { return false };
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
    true
}

/// Says of a body of a request that it comes in chunks, where nothing else says how long it is: else the HTTP client takes a
/// GET for one without a body, and sends none.
pub(crate) fn say_chunked(headers: &mut HeaderMap, body: &impl Body) {
    if !body.is_end_stream() && body.size_hint().exact().is_none() && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Whether the headers of an answer say where its body ends: else any end looks like it, also that of a broken connection.
pub(crate) fn say_length(headers: &HeaderMap) -> bool {
    let coding = headers.get_all(header::TRANSFER_ENCODING).iter().next_back().and_then(|value| value.to_str().ok());
    let last = coding.and_then(|value| value.rsplit(',').next());
    headers.contains_key(header::CONTENT_LENGTH) || last.is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
}
