//! Overrides: what is laid over the desired state at one site. A list is a JSON patch (RFC 6902), anything else a JSON
//! merge patch (RFC 7386).

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use json_patch::{PatchErrorKind, PatchOperation, patch_unsafe};
use serde_json::Value;

use super::patch::merge_patch;
use crate::Limits;

/// The most steps of a JSON patch.
const MAX_STEPS: usize = 1_000;
/// What a step can do.
const WORDS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// Why an override cannot be laid over the desired state. Steps of JSON patches are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// A part of it is no part of a JSON patch.
    #[error("{place} of the override: {reason}")]
    Malformed {
        /// Which part, such as `[2].path`.
        place: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// It has too many steps.
    #[error("the override has {len} steps and may have {MAX_STEPS}: replace more at once")]
    TooLong {
        /// How many it has.
        len: usize,
    },
    /// A step does not fit what it is laid over.
    #[error("[{step}] of the override does not fit the desired state: {op} {path:?}: {reason}")]
    Misfit {
        /// Which step.
        step: usize,
        /// What it does.
        op: String,
        /// Where.
        path: String,
        /// Why it cannot.
        reason: String,
    },
}

fn malformed(step: usize, field: &str, reason: impl Into<String>) -> OverrideError {
    OverrideError::Malformed { place: format!("[{step}]{field}"), reason: reason.into() }
}

/// One step as it is written, with its pointers read.
struct Step<'v> {
    op: &'v str,
    path: &'v Pointer,
    from: Option<&'v Pointer>,
    value: Option<&'v Value>,
}

impl<'v> Step<'v> {
    fn read(number: usize, step: &'v Value) -> Result<Self, OverrideError> {
        let wrong = |field: &str, reason: String| Err(malformed(number, field, reason));
        let Some(fields) = step.as_object() else {
            return wrong("", "an object with op and path is wanted".into());
        };
        let op = match fields.get("op").and_then(Value::as_str) {
            Some(op) if WORDS.contains(&op) => op,
            _ => return wrong(".op", format!("one of {} is wanted", WORDS.join(", "))),
        };
        let pointer = |field: &str| match fields.get(field).and_then(Value::as_str).map(Pointer::parse) {
            Some(Ok(pointer)) => Ok(pointer),
            _ => Err(malformed(number, &format!(".{field}"), "a JSON pointer is wanted, such as /spec/replicas")),
        };
        let path = pointer("path")?;
        let from = if matches!(op, "move" | "copy") { Some(pointer("from")?) } else { None };
        let value = if matches!(op, "add" | "replace" | "test") {
            let Some(value) = fields.get("value") else { return wrong(".value", format!("is missing: {op} has one")) };
            Some(value)
        } else {
            None
        };
        Ok(Self { op, path, from, value })
    }
}

/// Looks through an override without anything to lay it over.
///
/// # Errors
/// The first part of a list that is no part of a JSON patch. What is no list is a merge patch, whatever it is.
pub(crate) fn check_override(laid: &Value) -> Result<(), OverrideError> {
    let Value::Array(steps) = laid else { return Ok(()) };
    if steps.len() > MAX_STEPS {
        return Err(OverrideError::TooLong { len: steps.len() });
    }
    steps.iter().enumerate().try_for_each(|(number, step)| Step::read(number, step).map(|_| ()))
}

/// The levels of a value, and about its bytes; neither is counted much beyond what is allowed.
fn measure(value: &Value, limits: &Limits) -> (usize, usize) {
    let (mut deepest, mut bytes) = (0, 0_usize);
    let mut left = vec![(value, 1_usize)];
    while let Some((value, depth)) = left.pop() {
        deepest = deepest.max(depth);
        bytes = bytes.saturating_add(value.as_str().map_or(4, str::len));
        if depth > limits.max_depth || bytes > limits.max_bytes {
            break;
        }
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                bytes = bytes.saturating_add(fields.keys().map(String::len).sum());
                left.extend(fields.values().map(|field| (field, depth + 1)));
            }
            _ => {}
        }
    }
    (deepest, bytes)
}

/// A pointer in which each step `[key=value]` through a list is the place of the element that has this.
fn resolved(value: &Value, pointer: &Pointer) -> Result<PointerBuf, String> {
    let mut now = Some(value);
    let mut found = PointerBuf::new();
    for token in pointer.tokens() {
        let name = token.decoded();
        let named = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')?.split_once('='));
        match (now, named) {
            (Some(Value::Array(items)), Some((key, wanted))) => {
                let is = |item: &Value| match item.get(key) {
                    Some(Value::String(text)) => text == wanted,
                    Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
                    Some(other) => {
                        let text = other.to_string();
                        text == wanted
                    }
                };
                let mut places = items.iter().enumerate().filter(|(_, item)| is(item));
                let Some((place, item)) = places.next() else { return Err(format!("no element has {key}={wanted}")) };
                if places.next().is_some() {
                    return Err(format!("several elements have {key}={wanted}"));
                }
                now = Some(item);
                found.push_back(Token::from(place));
            }
            (value, _) => {
                now = value.and_then(|value| match value {
                    Value::Object(fields) => fields.get(name.as_ref()),
                    Value::Array(items) => items.get(name.parse::<usize>().ok()?),
                    _ => None,
                });
                found.push_back(token);
            }
        }
    }
    Ok(found)
}

/// Lays an override over a desired state: a JSON patch (RFC 6902) if it is a list, in whose pointers `[key=value]` is the
/// element of a list that has this; else a JSON merge patch (RFC 7386).
///
/// # Errors
/// [`OverrideError`] if it is a list and no JSON patch, if a step does not fit, or if the result would be larger or deeper
/// than a desired state may be.
pub fn lay_over(desired: &Value, laid: &Value) -> Result<Value, OverrideError> {
    let mut value = desired.clone();
    let Value::Array(steps) = laid else {
        merge_patch(&mut value, laid);
        return Ok(value);
    };
    check_override(laid)?;
    let limits = Limits::default();
    // What is copied may be copied again: without a bound, it would double with each step.
    let mut copied = 0_usize;
    for (number, written) in steps.iter().enumerate() {
        let step = Step::read(number, written)?;
        let misfit = |reason: String| OverrideError::Misfit {
            step: number,
            op: step.op.to_owned(),
            path: step.path.to_string(),
            reason,
        };
        let from = step.from.map(|from| resolved(&value, from)).transpose().map_err(misfit)?;
        let path = match &from {
            // What is moved is taken out first, and what comes after it in its list moves up.
            Some(from) if step.op == "move" && step.path.as_str().contains('[') => {
                let mut rest = value.clone();
                let taken = PatchOperation::Remove(json_patch::RemoveOperation { path: from.clone() });
                // Where there is nothing at `from`, that is said below.
                let _ = patch_unsafe(&mut rest, std::slice::from_ref(&taken));
                resolved(&rest, step.path)
            }
            _ => resolved(&value, step.path),
        };
        let path = path.map_err(misfit)?;
        let added = step.value.or_else(|| value.pointer(from.as_ref()?.as_str()));
        if let Some(added) = added {
            let (depth, bytes) = measure(added, &limits);
            copied = copied.saturating_add(if step.op == "copy" { bytes } else { 0 });
            if depth + path.count() > limits.max_depth || copied > limits.max_bytes {
                return Err(misfit("what comes of it is too large or nested too deeply".into()));
            }
        }
        let moved = from.as_ref().and_then(|from| value.pointer(from.as_str())).cloned();
        let operations = match (moved, from) {
            // Which elements are meant was found out without it, so their places count from there.
            (Some(moved), Some(from)) if step.op == "move" && step.path.as_str().contains('[') => vec![
                PatchOperation::Remove(json_patch::RemoveOperation { path: from }),
                PatchOperation::Add(json_patch::AddOperation { path, value: moved }),
            ],
            (_, from) => vec![operation(&step, path, from)],
        };
        patch_unsafe(&mut value, &operations).map_err(|error| {
            misfit(match error.kind {
                PatchErrorKind::TestFailed => "there is another value".into(),
                PatchErrorKind::InvalidFromPointer => "there is nothing at \"from\"".into(),
                PatchErrorKind::CannotMoveInsideItself => "it would be moved into itself".into(),
                _ => "there is no such place".into(),
            })
        })?;
    }
    Ok(value)
}

fn operation(step: &Step<'_>, path: PointerBuf, from: Option<PointerBuf>) -> PatchOperation {
    let value = step.value.cloned().unwrap_or_default();
    let from = from.unwrap_or_default();
    match step.op {
        "add" => PatchOperation::Add(json_patch::AddOperation { path, value }),
        "remove" => PatchOperation::Remove(json_patch::RemoveOperation { path }),
        "replace" => PatchOperation::Replace(json_patch::ReplaceOperation { path, value }),
        "move" => PatchOperation::Move(json_patch::MoveOperation { from, path }),
        "copy" => PatchOperation::Copy(json_patch::CopyOperation { from, path }),
        _ => PatchOperation::Test(json_patch::TestOperation { path, value }),
    }
}
