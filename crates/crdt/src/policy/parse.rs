//! Policies as operators write them: what is not understood is refused, with its place.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Combine, Policy, Resolution, Retry, TypePolicy};

/// Why a policy was refused. The first field of each is the place, such as `resolutions[2].result`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A field that no policy has.
    #[error("{path} is no field of a policy: there it has {known}")]
    UnknownField {
        /// Where.
        path: String,
        /// The fields that are known there.
        known: String,
    },
    /// A result that means nothing.
    #[error("{path} is {word:?}: use take-one, take-both-any-order, take-both-keep-order or take-both-reverse-order")]
    UnknownResult {
        /// Where.
        path: String,
        /// What was found.
        word: String,
    },
    /// A value of another shape than is wanted there.
    #[error("{path} cannot be read: {reason}")]
    Value {
        /// Where.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field that must be there and is not.
    #[error("{path} is missing")]
    Missing {
        /// Where.
        path: String,
    },
    /// A list, a map, a name or a number beyond its limit.
    #[error("{path} is too large: {found}, the limit is {limit}")]
    TooLarge {
        /// Where.
        path: String,
        /// The limit.
        limit: u64,
        /// What was found.
        found: u64,
    },
}

/// The most entries that a resolution matrix may have.
const RESOLUTIONS_MAX: usize = 1_000;
/// The most types that a policy may speak of in `types`.
const TYPES_MAX: usize = 1_000;
/// The most fields that lists may be matched by.
const LIST_KEYS_MAX: usize = 32;
/// The longest name of a type or a list key, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// The most attempts.
const ATTEMPTS_MAX: u64 = 1_000;
/// The longest pause between two attempts: a day, in milliseconds.
const BACKOFF_MS_MAX: u64 = 86_400_000;

impl Policy {
    /// The longest name that a type of operation may have, in bytes.
    pub const TYPE_BYTES_MAX: usize = NAME_BYTES_MAX;

    /// Reads a policy that somebody gives: strict, where reading one from a document is lenient towards newer nodes.
    ///
    /// # Errors
    /// [`PolicyError`] names the first place where something is unknown, of the wrong shape or too large: at most 1,000
    /// resolutions and types, names of 1 to 100 bytes, 1 to 1,000 attempts, pauses up to a day.
    pub fn parse(value: Value) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for (field, value) in object(value, "policy")? {
            match field.as_str() {
                "consistency" => policy.consistency = read(value, &field)?,
                "resolutions" => policy.resolutions = resolutions(value)?,
                "types" => policy.types = types(value)?,
                "retry" => policy.retry = retry(value)?,
                "after_failure" => policy.after_failure = read(value, &field)?,
                "drift" => policy.drift = read(value, &field)?,
                "list_keys" => policy.list_keys = list_keys(value)?,
                "options" => policy.options = object(value, &field)?,
                _ => {
                    let known = "consistency, resolutions, types, retry, after_failure, drift, list_keys and options";
                    return Err(PolicyError::UnknownField { path: field, known: known.into() });
                }
            }
        }
        Ok(policy)
    }
}

fn read<T: DeserializeOwned>(value: Value, path: &str) -> Result<T, PolicyError> {
    serde_json::from_value(value).map_err(|e| PolicyError::Value { path: path.into(), reason: e.to_string() })
}

fn object(value: Value, path: &str) -> Result<Map<String, Value>, PolicyError> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(wrong(path, "an object", &other)),
    }
}

fn wrong(path: &str, wanted: &str, found: &Value) -> PolicyError {
    let found = match found {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    PolicyError::Value { path: path.into(), reason: format!("{wanted} is wanted, {found} was found") }
}

fn limit(path: &str, found: u64, limit: u64) -> Result<(), PolicyError> {
    if found > limit { Err(PolicyError::TooLarge { path: path.into(), limit, found }) } else { Ok(()) }
}

fn list(value: Value, path: &str, max: usize) -> Result<Vec<Value>, PolicyError> {
    match value {
        Value::Array(list) => limit(path, list.len() as u64, max as u64).map(|()| list),
        other => Err(wrong(path, "a list", &other)),
    }
}

fn name(value: Value, path: &str) -> Result<String, PolicyError> {
    match value {
        Value::String(name) => checked_name(&name, path).map(|()| name),
        other => Err(wrong(path, "a text", &other)),
    }
}

fn checked_name(name: &str, path: &str) -> Result<(), PolicyError> {
    if name.is_empty() {
        return Err(PolicyError::Value { path: path.into(), reason: "a name must not be empty".into() });
    }
    limit(path, name.len() as u64, NAME_BYTES_MAX as u64)
}

/// A path with what somebody wrote as a key, cut so that an error stays short.
fn key_path(path: &str, key: &str) -> String {
    format!("{path}.{}", key.chars().take(NAME_BYTES_MAX).collect::<String>())
}

fn no_more(rest: &Map<String, Value>, path: &str, known: &str) -> Result<(), PolicyError> {
    match rest.keys().next() {
        Some(field) => Err(PolicyError::UnknownField { path: key_path(path, field), known: known.into() }),
        None => Ok(()),
    }
}

fn resolutions(value: Value) -> Result<Vec<Resolution>, PolicyError> {
    list(value, "resolutions", RESOLUTIONS_MAX)?.into_iter().enumerate().map(|(i, v)| resolution(i, v)).collect()
}

fn resolution(i: usize, value: Value) -> Result<Resolution, PolicyError> {
    let path = format!("resolutions[{i}]");
    let mut fields = object(value, &path)?;
    let mut take = |field: &str| {
        let path = format!("{path}.{field}");
        fields.remove(field).ok_or(PolicyError::Missing { path: path.clone() }).and_then(|v| name(v, &path))
    };
    let (before, after, result) = (take("before")?, take("after")?, take("result")?);
    no_more(&fields, &path, "before, after and result")?;
    match Combine::from(result) {
        Combine::Unknown(word) => Err(PolicyError::UnknownResult { path: format!("{path}.result"), word }),
        result => Ok(Resolution { before, after, result }),
    }
}

fn types(value: Value) -> Result<std::collections::BTreeMap<String, TypePolicy>, PolicyError> {
    let types = object(value, "types")?;
    limit("types", types.len() as u64, TYPES_MAX as u64)?;
    types
        .into_iter()
        .map(|(op_type, value)| {
            let path = key_path("types", &op_type);
            checked_name(&op_type, &path)?;
            let mut read_type = TypePolicy::default();
            for (field, value) in object(value, &path)? {
                let path = key_path(&path, &field);
                match field.as_str() {
                    "absolute" => read_type.absolute = read(value, &path)?,
                    "idempotent" => read_type.idempotent = read(value, &path)?,
                    "undo" if value.is_null() => {}
                    "undo" => read_type.undo = Some(name(value, &path)?),
                    _ => {
                        let known = "absolute, idempotent and undo".into();
                        return Err(PolicyError::UnknownField { path, known });
                    }
                }
            }
            Ok((op_type, read_type))
        })
        .collect()
}

fn retry(value: Value) -> Result<Retry, PolicyError> {
    let mut read_retry = Retry::default();
    for (field, value) in object(value, "retry")? {
        let path = key_path("retry", &field);
        match field.as_str() {
            "attempts" => {
                let attempts: u32 = read(value, &path)?;
                limit(&path, u64::from(attempts), ATTEMPTS_MAX)?;
                if attempts == 0 {
                    return Err(PolicyError::Value { path, reason: "at least one attempt is wanted".into() });
                }
                read_retry.attempts = attempts;
            }
            "backoff_ms" | "backoff_max_ms" => {
                let pause: u64 = read(value, &path)?;
                limit(&path, pause, BACKOFF_MS_MAX)?;
                if field == "backoff_ms" {
                    read_retry.backoff_ms = pause;
                } else {
                    read_retry.backoff_max_ms = pause;
                }
            }
            _ => {
                let known = "attempts, backoff_ms and backoff_max_ms".into();
                return Err(PolicyError::UnknownField { path, known });
            }
        }
    }
    Ok(read_retry)
}

fn list_keys(value: Value) -> Result<Vec<String>, PolicyError> {
    let keys = list(value, "list_keys", LIST_KEYS_MAX)?;
    keys.into_iter().enumerate().map(|(i, key)| name(key, &format!("list_keys[{i}]"))).collect()
}
