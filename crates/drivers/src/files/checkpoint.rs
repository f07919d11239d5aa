//! Checkpoints: what the journal speaks of comes to the disk in its place, each replica once, however often it changed.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use khufu_crdt::ReplicantId;

use super::latest::Latest;
use super::note::Note;
use super::place::Place;
use super::replicas::Replicas;
use super::step::Step;
use crate::DriverError;

/// The end of a driver waits so long for its last checkpoint. What is not done by then stays in the journal.
const LAST_TAKES: Duration = Duration::from_secs(5);

impl Replicas {
    /// Settles what the journal speaks of, and empties it. Other replicas change meanwhile.
    pub(super) fn checkpoint(&self, until: Option<Instant>) -> Result<(), DriverError> {
        let _alone = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.settle_all(until);
        match &result {
            // The file is not what it seems; only the journal still has it.
            Err(error @ DriverError::Io { what: "sync", .. }) => self.journal.give_up(error),
            Err(error) => self.journal.is_stuck(error.clone()),
            Ok(()) => {}
        }
        result
    }

    fn settle_all(&self, until: Option<Instant>) -> Result<(), DriverError> {
        let Some(touched) = self.journal.turn_over()? else { return Ok(()) };
        let mut settled = Vec::new();
        for id in touched {
            if until.is_some_and(|until| Instant::now() > until) {
                let reason = format!("{} replicas were synced, which took too long", settled.len());
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
            // Whoever is in the middle of a change that the journal has is waited for.
            let _alone = self.lock(&id);
            if let Some(latest) = self.latest.get(&id) {
                self.place.sync_file(&id)?;
                settled.push((id, latest));
            }
        }
        self.place.sync_dir()?;
        // The notes say what the files were then; later changes are in the journal that goes on.
        write_notes(&self.place, &settled)?;
        self.journal.retire()?;
        self.latest.settled(&settled);
        Ok(())
    }
}

/// Writes the notes on files that are on the disk, durably.
pub(super) fn write_notes(place: &Place, settled: &[(ReplicantId, Latest)]) -> Result<(), DriverError> {
    place.hook.at(Step::FilesSettled, &place.dir)?;
    for (id, latest) in settled {
        let written = match &latest.state {
            Some(state) => place.write_note(id, &Note::new(latest.number, state.clone())),
            None => place.forget(id),
        };
        match written {
            // One that is in the way must not hold up all others.
            Err(error) if matches!(place.note(id), Err(DriverError::Refused { .. })) => {
                tracing::warn!(%id, %error, "what ran last is not written down");
            }
            written => written?,
        }
    }
    place.sync_notes()?;
    place.hook.at(Step::NotesSettled, &place.dir)
}

/// Makes checkpoints when they are due, and a last one when it is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    replicas: Arc<Replicas>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(replicas: Arc<Replicas>) -> Result<Self, DriverError> {
        let kept = replicas.clone();
        let keep = move || {
            while kept.journal.wait_until_due() {
                if let Err(error) = kept.checkpoint(None) {
                    tracing::warn!(%error, "no checkpoint: all changes are kept in the journal");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("khufu-journal".to_owned())
            .spawn(keep)
            .map_err(|source| DriverError::io("start a thread for", &replicas.place.dir, source))?;
        Ok(Self { replicas, thread: Some(thread) })
    }

    pub(super) fn replicas(&self) -> &Replicas {
        &self.replicas
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.replicas.journal.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if !self.replicas.place.hook.has_crashed()
            && let Err(error) = self.replicas.checkpoint(Some(Instant::now() + LAST_TAKES))
        {
            tracing::warn!(%error, "the journal keeps the last changes until the driver is started again");
        }
    }
}
