//! Telling the other holders what is new.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{Change, ChangeHash, DocumentId, Epoch, ReplicantId, Report, Status};
use serde_bytes::ByteBuf;

use super::News;
use crate::engine::Task;
use crate::timers::Due;
use crate::wire::{self, Frame, Gossip, Push, Told, What};
use crate::{Engine, NodeId, Output};

/// The most reports that gather before they are sent, and in one frame.
const MAX_GATHERED: usize = 256;
/// A frame of gathered reports holds no more than this, if more than one. In bytes.
const FRAME_BYTES: usize = 256 << 10;

/// The newest report on one replicant that has not been sent yet.
#[derive(Debug)]
pub(crate) struct Gathered {
    nodes: Vec<NodeId>,
    epoch: Epoch,
    cut: Option<ChangeHash>,
    report: Report,
}

/// The last report that was sent on a replicant, and to whom: to these the next is only what is new in it.
#[derive(Debug)]
pub(crate) struct Sent {
    nodes: Vec<NodeId>,
    report: Report,
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
            behalf: BTreeSet::new(),
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
            behalf: BTreeSet::new(),
        };
        let Some(nodes) = self.few(id, self.config.direct_reports) else {
            if let Some(resident) = self.replicants.resident.get_mut(id) {
                resident.sent = None;
            }
            return self.tell(id, push, false);
        };
        let pause = if report.operations.is_empty() { self.config.gather } else { self.config.gather_operations };
        let (epoch, cut) = (push.document.epoch, push.cut);
        // An older report that still waits is not worth sending any more.
        self.sync.gathered.insert(id.clone(), Gathered { nodes, epoch, cut, report: report.clone() });
        let now = at_once || self.sync.gathered.len() >= MAX_GATHERED;
        self.timers.set_by(Due::Tell, if now { self.now.monotonic_us } else { self.now.plus(pause) });
    }

    /// Sends the reports that have gathered.
    pub(crate) fn tell_gathered(&mut self) {
        let mut frames = BTreeMap::<NodeId, (usize, Vec<Told>)>::new();
        for (id, Gathered { nodes, epoch, cut, report }) in std::mem::take(&mut self.sync.gathered) {
            let resident = self.replicants.resident.get_mut(&id);
            let before = resident.and_then(|resident| resident.sent.take());
            // What is said last, before a document is given away, must not need anything that could have been lost; and
            // with a new epoch it must be said where the one before was closed.
            let last = report.status == Status::Removed;
            let before = before.filter(|before| !last && before.report.epoch == epoch);
            let news = before.as_ref().and_then(|before| News::between(&before.report, &report));
            let told = |what, cut| Told { replicant: id.clone(), epoch, cut, what };
            // Whoever has the one before knows where its epoch was begun.
            let part = news.map(|news| told(What::News(Box::new(news)), None));
            let part = part.map(|part| (wire::encode(&part).len(), part));
            let whole = told(What::Whole(Box::new(report.clone())), cut);
            let mut size = None;
            for node in &nodes {
                let knows = before.as_ref().is_some_and(|before| before.nodes.contains(node));
                let (bytes, told) = match part.as_ref().filter(|_| knows) {
                    Some((bytes, part)) => (*bytes, part),
                    None => (*size.get_or_insert_with(|| wire::encode(&whole).len()), &whole),
                };
                let (sum, gathered) = frames.entry(node.clone()).or_default();
                let full = sum.saturating_add(bytes) > FRAME_BYTES || gathered.len() >= MAX_GATHERED;
                if full && !gathered.is_empty() {
                    let told = std::mem::take(gathered);
                    *sum = 0;
                    // What is sent stands behind what it says on the disk.
                    self.send(node, &Frame::Reports { told });
                }
                let (sum, gathered) = frames.entry(node.clone()).or_default();
                *sum = sum.saturating_add(bytes);
                gathered.push(told.clone());
            }
            if let Some(resident) = self.replicants.resident.get_mut(&id) {
                resident.sent = Some(Sent { nodes, report });
            }
        }
        for (node, (_, told)) in frames {
            self.send(&node, &Frame::Reports { told });
        }
    }

    /// Takes in what another node has gathered.
    pub(crate) fn told_reports(&mut self, from: &NodeId, told: Vec<Told>) {
        if told.len() > MAX_GATHERED {
            return self.refuse(from, format!("{} reports in a frame, {MAX_GATHERED} are allowed", told.len()));
        }
        for told in told {
            self.run(told.replicant.clone(), Task::Told { from: from.clone(), told });
        }
    }

    /// What a site says of its replica came in for a resident document.
    pub(crate) fn told(&mut self, id: &ReplicantId, from: &NodeId, told: Told) {
        let Told { epoch, cut, what, .. } = told;
        let report = match what {
            What::Whole(report) => *report,
            What::News(news) => {
                let (Some(resident), Some(site)) = (self.replicants.resident.get(id), self.members.site_of(from))
                else {
                    return;
                };
                let known = resident.reports.get(site);
                if known.is_some_and(|known| news.seq().is_none_or(|seq| known.seq >= seq)) {
                    return;
                }
                let Some(before) = known.filter(|known| known.seq == news.base()) else {
                    // It was lost on its way, or in a crash of this node: a session brings all of it, if not the one that
                    // is under way.
                    return self.meet_all([id.clone()], from);
                };
                match news.after(before, epoch) {
                    Some(report) => report,
                    None => return self.refuse(from, format!("a report on {id} that does not fit the one before it")),
                }
            }
        };
        let document = DocumentId { replicant: id.clone(), epoch };
        let push = Push {
            document,
            changes: Vec::new(),
            heads: Vec::new(),
            reports: vec![report],
            cut,
            passed: 0,
            behalf: BTreeSet::new(),
        };
        self.pushed(id, from, push);
    }

    /// The nodes of the other holders, if there are no more than `most` and each of these sites can be reached.
    fn few(&self, id: &ReplicantId, most: usize) -> Option<Vec<NodeId>> {
        let holders = self.replicants.held(id)?.holders();
        let mut nodes = Vec::new();
        for site in holders {
            let there = self.members.reachable(&site);
            if there.is_empty() && site != self.config.site {
                return None;
            }
            nodes.extend(there.into_iter().filter(|node| *node != self.config.node));
        }
        (nodes.len() <= most).then_some(nodes)
    }

    /// Lets the other holders but one know what heads there are now, except those who have said to have them.
    pub(crate) fn tell_heads(&mut self, id: &ReplicantId, except: &NodeId) {
        let Some(resident) = self.replicants.resident.get(id) else { return };
        let push = Push {
            document: resident.doc.id().clone(),
            changes: Vec::new(),
            heads: resident.doc.heads(),
            cut: resident.doc.cut(),
            reports: Vec::new(),
            passed: 0,
            behalf: BTreeSet::new(),
        };
        let entry = self.replicants.held(id);
        let know = |node: &NodeId| {
            let site = self.members.site_of(node);
            site.is_some_and(|site| entry.is_some_and(|entry| entry.current.contains(site)))
        };
        let mut nodes = self.holder_nodes(id);
        nodes.retain(|node| node != except && !know(node));
        self.tell_nodes(nodes, push);
    }

    fn tell(&mut self, id: &ReplicantId, push: Push, direct: bool) {
        if !direct && let Some(nodes) = self.few(id, self.config.direct) {
            return self.tell_nodes(nodes, push);
        }
        let topic = self.sync.topics.subscribed(id).map(str::to_owned);
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
        self.send_to_all(&nodes, &Frame::Push(push));
    }
}
