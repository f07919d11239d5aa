//! Directories that an earlier version of this program left behind.
//!
//! It had no journal. A change was written to `.khufu/<id>.<n>.next`, then the note got the number `n` with the states
//! before and after, and then that file was renamed to the replica's. So a change was done exactly if no `.next` of the
//! note's number is there any more. The note on a removal was written a second time when the file was gone.

use khufu_crdt::ReplicantId;
use serde::Deserialize;

use super::note::{Note, State};
use super::place::Place;
use crate::DriverError;

/// A note as it was.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Old {
    pub(super) number: u64,
    pub(super) before: State,
    pub(super) after: State,
}

impl Old {
    pub(super) const VERSION: u32 = 1;

    /// Reads a note of that version.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// The state before a change that did not happen.
    fn undone(mut self) -> Note {
        // An empty digest stood for a file that was not written from here.
        self.before.digest = self.before.digest.filter(|digest| !digest.is_empty());
        Note::new(self.number, self.before)
    }
}

/// Decides what was in the middle of a change when the earlier version ended, and removes what no one needs any more.
/// Can be repeated.
pub(super) fn upgrade(place: &Place) -> Result<(), DriverError> {
    let names = place.names()?;
    let mut stale = Vec::new();
    let mut decided = Vec::new();
    for name in &names {
        let Some((id, number)) = name.strip_suffix(".next").and_then(|rest| rest.rsplit_once('.')) else { continue };
        let (Ok(id), Ok(number)) = (id.parse::<ReplicantId>(), number.parse::<u64>()) else { continue };
        stale.push(name);
        if let Some(old) = place.old_note(&id)?
            && old.number == number
        {
            decided.push((id, old.undone()));
        }
    }
    for name in &names {
        let Some(Ok(id)) = name.strip_suffix(".json").map(str::parse::<ReplicantId>) else { continue };
        // A removal. Decided now, or a file made by hand would be taken for the old one.
        if let Some(old) = place.old_note(&id)?
            && (old.after.digest.is_none() && old.before.digest.is_some())
            && let Ok(found) = place.metadata(&id)
        {
            decided.push((id, if found.is_some() { old.undone() } else { Note::new(old.number, old.after) }));
        }
    }
    if !decided.is_empty() {
        for (id, note) in &decided {
            place.write_note(id, note)?;
        }
        place.sync_notes()?;
    }
    for name in stale {
        tracing::info!(name, "removing what an earlier version left behind");
        place.drop_own(name)?;
    }
    Ok(())
}
