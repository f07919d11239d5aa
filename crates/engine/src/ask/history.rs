//! Who changed what, when and why: what the document knows, and before that what closed epochs knew that are kept.

use std::collections::BTreeSet;

use khufu_crdt::{Actor, ChangeHash, DocumentId, HistoryEntry, Replicant, ReplicantId};

use super::view::not_found;
use crate::origin::Origin;
use crate::record::{archived_epoch, archives_prefix};
use crate::{Engine, Output, Record, RequestError, Response};

/// The most entries of one answer about history.
const MAX_HISTORY: usize = 10_000;
/// The most who wait for archived epochs.
const MAX_WAITING: usize = 1024;

impl Engine {
    pub(super) fn history(&mut self, id: &ReplicantId, origin: Origin, limit: usize) {
        let limit = limit.clamp(1, MAX_HISTORY);
        let archived = self.replicants.held(id).is_some_and(|entry| !entry.archives.is_empty());
        let Some(resident) = self.replicants.resident.get(id) else {
            return self.answer(&origin, Err(not_found(id)));
        };
        let mut history = resident.doc.history();
        if !archived || history.len() >= limit {
            let skip = history.len().saturating_sub(limit);
            return self.answer(&origin, Ok(Response::History(history.split_off(skip))));
        }
        if self.asks.histories.values().map(Vec::len).sum::<usize>() >= MAX_WAITING {
            let message = "too many ask for histories: ask again later".to_owned();
            return self.answer(&origin, Err(RequestError::Busy { message }));
        }
        let waiting = self.asks.histories.entry(id.clone()).or_default();
        waiting.push((origin, limit));
        if waiting.len() == 1 {
            self.outbox.after(Output::Load { replicant: id.clone(), prefix: archives_prefix(id) });
        }
    }

    /// The archived epochs of a replicant could not be read.
    pub(crate) fn archives_unread(&mut self, id: &ReplicantId, error: &str) {
        let site = &self.config.site;
        let message = format!("the history of {id} could not be read from the disk of site {site}: {error}; ask again");
        for (origin, _) in self.asks.histories.remove(id).unwrap_or_default() {
            self.answer(&origin, Err(RequestError::Storage { message: message.clone() }));
        }
    }

    /// What was to be read is not: whoever asks again is told.
    pub(crate) fn end_histories(&mut self) {
        for (id, waiting) in std::mem::take(&mut self.asks.histories) {
            let message = format!("{id} was busy: ask again");
            for (origin, _) in waiting {
                self.answer(&origin, Err(RequestError::Busy { message: message.clone() }));
            }
        }
    }

    /// The archived epochs of a replicant have been read.
    pub(crate) fn archives_loaded(&mut self, id: &ReplicantId, records: &[Record]) {
        let waiting = self.asks.histories.remove(id).unwrap_or_default();
        let prefix = archives_prefix(id);
        let Some(resident) = self.replicants.resident.get(id) else {
            // It was given away or left memory meanwhile: whoever asks again is told.
            let message = format!("{id} was busy: ask again");
            for (origin, _) in waiting {
                self.answer(&origin, Err(RequestError::Busy { message: message.clone() }));
            }
            return;
        };
        let mut whole: Vec<HistoryEntry> = Vec::new();
        for record in records {
            let epoch = record.key.strip_prefix(prefix.as_slice()).and_then(archived_epoch);
            let Some(epoch) = epoch.filter(|epoch| *epoch < resident.doc.id().epoch) else { continue };
            let document = DocumentId { replicant: id.clone(), epoch };
            // What is damaged of it is not shown: it is only history.
            if let Ok(loaded) = Replicant::load(document, &Actor::new([0; 16]), Some(&record.value), &[]) {
                whole.extend(loaded.replicant.history());
            }
        }
        whole.extend(resident.doc.history());
        // What was carried over is shown as it was carried over.
        let carried: BTreeSet<ChangeHash> = whole.iter().filter_map(|entry| entry.carried).collect();
        whole.retain(|entry| !carried.contains(&entry.hash));
        for (origin, limit) in waiting {
            let skip = whole.len().saturating_sub(limit);
            self.answer(&origin, Ok(Response::History(whole.iter().skip(skip).cloned().collect())));
        }
    }
}
