//! The kinds of resources of a configuration, checked and ready to be used.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderName;

use super::config::{self, Config, ConfigError};
use super::fields::is_pointer;
use super::place::Place;
use super::template::{Hole, Json, Text};

/// How long a service may go on with a request whose answer was lost, unless the configuration says.
const USUAL_SETTLE: Duration = Duration::from_secs(2);
/// The longest that is waited for that.
const MAX_SETTLE: Duration = Duration::from_secs(15);
/// Where there is nothing, services say so with one of these.
const GONE: [u16; 2] = [404, 410];

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: Place,
    pub(super) headers: Vec<(HeaderName, Text)>,
    pub(super) body: Option<Json>,
    pub(super) success: Vec<u16>,
    pub(super) gone: Vec<u16>,
    pub(super) key: Option<HeaderName>,
    /// Whether it may be sent again when nobody knows what became of it.
    pub(super) repeatable: bool,
}

/// How something is found in a list.
#[derive(Debug, Clone)]
pub(super) struct Find {
    pub(super) path: Place,
    pub(super) list: String,
    pub(super) field: String,
    pub(super) value: Text,
    pub(super) next: Option<String>,
    pub(super) local_id: Option<String>,
}

/// What operations may ask for.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) method: Method,
    pub(super) path: Place,
    pub(super) success: Vec<u16>,
    pub(super) key: Option<HeaderName>,
    pub(super) repeatable: bool,
    pub(super) mark: Option<String>,
    pub(super) find: Option<Find>,
    pub(super) creates: bool,
    pub(super) keep: BTreeMap<String, String>,
    pub(super) undo: Option<Request>,
}

/// One kind of resource.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) name: String,
    pub(super) create: Option<Request>,
    pub(super) read: Option<Request>,
    pub(super) update: Option<Request>,
    pub(super) delete: Option<Request>,
    pub(super) local_id: Option<String>,
    pub(super) mark: Option<String>,
    pub(super) find: Option<Find>,
    pub(super) answer: String,
    pub(super) object: Json,
    pub(super) contents: Vec<String>,
    pub(super) ignore: Vec<String>,
    pub(super) health: Option<config::HealthField>,
    pub(super) settle: Duration,
    pub(super) update_resets: bool,
    pub(super) create_again: bool,
    pub(super) operations: Vec<Allowed>,
}

/// What a key of the configuration is called, for its errors.
struct At<'a>(&'a str);

impl At<'_> {
    fn err(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::value(format!("{}.{key}", self.0), reason)
    }

    fn pointer(&self, key: &str, pointer: &str) -> Result<String, ConfigError> {
        if is_pointer(pointer) {
            return Ok(pointer.to_owned());
        }
        Err(self.err(key, format!("{pointer:?} is no JSON pointer: those begin with /, such as /data/id")))
    }

    fn pointers(&self, key: &str, pointers: &[String]) -> Result<Vec<String>, ConfigError> {
        pointers.iter().map(|pointer| self.pointer(key, pointer)).collect()
    }

    fn statuses(&self, key: &str, statuses: &[u16]) -> Result<Vec<u16>, ConfigError> {
        statuses_within(&format!("{}.{key}", self.0), statuses, 200..=599)
    }

    fn place(&self, text: &str) -> Result<Place, ConfigError> {
        Place::parse(text).map_err(|reason| self.err("path", reason))
    }

    fn method(&self, text: &str) -> Result<Method, ConfigError> {
        method(text).ok_or_else(|| self.err("method", format!("{text:?} is no method: write it in capitals")))
    }

    fn header(&self, key: &str, name: &str) -> Result<HeaderName, ConfigError> {
        name.parse().map_err(|_| self.err(key, format!("{name:?} is no name of a header")))
    }
}

/// A method as its word says; none if it is none.
pub(super) fn method(word: &str) -> Option<Method> {
    let is_word = (1..=32).contains(&word.len()) && word.chars().all(|c| c.is_ascii_uppercase() || c == '-');
    is_word.then(|| Method::from_bytes(word.as_bytes()).ok()).flatten()
}

pub(super) fn statuses_within(
    key: &str,
    statuses: &[u16],
    range: std::ops::RangeInclusive<u16>,
) -> Result<Vec<u16>, ConfigError> {
    match statuses.iter().find(|status| !range.contains(status)) {
        Some(wrong) => {
            let (first, last) = (range.start(), range.end());
            Err(ConfigError::value(key, format!("{wrong} has no place there: statuses of {first} to {last} do")))
        }
        None => Ok(statuses.to_vec()),
    }
}

impl Request {
    fn new(key: &str, request: &config::Request, usual: &Method) -> Result<Self, ConfigError> {
        let at = At(key);
        let method = request.method.as_deref().map(|word| at.method(word)).transpose()?.unwrap_or(usual.clone());
        let headers = request.headers.iter().map(|(name, value)| {
            let value = Text::parse(value).map_err(|reason| at.err(&format!("headers.{name}"), reason))?;
            Ok((at.header("headers", name)?, value))
        });
        let body = request.body.as_ref().map(Json::parse).transpose().map_err(|reason| at.err("body", reason))?;
        let header = request.key.as_deref().map(|name| at.header("key", name)).transpose()?;
        Ok(Self {
            path: at.place(&request.path)?,
            headers: headers.collect::<Result<_, ConfigError>>()?,
            body,
            success: at.statuses("success", &request.success)?,
            gone: at.statuses("gone", request.gone.as_deref().unwrap_or(&GONE))?,
            repeatable: header.is_some() || request.idempotent.unwrap_or(method.is_idempotent()),
            key: header,
            method,
        })
    }
}

impl Find {
    fn new(
        key: &str,
        find: &config::Find,
        (mark, usual): (Option<&str>, &str),
        local_id: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let at = At(key);
        let field = find.field.as_deref().or(mark);
        let field = field.ok_or_else(|| at.err("field", "say by which field it is known, or give a `mark`"))?;
        let value = Text::parse(find.value.as_deref().unwrap_or(usual)).map_err(|reason| at.err("value", reason))?;
        let next = match find.next.as_deref() {
            Some("Link") => Some("Link".to_owned()),
            Some(pointer) => Some(at.pointer("next", pointer)?),
            None => None,
        };
        let local_id = find.local_id.as_deref().or(local_id.filter(|pointer| *pointer != LOCATION));
        Ok(Self {
            path: at.place(&find.path)?,
            list: at.pointer("list", &find.list)?,
            field: at.pointer("field", field)?,
            value,
            next,
            local_id: local_id.map(|pointer| at.pointer("local_id", pointer)).transpose()?,
        })
    }
}

/// Instead of a pointer: the header of that name.
pub(super) const LOCATION: &str = "Location";

impl Allowed {
    fn new(key: &str, operations: &config::Operations, of: &config::Resource) -> Result<Self, ConfigError> {
        let at = At(key);
        let method = at.method(&operations.method)?;
        let path = at.place(&operations.path)?;
        if !path.is_for_operations() {
            return Err(at.err("path", "only {id}, {site}, {local_id} and {operation} can stand there"));
        }
        if operations.creates && path.has(&Hole::LocalId) {
            return Err(at.err("creates", "what is created has no {local_id} before"));
        }
        if operations.creates && operations.find.is_some() {
            return Err(at.err("find", "what is created is found as the resource is: give it there"));
        }
        let header = operations.key.as_deref().map(|name| at.header("key", name)).transpose()?;
        let mark = match (&operations.mark, operations.creates) {
            (Some(_), true) => return Err(at.err("mark", "what is created gets the mark of the resource")),
            (None, true) => of.mark.as_deref(),
            (mark, false) => mark.as_deref(),
        };
        let mark = mark.map(|pointer| at.pointer("mark", pointer)).transpose()?;
        let find = operations
            .find
            .as_ref()
            .map(|find| Find::new(&format!("{key}.find"), find, (mark.as_deref(), "{operation}"), None));
        let undo = operations
            .undo
            .as_ref()
            .map(|undo| Request::new(&format!("{key}.undo"), undo, &Method::DELETE))
            .transpose()?;
        if undo.as_ref().is_some_and(|undo| !undo.repeatable) {
            let reason = "it may be interrupted and is then sent again, so it has to be idempotent: say so if it is";
            return Err(at.err("undo", reason));
        }
        for (name, pointer) in &operations.keep {
            at.pointer(&format!("keep.{name}"), pointer)?;
        }
        Ok(Self {
            repeatable: header.is_some() || operations.idempotent.unwrap_or(method.is_idempotent()),
            method,
            path,
            success: at.statuses("success", &operations.success)?,
            key: header,
            mark,
            find: find.transpose()?,
            creates: operations.creates,
            keep: operations.keep.clone(),
            undo,
        })
    }
}

impl Resource {
    fn new(name: &str, resource: &config::Resource) -> Result<Self, ConfigError> {
        let key = format!("resources.{name}");
        let at = At(&key);
        let request = |what: &str, request: &Option<config::Request>, usual: Method| {
            request.as_ref().map(|it| Request::new(&format!("{key}.{what}"), it, &usual)).transpose()
        };
        if resource.read.is_none() && resource.find.is_none() {
            return Err(at.err("read", "give it, or `find`: else nobody can see what the service has"));
        }
        let local_id = match resource.local_id.as_deref() {
            Some(LOCATION) => Some(LOCATION.to_owned()),
            Some(pointer) => Some(at.pointer("local_id", pointer)?),
            None => None,
        };
        let mark = resource.mark.as_deref().map(|pointer| at.pointer("mark", pointer)).transpose()?;
        if mark.as_deref() == Some("") {
            return Err(at.err("mark", "it has to lead to a field, such as /labels/khufu"));
        }
        let find = resource
            .find
            .as_ref()
            .map(|find| Find::new(&format!("{key}.find"), find, (mark.as_deref(), "{id}"), local_id.as_deref()));
        let find = find.transpose()?;
        if local_id.is_some() && find.as_ref().is_some_and(|find| find.local_id.is_none()) {
            return Err(at.err("find.local_id", "say where the elements have what the service calls them"));
        }
        let object = resource.object.clone().unwrap_or_else(|| "{desired}".into());
        let settle = resource.settle_ms.map_or(USUAL_SETTLE, Duration::from_millis);
        if settle > MAX_SETTLE {
            return Err(at.err("settle_ms", format!("it can be at most {}", MAX_SETTLE.as_millis())));
        }
        if let Some(health) = &resource.health {
            at.pointer("health.field", &health.field)?;
            health.message.as_deref().map(|pointer| at.pointer("health.message", pointer)).transpose()?;
        }
        let operations = resource.operations.iter().enumerate();
        let operations = operations.map(|(nth, it)| Allowed::new(&format!("{key}.operations[{nth}]"), it, resource));
        Ok(Self {
            name: name.to_owned(),
            create: request("create", &resource.create, Method::POST)?,
            read: request("read", &resource.read, Method::GET)?,
            update: request("update", &resource.update, Method::PUT)?,
            delete: request("delete", &resource.delete, Method::DELETE)?,
            local_id,
            mark,
            find,
            answer: at.pointer("answer", &resource.answer)?,
            object: Json::parse(&object).map_err(|reason| at.err("object", reason))?,
            contents: at.pointers("contents", &resource.contents)?,
            ignore: at.pointers("ignore", &resource.ignore)?,
            health: resource.health.clone(),
            settle,
            update_resets: resource.update_resets,
            create_again: resource.create_again,
            operations: operations.collect::<Result<_, _>>()?,
        })
    }
}

/// All kinds of a configuration, by name.
pub(super) fn all(config: &Config) -> Result<BTreeMap<String, Resource>, ConfigError> {
    if config.resources.is_empty() {
        return Err(ConfigError::value("resources", "there are none: describe one as [resources.NAME]"));
    }
    config.resources.iter().map(|(name, it)| Ok((name.clone(), Resource::new(name, it)?))).collect()
}
