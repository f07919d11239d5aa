//! Opening a directory: what the journals know and the files and notes do not is done again.
//!
//! After a power loss a file may be any of those that it was since the last checkpoint, a part of one of them, or missing.
//! Then it becomes what the journal says. A file that is none of these was edited by hand afterwards, and is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use khufu_crdt::ReplicantId;

use super::checkpoint::write_notes;
use super::journal::{Files, MAX_BYTES};
use super::latest::Latest;
use super::note::Noted;
use super::place::{Found, Place};
use super::record::{ALIGN, Entry, HEAD_BYTES, HEADER_BYTES, Head, Header, Kind, MARK};
use super::step::Step;
use crate::{DriverError, digest};

/// So many bytes are searched for a record at once.
const SEARCHED_BYTES: usize = 64 << 10;

/// A record, and where its contents are.
#[derive(Debug)]
struct Version {
    nth: usize,
    at: u64,
    length: usize,
    entry: Entry,
}

/// What can be read of a journal.
#[derive(Debug)]
struct Journal {
    header: Header,
    versions: Vec<Version>,
}

/// Brings files and notes to what the journals say, durably, and empties these. Can be repeated after a crash at any
/// point. Answers the generation to go on with.
pub(super) fn recover(place: &Place, files: &Files) -> Result<u64, DriverError> {
    let mut journals: Vec<(usize, Journal)> = Vec::new();
    for nth in 0..files.files.len() {
        // A process that was killed may not have come to these syncs. What is done here must not outlive its record, and a
        // journal that was emptied must not come back beside a newer one.
        match read(files, nth) {
            Some(journal) => {
                files.sync(nth)?;
                journals.push((nth, journal));
            }
            None if files.is_used(nth)? => files.empty(nth)?,
            None => {}
        }
    }
    // The older one also has to be emptied first: it alone would bring back what is over.
    journals.sort_by_key(|(_, journal)| journal.header.generation);
    let generation = journals.last().map_or(0, |(_, journal)| journal.header.generation);
    let order: Vec<usize> = journals.iter().map(|(nth, _)| *nth).collect();

    let mut histories: BTreeMap<ReplicantId, Vec<Version>> = BTreeMap::new();
    for version in journals.into_iter().flat_map(|(_, journal)| journal.versions) {
        let history = histories.entry(version.entry.id.clone()).or_default();
        if version.entry.kind == Kind::Void {
            history.pop_if(|last| last.entry.number == version.entry.number);
        } else {
            history.push(version);
        }
    }
    let mut settled = Vec::new();
    for (id, history) in histories {
        settled.extend(roll_forward(place, files, &history)?.map(|latest| (id, latest)));
    }
    if !settled.is_empty() {
        tracing::info!(replicas = settled.len(), "doing again what may not have come to the disk");
        for (id, _) in &settled {
            place.sync_file(id)?;
        }
        place.sync_dir()?;
        write_notes(place, &settled)?;
    }
    for nth in order {
        files.empty(nth)?;
    }
    Ok(generation.saturating_add(1))
}

/// Brings one file to what the newest record says; the note that is to be written. None if there is nothing to do.
fn roll_forward(place: &Place, files: &Files, history: &[Version]) -> Result<Option<Latest>, DriverError> {
    let Some(Version { entry: newest, .. }) = history.last() else { return Ok(None) };
    let id = &newest.id;
    let note = place.note(id);
    let mut known: BTreeSet<&String> =
        history.iter().flat_map(|version| [&version.entry.found, &version.entry.state.digest]).flatten().collect();
    if let Ok(Noted::Note(note)) = &note {
        // A note is written when its file is on the disk. What the file is now was done by hand. That the note itself is
        // on the disk is not known.
        if note.number >= newest.number {
            return Ok(Some(Latest { number: note.number, state: Some(note.state.clone()) }));
        }
        known.extend(&note.state.digest);
    }
    let latest =
        Latest { number: newest.number, state: Some(newest.state.clone()).filter(|_| newest.kind != Kind::Forgotten) };
    let found = match place.read(id) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%id, %error, "whether its last change came to the disk is not known");
            return Ok(Some(latest));
        }
    };
    let mark = found.mark();
    if mark == newest.state.digest {
        return Ok(Some(latest));
    }
    let is_ours = match &found {
        Found::Nothing => true,
        _ if mark.as_ref().is_some_and(|mark| known.contains(mark)) => true,
        Found::File(bytes) => {
            bytes.is_empty()
                || history.iter().any(|version| version.contents(files).is_some_and(|whole| is_part(bytes, &whole)))
        }
        Found::TooLarge(_) => false,
    };
    if !is_ours {
        tracing::warn!(%id, "it was edited by hand after its last change, and is left alone");
        return Ok(Some(latest));
    }
    match history.last().filter(|_| newest.kind == Kind::Written) {
        None => place.remove(id)?,
        Some(version) => {
            let Some(contents) = version.contents(files) else {
                tracing::warn!(%id, "its last change cannot be read from the journal");
                return Ok(Some(latest));
            };
            place.write_new(id, &contents, newest.mode)?;
            place.replace(id)?;
        }
    }
    place.hook.at(Step::RolledForward, &place.file(id))?;
    Ok(Some(latest))
}

/// Whether this may be what is left of a file that was not synced: its beginning, with holes.
fn is_part(found: &[u8], whole: &[u8]) -> bool {
    found.len() <= whole.len() && found.iter().zip(whole).all(|(found, whole)| found == whole || *found == 0)
}

impl Version {
    /// The contents that it wrote; none for a removal.
    fn contents(&self, files: &Files) -> Option<Vec<u8>> {
        if self.entry.kind != Kind::Written {
            return None;
        }
        let mut bytes = vec![0; self.length];
        files.files.get(self.nth)?.read_exact_at(&mut bytes, self.at).ok()?;
        (self.entry.state.digest.as_deref() == Some(&digest(&bytes))).then_some(bytes)
    }
}

/// All records of a journal that check out; none if there is no journal in the file.
fn read(files: &Files, nth: usize) -> Option<Journal> {
    let (file, path) = (files.files.get(nth)?, files.paths.get(nth)?.display());
    let length = file.metadata().ok()?.len().min(MAX_BYTES * 2);
    let mut bytes = [0; HEADER_BYTES];
    if length == 0 {
        return None;
    }
    let header = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| Header::decode(&bytes));
    let Some(header) = header else {
        if bytes != [0; HEADER_BYTES] {
            tracing::warn!(%path, "its beginning is damaged: what it has of the last changes is lost, if they are not on the disk");
        }
        return None;
    };
    let mut versions = Vec::new();
    let (mut at, mut sequence, mut damaged) = (HEADER_BYTES as u64, 0, None);
    loop {
        let head = head(file, header.seed, at, length).filter(|head| head.sequence > sequence);
        let version = head.and_then(|head| version(file, nth, head, at));
        match (head, version) {
            (Some(head), Some(version)) => {
                if let Some(from) = damaged.take() {
                    // The end of a journal is torn when a process or a machine goes down. This is not the end.
                    tracing::warn!(%path, from, to = at, "it is damaged there: changes may be lost if they are not on the disk");
                }
                sequence = head.sequence;
                versions.push(version);
                at += head.record_bytes();
            }
            (Some(head), None) => {
                damaged.get_or_insert(at);
                at += head.record_bytes();
            }
            (None, _) => {
                damaged.get_or_insert(at);
                let Some(next) = search(file, at + ALIGN as u64, length) else { break };
                at = next;
            }
        }
    }
    Some(Journal { header, versions })
}

fn head(file: &File, seed: u64, at: u64, length: u64) -> Option<Head> {
    let mut bytes = [0; HEAD_BYTES];
    file.read_exact_at(&mut bytes, at).ok()?;
    Head::decode(seed, &bytes).filter(|head| at + HEAD_BYTES as u64 + head.length as u64 <= length)
}

fn version(file: &File, nth: usize, head: Head, at: u64) -> Option<Version> {
    let from = at + HEAD_BYTES as u64;
    let mut body = vec![0; head.length];
    file.read_exact_at(&mut body, from).ok()?;
    let (entry, contents) = head.entry(&body)?;
    Some(Version { nth, at: from + contents as u64, length: head.length - contents, entry })
}

/// Where the next record may begin.
fn search(file: &File, mut at: u64, length: u64) -> Option<u64> {
    let mut bytes = vec![0; SEARCHED_BYTES];
    while at < length {
        let some = (length - at).min(SEARCHED_BYTES as u64) as usize;
        let bytes = bytes.get_mut(..some)?;
        file.read_exact_at(bytes, at).ok()?;
        if let Some(nth) = bytes.chunks(ALIGN).position(|chunk| chunk.starts_with(MARK)) {
            return Some(at + (nth * ALIGN) as u64);
        }
        at += some as u64;
    }
    None
}
