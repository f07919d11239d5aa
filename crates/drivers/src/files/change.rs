//! What work makes of contents.

use std::borrow::Cow;

use khufu_crdt::{Operation, Payload};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use super::{MAX_FILE_BYTES, MAX_OPERATION_BYTES};
use crate::{DriverError, Work};

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// These contents, whatever there was.
    Whole(Cow<'a, str>),
    /// This text after what there is.
    Append(&'a str),
    /// No file.
    Remove,
}

impl<'a> Change<'a> {
    pub(super) fn of(work: &'a Work) -> Result<Self, DriverError> {
        match work {
            Work::Desired(value) => Ok(Self::Whole(Cow::Owned(yaml(value)?))),
            Work::Operation(operation) => Self::of_operation(operation),
            Work::Reset => Ok(Self::Remove),
        }
    }

    fn of_operation(operation: &'a Operation) -> Result<Self, DriverError> {
        const WANTED: &str = "it has to be {\"write\": text} or {\"append\": text}";
        let object = match &operation.payload {
            Payload::Value(Value::Object(object)) => object,
            Payload::Value(other) => {
                return Err(DriverError::invalid("payload", format!("{WANTED}, this is {}", name(other))));
            }
            Payload::Blob(_) => {
                return Err(DriverError::invalid("payload", format!("{WANTED}, this is kept elsewhere")));
            }
        };
        if let Some(unknown) = object.keys().find(|key| !matches!(key.as_str(), "write" | "append")) {
            let field = format!("payload.{}", unknown.chars().take(64).collect::<String>());
            return Err(DriverError::invalid(field, format!("this field is not known: {WANTED}")));
        }
        let (field, value) = match (object.get("write"), object.get("append")) {
            (Some(value), None) => ("write", value),
            (None, Some(value)) => ("append", value),
            (Some(_), Some(_)) => return Err(DriverError::invalid("payload", format!("{WANTED}, not both"))),
            (None, None) => return Err(DriverError::invalid("payload", format!("{WANTED}, this is empty"))),
        };
        let path = format!("payload.{field}");
        let Value::String(text) = value else {
            return Err(DriverError::invalid(path, format!("it has to be text, this is {}", name(value))));
        };
        if text.len() > MAX_OPERATION_BYTES {
            let reason = format!("it has {} bytes, at most {MAX_OPERATION_BYTES} are allowed: split it", text.len());
            return Err(DriverError::invalid(path, reason));
        }
        Ok(if field == "write" { Self::Whole(Cow::Borrowed(text)) } else { Self::Append(text) })
    }

    /// The contents afterwards; none for no file.
    pub(super) fn make(&self, before: Option<&[u8]>) -> Result<Option<Vec<u8>>, DriverError> {
        let contents = match self {
            Self::Remove => return Ok(None),
            Self::Whole(text) => text.as_bytes().to_vec(),
            Self::Append(text) => [before.unwrap_or_default(), text.as_bytes()].concat(),
        };
        if contents.len() > MAX_FILE_BYTES {
            let reason = format!("the file would have {} bytes, at most {MAX_FILE_BYTES} are allowed", contents.len());
            return Err(DriverError::invalid("contents", reason));
        }
        Ok(Some(contents))
    }
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as YAML: the same text for the same value at every site, so that digests can be compared.
fn yaml(value: &Value) -> Result<String, DriverError> {
    let text = serde_saphyr::to_string(&Sorted(value))
        .map_err(|error| DriverError::invalid("desired", format!("it cannot be written as YAML: {error}")))?;
    Ok(text)
}

/// A value whose keys are sorted, whatever serde_json was built with.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(object) => {
                let mut fields: Vec<_> = object.iter().collect();
                fields.sort_by_key(|(key, _)| *key);
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, &Self(value))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Self(item))?;
                }
                list.end()
            }
            Value::Number(number) => {
                if let Some(number) = number.as_i64() {
                    serializer.serialize_i64(number)
                } else if let Some(number) = number.as_u64() {
                    serializer.serialize_u64(number)
                } else {
                    serializer.serialize_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn yaml_is_sorted_and_plain() {
        let text = yaml(&json!({"b": [1, {"z": null, "a": "yes"}], "a": "x\ny\n", "c": {}})).unwrap();
        assert_eq!(text, "a: |\n  x\n  y\nb:\n- 1\n- a: \"yes\"\n  z: null\nc: {}\n");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            "[ \\n\\t:#\\-'\"0-9a-z~|>]{0,30}".prop_map(Value::from),
            prop_oneof![Just("yes"), Just("0x1F"), Just("1e3"), Just("null"), Just("~"), Just("2001-01-01"), Just("")]
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[ -~\\n]{0,12}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn yaml_reads_back_as_the_same_value(value in value()) {
            let text = yaml(&value).unwrap();
            let back: Value = serde_saphyr::from_str(&text).map_err(|error| {
                TestCaseError::fail(format!("{error}\n{text}"))
            })?;
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
