//! Reading what the user hands in: files or standard input, YAML or JSON, bounded in size.

use std::io::Read;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The most bytes that are read of one file: a document beyond 5 MiB would be refused by the node anyway.
pub(crate) const MAX_INPUT_BYTES: u64 = 32 * 1024 * 1024;

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InputError {
    /// It cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The file, or `standard input`.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than anything that makes sense here.
    #[error("{name} has more than {MAX_INPUT_BYTES} bytes: split it")]
    TooLarge {
        /// The file.
        name: String,
    },
    /// It is not what it should be.
    #[error("{name} {message}")]
    Parse {
        /// The file.
        name: String,
        /// Where, and what is expected.
        message: String,
    },
}

/// What a path is called in messages.
pub(crate) fn name_of(path: &str) -> &str {
    if path == "-" { "standard input" } else { path }
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// [`InputError`] if it cannot be read, is no UTF-8 or is too large.
pub(crate) fn read_text(path: &str) -> Result<String, InputError> {
    let name = name_of(path).to_owned();
    let reader: Box<dyn Read> = if path == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(|source| InputError::Read { name: name.clone(), source })?;
        Box::new(file)
    };
    let mut text = String::new();
    let mut reader = reader.take(MAX_INPUT_BYTES + 1);
    reader.read_to_string(&mut text).map_err(|source| InputError::Read { name: name.clone(), source })?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        return Err(InputError::TooLarge { name });
    }
    Ok(text)
}

/// Reads YAML or JSON into a value, such as a manifest.
///
/// # Errors
/// [`InputError`] as for [`read_text`], or naming line and column if it is neither YAML nor JSON.
pub(crate) fn read_value(path: &str) -> Result<Value, InputError> {
    read_as(path)
}

/// Reads JSON, or all documents of YAML.
///
/// # Errors
/// As [`read_value`].
pub(crate) fn read_values(path: &str) -> Result<Vec<Value>, InputError> {
    let (name, text) = (name_of(path), read_text(path)?);
    if text.trim_start().starts_with(['{', '[']) {
        return parse(name, &text).map(|value| vec![value]);
    }
    serde_saphyr::from_multiple(&text)
        .map_err(|yaml| InputError::Parse { name: name.to_owned(), message: format!("is not valid YAML: {yaml}") })
}

/// Reads YAML or JSON into a type.
///
/// # Errors
/// As [`read_value`].
pub(crate) fn read_as<T: DeserializeOwned>(path: &str) -> Result<T, InputError> {
    parse(name_of(path), &read_text(path)?)
}

/// Parses YAML or JSON.
///
/// # Errors
/// [`InputError::Parse`] naming line and column.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, InputError> {
    let error = |message: String| InputError::Parse { name: name.to_owned(), message };
    // JSON first: it is a subset of YAML, but its own parser is stricter about numbers and says more of what is wrong.
    if text.trim_start().starts_with(['{', '[']) {
        match serde_json::from_str(text) {
            Ok(value) => return Ok(value),
            Err(json) if json.is_data() => return Err(error(format!("is not as it should be: {json}"))),
            Err(json) if name.ends_with(".json") => return Err(error(format!("is not valid JSON: {json}"))),
            // A flow mapping in YAML also starts like this; only if it is no YAML either is the message about JSON.
            Err(json) => return serde_saphyr::from_str(text).map_err(|_| error(format!("is not valid JSON: {json}"))),
        }
    }
    serde_saphyr::from_str(text).map_err(|yaml| error(format!("is not valid YAML: {yaml}")))
}

/// The text `--payload` gives: JSON, or the content of a file after `@`.
///
/// # Errors
/// [`InputError`] if it is no JSON; a hint is given for the usual mistake, a missing pair of quotes.
pub(crate) fn read_payload(text: &str) -> Result<Value, InputError> {
    if let Some(path) = text.strip_prefix('@') {
        return read_value(path);
    }
    serde_json::from_str(text).map_err(|error| InputError::Parse {
        name: "--payload".to_owned(),
        message: format!("is not valid JSON: {error} (example: --payload '{{\"append\": \"one line\\n\"}}', or @FILE)"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn yaml_and_json_give_the_same_value() {
        let yaml: Value = parse("m.yaml", "kind: Deployment\nspec:\n  replicas: 3\n").unwrap();
        let json: Value = parse("m.json", r#"{"kind": "Deployment", "spec": {"replicas": 3}}"#).unwrap();
        assert_eq!(yaml, json);
        assert!(json["spec"]["replicas"].is_u64());
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let error = parse::<Value>("m.json", "{\"a\": }").unwrap_err().to_string();
        assert!(error.contains("m.json is not valid JSON") && error.contains("line 1"), "{error}");
        let error = parse::<Value>("m.yaml", "a: 1\nb: [1, 2\n").unwrap_err().to_string();
        assert!(error.contains("m.yaml is not valid YAML") && error.contains('2'), "{error}");
    }

    #[test]
    fn a_payload_without_quotes_gets_an_example() {
        let error = read_payload("hello").unwrap_err().to_string();
        assert!(error.contains("example"), "{error}");
        assert_eq!(read_payload("\"hello\"").unwrap(), Value::from("hello"));
    }
}
