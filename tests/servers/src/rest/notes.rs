//! The notes, and what is answered about them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::Asked;

/// Notes of one page.
const PAGE: usize = 3;

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Said {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: vec![("Content-Type", "application/json".into())], body: body.to_string().into() }
    }

    fn nothing(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }
}

/// All that the service has.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: BTreeMap<u64, Value>,
    texts: BTreeMap<String, Vec<u8>>,
    answers: BTreeMap<String, Said>,
    next: u64,
    created: usize,
    most_alike: usize,
}

fn now() -> Value {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).into()
}

/// What a client sends of a note, with what the service adds.
fn filled(id: u64, sent: &Map<String, Value>) -> Value {
    let mut note = Map::from_iter([("title".to_owned(), "".into()), ("lines".to_owned(), json!([]))]);
    note.extend(sent.clone());
    note.extend([("id".to_owned(), id.into()), ("updated_at".to_owned(), now()), ("state".to_owned(), "ready".into())]);
    // As with passwords: taken, and never shown.
    if note.remove("secret").is_some() {
        note.insert("has_secret".to_owned(), true.into());
    }
    Value::Object(note)
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Value::Object(fields) = into else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Notes {
    pub(super) fn begin_at(&mut self, first: u64) {
        self.next = first;
    }

    pub(super) fn all(&self) -> Vec<Value> {
        self.notes.values().cloned().collect()
    }

    pub(super) fn created(&self) -> usize {
        self.created
    }

    pub(super) fn most_alike(&self) -> usize {
        self.most_alike
    }

    pub(super) fn note(&mut self, id: u64) -> Option<&mut Value> {
        self.notes.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.notes.remove(&id).is_some()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.texts.get(name).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn answer(&mut self, asked: &Asked) -> Said {
        let key = asked.header("idempotency-key").filter(|_| asked.method == "POST").map(str::to_owned);
        if let Some(said) = key.as_ref().and_then(|key| self.answers.get(key)) {
            return said.clone();
        }
        let said = self.answer_anew(asked);
        if let Some(key) = key {
            self.answers.insert(key, said.clone());
        }
        said
    }

    fn answer_anew(&mut self, asked: &Asked) -> Said {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let sent = serde_json::from_slice::<Value>(&asked.body).ok();
        let object = sent.as_ref().and_then(Value::as_object);
        match (asked.method.as_str(), segments.as_slice()) {
            ("GET", ["api" | "health"]) => Said::json(200, &json!({"ok": true})),
            ("POST", ["api", "notes"]) => match object {
                Some(object) => self.create(object),
                None => Said::json(422, &json!({"error": "a note is an object"})),
            },
            ("GET", ["api", "notes"]) => self.list(query),
            (method, ["api", "notes", id]) => {
                let Some(id) = id.parse().ok().filter(|id| self.notes.contains_key(id)) else {
                    return Said::nothing(404);
                };
                self.one(method, id, object)
            }
            (method, ["api", "notes", id, "lines", rest @ ..]) => {
                let Some(note) = id.parse().ok().and_then(|id| self.notes.get_mut(&id)) else {
                    return Said::nothing(404);
                };
                lines(note, method, rest, object)
            }
            ("PUT", ["api", "texts", name]) => {
                let before = self.texts.insert((*name).to_owned(), asked.body.clone());
                Said::nothing(if before.is_some() { 204 } else { 201 })
            }
            ("GET", ["api", "texts", name]) => match self.texts.get(*name) {
                Some(text) => Said { status: 200, headers: Vec::new(), body: text.clone() },
                None => Said::nothing(404),
            },
            ("DELETE", ["api", "texts", name]) => {
                Said::nothing(if self.texts.remove(*name).is_some() { 204 } else { 404 })
            }
            _ => Said::json(404, &json!({"error": "no such path"})),
        }
    }

    fn create(&mut self, object: &Map<String, Value>) -> Said {
        let id = self.next;
        self.next += 1;
        self.created += 1;
        let note = filled(id, object);
        let label = note["labels"]["khufu"].clone();
        self.notes.insert(id, note.clone());
        if !label.is_null() {
            let alike = self.notes.values().filter(|note| note["labels"]["khufu"] == label).count();
            self.most_alike = self.most_alike.max(alike);
        }
        let mut said = Said::json(201, &json!({"data": note}));
        said.headers.push(("Location", format!("/api/notes/{id}")));
        said
    }

    fn list(&self, query: &str) -> Said {
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.split_once('=').filter(|(known, _)| *known == name)).map(|(_, it)| it)
        };
        let label = value("label");
        let has = |note: &&Value| label.is_none_or(|label| note["labels"]["khufu"] == label);
        let page: usize = value("page").and_then(|page| page.parse().ok()).unwrap_or(0);
        let all: Vec<&Value> = self.notes.values().filter(has).collect();
        let items: Vec<&Value> = all.iter().skip(page * PAGE).take(PAGE).copied().collect();
        let more = all.len() > (page + 1) * PAGE;
        let label = label.map(|label| format!("label={label}&")).unwrap_or_default();
        let next = more.then(|| format!("/api/notes?{label}page={}", page + 1));
        Said::json(200, &json!({"items": items, "next": next}))
    }

    fn one(&mut self, method: &str, id: u64, object: Option<&Map<String, Value>>) -> Said {
        let Some(note) = self.notes.get_mut(&id) else { return Said::nothing(404) };
        match (method, object) {
            ("PUT", Some(object)) => {
                let lines = note["lines"].clone();
                *note = filled(id, object);
                note["lines"] = lines;
            }
            ("PATCH", Some(object)) => {
                merge(note, &Value::Object(object.clone()));
                let whole = note.as_object().cloned().unwrap_or_default();
                *note = filled(id, &whole);
            }
            ("GET", _) => {}
            ("DELETE", _) => {
                self.notes.remove(&id);
                return Said::nothing(204);
            }
            _ => return Said::nothing(405),
        }
        Said::json(200, &json!({"data": note}))
    }
}

fn lines(note: &mut Value, method: &str, rest: &[&str], object: Option<&Map<String, Value>>) -> Said {
    let Some(lines) = note["lines"].as_array_mut() else { return Said::nothing(409) };
    match (method, rest, object) {
        ("POST", [], Some(line)) => {
            let number = lines.iter().filter_map(|line| line["n"].as_u64()).max().map_or(1, |last| last + 1);
            let mut line = line.clone();
            line.insert("n".to_owned(), number.into());
            lines.push(Value::Object(line.clone()));
            Said::json(201, &Value::Object(line))
        }
        ("DELETE", [number], _) => {
            let before = lines.len();
            lines.retain(|line| line["n"].as_u64() != number.parse().ok());
            Said::nothing(if lines.len() < before { 204 } else { 404 })
        }
        ("GET", [], _) => Said::json(200, &json!({"items": lines})),
        _ => Said::nothing(405),
    }
}
