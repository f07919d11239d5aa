//! Operations: stored requests, each sent once, or nobody knows.

use khufu_crdt::Operation;

use super::fields::text_at;
use super::kinds::Allowed;
use super::note::{Begun, How, Note, Ran, Sent};
use super::payload::Asked;
use super::replicas::{At, Replicas};
use super::service::{Ask, Heard};
use super::template::{Hole, Meanings};
use crate::{Done, DriverError, Replica};

/// What of an answer is told with a success.
const MAX_OUTPUT_BYTES: usize = 4 << 10;

impl Replicas {
    /// Runs an operation on a replica as it is.
    pub(super) async fn operate(&self, replica: &Replica, operation: &Operation) -> Result<Done, DriverError> {
        let asked = Asked::of(operation)?;
        let mut at = self.at(replica).await?;
        let (nth, allowed) = asked.allowed(at.resource)?;
        if allowed.creates {
            // What is created takes the place of what was there.
            let begun = at.note.begun.clone();
            at.remove().await?;
            at.note.begun = begun;
            if at.may_be_lost() && !allowed.repeatable && !at.resource.create_again {
                return Err(at.maybe_created());
            }
        } else if asked.path.has(&Hole::LocalId) && at.note.local_id.is_none() && at.live().await?.is_none() {
            return Err(at.missing());
        }
        let how = how(&at, &asked, nth, allowed);
        // With what was sent before and not answered, of which a refusal now says nothing.
        let before = at.note.clone();
        let key = match at.note.begun.take().filter(|begun| begun.operation == operation.id) {
            // The service knows by its key that it is the same.
            Some(begun) => begun.sent.key,
            None => super::name(),
        };
        let (sent, creates) = (Sent::now(key.clone()), allowed.creates);
        at.note.begun = Some(Begun { operation: operation.id.clone(), sent, how, creates });
        let meanings = Meanings { operation: Some(operation.id.as_str()), key: Some(&key), ..at.meanings() };
        let ask = asked.request(&self.service, allowed, &meanings)?;
        at.save().await?;
        let answer = match self.service.ask(ask, at.until).await {
            Ok(Heard::Done(answer)) => answer,
            Ok(Heard::Gone) => return Err(at.missing()),
            Err(error) => return Err(at.failed(before, asked.path.has(&Hole::LocalId), error).await),
        };
        let kept = answer.json().map(|json| {
            let kept = allowed.keep.iter().filter_map(|(name, pointer)| Some((name.clone(), text_at(&json, pointer)?)));
            kept.collect()
        });
        if allowed.creates {
            at.note.local_id = at.resource.local_id_in(&answer, at.id());
            at.note.creating = None;
        }
        let undo = at.can_undo();
        at.note.has_run(Ran { operation: operation.id.clone(), kept: kept.unwrap_or_default() }, undo);
        if let Err(error) = at.save().await {
            // Should the process end before somebody else has noted it, it is found out as after a crash.
            tracing::warn!(id = %replica.id, %error, "cannot note that an operation has run");
        }
        Ok(at.looked(answer.text(MAX_OUTPUT_BYTES)).await)
    }

    /// Takes back the operation that ran last.
    pub(super) async fn undo(&self, replica: &Replica, operation: &Operation) -> Result<Done, DriverError> {
        let asked = Asked::of(operation)?;
        let mut at = self.at(replica).await?;
        let (_, allowed) = asked.allowed(at.resource)?;
        let Some(undo) = &allowed.undo else {
            return Err(DriverError::Unsupported {
                kind: "http".to_owned(),
                what: "take this operation back: the driver's file has no `undo` for it",
            });
        };
        let Some(ran) = at.note.ran.last().filter(|ran| ran.operation == operation.id) else {
            let place = format!("{} {}", at.resource.name, at.id());
            let reason = format!("{} is not remembered as what ran last: it cannot be taken back", operation.id);
            return Err(DriverError::Refused { place, reason });
        };
        let key = super::name();
        let kept = ran.kept.clone();
        let operation = Some(operation.id.as_str());
        let meanings = Meanings { operation, key: Some(&key), kept: Some(&kept), ..at.meanings() };
        let ask = self.service.request(undo, &meanings, None)?;
        let output = match self.service.ask(ask, at.until).await? {
            Heard::Done(answer) => answer.text(MAX_OUTPUT_BYTES),
            Heard::Gone => "it was gone already".to_owned(),
        };
        at.note.ran.pop();
        at.save().await?;
        Ok(at.looked(output).await)
    }

    /// The request that an operation comes to, for people.
    pub(super) fn shown(&self, at: &At<'_>, operation: &Operation) -> Result<String, DriverError> {
        let asked = Asked::of(operation)?;
        let (_, allowed) = asked.allowed(at.resource)?;
        let local_id = at.note.local_id.as_deref().or(at.replica.local_id.as_deref()).unwrap_or("NEW");
        let operation = Some(operation.id.as_str());
        let meanings = Meanings { operation, key: Some("KEY"), local_id: Some(local_id), ..at.meanings() };
        let Ask { method, url, body, .. } = asked.request(&self.service, allowed, &meanings)?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let body = body.map(|body| format!(" {}", super::shorten(&String::from_utf8_lossy(&body)))).unwrap_or_default();
        Ok(format!("+ {method} {}{query}{body}\n", url.path()))
    }
}

/// How it would be found out whether an operation has run.
fn how(at: &At<'_>, asked: &Asked, nth: usize, allowed: &Allowed) -> How {
    // What has no field for a mark is not found by one.
    let is_marked = allowed.mark.is_none() || asked.is_marked();
    match () {
        () if allowed.creates && at.resource.find.is_some() && is_marked => How::Create,
        () if allowed.repeatable => How::Again,
        () if allowed.creates && at.resource.local_id.is_none() => How::Create,
        () if allowed.find.is_some() && is_marked => How::Find(nth),
        () => How::Unknown,
    }
}

impl At<'_> {
    /// There is nothing that an operation could be run on.
    fn missing(&self) -> DriverError {
        let was_there = self.replica.written.is_some() || self.note.desired.is_some() || !self.note.ran.is_empty();
        let place = format!("{} {}", self.resource.name, self.id());
        if was_there {
            return DriverError::Lost { place };
        }
        let reason =
            format!("{place} is not there yet: an operation that creates it, or a desired state, has to come first");
        DriverError::Failed { reason, again: false }
    }

    /// A request was no success: it has done nothing, and what was noted before it counts, or nobody knows.
    async fn failed(&mut self, before: Note, needs_it: bool, error: DriverError) -> DriverError {
        if matches!(error, DriverError::Timeout { .. } | DriverError::Unanswered { .. }) {
            // From now on it is waited for what the service may still do.
            if let Some(begun) = &mut self.note.begun {
                begun.sent = Sent::now(begun.sent.key.clone());
            }
        } else {
            self.note = before;
        }
        if let Err(error) = self.save().await {
            // It counts as begun with what was noted before, and nobody knows better after a crash.
            tracing::warn!(id = %self.replica.id, %error, "cannot note what became of an operation");
        }
        let refused = matches!(error, DriverError::Failed { .. });
        // A refusal may be because somebody has removed what it was about.
        if refused && needs_it && matches!(self.live().await, Ok(None)) {
            return self.missing();
        }
        error
    }

    /// What was done, also if the replica cannot be looked at now.
    async fn looked(&mut self, output: String) -> Done {
        let here = match self.live().await {
            Ok(here) => here,
            Err(error) => {
                tracing::warn!(id = %self.replica.id, %error, "cannot look at a replica that was changed");
                None
            }
        };
        let local_id = self.note.local_id.clone();
        let done = self.done(output, here);
        Done { local_id: done.local_id.or(local_id), ..done }
    }
}
