//! The replicas in a directory, and what is done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use khufu_crdt::{OperationId, ReplicantId};
use serde_json::Value;
use similar::TextDiff;

use super::change::Change;
use super::journal::{Files, Journal};
use super::latest::{AllLatest, Latest};
use super::note::{Noted, State};
use super::place::{Found, Place};
use super::record::{Entry, Kind};
use super::step::Step;
use super::{CONTENTS_SHOWN_BYTES, DIFF_SHOWN_BYTES, old, recover};
use crate::text::cut;
use crate::{Done, DriverError, Observed, Replica, Work, digest};

/// Computing a difference is given up after that; a coarser one is shown then.
const DIFF_TIME: Duration = Duration::from_secs(1);

/// What a file looked like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

#[derive(Debug)]
pub(super) struct Replicas {
    pub(super) place: Arc<Place>,
    pub(super) journal: Journal,
    pub(super) latest: AllLatest,
    /// Changes of one replica exclude each other. Two replicas share a lock now and then, which does no harm.
    locks: [Mutex<()>; 256],
    /// How each file looked when we last wrote it or saw it; none for no file.
    pub(super) looks: Mutex<BTreeMap<ReplicantId, Option<Look>>>,
    /// Checkpoints exclude each other.
    pub(super) checkpoints: Mutex<()>,
}

/// A replica as it is.
struct Held {
    number: u64,
    /// None if there is no note that could be read.
    state: Option<State>,
    garbage: Option<String>,
    found: Found,
}

impl Replicas {
    /// Opens a directory, with all that was made durable in it. None while another driver works there.
    pub(super) fn open(place: &Arc<Place>) -> Result<Option<Self>, DriverError> {
        let Some(files) = Files::open(place)? else { return Ok(None) };
        place.clean_up()?;
        old::upgrade(place)?;
        let generation = recover::recover(place, &files)?;
        Ok(Some(Self {
            place: place.clone(),
            journal: Journal::new(files, generation)?,
            latest: AllLatest::default(),
            locks: std::array::from_fn(|_| Mutex::default()),
            looks: Mutex::default(),
            checkpoints: Mutex::default(),
        }))
    }

    pub(super) fn lock(&self, id: &ReplicantId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let nth = hasher.finish() as usize % self.locks.len();
        self.locks[nth].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local_id(&self, id: &ReplicantId) -> Option<String> {
        Some(self.place.file(id).display().to_string())
    }

    fn held(&self, id: &ReplicantId) -> Result<Held, DriverError> {
        let found = self.place.read(id)?;
        let (number, state, garbage) = match self.latest.get(id) {
            Some(Latest { number, state }) => (number, state, None),
            None => match self.place.note(id)? {
                Noted::Nothing => (0, None, None),
                Noted::Garbage(reason) => (0, None, Some(reason)),
                Noted::Note(note) => (note.number, Some(note.state), None),
            },
        };
        Ok(Held { number, state, garbage, found })
    }

    /// All replicas that something is remembered of, sorted.
    pub(super) fn known(&self) -> Result<Vec<ReplicantId>, DriverError> {
        let mut ids: BTreeSet<ReplicantId> = self.place.noted()?.into_iter().collect();
        self.latest.correct(&mut ids);
        Ok(ids.into_iter().collect())
    }

    pub(super) fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let _alone = self.lock(&replica.id);
        let held = self.held(&replica.id)?;
        let (exists, digest, contents) = match &held.found {
            Found::Nothing => (false, None, None),
            Found::TooLarge(_) => (true, None, None),
            Found::File(bytes) => {
                let text = cut(&String::from_utf8_lossy(bytes), CONTENTS_SHOWN_BYTES);
                (true, Some(digest(bytes)), Some(Value::String(text)))
            }
        };
        Ok(Observed {
            exists,
            digest,
            drift: held.drift(replica.expected.as_deref()),
            contents,
            local_id: if exists { self.local_id(&replica.id) } else { None },
            marker: held.state.and_then(|state| state.last),
            unsettled: None,
            health: None,
        })
    }

    pub(super) fn apply(&self, replica: &Replica, work: &Work) -> Result<Done, DriverError> {
        let change = Change::of(work)?;
        self.journal.wait_for_room()?;
        let _alone = self.lock(&replica.id);
        let held = self.held(&replica.id)?;
        let last = match work {
            Work::Operation(operation) => Some(&operation.id),
            Work::Desired(_) | Work::Reset => None,
        };
        let current = held.state.clone().unwrap_or_default();
        if let (Change::Append(_), Some(id)) = (&change, last)
            && current.last.as_ref() == Some(id)
        {
            // It ran, and whoever asked did not learn of it.
            let output = format!("{id} had run already");
            return Ok(Done {
                output,
                local_id: self.local_id(&replica.id),
                digest: current.digest,
                ..Done::default()
            });
        }
        let before = match (&change, &held.found) {
            (_, Found::File(bytes)) => Some(bytes.as_slice()),
            (Change::Append(_), Found::TooLarge(size)) => {
                return Err(DriverError::Refused {
                    place: self.place.file(&replica.id).display().to_string(),
                    reason: format!("somebody made it {size} bytes large, too large to append to: make it shorter"),
                });
            }
            (_, Found::Nothing | Found::TooLarge(_)) => None,
        };
        let contents = change.make(before)?;
        let edited = match &change {
            Change::Append(_) => current.edited || held.drift(replica.expected.as_deref()).is_some(),
            Change::Whole(_) | Change::Remove => false,
        };
        let after = State { last: last.cloned(), digest: contents.as_deref().map(digest), edited };
        let output = summary(&self.place.file(&replica.id), before, contents.as_deref(), last);
        let done = Done {
            output,
            local_id: contents.as_ref().and_then(|_| self.local_id(&replica.id)),
            digest: after.digest.clone(),
            health: None,
        };
        let same_contents = before == contents.as_deref() && !matches!(held.found, Found::TooLarge(_));
        let nothing_at_all = held.state.is_none() && held.garbage.is_none() && contents.is_none();
        if same_contents && (nothing_at_all || held.state.as_ref() == Some(&after)) {
            return Ok(done);
        }
        match contents {
            Some(contents) => self.write(&replica.id, &held, after, &contents)?,
            None => self.remove(&replica.id, &held, Some(after))?,
        }
        Ok(done)
    }

    fn write(&self, id: &ReplicantId, held: &Held, after: State, contents: &[u8]) -> Result<(), DriverError> {
        let mode = self.place.metadata(id)?.map(|metadata| metadata.mode() & 0o7777);
        self.place.write_new(id, contents, mode)?;
        self.place.hook.at(Step::Written, &self.place.file(id))?;
        let entry = held.entry(id, Kind::Written, mode, after.clone());
        let written = self.in_the_journal(&entry, contents, || self.place.replace(id));
        if written.is_err() && !self.place.hook.has_crashed() {
            self.place.drop_new(id);
        }
        written?;
        self.has_become(id, Latest { number: entry.number, state: Some(after) })
    }

    /// Removes the file; no state afterwards means that nothing is to be remembered of it.
    fn remove(&self, id: &ReplicantId, held: &Held, after: Option<State>) -> Result<(), DriverError> {
        let kind = if after.is_some() { Kind::Removed } else { Kind::Forgotten };
        let entry = held.entry(id, kind, None, after.clone().unwrap_or_default());
        self.in_the_journal(&entry, b"", || self.place.remove(id))?;
        self.has_become(id, Latest { number: entry.number, state: after })
    }

    /// Makes a change of a file that the journal has before.
    fn in_the_journal(
        &self,
        entry: &Entry,
        contents: &[u8],
        change: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        self.journal.append(entry, contents)?;
        self.place.hook.at(Step::Journaled, &self.place.file(&entry.id))?;
        change().inspect_err(|_| {
            let void = Entry { kind: Kind::Void, ..entry.clone() };
            if let Err(error) = self.journal.append(&void, b"") {
                // It would be done when the directory is opened again, after all that comes now.
                self.journal.give_up(&error);
            }
        })
    }

    fn has_become(&self, id: &ReplicantId, latest: Latest) -> Result<(), DriverError> {
        self.latest.set(id, latest);
        self.place.hook.at(Step::Replaced, &self.place.file(id))?;
        self.remember(id)
    }

    pub(super) fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        self.journal.wait_for_room()?;
        let _alone = self.lock(&replica.id);
        let held = self.held(&replica.id)?;
        if held.found != Found::Nothing || held.state.is_some() || held.garbage.is_some() {
            self.remove(&replica.id, &held, None)?;
        }
        self.looks().remove(&replica.id);
        let path = self.place.file(&replica.id);
        let output = match held.found {
            Found::Nothing => format!("there was no {}", path.display()),
            Found::File(_) | Found::TooLarge(_) => format!("removed {}", path.display()),
        };
        Ok(Done { output, ..Done::default() })
    }

    pub(super) fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let found = {
            let _alone = self.lock(&replica.id);
            self.place.read(&replica.id)?
        };
        let path = self.place.file(&replica.id).display().to_string();
        let before = match found {
            Found::Nothing => None,
            Found::File(bytes) => Some(bytes),
            Found::TooLarge(size) => return Ok(format!("{path} has {size} bytes, too many to show a difference\n")),
        };
        let mut after = before.clone();
        for work in work {
            after = Change::of(work)?.make(after.as_deref())?;
        }
        if before == after {
            return Ok(String::new());
        }
        let text = |bytes: Option<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        let name = |bytes: &Option<Vec<u8>>| if bytes.is_some() { path.clone() } else { "/dev/null".to_owned() };
        let (old_name, new_name) = (name(&before), name(&after));
        let (old, new) = (text(before), text(after));
        let diff = TextDiff::configure().timeout(DIFF_TIME).diff_lines(&old, &new);
        let shown = diff.unified_diff().header(&old_name, &new_name).to_string();
        // An empty file that comes or goes has no lines to show.
        let shown = if shown.is_empty() { format!("--- {old_name}\n+++ {new_name}\n") } else { shown };
        Ok(cut(&shown, DIFF_SHOWN_BYTES))
    }

    fn looks(&self) -> MutexGuard<'_, BTreeMap<ReplicantId, Option<Look>>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a file looks now.
    fn look(&self, id: &ReplicantId) -> Result<Option<Look>, DriverError> {
        Ok(self.place.metadata(id)?.map(|metadata| Look {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
            inode: metadata.ino(),
        }))
    }

    fn remember(&self, id: &ReplicantId) -> Result<(), DriverError> {
        let look = self.look(id)?;
        self.looks().insert(id.clone(), look);
        Ok(())
    }

    /// Whether a file looks different from when we last wrote or saw it; for one not seen before, whether it differs
    /// from what its note says.
    pub(super) fn has_changed(&self, id: &ReplicantId) -> bool {
        let _alone = self.lock(id);
        let Ok(now) = self.look(id) else {
            // Something else is in its place, which was seen before or not.
            return self.looks().insert(id.clone(), None) != Some(None);
        };
        let seen = self.looks().insert(id.clone(), now);
        match seen {
            Some(seen) => seen != now,
            None => self.held(id).map_or(true, |held| held.drift(None).is_some()),
        }
    }
}

impl Held {
    /// What the journal is to have of the next change.
    fn entry(&self, id: &ReplicantId, kind: Kind, mode: Option<u32>, state: State) -> Entry {
        Entry { id: id.clone(), number: self.number + 1, kind, found: self.found.mark(), mode, state }
    }

    /// How the file differs from what was last written.
    fn drift(&self, expected: Option<&str>) -> Option<String> {
        let noted = self.state.as_ref().map_or(expected, |state| state.digest.as_deref());
        let found = match &self.found {
            Found::Nothing => None,
            Found::TooLarge(size) => return Some(format!("somebody made the file {size} bytes large")),
            Found::File(bytes) => Some(digest(bytes)),
        };
        match (noted, found.as_deref()) {
            (Some(_), None) => return Some("somebody removed the file".to_owned()),
            (None, Some(_)) if self.state.is_some() || self.garbage.is_none() => {
                return Some("there is a file that was not written from here".to_owned());
            }
            (Some(noted), Some(found)) if noted != found => {
                let short = |digest: &str| digest.chars().take(12).collect::<String>();
                return Some(format!(
                    "somebody edited the file: its digest is {}, it was written with {}",
                    short(found),
                    short(noted)
                ));
            }
            _ => {}
        }
        if let Some(reason) = &self.garbage {
            return Some(format!("what ran last is not known, as the note on the file cannot be read: {reason}"));
        }
        let edited = self.state.as_ref().is_some_and(|state| state.edited);
        edited.then(|| "somebody edited the file, and operations ran on it since".to_owned())
    }
}

fn summary(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>, operation: Option<&OperationId>) -> String {
    let path = path.display();
    let by = operation.map(|id| format!(" for {id}")).unwrap_or_default();
    match (before, after) {
        (None, None) => format!("there is no {path}"),
        (Some(_), None) => format!("removed {path}"),
        (None, Some(after)) => format!("wrote {path}{by}: {} bytes", after.len()),
        (Some(before), Some(after)) if before == after => format!("{path} is as it was{by}: {} bytes", after.len()),
        (Some(before), Some(after)) => format!("changed {path}{by}: {} bytes, were {}", after.len(), before.len()),
    }
}
