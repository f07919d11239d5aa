//! JSON values as Automerge holds them, and back.

use std::collections::HashMap;

use automerge::hydrate;
use automerge::{ScalarValue, ScalarValueRef};
use serde_json::{Number, Value};

use super::EditError;
use crate::Limits;

/// A scalar as Automerge holds it; none for maps and lists.
pub(crate) fn to_scalar(value: &Value) -> Option<ScalarValue> {
    Some(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(b) => ScalarValue::Boolean(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => ScalarValue::Int(i),
            (None, Some(u), _) => ScalarValue::Uint(u),
            (None, None, f) => ScalarValue::F64(f.unwrap_or_default()),
        },
        Value::String(s) => ScalarValue::Str(s.as_str().into()),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

/// A whole value, to be written at once.
pub(crate) fn to_hydrate(value: &Value) -> hydrate::Value {
    match value {
        Value::Array(items) => hydrate::Value::from(items.iter().map(to_hydrate).collect::<Vec<_>>()),
        // Automerge holds its maps in no order, and writes them in that of their keys.
        Value::Object(fields) => hydrate::Value::Map(hydrate::Map::from(
            fields.iter().map(|(key, value)| (key.clone(), to_hydrate(value))).collect::<HashMap<_, _>>(),
        )),
        scalar => hydrate::Value::Scalar(to_scalar(scalar).unwrap_or(ScalarValue::Null)),
    }
}

/// What another implementation may have written and JSON cannot say becomes the nearest thing JSON can.
pub(crate) fn from_scalar(value: &ScalarValueRef<'_>) -> Value {
    match value {
        ScalarValueRef::Str(s) => Value::String(s.to_string()),
        ScalarValueRef::Int(i) | ScalarValueRef::Timestamp(i) | ScalarValueRef::Counter(i) => Value::from(*i),
        ScalarValueRef::Uint(u) => Value::from(*u),
        ScalarValueRef::F64(f) => Number::from_f64(*f).map_or(Value::Null, Value::Number),
        ScalarValueRef::Boolean(b) => Value::Bool(*b),
        ScalarValueRef::Bytes(bytes) => Value::from(bytes.to_vec()),
        ScalarValueRef::Unknown { .. } | ScalarValueRef::Null => Value::Null,
    }
}

/// Like [`from_scalar`], for what conflicts are read as.
pub(crate) fn from_owned_scalar(value: &ScalarValue) -> Value {
    match value {
        ScalarValue::Str(s) => Value::String(s.to_string()),
        ScalarValue::Int(i) | ScalarValue::Timestamp(i) => Value::from(*i),
        ScalarValue::Counter(c) => Value::from(i64::from(c)),
        ScalarValue::Uint(u) => Value::from(*u),
        ScalarValue::F64(f) => Number::from_f64(*f).map_or(Value::Null, Value::Number),
        ScalarValue::Boolean(b) => Value::Bool(*b),
        ScalarValue::Bytes(bytes) => Value::from(bytes.clone()),
        ScalarValue::Unknown { .. } | ScalarValue::Null => Value::Null,
    }
}

/// Refuses a value that is nested too deeply or too large; gives its estimated bytes.
pub(crate) fn check(what: &'static str, value: &Value, limits: &Limits) -> Result<usize, EditError> {
    // A loop, not a recursion: the depth is what is being checked.
    let mut size = 0_usize;
    let mut left = vec![(value, 1_usize)];
    while let Some((value, depth)) = left.pop() {
        if depth > limits.max_depth {
            return Err(EditError::TooDeep { what, max: limits.max_depth });
        }
        size = size.saturating_add(match value {
            Value::String(s) => s.len().saturating_add(2),
            _ => 4,
        });
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                for (key, field) in fields {
                    size = size.saturating_add(key.len());
                    left.push((field, depth + 1));
                }
            }
            _ => {}
        }
        if size > limits.max_bytes {
            return Err(EditError::TooLarge { what, size, max: limits.max_bytes });
        }
    }
    Ok(size)
}

/// The one text of a value: keys sorted, no spaces. What digests are made of.
pub(crate) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (i, (key, field)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(field, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_canonical_text_sorts_keys_and_tells_integers_from_floats() {
        let mut out = String::new();
        canonical(&json!({"b": [1, 1.0, null], "a": {"z": "\"", "y": true}}), &mut out);
        assert_eq!(out, r#"{"a":{"y":true,"z":"\""},"b":[1,1.0,null]}"#);
    }

    #[test]
    fn a_value_too_deep_or_too_large_is_refused_with_figures() {
        let limits = Limits { max_depth: 3, max_bytes: 100, ..Limits::default() };
        assert!(check("it", &json!({"a": {"b": 1}}), &limits).is_ok());
        let deep = check("it", &json!({"a": {"b": {"c": 1}}}), &limits).unwrap_err().to_string();
        assert!(deep.contains("3 levels"), "{deep}");
        let large = check("it", &json!("x".repeat(101)), &limits).unwrap_err().to_string();
        assert!(large.contains("103") && large.contains("100"), "{large}");
    }
}
