//! From what the configuration says to requests, and from lists to what is looked for in them.

use std::collections::BTreeSet;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::answer::Answer;
use super::fields::text_at;
use super::kinds::{Find, LOCATION, Request, Resource};
use super::service::{Ask, Deadline, Heard, Service};
use super::template::{Meanings, Writing};
use crate::DriverError;

/// The most pages of one list.
const MAX_PAGES: usize = 1000;

/// What was found in a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// What the service calls it, if its elements say.
    pub(super) local_id: Option<String>,
    /// The element.
    pub(super) element: Value,
}

/// The value of a header.
pub(super) fn header(name: &HeaderName, value: &str) -> Result<HeaderValue, DriverError> {
    let wrong = |_| DriverError::invalid(format!("headers.{name}"), "no header can have this value");
    HeaderValue::from_str(value).map_err(wrong)
}

impl Service {
    /// The request that the configuration describes. Where it says nothing of a body, it has this one.
    pub(super) fn request<'a>(
        &self,
        request: &'a Request,
        meanings: &Meanings<'_>,
        body: Option<&Value>,
    ) -> Result<Ask<'a>, DriverError> {
        let mut ask = Ask {
            method: request.method.clone(),
            url: self.base.join(&request.path.fill(meanings)?)?,
            headers: reqwest::header::HeaderMap::new(),
            body: None,
            success: &request.success,
            gone: &request.gone,
            repeatable: request.repeatable,
            reads: request.method.is_safe(),
        };
        for (name, value) in &request.headers {
            ask.headers.insert(name.clone(), header(name, &value.fill(meanings, Writing::Plain)?)?);
        }
        if let (Some(name), Some(key)) = (&request.key, meanings.key) {
            ask.headers.insert(name.clone(), header(name, key)?);
        }
        match &request.body {
            Some(body) => ask.json(&body.fill(meanings)?),
            None => body.into_iter().for_each(|body| ask.json(body)),
        }
        Ok(ask)
    }

    /// What of a list has the value that is looked for.
    ///
    /// # Errors
    /// If the list cannot be read to its end: what is not in a part of it may be in the rest.
    pub(super) async fn find(
        &self,
        find: &Find,
        meanings: &Meanings<'_>,
        until: Deadline,
    ) -> Result<Vec<Found>, DriverError> {
        let wanted = find.value.fill(meanings, Writing::Plain)?;
        let mut url = self.base.join(&find.path.fill(meanings)?)?;
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let failed = |reason: String| DriverError::Failed { reason, again: true };
        for _ in 0..MAX_PAGES {
            if !seen.insert(url.to_string()) {
                return Err(failed(format!("the list at {} comes back to a page before", url.path())));
            }
            let Heard::Done(answer) = self.ask(Ask::get(url.clone(), &[]), until).await? else { break };
            let json = answer.json();
            let list = json.as_ref().and_then(|json| json.pointer(&find.list)).and_then(Value::as_array);
            let Some(list) = list else {
                return Err(failed(format!("the answer of {} has no list at {:?}", url.path(), find.list)));
            };
            found.extend(list.iter().filter(|element| text_at(element, &find.field).as_ref() == Some(&wanted)).map(
                |element| Found {
                    local_id: find.local_id.as_deref().and_then(|pointer| text_at(element, pointer)),
                    element: element.clone(),
                },
            ));
            let next = match find.next.as_deref() {
                None => None,
                Some("Link") => answer.link_to_next(),
                Some(pointer) => json.as_ref().and_then(|json| text_at(json, pointer)),
            };
            let Some(next) = next.filter(|next| !next.is_empty()) else { return Ok(found) };
            url = self
                .base
                .follow(&url, &next)
                .ok_or_else(|| failed(format!("the next page of {} is not at the service", url.path())))?;
        }
        Err(failed(format!("the list at {} has more than {MAX_PAGES} pages", url.path())))
    }
}

impl Resource {
    /// The object in an answer.
    pub(super) fn object_in(&self, answer: &Answer) -> Option<Value> {
        answer.json()?.pointer(&self.answer).cloned()
    }

    /// What the service calls what it has created.
    pub(super) fn local_id_in(&self, answer: &Answer, id: &str) -> Option<String> {
        match self.local_id.as_deref() {
            None => Some(id.to_owned()),
            Some(LOCATION) => {
                let path = answer.location()?.split(['?', '#']).next()?;
                let last = path.trim_end_matches('/').rsplit('/').next()?;
                let decoded = percent_encoding::percent_decode_str(last).decode_utf8().ok()?;
                Some(decoded.into_owned()).filter(|last| !last.is_empty())
            }
            Some(pointer) => text_at(&answer.json()?, pointer),
        }
    }
}
