//! Templates: texts and JSON with holes that are filled from the replica.
//!
//! In text, a hole is filled with the text of a value; a hole that is all there is to a text in JSON is filled with the value
//! itself. What is put in is not looked at again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::DriverError;

/// What stays as it is in a segment or a value of a query: what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a hole is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hole {
    /// The replicant.
    Id,
    /// The site.
    Site,
    /// What the service calls the replica.
    LocalId,
    /// The operation.
    Operation,
    /// A word that is the same whenever the same request is sent again, and another for each other request.
    Key,
    /// The desired state, or what this JSON pointer leads to in it.
    Desired(String),
    /// What the service is to have: see `object`.
    Object,
    /// How that differs from what the service has, as a merge patch.
    Difference,
    /// What was kept of the answer to an operation.
    Kept(String),
}

impl Hole {
    fn parse(word: &str) -> Option<Self> {
        let hole = match word {
            "id" => Self::Id,
            "site" => Self::Site,
            "local_id" => Self::LocalId,
            "operation" => Self::Operation,
            "key" => Self::Key,
            "desired" => Self::Desired(String::new()),
            "object" => Self::Object,
            "difference" => Self::Difference,
            _ => match word.split_once('/') {
                Some(("desired", _)) => Self::Desired(word.get("desired".len()..)?.to_owned()),
                Some(("kept", name)) => Self::Kept(name.to_owned()),
                _ => return None,
            },
        };
        Some(hole)
    }

    fn name(&self) -> String {
        match self {
            Self::Id => "id".into(),
            Self::Site => "site".into(),
            Self::LocalId => "local_id".into(),
            Self::Operation => "operation".into(),
            Self::Key => "key".into(),
            Self::Desired(pointer) => format!("desired{pointer}"),
            Self::Object => "object".into(),
            Self::Difference => "difference".into(),
            Self::Kept(name) => format!("kept/{name}"),
        }
    }
}

/// All that holes may be filled with, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meanings<'a> {
    pub(super) id: &'a str,
    pub(super) site: &'a str,
    pub(super) local_id: Option<&'a str>,
    pub(super) operation: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) desired: Option<&'a Value>,
    pub(super) object: Option<&'a Value>,
    pub(super) difference: Option<&'a Value>,
    pub(super) kept: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Meanings<'a> {
    fn value(&self, hole: &Hole) -> Option<Cow<'a, Value>> {
        let text = |text: Option<&str>| text.map(|text| Cow::Owned(Value::from(text)));
        match hole {
            Hole::Id => text(Some(self.id)),
            Hole::Site => text(Some(self.site)),
            Hole::LocalId => text(self.local_id),
            Hole::Operation => text(self.operation),
            Hole::Key => text(self.key),
            Hole::Desired(pointer) => self.desired?.pointer(pointer).map(Cow::Borrowed),
            Hole::Object => self.object.map(Cow::Borrowed),
            Hole::Difference => self.difference.map(Cow::Borrowed),
            Hole::Kept(name) => text(self.kept?.get(name).map(String::as_str)),
        }
    }

    /// The value of a hole in a text.
    fn text(&self, hole: &Hole) -> Result<String, DriverError> {
        match self.value(hole).as_deref() {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(_) => {
                Err(DriverError::invalid(hole.name(), "it is put into a text, so it has to be text or a number"))
            }
            None => Err(missing(hole)),
        }
    }
}

fn missing(hole: &Hole) -> DriverError {
    let reason = match hole {
        Hole::LocalId => "this site has no replica that the service knows: one has to be created first",
        Hole::Desired(_) => "the desired state does not have it, and a request needs it",
        _ => "it is not known in this request",
    };
    DriverError::invalid(hole.name(), reason)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Hole(Hole),
}

/// How the values of holes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// As they are.
    Plain,
    /// Percent-encoded as one segment of a path or one value of a query.
    Encoded,
}

/// A text with holes. `{{` and `}}` are braces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) Vec<Part>);

impl Text {
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                plain.push(first);
                rest = after;
            } else if let Some(inside) = rest.strip_prefix('{') {
                let (word, after) = inside.split_once('}').ok_or("a brace is not closed; one that is meant is {{")?;
                let hole = Hole::parse(word).ok_or_else(|| {
                    format!(
                        "{{{}}} is not known: there are id, site, local_id, operation, key, desired, desired/FIELD, object, \
                         difference and kept/NAME",
                        word.chars().take(64).collect::<String>()
                    )
                })?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Hole(hole));
                rest = after;
            } else if first == '}' {
                return Err("a brace is not opened; one that is meant is }}".into());
            } else {
                plain.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// The text with its holes filled.
    pub(super) fn fill(&self, meanings: &Meanings<'_>, writing: Writing) -> Result<String, DriverError> {
        let mut filled = String::new();
        for part in &self.0 {
            match (part, writing) {
                (Part::Text(text), _) => filled.push_str(text),
                (Part::Hole(hole), Writing::Plain) => filled.push_str(&meanings.text(hole)?),
                (Part::Hole(hole), Writing::Encoded) => {
                    filled.extend(utf8_percent_encode(&meanings.text(hole)?, ENCODED));
                }
            }
        }
        Ok(filled)
    }

    /// Whether it has this hole.
    pub(super) fn has(&self, hole: &Hole) -> bool {
        self.0.contains(&Part::Hole(hole.clone()))
    }
}

/// JSON with holes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Plain(Value),
    Whole(Hole),
    Text(Text),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => {
                let text = Text::parse(text)?;
                match <[Part; 1]>::try_from(text.0) {
                    Ok([Part::Hole(hole)]) => Self::Whole(hole),
                    Ok([Part::Text(text)]) => Self::Plain(text.into()),
                    Err(parts) if parts.is_empty() => Self::Plain("".into()),
                    Err(parts) => Self::Text(Text(parts)),
                }
            }
            Value::Array(list) => Self::List(list.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(map) => Self::Map(
                map.iter().map(|(key, value)| Ok((key.clone(), Self::parse(value)?))).collect::<Result<_, String>>()?,
            ),
            other => Self::Plain(other.clone()),
        })
    }

    /// The value with its holes filled. A field whose value is a hole that the desired state does not have is left out.
    pub(super) fn fill(&self, meanings: &Meanings<'_>) -> Result<Value, DriverError> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Whole(hole) => meanings.value(hole).ok_or_else(|| missing(hole))?.into_owned(),
            Self::Text(text) => Value::String(text.fill(meanings, Writing::Plain)?),
            Self::List(list) => list.iter().map(|item| item.fill(meanings)).collect::<Result<_, _>>()?,
            Self::Map(map) => {
                let mut filled = Map::new();
                for (key, value) in map {
                    if let Self::Whole(hole @ Hole::Desired(_)) = value
                        && meanings.value(hole).is_none()
                    {
                        continue;
                    }
                    filled.insert(key.clone(), value.fill(meanings)?);
                }
                Value::Object(filled)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meanings(desired: &Value) -> Meanings<'_> {
        Meanings { id: "web", site: "paris", local_id: Some("a/../b?c"), desired: Some(desired), ..Meanings::default() }
    }

    #[test]
    fn texts_are_filled_once_and_braces_can_be_written() {
        let desired = json!({"name": "{id}", "n": 7, "on": true});
        let text = Text::parse("{{{id}}} {desired/name} {desired/n}{desired/on} é").unwrap();
        assert_eq!(text.fill(&meanings(&desired), Writing::Plain).unwrap(), "{web} {id} 7true é");
    }

    #[test]
    fn what_is_put_into_a_path_stays_one_segment() {
        let desired = json!({"name": "é &=#%2F"});
        let filled = |text: &str| Text::parse(text).unwrap().fill(&meanings(&desired), Writing::Encoded).unwrap();
        assert_eq!(filled("/n/{local_id}/x?q={desired/name}"), "/n/a%2F..%2Fb%3Fc/x?q=%C3%A9%20%26%3D%23%252F");
    }

    #[test]
    fn json_keeps_types_and_leaves_out_what_is_not_desired() {
        let desired = json!({"list": [1, {"a": "}\","}], "name": "x"});
        let body = json!({
            "all": "{desired}", "list": "{desired/list}", "none": "{desired/none}",
            "text": "a {desired/name}", "id": ["{id}", null, 3], "empty": "",
        });
        let filled = Json::parse(&body).unwrap().fill(&meanings(&desired)).unwrap();
        let expected = json!({
            "all": desired, "list": [1, {"a": "}\","}], "text": "a x", "id": ["web", null, 3], "empty": "",
        });
        assert_eq!(filled, expected);
    }

    #[test]
    fn what_cannot_be_filled_is_named() {
        let desired = json!({"list": []});
        for (text, field) in [("{desired/list}", "desired/list"), ("{operation}", "operation"), ("{kept/a}", "kept/a")]
        {
            let error = Text::parse(text).unwrap().fill(&meanings(&desired), Writing::Plain).unwrap_err();
            let DriverError::Invalid { field: named, .. } = error else { panic!("{error:?}") };
            assert_eq!(named, field);
        }
        for text in ["{", "}", "a {b} c", "{id", "{}", "{kept}"] {
            assert!(Text::parse(text).is_err(), "{text}");
        }
    }
}
