//! What is larger than a frame goes in several: messages of a session in parts, changes in several pushes.

use std::collections::{BTreeSet, VecDeque};

use khufu_crdt::{ChangeHash, DocumentId, ReplicantId, SiteName};
use serde_bytes::ByteBuf;

use crate::wire::{Frame, Push};
use crate::{Engine, NodeId};

/// The parts of a message that are still to be sent, and those of another that have come.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    out: VecDeque<ByteBuf>,
    come: Vec<u8>,
}

impl Parts {
    /// Whether the last message is on its way whole.
    pub(crate) fn all_sent(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether no part of a message has come of which the rest is still to come.
    pub(crate) fn all_come(&self) -> bool {
        self.come.is_empty()
    }

    /// Cuts the next message into parts of at most `size` bytes.
    pub(crate) fn cut(&mut self, message: &[u8], size: usize) {
        self.out = message.chunks(size.max(1)).map(|part| ByteBuf::from(part.to_vec())).collect();
    }

    /// The next part to send, and whether there are more.
    pub(crate) fn next(&mut self) -> (Option<ByteBuf>, bool) {
        let part = self.out.pop_front();
        (part, !self.out.is_empty())
    }
}

impl Engine {
    /// Takes a part of a message; gives the message once it is whole.
    ///
    /// # Errors
    /// The bytes that are there, if they and those of all other messages of that node are more than any document has.
    pub(crate) fn join(
        &mut self,
        key: &(NodeId, ReplicantId),
        part: ByteBuf,
        more: bool,
    ) -> Result<Option<Vec<u8>>, usize> {
        let with = |(node, _): &(NodeId, ReplicantId)| *node == key.0;
        let open = self.sync.sessions.iter().filter(|(key, _)| with(key)).map(|(_, session)| session.parts.come.len());
        let size = open.sum::<usize>().saturating_add(part.len());
        let Some(session) = self.sync.sessions.get_mut(key) else { return Ok(None) };
        let come = &mut session.parts.come;
        if !more && come.is_empty() {
            return Ok(Some(part.into_vec()));
        }
        if size > self.config.limits.remote_bytes().saturating_add(self.config.part_bytes()) {
            return Err(size);
        }
        come.extend_from_slice(&part);
        Ok((!more).then(|| std::mem::take(come)))
    }

    /// Sends changes in an order that can be applied, in as many frames as it takes.
    pub(crate) fn push_all(
        &mut self,
        to: &NodeId,
        document: &DocumentId,
        changes: Vec<ByteBuf>,
        heads: Vec<ChangeHash>,
    ) {
        self.push_for(to, document, changes, heads, &BTreeSet::new());
    }

    /// The same, on behalf of some sites.
    pub(crate) fn push_for(
        &mut self,
        to: &NodeId,
        document: &DocumentId,
        changes: Vec<ByteBuf>,
        heads: Vec<ChangeHash>,
        behalf: &BTreeSet<SiteName>,
    ) {
        let resident = self.replicants.resident.get(&document.replicant);
        let cut = resident.filter(|resident| resident.doc.id() == document).and_then(|resident| resident.doc.cut());
        let push = |changes, heads| {
            let (document, behalf) = (document.clone(), behalf.clone());
            Frame::Push(Push { document, changes, heads, reports: Vec::new(), cut, passed: 0, behalf })
        };
        let mut batch = Vec::<ByteBuf>::new();
        let mut bytes = 0_usize;
        for change in changes {
            bytes = bytes.saturating_add(change.len());
            if bytes > self.config.part_bytes() && !batch.is_empty() {
                bytes = change.len();
                // Whoever lacks nothing but what is on its way need not ask for it.
                self.send(to, &push(std::mem::take(&mut batch), Vec::new()));
            }
            batch.push(change);
        }
        self.send(to, &push(batch, heads));
    }
}
