//! What is done with resources of any kind, by what is known of the kind.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::answer::Tried;
use super::kinds::{Kind, Mark, Part, Update};
use super::mark;
use super::session::{Body, Call, Session};
use crate::DriverError;

/// The most resources of one kind that are looked through, and the most pages of a list.
const MAX_LISTED: usize = 20_000;
const MAX_PAGES: usize = 200;

pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A resource in words.
pub(super) fn place(kind: &Kind, name: &str) -> String {
    let what = kind.name.replace('_', " ");
    if name.is_empty() { what } else { format!("{what} {name}") }
}

/// The resource in an answer.
fn unwrapped(kind: &Kind, place: &str, answer: Value, tried: Tried) -> Result<Value, DriverError> {
    let found = match (kind.wrapped, answer) {
        (false, answer @ Value::Object(_)) => Some(answer),
        (true, Value::Object(mut map)) => map.remove(kind.name).filter(Value::is_object),
        _ => None,
    };
    found.ok_or_else(|| {
        let reason = format!("{place}: the answer has no {}", kind.name);
        match tried.writes() {
            true => DriverError::Unanswered { reason },
            false => DriverError::Unavailable { reason, retry_after: None },
        }
    })
}

/// The id of a resource.
pub(super) fn id(kind: &Kind, live: &Value) -> Option<String> {
    live.get(kind.id).and_then(|id| id.as_str().map(str::to_owned).or_else(|| id.as_u64().map(|id| id.to_string())))
}

impl Session {
    fn read<'a>(kind: &Kind, path: String, place: &'a str) -> Call<'a> {
        Call { service: kind.service, method: Method::GET, path, body: Body::Nothing, tried: Tried::Read, place }
    }

    /// A resource as it is; none if it is not there.
    pub(super) async fn get(&self, kind: &Kind, id: &str, place: &str) -> Result<Option<Value>, DriverError> {
        let path = format!("{}/{}", kind.collection, encoded(id));
        match self.call(&Self::read(kind, path, place)).await? {
            Some(answer) => unwrapped(kind, place, answer, Tried::Read).map(Some),
            None => Ok(None),
        }
    }

    /// One page of a list, and where the next one is.
    async fn page(&self, kind: &Kind, path: String) -> Result<(Vec<Value>, Option<String>), DriverError> {
        let place = format!("the list of {}", kind.collection);
        let Some(answer) = self.call(&Self::read(kind, path.clone(), &place)).await? else { return Ok((vec![], None)) };
        // Some collections are named with dashes, and their lists with underscores; keypairs are wrapped once more.
        let names = [kind.collection.to_owned(), kind.collection.replace('-', "_"), "keypairs".to_owned()];
        let listed = names.iter().find_map(|name| answer.get(name)?.as_array());
        let Some(listed) = listed else {
            return Err(DriverError::Unavailable { reason: format!("{place}: the answer is none"), retry_after: None });
        };
        let inner = |one: &Value| one.get(kind.name).filter(|inner| inner.is_object()).unwrap_or(one).clone();
        let listed: Vec<_> = listed.iter().map(inner).collect();
        let links = |name: &str| answer.get(name).and_then(Value::as_array).into_iter().flatten();
        let links = links(&format!("{}_links", kind.collection)).chain(links(&format!("{}s_links", kind.name)));
        let mut next = links.filter(|link| link["rel"] == "next").filter_map(|link| link["href"].as_str());
        let next = next.next().or_else(|| answer.get("next").and_then(Value::as_str));
        let next = next.or_else(|| answer.pointer("/links/next").and_then(Value::as_str));
        // An address of the server's own, of which only what is asked for counts.
        let query = next.and_then(|next| next.split_once('?')).map(|(_, query)| query.to_owned());
        let before = path.split_once('?').map_or(&*path, |(before, _)| before);
        Ok((listed, query.map(|query| format!("{before}?{query}"))))
    }

    /// All resources of a kind for which something is asked.
    async fn list(&self, kind: &Kind, query: &str) -> Result<Vec<Value>, DriverError> {
        let glue = if kind.listing.contains('?') { '&' } else { '?' };
        let mut path = match query {
            "" => kind.listing.to_owned(),
            query => format!("{}{glue}{query}", kind.listing),
        };
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next) = self.page(kind, path).await?;
            let is_last = page.is_empty();
            all.extend(page);
            match next {
                Some(next) if !is_last && all.len() < MAX_LISTED => path = next,
                Some(_) if !is_last => break,
                _ => return Ok(all),
            }
        }
        let reason = format!("there are more than {} {}: too many to look through", all.len(), kind.collection);
        Err(DriverError::Unavailable { reason, retry_after: None })
    }

    /// The resources that carry a mark that begins so.
    pub(super) async fn marked(&self, kind: &Kind, prefix: &str) -> Result<Vec<Value>, DriverError> {
        let before = if let Mark::Field(_, before) = kind.mark { before.trim_end_matches('&') } else { "" };
        let listed = self.list(kind, before).await?;
        let found = listed.into_iter().filter(|one| mark::begins(kind, one, prefix) == Some(true));
        self.ours(kind, found.collect(), None).await
    }

    /// The resource that carries this mark; none if there is none. It is asked for by what lists can be filtered by.
    ///
    /// # Errors
    /// [`DriverError::Refused`] if there are several: somebody has copied the mark.
    pub(super) async fn find(
        &self,
        kind: &Kind,
        mark: &str,
        fields: &Map<String, Value>,
        place: &str,
    ) -> Result<Option<Value>, DriverError> {
        let queries = match kind.mark {
            Mark::Id => return self.get(kind, mark, place).await,
            Mark::Name | Mark::Beside(_) => {
                let Some(name) = fields.get("name").and_then(Value::as_str) else { return Ok(None) };
                if kind.mark == Mark::Name {
                    return self.get(kind, name, place).await;
                }
                vec![format!("name={}", encoded(name))]
            }
            Mark::Field(field, before) => {
                let query = format!("{before}{field}={mark}");
                // Glance shows hidden images to those only who ask for them.
                let hidden = (kind.name == "image").then(|| format!("{query}&os_hidden=true"));
                [query].into_iter().chain(hidden).collect()
            }
            Mark::Tags => vec![format!("tags={mark}")],
            Mark::Metadata => vec![format!("metadata={}", encoded(&format!("{{'khufu': '{mark}'}}")))],
        };
        let mut found = Vec::new();
        for query in queries {
            let listed = self.list(kind, &query).await?;
            found.extend(listed.into_iter().filter(|one| mark::begins(kind, one, mark) == Some(true)));
        }
        found.dedup_by_key(|one| id(kind, one));
        let mut ours = self.ours(kind, found, Some(fields)).await?;
        let Some(first) = ours.pop() else { return Ok(None) };
        if let Some(second) = ours.first() {
            let ids = [&first, second].map(|one| id(kind, one).unwrap_or_default()).join(" and ");
            let field = match kind.mark {
                Mark::Tags => "tag",
                _ => "mark",
            };
            let reason = format!("{ids} both carry the {field} {mark}: take it from the one that Khufu has not made");
            return Err(DriverError::Refused { place: place.to_owned(), reason });
        }
        // A list may leave fields out.
        match id(kind, &first) {
            Some(id) => self.get(kind, &id, place).await,
            None => Ok(None),
        }
    }

    /// Those that are of the project that the token is for, or of whom the fields name: others can write marks, too.
    async fn ours(
        &self,
        kind: &Kind,
        found: Vec<Value>,
        fields: Option<&Map<String, Value>>,
    ) -> Result<Vec<Value>, DriverError> {
        let access = self.access().await?;
        let own = [access.token.project.as_deref(), Some(&*access.token.user)];
        let is_ours = |one: &Value| {
            let shown = |field: &&str| one.get(*field).and_then(Value::as_str);
            let Some(owner) = kind.owner.iter().find_map(shown) else { return true };
            // Without fields to compare with, the mark has to do, as it does for whoever may see all projects.
            let named = fields.is_some_and(|fields| {
                kind.owner.iter().any(|field| fields.get(*field).and_then(Value::as_str) == Some(owner))
            });
            named || own.contains(&Some(owner))
        };
        Ok(found.into_iter().filter(is_ours).collect())
    }

    /// The id of what is called so, whoever made it; none if nothing is.
    ///
    /// # Errors
    /// [`DriverError::Refused`] if several are.
    pub(super) async fn called(&self, kind: &Kind, name: &str) -> Result<Option<String>, DriverError> {
        let place = place(kind, name);
        if kind.mark == Mark::Name {
            return Ok(self.get(kind, name, &place).await?.and_then(|live| id(kind, &live)));
        }
        let all = self.list(kind, &format!("name={}", encoded(name))).await?;
        let ids: Vec<_> = all.iter().filter(|one| one["name"] == name).filter_map(|one| id(kind, one)).collect();
        match &*ids {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            [first, second, ..] => {
                let reason = format!("several are called so here ({first}, {second}): rename one, or write the id");
                Err(DriverError::Refused { place, reason })
            }
        }
    }

    /// Makes a resource.
    pub(super) async fn create(
        &self,
        kind: &Kind,
        fields: Map<String, Value>,
        beside: &Map<String, Value>,
        place: &str,
    ) -> Result<Value, DriverError> {
        let body = match kind.wrapped {
            true => {
                let mut body = beside.clone();
                body.insert(kind.name.into(), Value::Object(fields));
                Value::Object(body)
            }
            false => Value::Object(fields),
        };
        let path = kind.collection.to_owned();
        let call = Call {
            service: kind.service,
            method: Method::POST,
            path,
            body: Body::Json(&body),
            tried: Tried::Create,
            place,
        };
        let Some(answer) = self.call(&call).await? else {
            // Neutron says so of what a resource refers to.
            let reason = format!("{place}: what it refers to is not there");
            return Err(DriverError::Unavailable { reason, retry_after: None });
        };
        unwrapped(kind, place, answer, Tried::Create)
    }

    /// Changes fields of a resource.
    pub(super) async fn update(
        &self,
        kind: &Kind,
        id: &str,
        fields: &Map<String, Value>,
        place: &str,
    ) -> Result<(), DriverError> {
        let path = format!("{}/{}", kind.collection, encoded(id));
        let wrapped = json!({kind.name: fields});
        let steps: Value = fields
            .iter()
            .map(|(field, value)| {
                let field = field.replace('~', "~0").replace('/', "~1");
                json!({"op": "add", "path": format!("/{field}"), "value": value})
            })
            .collect();
        let (method, body) = match kind.update {
            Update::Put => (Method::PUT, Body::Json(&wrapped)),
            Update::Patch => (Method::PATCH, Body::Json(&wrapped)),
            Update::Json => (Method::PATCH, Body::Patch(&steps)),
            Update::Never => return Ok(()),
        };
        let call = Call { service: kind.service, method, path, body, tried: Tried::Update, place };
        self.call(&call).await?.map(drop).ok_or_else(|| gone(place))
    }

    /// Writes a field that has a path of its own.
    pub(super) async fn write_part(
        &self,
        kind: &Kind,
        id: &str,
        part: &Part,
        value: &Value,
        place: &str,
    ) -> Result<(), DriverError> {
        let path = format!("{}/{}/{}", kind.collection, encoded(id), part.path);
        let body = json!({part.field: value});
        let method = part.method.parse().unwrap_or(Method::POST);
        let call = Call { service: kind.service, method, path, body: Body::Json(&body), tried: Tried::Update, place };
        self.call(&call).await?.map(drop).ok_or_else(|| gone(place))
    }

    /// Gives an image its data.
    pub(super) async fn upload(&self, kind: &Kind, id: &str, data: &[u8], place: &str) -> Result<(), DriverError> {
        let path = format!("{}/{}/file", kind.collection, encoded(id));
        let call = Call {
            service: kind.service,
            method: Method::PUT,
            path,
            body: Body::Data(data),
            tried: Tried::Update,
            place,
        };
        self.call(&call).await?.map(drop).ok_or_else(|| gone(place))
    }

    /// Begins to remove a resource. It need not be there.
    pub(super) async fn delete(&self, kind: &Kind, id: &str, place: &str) -> Result<(), DriverError> {
        let path = format!("{}/{}", kind.collection, encoded(id));
        let (method, body) = (Method::DELETE, Body::Nothing);
        self.call(&Call { service: kind.service, method, path, body, tried: Tried::Delete, place }).await.map(drop)
    }
}

/// It was there a moment ago.
fn gone(place: &str) -> DriverError {
    DriverError::Unavailable { reason: format!("{place}: it was removed meanwhile"), retry_after: None }
}
