//! Looks at replicas: their contents, drift, health, and what became of what was sent and not answered.

use khufu_crdt::{Condition, Health, OperationId};
use serde_json::Value;

use super::fields::{differing, project, remove, text_at};
use super::note::{Begun, How, Ran};
use super::replicas::{At, Here, Replicas};
use super::template::Meanings;
use crate::{Done, DriverError, Observed, Replica, digest};

/// The most bytes of contents that are shown.
const MAX_SHOWN_BYTES: usize = 64 << 10;
/// The most fields that are named in drift.
const MAX_NAMED: usize = 5;

impl Replicas {
    pub(super) async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let mut at = self.at(replica).await?;
        let unsettled = at.settle().await?;
        let here = at.live().await?;
        let digest = here.as_ref().map(|here| at.digest(here));
        let health = here.as_ref().and_then(|here| at.health(here));
        let drift = at.drift(here.as_ref(), digest.as_deref());
        let marker = at.note.marker().cloned();
        let (local_id, contents) = match here {
            Some(here) => (Some(here.local_id), Some(here.object)),
            None => (None, None),
        };
        Ok(Observed {
            exists: contents.is_some(),
            digest,
            drift,
            contents: contents.filter(|contents| contents.to_string().len() <= MAX_SHOWN_BYTES),
            local_id,
            marker,
            unsettled,
            health,
        })
    }
}

impl At<'_> {
    /// Finds out what became of an operation that was sent and not answered. It is named if nobody can say.
    async fn settle(&mut self) -> Result<Option<OperationId>, DriverError> {
        let Some(begun) = self.note.begun.clone() else { return Ok(None) };
        let Begun { operation, sent, how, .. } = &begun;
        let ran = match how {
            How::Unknown => return Ok(Some(operation.clone())),
            How::Again => return Ok(None),
            How::Create => self.live().await?.map(|_| Ran { operation: operation.clone(), kept: [].into() }),
            How::Find(nth) => {
                let Some((allowed, find)) =
                    self.resource.operations.get(*nth).and_then(|allowed| Some((allowed, allowed.find.as_ref()?)))
                else {
                    // The configuration is another one now.
                    return Ok(Some(operation.clone()));
                };
                let meanings =
                    Meanings { operation: Some(operation.as_str()), key: Some(&sent.key), ..self.meanings() };
                let mut found = self.service().find(find, &meanings, self.until).await?;
                let pause = sent.may_go_on(self.resource.settle);
                if found.is_empty() && !pause.is_zero() {
                    // The service may still be at it.
                    tokio::time::sleep(pause).await;
                    found = self.service().find(find, &meanings, self.until).await?;
                }
                let kept = |element: &Value| {
                    let kept = allowed.keep.iter().filter_map(|(name, at)| Some((name.clone(), text_at(element, at)?)));
                    kept.collect()
                };
                found.first().map(|one| Ran { operation: operation.clone(), kept: kept(&one.element) })
            }
        };
        match ran {
            Some(ran) => {
                let undo = self.can_undo();
                self.note.has_run(ran, undo);
            }
            // It did not run, and is run if it is still wanted.
            None => self.note.begun = None,
        }
        self.save().await?;
        Ok(None)
    }

    /// Whether operations can be taken back, so that they have to be remembered.
    pub(super) fn can_undo(&self) -> bool {
        self.resource.operations.iter().any(|allowed| allowed.undo.is_some())
    }

    /// What is compared between sites.
    fn contents(&self, here: &Here) -> Value {
        let resource = self.resource;
        if !resource.contents.is_empty() {
            let fields = resource.contents.iter();
            return fields.map(|at| (at.clone(), here.object.pointer(at).cloned().unwrap_or_default())).collect();
        }
        let mut contents = match &self.note.object {
            // What operations have done shows in fields that nobody desired.
            Some(object) if self.note.ran.is_empty() => project(&here.object, object),
            _ => {
                let mut whole = here.object.clone();
                resource.local_id.iter().for_each(|pointer| remove(&mut whole, &self.local_id_in(pointer)));
                whole
            }
        };
        resource.ignore.iter().for_each(|pointer| remove(&mut contents, pointer));
        contents
    }

    /// Where the object has what an answer has there.
    fn local_id_in(&self, pointer: &str) -> String {
        pointer.strip_prefix(&self.resource.answer).unwrap_or(pointer).to_owned()
    }

    pub(super) fn digest(&self, here: &Here) -> String {
        // serde_json keeps the fields of objects sorted, so equal contents have equal text.
        digest(self.contents(here).to_string().as_bytes())
    }

    fn drift(&self, here: Option<&Here>, digest: Option<&str>) -> Option<String> {
        let Some(here) = here else {
            let was_there = self.replica.expected.is_some() || self.note.object.is_some() || !self.note.ran.is_empty();
            return was_there.then(|| "there is no replica any more".to_owned());
        };
        if let (Some(object), true) = (&self.note.object, self.note.ran.is_empty()) {
            let mut wanted = object.clone();
            self.resource.ignore.iter().for_each(|pointer| remove(&mut wanted, pointer));
            let mut found = Vec::new();
            differing(Some(&here.object), &wanted, "", &mut found);
            let shown =
                |value: Option<&Value>| value.map_or("missing".to_owned(), |it| super::shorten(&it.to_string()));
            let words: Vec<_> = found
                .iter()
                .take(MAX_NAMED)
                .map(|(path, has, wanted)| format!("{path} is {} instead of {}", shown(*has), shown(Some(wanted))))
                .collect();
            if !words.is_empty() {
                let more = found.len().saturating_sub(MAX_NAMED);
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                return Some(format!("{}{more}", words.join(", ")));
            }
        }
        let other = self.replica.expected.as_deref().is_some_and(|expected| digest != Some(expected));
        other.then(|| "its contents are not what was made of it".to_owned())
    }

    /// How it is doing, if the configuration says where that is.
    pub(super) fn health(&self, here: &Here) -> Option<Health> {
        let rule = self.resource.health.as_ref()?;
        let value = here.object.pointer(&rule.field).unwrap_or(&Value::Null);
        let condition = match () {
            () if rule.current.contains(value) => Condition::Current,
            () if rule.progress.contains(value) => Condition::InProgress,
            () if rule.failed.contains(value) => Condition::Failed,
            () => Condition::Unknown,
        };
        let said = rule.message.as_deref().and_then(|pointer| text_at(&here.object, pointer));
        let message = match condition {
            Condition::Current => said.unwrap_or_default(),
            _ => said.unwrap_or_else(|| format!("{} is {value}", rule.field)),
        };
        Some(Health { condition, message: super::shorten(&message) })
    }

    /// What is said of work that was done.
    pub(super) fn done(&self, output: String, here: Option<Here>) -> Done {
        let digest = here.as_ref().map(|here| self.digest(here));
        let health = here.as_ref().and_then(|here| self.health(here));
        Done { output, digest, health, local_id: here.map(|here| here.local_id) }
    }
}
