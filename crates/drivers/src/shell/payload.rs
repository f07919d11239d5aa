//! What an operation asks for.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use khufu_crdt::{Operation, Payload};
use serde_json::{Map, Value};

use super::config::Command;
use super::{MAX_COMMAND_BYTES, MAX_FILES, MAX_FILES_BYTES};
use crate::DriverError;

const WANTED: &str = "it has to be {\"command\": text or [words], \"files\": {name: base64}}";

/// A command, and the files that it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Asked {
    pub(super) fn of(operation: &Operation) -> Result<Self, DriverError> {
        let Payload::Value(Value::Object(object)) = &operation.payload else {
            return Err(DriverError::invalid("payload", WANTED));
        };
        if let Some(unknown) = object.keys().find(|key| !matches!(key.as_str(), "command" | "files")) {
            let field = format!("payload.{}", unknown.chars().take(64).collect::<String>());
            return Err(DriverError::invalid(field, format!("this field is not known: {WANTED}")));
        }
        let files = match object.get("files") {
            None => BTreeMap::new(),
            Some(Value::Object(files)) => decode(files)?,
            Some(_) => return Err(DriverError::invalid("payload.files", WANTED)),
        };
        Ok(Self { command: command(object.get("command"))?, files })
    }

    /// A command without files.
    pub(super) fn of_text(text: &str) -> Result<Self, DriverError> {
        Ok(Self { command: command(Some(&text.into()))?, files: BTreeMap::new() })
    }
}

fn command(value: Option<&Value>) -> Result<Command, DriverError> {
    let wrong = |reason: String| DriverError::invalid("payload.command", reason);
    let command = match value {
        Some(Value::String(text)) => Command::Text(text.clone()),
        Some(Value::Array(words)) => {
            let words: Option<Vec<_>> = words.iter().map(|word| word.as_str().map(ToOwned::to_owned)).collect();
            Command::Words(words.ok_or_else(|| wrong("every word has to be text".into()))?)
        }
        _ => return Err(wrong(WANTED.into())),
    };
    let words: &[String] = match &command {
        Command::Text(text) => std::slice::from_ref(text),
        Command::Words(words) => words,
    };
    let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
    if bytes > MAX_COMMAND_BYTES {
        return Err(wrong(format!("it has {bytes} bytes, at most {MAX_COMMAND_BYTES} are allowed: use files")));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(wrong("it holds a zero byte, which no command can be given".into()));
    }
    Ok(command)
}

fn decode(files: &Map<String, Value>) -> Result<BTreeMap<String, Vec<u8>>, DriverError> {
    if files.len() > MAX_FILES {
        let reason = format!("there are {}, at most {MAX_FILES} are allowed", files.len());
        return Err(DriverError::invalid("payload.files", reason));
    }
    let mut decoded = BTreeMap::new();
    let mut left = MAX_FILES_BYTES;
    for (name, contents) in files {
        let field = format!("payload.files.{}", name.chars().take(64).collect::<String>());
        // Whatever a name is put into, be it a path or a text for a shell, it means nothing there but itself.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 100 || name.starts_with(['.', '-']) || !name.chars().all(plain) {
            let reason = "a name has 1 to 100 letters, digits, and . _ - (not as the first)";
            return Err(DriverError::invalid(field, reason));
        }
        if name == "id" {
            return Err(DriverError::invalid(field, "{id} means the replicant: call the file something else"));
        }
        let Some(bytes) = contents.as_str().and_then(|text| STANDARD.decode(text).ok()) else {
            return Err(DriverError::invalid(field, "it has to be text in base64, with padding"));
        };
        left = left.checked_sub(bytes.len()).ok_or_else(|| {
            DriverError::invalid(field, format!("all files together have at most {MAX_FILES_BYTES} bytes"))
        })?;
        decoded.insert(name.clone(), bytes);
    }
    Ok(decoded)
}
