//! Where a request says what its scope is: a header, the path, or a token, for clients that can set nothing else.

use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode;
use serde_json::Value;

use super::edge::FORWARDED_HOST;
use super::refusal::Refusal;
use super::text;
use crate::scope_path;

/// The headers, the one that counts first.
const HEADERS: [HeaderName; 2] = [HeaderName::from_static("scope"), HeaderName::from_static("x-scope")];
/// The headers with tokens at whose end a scope may stand.
const TOKENS: [HeaderName; 3] =
    [HeaderName::from_static("x-auth-token"), HeaderName::from_static("x-subject-token"), header::AUTHORIZATION];
/// With which browsers say of which origin the page is that asks.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What parts a token from the scope.
const IN_TOKEN: &[u8] = b"!SCOPE!";

/// Whether scopes can speak of a service of that name.
pub(super) fn is_name(name: &str) -> bool {
    khufu_scope::parse(&format!("{name}: here")).is_ok_and(|scope| {
        matches!(scope.items(), [khufu_scope::Item::Place { service: Some(service), .. }] if service.as_str() == name)
    })
}

/// Takes the scope out of a request, wherever it says it: what is left is for the service. Of several, that of the header
/// counts, then that of the path, then that of a token.
pub(super) fn take(parts: &mut Parts) -> Result<Option<String>, Refusal> {
    let mut found = Vec::new();
    for name in HEADERS {
        found.extend(of_header(&mut parts.headers, &name)?);
    }
    found.extend(of_path(parts)?);
    for name in TOKENS {
        found.extend(of_token(&mut parts.headers, &name)?);
    }
    found.into_iter().next().map(|scope| of_json(&scope).unwrap_or(Ok(scope))).transpose()
}

fn of_header(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let mut values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    values.dedup();
    match values.as_slice() {
        [] => Ok(None),
        [value] => {
            let text = value.to_str().map_err(|_| Refusal::scope(format!("{name}: letters and digits are wanted")))?;
            Ok(Some(text.trim().to_owned()))
        }
        _ => Err(Refusal::scope(format!("the header {name} is there more than once: one scope is wanted"))),
    }
}

fn of_path(parts: &mut Parts) -> Result<Option<String>, Refusal> {
    let Some((meant, rest)) = scope_path::split(parts.uri.path()) else { return Ok(None) };
    // Headers a page in a browser cannot set for another origin without asking; a path it can.
    if is_of_elsewhere(&parts.uri, &parts.headers) {
        return Err(Refusal::forbidden("a page of elsewhere cannot say a scope: have a program ask, or use a header"));
    }
    let readable = meant.iter().find(|meant| khufu_scope::parse(meant).is_ok());
    let scope = readable.or(meant.first()).cloned().unwrap_or_default();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path: PathAndQuery = format!("{rest}{query}")
        .parse()
        .map_err(|error| Refusal::bad_request(format!("what follows the scope is no path: {error}")))?;
    parts.uri = Uri::from(path);
    Ok(Some(scope))
}

/// Whether a page of another origin asks, as far as its browser says.
fn is_of_elsewhere(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    // Browsers say nothing of it where TLS is missing, but the origin of whatever is no plain look.
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    // A proxy may have given the request another host; no page can without asking.
    let hosts = [header::HOST, FORWARDED_HOST].into_iter().filter_map(|name| text(headers, &name));
    let mut hosts = uri.authority().map(Authority::as_str).into_iter().chain(hosts);
    !origin.is_some_and(|origin| hosts.any(|host| host.eq_ignore_ascii_case(origin)))
}

fn of_token(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let bytes = value.as_bytes();
    let Some(at) = bytes.windows(IN_TOKEN.len()).position(|part| part == IN_TOKEN) else { return Ok(None) };
    let unreadable = || Refusal::scope(format!("the scope at the end of {name} cannot be read"));
    let (token, scope) = (&bytes[..at], &bytes[at + IN_TOKEN.len()..]);
    let scope = percent_decode(scope).decode_utf8().map_err(|_| unreadable())?.trim().to_owned();
    let mut token = HeaderValue::from_bytes(token).map_err(|_| unreadable())?;
    token.set_sensitive(true);
    headers.insert(name, token);
    Ok(Some(scope))
}

/// A scope as OpenStackoid wrote it: a JSON object of services and where each of them is.
fn of_json(scope: &str) -> Option<Result<String, Refusal>> {
    let Ok(Value::Object(services)) = serde_json::from_str(scope) else { return None };
    let item = |(service, place): (&String, &Value)| match place {
        Value::String(place) => Ok(format!("{service}: {place}")),
        other => Err(Refusal::scope(format!("{service}: the name of a site or an expression is wanted, not {other}"))),
    };
    Some(services.iter().map(item).collect::<Result<Vec<_>, _>>().map(|items| items.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn taken(path: &str, headers: &[(&'static str, &'static str)]) -> (Result<Option<String>, u16>, Parts) {
        let mut request = hyper::Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        (take(&mut parts).map_err(|refusal| refusal.status.as_u16()), parts)
    }

    #[test]
    fn a_scope_is_found_and_taken_out_wherever_it_is() {
        for (path, headers, scope) in [
            ("/a?b=c", vec![("Scope", "paris & rennes")], "paris & rennes"),
            ("/a?b=c", vec![("X-Scope", "rennes")], "rennes"),
            ("/scope/paris%20%7C%20rennes/a?b=c", vec![], "paris | rennes"),
            ("/a?b=c", vec![("X-Auth-Token", "secret!SCOPE!rennes")], "rennes"),
            ("/a?b=c", vec![("Authorization", "Bearer secret!SCOPE!%7B%22image%22:%22rennes%22%7D")], "image: rennes"),
            ("/a?b=c", vec![("X-Scope", r#"{"image": "rennes", "compute": "a&b"}"#)], "compute: a&b, image: rennes"),
            ("/scope/a/a?b=c", vec![("Scope", "b"), ("X-Scope", "c"), ("X-Auth-Token", "secret!SCOPE!d")], "b"),
        ] {
            let (found, parts) = taken(path, &headers);
            assert_eq!(found.unwrap().unwrap(), scope, "{headers:?}");
            assert_eq!(parts.uri, "/a?b=c", "{headers:?}");
            let left: Vec<_> = parts.headers.values().map(|value| value.to_str().unwrap()).collect();
            assert!(left.iter().all(|value| ["secret", "Bearer secret"].contains(value)), "{left:?}");
        }
        let (found, parts) = taken("/a/scope/x", &[("Authorization", "Bearer x")]);
        assert_eq!((found.unwrap(), parts.uri.path()), (None, "/a/scope/x"));
        assert_eq!(taken("/", &[("Scope", "a"), ("Scope", "b")]).0.unwrap_err(), 400);
        assert_eq!(taken("/", &[("X-Scope", r#"{"image": 1}"#)]).0.unwrap_err(), 400);
    }

    #[test]
    fn a_page_of_elsewhere_says_no_scope_in_a_path() {
        let at = [("Host", "front:8090")];
        let proxied = [("Host", "127.0.0.1"), ("X-Forwarded-Host", "notes.example")];
        let origin = |origin: &'static str| ("Origin", origin);
        let site = |site: &'static str| ("Sec-Fetch-Site", site);
        for of_elsewhere in [
            &[at[0], site("cross-site")][..],
            &[at[0], site("same-site")],
            &[at[0], site("same-site"), origin("http://front:8090")],
            &[at[0], origin("http://evil.example")],
            &[at[0], origin("http://front:8091")],
            &[at[0], origin("http://front")],
            &[at[0], origin("null")],
            &[origin("http://front:8090")],
            &[proxied[0], proxied[1], origin("https://evil.example")],
        ] {
            assert_eq!(taken("/scope/a/b", of_elsewhere).0.unwrap_err(), 403, "{of_elsewhere:?}");
            assert_eq!(taken("/b", of_elsewhere).0.unwrap(), None, "{of_elsewhere:?}");
        }
        for good in [
            &[at[0]][..],
            &[at[0], site("same-origin"), origin("null")],
            &[at[0], site("none")],
            &[at[0], origin("http://Front:8090")],
            &[proxied[0], proxied[1], origin("https://notes.example")],
        ] {
            assert_eq!(taken("/scope/a/b", good).0.unwrap().unwrap(), "a", "{good:?}");
        }
    }

    #[test]
    fn names_are_those_that_scopes_can_speak_of() {
        assert!(is_name("image") && is_name("my-service.v2"));
        for bad in ["", "all", "here", "prime", "a b", "a: b, c", "x/y", "a:here,b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
