//! Whether a request is for this machine, by the name that it carries.

use std::net::IpAddr;

use hyper::http::uri::Authority;
use hyper::http::{HeaderMap, Uri, header};

/// The host that a request is for, if that is no name of this machine's loopback interface.
///
/// A web page that was loaded from a name which now resolves to this machine (DNS rebinding) counts as of the same
/// origin for a browser. Its requests still carry that name.
pub(crate) fn other_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    // Browsers always send one. Whoever sends several must mean this machine with each.
    let authority = uri.authority().map(Authority::as_str);
    let hosts = headers.get_all(header::HOST).into_iter().map(|host| host.to_str().unwrap_or("?"));
    authority.into_iter().chain(hosts).find(|named| !is_loopback_host(named))
}

fn is_loopback_host(named: &str) -> bool {
    let split = match named.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(named.split_at(named.find(':').unwrap_or(named.len()))),
    };
    let Some((host, port)) = split else { return false };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::http::HeaderValue;

    use super::*;

    #[test]
    fn hosts() {
        for good in ["localhost", "LOCALHOST:80", "a.localhost", "127.0.0.1:7070", "127.9.9.9", "[::1]:7070", "[::1]"] {
            assert!(is_loopback_host(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:7070",
            "[::2]",
            "::1x",
            "[::1",
            "[::1].example.com",
            "localhost:80@example.com",
            "localhost@example.com",
        ] {
            assert!(!is_loopback_host(bad), "{bad}");
        }
    }

    #[test]
    fn each_host_of_a_request_counts() {
        let host = |names: &[&'static str]| {
            names.iter().map(|name| (header::HOST, HeaderValue::from_static(name))).collect::<HeaderMap>()
        };
        let admits = |uri: &str, names: &[&'static str]| other_host(&uri.parse().unwrap(), &host(names)).is_none();
        assert!(admits("/v1/sites", &["localhost"]) && admits("/v1/sites", &[]));
        assert!(admits("http://localhost/v1/sites", &["127.0.0.1"]));
        assert!(!admits("/v1/sites", &["localhost", "example.com"]));
        assert!(!admits("http://localhost/v1/sites", &["example.com"]));
        assert!(!admits("http://example.com/v1/sites", &["localhost"]));
    }
}
