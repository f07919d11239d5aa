//! What an operation asks for: a stored request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use khufu_crdt::{Operation, Payload};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::asking::header;
use super::fields::set;
use super::kinds::{Allowed, Resource, method};
use super::place::Place;
use super::service::{Ask, Service};
use super::template::{Json, Meanings, Text, Writing};
use crate::DriverError;

/// The most bytes of a body, and of all headers.
const MAX_BODY_BYTES: usize = 4 << 20;
const MAX_HEADERS_BYTES: usize = 16 << 10;
/// The most bytes of a path with its query.
const MAX_PATH_BYTES: usize = 8 << 10;

const WANTED: &str = "it has to be {\"method\": WORD, \"path\": TEXT, \"headers\": {NAME: TEXT}, \"body\": JSON}, or with \
                      \"text\" or \"base64\" instead of \"body\"";

/// What belongs to one connection, one site or one person.
const REFUSED: [&str; 15] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-http-method",
    "x-real-ip",
];
/// How those begin that a proxy believes or sets: who asks, from where, and for which path.
const REFUSED_BEFORE: [&str; 6] = ["impersonate-", "proxy-", "x-forwarded", "x-original-", "x-remote-", "x-rewrite-"];
/// How those end by which some services take another method than that of the request.
const REFUSED_AFTER: &str = "method-override";

/// A body as it is sent.
#[derive(Debug, Clone, PartialEq)]
enum Body {
    None,
    Json(Value),
    Bytes(Vec<u8>),
}

/// A stored request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: Place,
    headers: Vec<(HeaderName, String)>,
    body: Body,
    template: bool,
}

impl Asked {
    pub(super) fn of(operation: &Operation) -> Result<Self, DriverError> {
        let Payload::Value(Value::Object(object)) = &operation.payload else {
            return Err(DriverError::invalid("payload", WANTED));
        };
        let known = |key: &str| matches!(key, "method" | "path" | "headers" | "body" | "text" | "base64" | "template");
        if let Some(unknown) = object.keys().find(|key| !known(key)) {
            let field = format!("payload.{}", super::shorten(unknown));
            return Err(DriverError::invalid(field, format!("this field is not known: {WANTED}")));
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let wrong = |key: &str, reason: String| DriverError::invalid(format!("payload.{key}"), reason);
        let method = text("method").and_then(method).ok_or_else(|| wrong("method", WANTED.into()))?;
        let path = text("path").ok_or_else(|| wrong("path", WANTED.into()))?;
        if path.len() > MAX_PATH_BYTES {
            return Err(wrong("path", format!("it has {} bytes, at most {MAX_PATH_BYTES} are allowed", path.len())));
        }
        let path = Place::parse(path).map_err(|reason| wrong("path", reason))?;
        if !path.is_for_operations() {
            let reason = "only {id}, {site}, {local_id} and {operation} can stand there: a brace is %7B and %7D";
            return Err(wrong("path", reason.into()));
        }
        let template = match object.get("template") {
            None => false,
            Some(Value::Bool(template)) => *template,
            Some(_) => return Err(wrong("template", "it is true or false".into())),
        };
        let headers = match object.get("headers") {
            None => Vec::new(),
            Some(Value::Object(headers)) => headers_of(headers)?,
            Some(_) => return Err(wrong("headers", WANTED.into())),
        };
        let body = body_of(object)?;
        Ok(Self { method, path, headers, body, template })
    }

    /// Which of the allowed ones it is, by its place among them.
    pub(super) fn allowed<'a>(&self, resource: &'a Resource) -> Result<(usize, &'a Allowed), DriverError> {
        let is_it = |(_, allowed): &(usize, &Allowed)| allowed.method == self.method && allowed.path.allows(&self.path);
        resource.operations.iter().enumerate().find(is_it).ok_or_else(|| {
            let reason = format!(
                "this method and path are not among the operations of the resource {:?} in the driver's file at this site",
                resource.name
            );
            DriverError::invalid("payload.path", reason)
        })
    }

    /// The request as it is sent.
    pub(super) fn request<'a>(
        &self,
        service: &Service,
        allowed: &'a Allowed,
        meanings: &Meanings<'_>,
    ) -> Result<Ask<'a>, DriverError> {
        let mut ask = Ask {
            method: self.method.clone(),
            url: service.base.join(&self.path.fill(meanings)?)?,
            headers: HeaderMap::new(),
            body: None,
            success: &allowed.success,
            gone: &[],
            repeatable: allowed.repeatable,
            reads: false,
        };
        for (name, value) in &self.headers {
            let value = if self.template { parse(name, value)?.fill(meanings, Writing::Plain)? } else { value.clone() };
            ask.headers.insert(name.clone(), header(name, &value)?);
        }
        if let (Some(name), Some(key)) = (&allowed.key, meanings.key) {
            ask.headers.insert(name.clone(), header(name, key)?);
        }
        match &self.body {
            Body::None => {}
            Body::Bytes(bytes) => ask.body = Some(bytes.clone()),
            Body::Json(value) => {
                let mut value = match self.template {
                    true => Json::parse(value)
                        .map_err(|reason| DriverError::invalid("payload.body", reason))?
                        .fill(meanings)?,
                    false => value.clone(),
                };
                let mark = if allowed.creates { meanings.id } else { meanings.operation.unwrap_or_default() };
                if let Some(pointer) = &allowed.mark
                    && !set(&mut value, pointer, mark.into())
                {
                    let reason = format!("it has no place for {pointer}, by which it is found again after a crash");
                    return Err(DriverError::invalid("payload.body", reason));
                }
                ask.json(&value);
            }
        }
        Ok(ask)
    }

    /// Whether what it makes can be found by its mark.
    pub(super) fn is_marked(&self) -> bool {
        matches!(self.body, Body::Json(_))
    }
}

fn parse(name: &HeaderName, value: &str) -> Result<Text, DriverError> {
    Text::parse(value).map_err(|reason| DriverError::invalid(format!("payload.headers.{name}"), reason))
}

/// Whether operations cannot have such a header: it would make another request, or another person's, of what is allowed.
fn is_refused(name: &HeaderName) -> bool {
    // Many services cannot tell the two apart.
    let name = name.as_str().replace('_', "-");
    REFUSED.contains(&name.as_str())
        || REFUSED_BEFORE.iter().any(|before| name.starts_with(before))
        || name.ends_with(REFUSED_AFTER)
}

fn headers_of(headers: &Map<String, Value>) -> Result<Vec<(HeaderName, String)>, DriverError> {
    let mut read = Vec::new();
    let mut left = MAX_HEADERS_BYTES;
    for (name, value) in headers {
        let field = format!("payload.headers.{}", super::shorten(name));
        let parsed: HeaderName =
            name.parse().map_err(|_| DriverError::invalid(&field, "that is no name of a header"))?;
        if is_refused(&parsed) {
            let reason = "this header belongs to a connection, to one site or to a proxy, or makes another request of this one: it \
                          is not stored; credentials are in the driver's file at each site";
            return Err(DriverError::invalid(field, reason));
        }
        let Some(value) = value.as_str().filter(|value| HeaderValue::from_str(value).is_ok()) else {
            return Err(DriverError::invalid(field, "it has to be text that a header can have"));
        };
        left = left.checked_sub(name.len() + value.len()).ok_or_else(|| {
            DriverError::invalid(field, format!("all headers together have at most {MAX_HEADERS_BYTES} bytes"))
        })?;
        read.push((parsed, value.to_owned()));
    }
    Ok(read)
}

fn body_of(object: &Map<String, Value>) -> Result<Body, DriverError> {
    let wrong = |key: &str, reason: String| DriverError::invalid(format!("payload.{key}"), reason);
    let given = ["body", "text", "base64"].into_iter().filter_map(|key| Some((key, object.get(key)?)));
    let given: Vec<_> = given.collect();
    let (key, body) = match given.as_slice() {
        [] => return Ok(Body::None),
        [(key, Value::String(text))] if *key != "body" => {
            let bytes = match *key {
                "text" => text.clone().into_bytes(),
                _ => STANDARD
                    .decode(text)
                    .map_err(|error| wrong("base64", format!("it has to be base64, with padding: {error}")))?,
            };
            (*key, Body::Bytes(bytes))
        }
        [(key, value)] if *key == "body" => (*key, Body::Json((*value).clone())),
        [(key, _)] => return Err(wrong(key, "it has to be text".into())),
        [_, (key, _), ..] => return Err(wrong(key, "a request has one body".into())),
    };
    let bytes = match &body {
        Body::None => 0,
        Body::Json(value) => value.to_string().len(),
        Body::Bytes(bytes) => bytes.len(),
    };
    if bytes > MAX_BODY_BYTES {
        return Err(wrong(key, format!("it has {bytes} bytes, at most {MAX_BODY_BYTES} are allowed")));
    }
    Ok(body)
}
