//! What one site has executed.

use serde::{Deserialize, Serialize};

use super::{Capabilities, Step};
use crate::{OperationId, Operations, Policy};

/// How the execution of one step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was tried as often as the policy allows; the contents are as they were.
    Failed,
    /// It was left out for good, by a person or a driver; the contents are as they were.
    Skipped,
}

/// One operation that a site has executed, failed or left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// The operation.
    pub id: OperationId,
    /// How it ended.
    pub outcome: Outcome,
}

/// The exact sequence that a site has executed since its base: the replica as new or after a reset, or else the absolute
/// operation with which the sequence begins. To be stored before a driver is called and after it has answered.
///
/// ```
/// # use khufu_crdt::{Applied, OperationId, Outcome, Step};
/// let id = OperationId::new("a.1")?;
/// let mut applied = Applied::default();
/// applied.start(Step::Run(id.clone()));
/// // Store it, call the driver. A crash from here on is seen by the open intent.
/// assert_eq!(applied.intent(), Some(&Step::Run(id.clone())));
/// applied.finish(Outcome::Succeeded);
/// assert_eq!(applied.outcome(&id), Some(Outcome::Succeeded));
/// # Ok::<(), khufu_crdt::NameError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Applied {
    entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<Step>,
    /// What could not be undone, or `reset` if that failed: not planned again while what it was about is still there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Step>,
}

/// What to do about an intent that has no result, after a crash or when a driver's answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Call the driver again with the same step, then [`finish`](Applied::finish).
    Repeat,
    /// Ask the driver whether it happened: then [`finish`](Applied::finish), else
    /// [`abandon_intent`](Applied::abandon_intent).
    Observe,
    /// Neither is safe: a person has to say whether it happened.
    Ask,
}

impl Applied {
    /// Records what is about to be done. Store this before the driver is called.
    ///
    /// [`Step::Forget`] needs no driver: it is done at once and leaves no intent. An earlier intent that is still open
    /// counts as done.
    pub fn start(&mut self, step: Step) {
        if self.intent.as_ref() == Some(&step) {
            return;
        }
        self.finish(Outcome::Succeeded);
        match step {
            Step::Forget(id) => self.remove(&id),
            step => self.intent = Some(step),
        }
    }

    /// Records how the open intent ended; does nothing if there is none. Store this before anything else is started.
    ///
    /// An operation that failed or was skipped keeps its place. A rebase that succeeded leaves only its operation, a
    /// reset nothing, an undo all but its operation. An undo or a reset that failed for good is not planned again.
    pub fn finish(&mut self, outcome: Outcome) {
        match (self.intent.take(), outcome) {
            (Some(Step::Rebase(id)), Outcome::Succeeded) => {
                self.entries = vec![Entry { id, outcome }];
                self.refused.clear();
            }
            (Some(Step::Run(id) | Step::Rebase(id)), _) => self.entries.push(Entry { id, outcome }),
            (Some(Step::Undo(id) | Step::Forget(id)), Outcome::Succeeded) => self.remove(&id),
            (Some(Step::Reset), Outcome::Succeeded) => {
                self.entries.clear();
                self.refused.clear();
            }
            (Some(step @ (Step::Undo(_) | Step::Reset)), Outcome::Failed) => self.refused.push(step),
            (_, _) => {}
        }
    }

    /// What was executed under this id was another operation than the one that has it now. It stays in the sequence as
    /// `other`, which no list must hold, so that it is taken back or built over like all that does not stay; and the one
    /// that has the id now counts as never executed. An open intent about it counts as done.
    pub fn disown(&mut self, id: &OperationId, other: &OperationId) {
        if self.intent.as_ref().and_then(Step::operation) == Some(id) {
            self.finish(Outcome::Succeeded);
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.id == *id) {
            entry.id = other.clone();
        }
    }

    /// The open intent turned out never to have happened: after a failure that will be tried again, or when `observe`
    /// shows it after a crash.
    pub fn abandon_intent(&mut self) {
        self.intent = None;
    }

    /// What was started and has no result yet.
    #[must_use]
    pub fn intent(&self) -> Option<&Step> {
        self.intent.as_ref()
    }

    /// What has a result, in the order of execution.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All that counts as executed, in that order: the entries as the open intent will have left them.
    #[must_use]
    pub fn sequence(&self) -> Vec<&OperationId> {
        self.done().into_iter().map(|(id, _)| id).collect()
    }

    /// [`sequence`](Self::sequence) with the results, as far as they are known.
    pub(super) fn done(&self) -> Vec<(&OperationId, Option<Outcome>)> {
        let mut done: Vec<_> = self.entries.iter().map(|e| (&e.id, Some(e.outcome))).collect();
        match &self.intent {
            // A rebase only becomes the base with its result.
            Some(Step::Run(id) | Step::Rebase(id)) => done.push((id, None)),
            Some(Step::Undo(id) | Step::Forget(id)) => {
                if let Some(position) = self.position(id) {
                    done.remove(position);
                }
            }
            Some(Step::Reset) => done.clear(),
            None => {}
        }
        done
    }

    /// How an operation ended here, at its last execution; none if it has no result (any more).
    #[must_use]
    pub fn outcome(&self, id: &OperationId) -> Option<Outcome> {
        self.entries.iter().rfind(|e| e.id == *id).map(|e| e.outcome)
    }

    /// Whether a step of this kind failed for good and is not to be planned again.
    #[must_use]
    pub fn is_refused(&self, step: &Step) -> bool {
        self.refused.contains(step)
    }

    /// A person wants everything that failed for good to be tried again where that is possible: undos and resets, and
    /// what failed or was skipped at the end of the sequence.
    pub fn retry(&mut self) {
        self.refused.clear();
        while self.entries.pop_if(|e| e.outcome != Outcome::Succeeded).is_some() {}
    }

    /// How to find out what became of the open intent after a crash; none if there is no intent.
    #[must_use]
    pub fn recovery(&self, operations: &Operations, policy: &Policy, capabilities: &Capabilities) -> Option<Recovery> {
        let again = match self.intent.as_ref()? {
            Step::Run(id) => operations.get(id).is_some_and(|o| policy.is_idempotent(&o.op_type)),
            Step::Rebase(_) | Step::Reset | Step::Forget(_) => true,
            Step::Undo(_) => false,
        };
        Some(match (again, capabilities.observe) {
            (true, _) => Recovery::Repeat,
            (false, true) => Recovery::Observe,
            (false, false) => Recovery::Ask,
        })
    }

    fn position(&self, id: &OperationId) -> Option<usize> {
        self.entries.iter().rposition(|e| e.id == *id)
    }

    fn remove(&mut self, id: &OperationId) {
        // What failed or was skipped after it keeps its result.
        if let Some(position) = self.position(id) {
            self.entries.remove(position);
        }
    }
}
