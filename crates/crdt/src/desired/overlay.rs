//! Overrides: what is laid over the desired state at one site. A list is a JSON patch (RFC 6902), anything else a JSON
//! merge patch (RFC 7386).

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use json_patch::{PatchError, PatchErrorKind, PatchOperation, patch_unsafe};
use serde_json::Value;

use super::patch::merge_patch;
use crate::Limits;

/// The most steps of a JSON patch.
const MAX_STEPS: usize = 1_000;
/// The most that all steps of a JSON patch may do: so many values are looked at, copied or shifted in their list. About a
/// fifth of a second, and a hundred times what a patch of 1,000 steps does to lists of 40 elements.
const MAX_WORK: usize = 4_000_000;
/// A name that is looked for in a list is counted as one more for each so many bytes of it.
const BYTES_OF_WORK: usize = 64;
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
    /// Its steps do too much in all.
    #[error(
        "[{step}] of the override: up to here its steps look at, copy or shift more than {MAX_WORK} values of the desired state: \
         replace at once what several of them change, name elements of long lists by their place, or make several replicants of it"
    )]
    TooMuch {
        /// The step that was one too many.
        step: usize,
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

/// What is left of what the steps may do. Counted in values and never in time, so that all sites come to the same.
struct Budget(usize);

/// Why a step was not done.
enum Undone {
    /// It does not fit.
    Misfit(String),
    /// All steps together do too much.
    TooMuch,
}

impl Budget {
    fn spend(&mut self, work: usize) -> Result<(), Undone> {
        self.0 = self.0.checked_sub(work).ok_or(Undone::TooMuch)?;
        Ok(())
    }

    /// The levels of a value, and about its bytes.
    fn measure(&mut self, value: &Value) -> Result<(usize, usize), Undone> {
        let (mut deepest, mut bytes) = (0, 0_usize);
        let mut left = vec![(value, 1_usize)];
        while let Some((value, depth)) = left.pop() {
            self.spend(1)?;
            deepest = deepest.max(depth);
            bytes = bytes.saturating_add(value.as_str().map_or(4, str::len));
            match value {
                Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
                Value::Object(fields) => {
                    bytes = bytes.saturating_add(fields.keys().map(String::len).sum());
                    left.extend(fields.values().map(|field| (field, depth + 1)));
                }
                _ => {}
            }
        }
        Ok((deepest, bytes))
    }

    /// Who adds to a list, or takes out of it, shifts what is behind that place.
    fn shift(&mut self, value: &Value, path: &Pointer) -> Result<(), Undone> {
        let list = path.parent().and_then(|parent| value.pointer(parent.as_str())?.as_array());
        self.spend(list.map_or(0, Vec::len))
    }

    /// A pointer in which each step `[key=value]` through a list is the place of the element that has this.
    fn resolve(&mut self, value: &Value, pointer: &Pointer) -> Result<PointerBuf, Undone> {
        let mut now = Some(value);
        let mut found = PointerBuf::new();
        for token in pointer.tokens() {
            let name = token.decoded();
            let named = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')?.split_once('='));
            match (now, named) {
                (Some(Value::Array(items)), Some((key, wanted))) => {
                    self.spend(items.len().saturating_mul(1 + name.len() / BYTES_OF_WORK))?;
                    let (place, item) = the_one(items, key, wanted).map_err(Undone::Misfit)?;
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
}

/// The one element of a list that has a value under a key, and its place.
fn the_one<'v>(items: &'v [Value], key: &str, wanted: &str) -> Result<(usize, &'v Value), String> {
    let is = |item: &Value| match item.get(key) {
        Some(Value::String(text)) => text == wanted,
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
        Some(other) => {
            let text = other.to_string();
            text == wanted
        }
    };
    let mut places = items.iter().enumerate().filter(|(_, item)| is(item));
    let found = places.next().ok_or_else(|| format!("no element has {key}={wanted}"))?;
    match places.next() {
        Some(_) => Err(format!("several elements have {key}={wanted}")),
        None => Ok(found),
    }
}

/// Lays an override over a desired state: a JSON patch (RFC 6902) if it is a list, in whose pointers `[key=value]` is the
/// element of a list that has this; else a JSON merge patch (RFC 7386).
///
/// # Errors
/// [`OverrideError`] if it is a list and no JSON patch, if a step does not fit, if its steps do too much in all, or if the
/// result would be larger or deeper than a desired state may be. It is the same wherever the same is laid over the same.
pub fn lay_over(desired: &Value, laid: &Value) -> Result<Value, OverrideError> {
    let mut value = desired.clone();
    let Value::Array(steps) = laid else {
        merge_patch(&mut value, laid);
        return Ok(value);
    };
    check_override(laid)?;
    let mut patching = Patching { limits: Limits::default(), budget: Budget(MAX_WORK), copied: 0 };
    for (number, written) in steps.iter().enumerate() {
        let step = Step::read(number, written)?;
        patching.step(&mut value, &step).map_err(|undone| match undone {
            Undone::TooMuch => OverrideError::TooMuch { step: number },
            Undone::Misfit(reason) => {
                OverrideError::Misfit { step: number, op: step.op.to_owned(), path: step.path.to_string(), reason }
            }
        })?;
    }
    Ok(value)
}

/// A JSON patch that is being laid over a value.
struct Patching {
    limits: Limits,
    budget: Budget,
    /// What is copied may be copied again: without a bound, it would double with each step.
    copied: usize,
}

impl Patching {
    fn step(&mut self, value: &mut Value, step: &Step<'_>) -> Result<(), Undone> {
        let from = step.from.map(|from| self.budget.resolve(value, from)).transpose()?;
        if let Some(from) = &from
            && step.op == "move"
            && step.path.as_str().contains('[')
        {
            return self.take_and_put(value, from, step.path);
        }
        let path = self.budget.resolve(value, step.path)?;
        if let Some(added) = step.value.or_else(|| value.pointer(from.as_ref()?.as_str())) {
            self.fits(added, &path, step.op == "copy")?;
        }
        if let Some(from) = from.as_ref().filter(|_| step.op == "move") {
            self.budget.shift(value, from)?;
        }
        if !matches!(step.op, "replace" | "test") {
            self.budget.shift(value, &path)?;
        }
        patch_unsafe(value, &[operation(step, path, from)]).map_err(misfit)
    }

    /// What is moved is taken out first, and what comes after it in its list moves up: which elements the path means is found
    /// out without it.
    fn take_and_put(&mut self, value: &mut Value, from: &Pointer, path: &Pointer) -> Result<(), Undone> {
        self.budget.shift(value, from)?;
        let taken = value.pointer_mut(from.as_str()).map(std::mem::take);
        let taken = taken.ok_or_else(|| misfit_of(&PatchErrorKind::InvalidFromPointer))?;
        patch_unsafe(value, &[PatchOperation::Remove(json_patch::RemoveOperation { path: from.to_owned() })])
            .map_err(misfit)?;
        let path = self.budget.resolve(value, path)?;
        self.fits(&taken, &path, false)?;
        self.budget.shift(value, &path)?;
        patch_unsafe(value, &[PatchOperation::Add(json_patch::AddOperation { path, value: taken })]).map_err(misfit)
    }

    /// Refuses what would make the whole too large or too deep.
    fn fits(&mut self, added: &Value, path: &Pointer, is_copied: bool) -> Result<(), Undone> {
        let (depth, bytes) = self.budget.measure(added)?;
        self.copied = self.copied.saturating_add(if is_copied { bytes } else { 0 });
        if depth + path.count() > self.limits.max_depth || self.copied > self.limits.max_bytes {
            return Err(Undone::Misfit("what comes of it is too large or nested too deeply".into()));
        }
        Ok(())
    }
}

fn misfit(error: PatchError) -> Undone {
    misfit_of(&error.kind)
}

fn misfit_of(kind: &PatchErrorKind) -> Undone {
    Undone::Misfit(match kind {
        PatchErrorKind::TestFailed => "there is another value".into(),
        PatchErrorKind::InvalidFromPointer => "there is nothing at \"from\"".into(),
        PatchErrorKind::CannotMoveInsideItself => "it would be moved into itself".into(),
        _ => "there is no such place".into(),
    })
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
