//! What a proxy says of itself and of whoever asks, in headers.

use std::net::IpAddr;

use hyper::http::request::Parts;
use hyper::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::refusal::Refusal;
use super::text;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// With which a proxy says which host it was asked for.
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a front calls itself, unlike all others.
pub(super) fn pseudonym(name: &str, site: &str, node: &str) -> String {
    let last = node.len().saturating_sub(8);
    format!("khufu-{name}-{site}-{}", node.get(last..).unwrap_or(node))
}

/// Refuses what was here before.
pub(super) fn no_loop(headers: &HeaderMap, pseudonym: &str) -> Result<(), Refusal> {
    let via = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    let mut by = via.flat_map(|value| value.split(',')).filter_map(|hop| hop.split_whitespace().nth(1));
    if by.any(|by| by == pseudonym) {
        let message =
            "the service behind this front sends its requests back here: see which URL it has as its upstream";
        return Err(Refusal::a_loop(message));
    }
    Ok(())
}

/// Adds the front to those that a message has come through.
pub(super) fn via(headers: &mut HeaderMap, pseudonym: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("1.1 {pseudonym}")) {
        headers.append(header::VIA, value);
    }
}

/// Says for whom the request is. What a proxy on this machine has said of that is kept, and nobody else's word.
pub(super) fn forwarded(parts: &mut Parts, peer: IpAddr) {
    let host = parts.uri.authority().map(|authority| authority.as_str().to_owned());
    let host = host.or_else(|| text(&parts.headers, &header::HOST).map(str::to_owned));
    let headers = &mut parts.headers;
    let trusted = peer.is_loopback();
    if !trusted {
        for name in [FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, header::FORWARDED] {
            headers.remove(name);
        }
    }
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let before: String = before.map(|before| format!("{before}, ")).collect();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set(FORWARDED_FOR, format!("{before}{}", peer.to_canonical()));
    if let Some(host) = host.filter(|_| !trusted || !parts.headers.contains_key(&FORWARDED_HOST)) {
        parts.headers.extend(HeaderValue::from_str(&host).ok().map(|host| (FORWARDED_HOST, host)));
    }
    if !parts.headers.contains_key(&FORWARDED_PROTO) {
        parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seen(peer: &str, headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut request = hyper::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        forwarded(&mut parts, peer.parse().unwrap());
        parts.headers
    }

    #[test]
    fn only_a_proxy_on_this_machine_is_believed() {
        let said = [
            ("host", "front"),
            ("x-forwarded-for", "192.0.2.6"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "service.example"),
            ("x-forwarded-proto", "https"),
        ];
        let near = seen("127.0.0.1", &said);
        assert_eq!(near["x-forwarded-for"], "192.0.2.6, 192.0.2.7, 127.0.0.1");
        assert_eq!(
            (&near["x-forwarded-host"], &near["x-forwarded-proto"]),
            (&"service.example".parse().unwrap(), &"https".parse().unwrap())
        );
        let far = seen("::ffff:198.51.100.1", &said);
        assert_eq!(far["x-forwarded-for"], "198.51.100.1");
        assert_eq!(
            (&far["x-forwarded-host"], &far["x-forwarded-proto"]),
            (&"front".parse().unwrap(), &"http".parse().unwrap())
        );
    }

    #[test]
    fn what_comes_back_is_known() {
        let mut headers = HeaderMap::new();
        via(&mut headers, "khufu-a-paris-12345678");
        via(&mut headers, "khufu-a-rennes-12345678");
        assert_eq!(no_loop(&headers, "khufu-a-rennes-12345678").unwrap_err().status.as_u16(), 508);
        assert!(no_loop(&headers, "khufu-a-rennes-1234567").is_ok());
    }
}
