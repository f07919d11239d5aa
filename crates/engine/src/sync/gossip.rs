//! Telling the other holders what is new.

use std::collections::BTreeMap;

use khufu_crdt::{Change, ReplicantId, Report};
use serde_bytes::ByteBuf;

use crate::engine::Task;
use crate::timers::Due;
use crate::wire::{self, Frame, Gossip, Push};
use crate::{Engine, NodeId, Output};

/// The most reports that gather before they are sent.
const MAX_GATHERED: usize = 256;
/// A frame of gathered reports holds no more than this, if more than one. In bytes.
const FRAME_BYTES: usize = 256 << 10;

/// The newest report on one replicant that has not been sent yet.
#[derive(Debug)]
pub(crate) struct Gathered {
    nodes: Vec<NodeId>,
    /// An encoded [`Push`].
    push: ByteBuf,
}

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

    /// Tells the other holders what this site has done, with what else it has to report to them, or `at_once`.
    pub(crate) fn tell_report(&mut self, id: &ReplicantId, report: &Report, at_once: bool) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let push = Push {
            document: resident.doc.id().clone(),
            changes: Vec::new(),
            // Those that it is about are in the report.
            heads: Vec::new(),
            cut: resident.doc.cut(),
            reports: vec![report.clone()],
            passed: 0,
        };
        let Some(nodes) = self.few(id) else { return self.tell(id, push, false) };
        let pause = if report.operations.is_empty() { self.config.gather } else { self.config.gather_operations };
        // An older report that still waits is not worth sending any more.
        self.sync.gathered.insert(id.clone(), Gathered { nodes, push: ByteBuf::from(wire::encode(&push)) });
        let now = at_once || self.sync.gathered.len() >= MAX_GATHERED;
        self.timers.set_by(Due::Tell, if now { self.now.monotonic_us } else { self.now.plus(pause) });
    }

    /// Sends the reports that have gathered.
    pub(crate) fn tell_gathered(&mut self) {
        let mut frames = BTreeMap::<NodeId, (usize, Vec<ByteBuf>)>::new();
        for (_, Gathered { nodes, push }) in std::mem::take(&mut self.sync.gathered) {
            for node in nodes {
                let (bytes, pushes) = frames.entry(node.clone()).or_default();
                if *bytes + push.len() > FRAME_BYTES && !pushes.is_empty() {
                    let pushes = std::mem::take(pushes);
                    *bytes = 0;
                    self.send(&node, &Frame::Pushes { pushes });
                }
                let Some((bytes, pushes)) = frames.get_mut(&node) else { continue };
                *bytes += push.len();
                pushes.push(push.clone());
            }
        }
        for (node, (_, pushes)) in frames {
            self.send(&node, &Frame::Pushes { pushes });
        }
    }

    /// Takes in what another node has gathered.
    pub(crate) fn pushed_together(&mut self, from: &NodeId, pushes: &[ByteBuf]) {
        for push in pushes {
            match wire::decode::<Push>(push) {
                Ok(push) => {
                    self.run(push.document.replicant.clone(), Task::Push { from: from.clone(), push });
                }
                Err(error) => return self.refuse(from, error.to_string()),
            }
        }
    }

    /// The nodes of the other holders, if there are few and each of these sites can be reached.
    fn few(&self, id: &ReplicantId) -> Option<Vec<NodeId>> {
        let holders = self.replicants.held(id)?.holders();
        let mut nodes = Vec::new();
        for site in holders {
            let there = self.members.reachable(&site);
            if there.is_empty() && site != self.config.site {
                return None;
            }
            nodes.extend(there.into_iter().filter(|node| *node != self.config.node));
        }
        (nodes.len() <= self.config.direct).then_some(nodes)
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
        if !direct && let Some(nodes) = self.few(id) {
            return self.tell_nodes(nodes, push);
        }
        let topic = self.sync.topics.subscribed(id).cloned();
        match topic {
            Some(topic) if !direct => {
                let frame = self.signed_gossip(&Gossip::Push(push.clone()));
                // A report of very many operations does not fit into a gossiped message.
                if frame.len() <= self.config.gossip_bytes * 4 {
                    self.counters.gossip_out += 1;
                    return self.outbox.after(Output::Publish { topic, frame });
                }
                self.tell_nodes(self.holder_nodes(id), push);
            }
            _ => self.tell_nodes(self.holder_nodes(id), push),
        }
    }

    fn tell_nodes(&mut self, nodes: Vec<NodeId>, push: Push) {
        let frame = Frame::Push(push);
        for node in nodes {
            self.send(&node, &frame);
        }
    }
}
