//! Headers that belong to one connection, and not to what is sent over it.

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
