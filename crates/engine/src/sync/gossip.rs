//! Telling the other holders what is new.

use khufu_crdt::{Change, ReplicantId, Report};
use serde_bytes::ByteBuf;

use crate::wire::{Frame, Gossip, Push};
use crate::{Engine, NodeId, Output};

impl Engine {
    /// The nodes of the other holders that can be reached.
    pub(crate) fn holder_nodes(&self, id: &ReplicantId) -> Vec<NodeId> {
        let Some(entry) = self.replicants.held(id) else { return Vec::new() };
        let mut nodes = Vec::new();
        for site in entry.holders() {
            nodes.extend(self.members.reachable(&site));
        }
        nodes.retain(|node| *node != self.config.node);
        nodes
    }

    /// Tells the other holders of changes made here. `direct`: to each by itself, because they may not listen to the
    /// topic of this replica set yet.
    pub(crate) fn tell_changes(&mut self, id: &ReplicantId, changes: &[Change], direct: bool) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let bytes: usize = changes.iter().map(|change| change.bytes.len()).sum();
        // What is large is fetched by those who lack it, once, instead of travelling along every edge of the mesh.
        let small = bytes <= self.config.gossip_bytes;
        let push = Push {
            document: resident.doc.id().clone(),
            changes: changes.iter().filter(|_| small).map(|change| ByteBuf::from(change.bytes.clone())).collect(),
            heads: resident.doc.heads(),
            cut: resident.doc.cut(),
            reports: Vec::new(),
            passed: 0,
        };
        self.tell(id, push, direct);
    }

    /// Tells the other holders what this site has done.
    pub(crate) fn tell_report(&mut self, id: &ReplicantId, report: &Report) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let push = Push {
            document: resident.doc.id().clone(),
            changes: Vec::new(),
            heads: resident.doc.heads(),
            cut: resident.doc.cut(),
            reports: vec![report.clone()],
            passed: 0,
        };
        self.tell(id, push, false);
    }

    /// Lets the other holders but one know what heads there are now.
    pub(crate) fn tell_heads(&mut self, id: &ReplicantId, except: &NodeId) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let push = Push {
            document: resident.doc.id().clone(),
            changes: Vec::new(),
            heads: resident.doc.heads(),
            cut: resident.doc.cut(),
            reports: Vec::new(),
            passed: 0,
        };
        for node in self.holder_nodes(id) {
            if node != *except {
                self.send(&node, &Frame::Push(push.clone()));
            }
        }
    }

    fn tell(&mut self, id: &ReplicantId, push: Push, direct: bool) {
        let topic = self.sync.topics.subscribed(id).cloned();
        match topic {
            Some(topic) if !direct => {
                let frame = self.signed_gossip(&Gossip::Push(push.clone()));
                // A report of very many operations does not fit into a gossiped message.
                if frame.len() <= self.config.gossip_bytes * 4 {
                    self.counters.gossip_out += 1;
                    return self.outbox.after(Output::Publish { topic, frame });
                }
                self.tell_each(id, &push);
            }
            _ => self.tell_each(id, &push),
        }
    }

    fn tell_each(&mut self, id: &ReplicantId, push: &Push) {
        for node in self.holder_nodes(id) {
            self.send(&node, &Frame::Push(push.clone()));
        }
    }
}
