//! What was acknowledged is there in the end, unless somebody who knew of it wanted otherwise.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{ChangeHash, HistoryEntry, Replicant};
use serde_json::Value;

use super::broken::Broken;
use super::contents::tells_of;
use super::counters::Kind;
use super::model::Write;
use super::plan::NAMES;
use super::run::Run;

/// The history of a document, to ask what came after what.
struct History {
    entries: Vec<HistoryEntry>,
}

impl History {
    fn find(&self, is_it: impl Fn(&HistoryEntry) -> bool) -> Option<&HistoryEntry> {
        self.entries.iter().find(|entry| is_it(entry))
    }

    /// All changes that come after one of these, or are one.
    fn after(&self, changes: impl IntoIterator<Item = ChangeHash>) -> BTreeSet<ChangeHash> {
        let mut after: BTreeSet<ChangeHash> = changes.into_iter().collect();
        // No entry stands before its parents.
        for entry in &self.entries {
            if entry.parents.iter().any(|parent| after.contains(parent)) {
                after.insert(entry.hash);
            }
        }
        after
    }

    /// Whether a deletion knew of a change.
    fn is_deleted(&self, change: ChangeHash) -> bool {
        let after = self.after([change]);
        self.find(|entry| entry.what == "delete" && after.contains(&entry.hash)).is_some()
    }
}

impl Run<'_> {
    /// What was acknowledged is there.
    pub(super) fn check_acknowledged(&mut self, of: usize, document: &Replicant) -> Result<(), Broken> {
        let name = NAMES[of];
        let Some(told) = self.model.told.get(name) else { return Ok(()) };
        let newest = document.id().epoch;
        let history = History { entries: document.history() };
        let lost = |lost: String| Err(Broken::AcknowledgedLost { name: name.to_owned(), lost });
        let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
        for operation in &told.operations {
            let there = tells_of(document, operation);
            *counts.entry(if there { Kind::Survived } else { Kind::Ended }).or_default() += 1;
            let ended = || {
                // Asked for at two sites under one id, it is written twice, and ended by who knew of either.
                let mut made =
                    history.entries.iter().filter(|entry| entry.operation.as_ref() == Some(operation)).peekable();
                match made.peek() {
                    Some(_) => made.any(|made| history.is_deleted(made.hash)),
                    // It was closed over: whether it was, is looked at below.
                    None => document.is_successor() && history.find(|entry| entry.what == "delete").is_some(),
                }
            };
            if !there && !ended() {
                return lost(format!("operation {operation}"));
            }
        }
        // In a later epoch they have other names.
        for (_, change) in told.changes.iter().filter(|(epoch, _)| *epoch == newest) {
            if !document.has(change) {
                return lost(format!("change {change}"));
            }
        }
        for write in told.writes.iter().filter(|write| write.epoch == newest) {
            if document.state().deleted.is_some() {
                // To make it is to say that it is not deleted.
                if write.made && !history.is_deleted(write.change) {
                    return lost(format!("that {name} was made in change {}", write.change));
                }
            } else if let Some((field, value)) = write.field.as_ref().filter(|_| !shows(document, &history, write)) {
                return lost(format!("{field} = {value} of change {}", write.change));
            } else if write.made && history.find(|entry| entry.what == "delete").is_some() {
                *counts.entry(Kind::OutlivedDeletions).or_default() += 1;
            }
        }
        for before in told.documents.iter().filter(|before| before.id().epoch < newest) {
            let mut with = document.clone();
            match before.carry_into(&mut with, &[]) {
                Ok(carried) if carried.made.is_empty() => *counts.entry(Kind::Carried).or_default() += 1,
                Ok(carried) => {
                    let made: BTreeSet<_> = carried.made.iter().map(|(change, _)| change.hash).collect();
                    let history = with.history();
                    let missing = history.iter().filter(|entry| made.contains(&entry.hash));
                    let words: Vec<String> = missing.map(|entry| format!("{entry:?}")).collect();
                    return lost(format!("of epoch {}: {}", before.id().epoch, words.join(", ")));
                }
                Err(error) => return lost(format!("changes of epoch {}: {error}", before.id().epoch)),
            }
        }
        for (kind, times) in counts {
            self.happened.add(kind, times);
        }
        Ok(())
    }
}

/// Whether a value that was written is to be seen, be it as one of several in conflict, as long as nobody has changed
/// anything after it.
fn shows(document: &Replicant, history: &History, write: &Write) -> bool {
    let Some((field, value)) = &write.field else { return true };
    let after = history.after([write.change]);
    let edits = |entry: &HistoryEntry| {
        matches!(entry.what.as_str(), "create" | "desired" | "delete" | "pick") && entry.hash != write.change
    };
    if history.find(|entry| edits(entry) && after.contains(&entry.hash)).is_some() {
        return true;
    }
    let pointer = format!("/desired/{field}");
    let value = Value::from(*value);
    document.state().desired.get(field) == Some(&value)
        || document.conflicts().iter().any(|conflict| {
            pointer.starts_with(&conflict.pointer())
                && conflict.values.iter().any(|at| at.value == value || at.value.get(field) == Some(&value))
        })
}
