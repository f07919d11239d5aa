//! The Automerge sync protocol.

use std::collections::{BTreeMap, BTreeSet};

use automerge::sync::{ChunkList, Message, State, SyncDoc};

use super::chunk::{self, Kind};
use super::replicant::guarded;
use super::{ApplyError, Change, ChangeHash, Received, Replicant};

/// Where the exchange about one document with one peer stands. Needs a reliable stream in order; it is made when
/// digests differ and dropped when neither side has anything to say, or the stream broke.
#[derive(Debug, Clone, Default)]
pub struct SyncState(State);

impl Replicant {
    /// The next message for a peer; none if there is nothing to say until the peer has spoken, or any more.
    #[must_use]
    pub fn sync_message(&self, state: &mut SyncState) -> Option<Vec<u8>> {
        let mut message = guarded(|| Ok(self.doc.generate_sync_message(&mut state.0))).ok().flatten()?;
        self.ask_for_missing(&mut message, state);
        guarded(|| Ok(message.encode())).ok()
    }

    /// What the peer's filter took for known here, and is not, has to be asked for by name: what the waiting changes
    /// wait for, not these themselves. Automerge looks for them in its own queue only.
    fn ask_for_missing(&self, message: &mut Message, state: &SyncState) {
        let mut left = std::mem::take(&mut message.need);
        let mut seen = BTreeSet::new();
        while let Some(hash) = left.pop() {
            if self.holds(&hash) || !seen.insert(hash) {
                continue;
            }
            match self.queue.get(&hash.into()) {
                Some(waiting) => left.extend_from_slice(waiting.deps()),
                None => message.need.push(hash),
            }
        }
        message.need.sort_unstable();
        let theirs = state.0.their_heads.as_deref().unwrap_or_default();
        if !message.need.iter().all(|hash| theirs.contains(hash)) {
            // So that only these are sent.
            message.have.clear();
        }
    }

    /// Takes a peer's message. What was new in it must be stored before the next message is sent.
    ///
    /// # Errors
    /// [`ApplyError`] for what is no message, or too large; the document is unharmed and the exchange begins anew with
    /// another state. Changes refused by themselves are named in [`Received::rejected`] instead.
    pub fn receive_sync(&mut self, state: &mut SyncState, bytes: &[u8]) -> Result<Received, ApplyError> {
        let max = self.limits.remote_bytes();
        if bytes.len() > max {
            return Err(ApplyError::TooLarge { size: bytes.len(), max });
        }
        let mut message =
            guarded(|| Message::decode(bytes).map_err(|error| error.to_string())).map_err(ApplyError::Message)?;
        let received = self.take_pieces(&message.changes);
        if !message.changes.is_empty() {
            // Taken above, with our checks. Automerge gets a change it has instead, since that there were some matters
            // to the exchange.
            message.changes = ChunkList::from(self.genesis.bytes.clone());
        }
        let mut next = state.0.clone();
        let doc = &mut self.doc;
        guarded(|| doc.receive_sync_message(&mut next, message).map_err(|error| error.to_string()))
            .map_err(ApplyError::Automerge)?;
        state.0 = next;
        Ok(received)
    }

    /// Whether the peer has said that it has just what is here, no less and no more.
    #[must_use]
    pub fn is_same(&self, state: &SyncState) -> bool {
        let theirs = state.0.their_heads.as_deref();
        self.queue.is_empty()
            && theirs
                .is_some_and(|theirs| theirs.iter().collect::<BTreeSet<_>>() == self.doc.get_heads().iter().collect())
    }

    fn take_pieces(&mut self, pieces: &ChunkList) -> Received {
        let mut received = Received::default();
        let mut changes: Vec<&[u8]> = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let chunks = match chunk::split(piece) {
                Ok(chunks) => chunks,
                Err(reason) => {
                    received.rejected.push(format!("piece {} of the message: {reason}", i + 1));
                    continue;
                }
            };
            for chunk in chunks {
                match chunk.kind {
                    Kind::Change => changes.push(chunk.whole),
                    Kind::Document => {
                        if let Err(reason) = self.take_document(&chunk, &mut received) {
                            received.rejected.push(format!("piece {} of the message: {reason}", i + 1));
                        }
                    }
                }
            }
        }
        let taken = self.take(changes.into_iter().enumerate().collect());
        received.new.extend(taken.new);
        received.rejected.extend(taken.rejected);
        received
    }

    /// Takes what a whole document holds and this one does not.
    fn take_document(&mut self, chunk: &chunk::Chunk<'_>, received: &mut Received) -> Result<(), String> {
        chunk.measure(self.bounds(Kind::Document))?;
        let doc = self.read_document(chunk)?;
        if !self.is_created() {
            let queued: Vec<ChangeHash> = self.queue.keys().copied().collect();
            let changes = self.adopt(doc)?;
            let new = changes.iter().map(Change::from).filter(|change| !queued.contains(&change.hash));
            received.new.extend(new);
            // What waited may go on now.
            let waiting = std::mem::take(&mut self.queue);
            let mut rest = Received::default();
            self.take_parsed(waiting, &mut rest);
            received.rejected.extend(rest.rejected);
            return Ok(());
        }
        let changes = guarded(|| Ok(doc.get_changes(&self.doc.get_heads())))?;
        let fresh: BTreeMap<ChangeHash, automerge::Change> = changes
            .into_iter()
            .filter(|change| !self.holds(&change.hash()))
            .map(|change| (ChangeHash::from(change.hash()), change))
            .filter(|(hash, _)| !self.queue.contains_key(hash))
            .collect();
        let added = fresh.values().map(|change| change.raw_bytes().len()).sum();
        self.check_room(added)?;
        self.take_parsed(fresh, received);
        Ok(())
    }
}
