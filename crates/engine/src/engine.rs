//! The state machine: every input comes in here and every output goes out here.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{Clock, ReplicantId, Status};

use crate::actors::Actors;
use crate::ask::Asks;
use crate::members::{Members, SiteRecord};
use crate::metrics::Counters;
use crate::origin::Origin;
use crate::outbox::Outbox;
use crate::record::{INDEX, archives_prefix};
use crate::replicant::{Entry, Replicants};
use crate::stock::Stock;
use crate::sync::{MAX_HEADS, Sync};
use crate::time::Time;
use crate::timers::{Due, Timers};
use crate::wire::{self, Frame, Gossip, Push, Signed, SyncFrame, Told};
use crate::work::Doing;
use crate::{
    CallId, Config, Event, Happening, Input, NodeId, Output, Record, Request, RequestError, RequestId, Response,
};

/// Signs and checks signatures. The engine holds no keys of its own.
pub trait Keys: Send {
    /// This node's signature.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
    /// Whether `signature` is that of `node` for `message`.
    fn verify(&self, node: &NodeId, message: &[u8], signature: &[u8]) -> bool;
}

/// Why an engine could not be started from what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The clock record is not one.
    #[error(
        "the stored clock is damaged: restore the data directory from a copy, or start with an empty one and let the other sites fill it"
    )]
    Clock,
    /// The first actor id is not usable.
    #[error("an actor id must be made of fresh random bytes")]
    Actor,
}

/// The most index entries that are written in one batch when storage was recovered.
const MAX_DOUBTS: usize = 50_000;

/// Work on one document. It waits where the document must first be read from disk.
#[derive(Debug)]
pub(crate) enum Task {
    /// A user wants something.
    Request { origin: Origin, who: String, request: Request },
    /// Changes and reports came in.
    Push { from: NodeId, push: Push },
    /// A report came in.
    Told { from: NodeId, told: Told },
    /// A step of a sync session came in.
    Sync { from: NodeId, frame: SyncFrame },
    /// Begin a sync session.
    Meet { with: NodeId },
    /// Another site knows us as no holder: tell it what it lacks.
    Catchup { node: NodeId, heads: Vec<khufu_crdt::ChangeHash>, knows: Vec<khufu_crdt::ChangeHash>, epoch: u64 },
    /// See what the driver is to do.
    Work,
    /// A driver has answered.
    Done { doing: Doing, result: Result<crate::DriverDone, crate::DriverFailure> },
    /// Look at the platform.
    Side(crate::work::Side),
    /// Decide anew where it lives.
    Place,
    /// Write a snapshot.
    Compact,
    /// See whether the epoch can be closed.
    Close,
    /// Say what is under way.
    Report,
}

/// The brain of one node: a state machine without clock, disk, network or randomness of its own.
///
/// Hand in what happens with [`Engine::handle`] and do what comes out, in that order.
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) keys: Box<dyn Keys>,
    pub(crate) actors: Actors,
    pub(crate) actor_tag: String,
    pub(crate) now: Time,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
    pub(crate) timers: Timers,
    pub(crate) members: Members,
    pub(crate) record: SiteRecord,
    pub(crate) replicants: Replicants,
    pub(crate) sync: Sync,
    pub(crate) asks: Asks,
    pub(crate) calls: BTreeMap<CallId, (ReplicantId, Doing)>,
    pub(crate) waiting_calls: crate::work::Queue,
    pub(crate) next_call: u64,
    /// The disk is full, in its words.
    pub(crate) full: Option<String>,
    pub(crate) counters: Counters,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("site", &self.config.site)
            .field("node", &self.config.node)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// What the keys of the records start with that [`Engine::new`] wants handed in: all of both.
    pub const RESTORE_PREFIXES: [&'static [u8]; 2] = [INDEX, crate::record::META];

    /// What the keys of the records start with that [`Engine::new`] wants too if [`Config::doubtful`] is set. Their
    /// values are not read.
    pub const RECOVERY_PREFIX: &'static [u8] = crate::record::DOCUMENTS;

    /// Starts from what is on disk: all records whose keys start with one of [`Engine::RESTORE_PREFIXES`].
    ///
    /// `actor` must be fresh random bytes at every start of a process: a document is damaged for good if two processes
    /// write under one actor id.
    ///
    /// # Errors
    /// [`RestoreError`] if a record that nothing can replace is damaged. A damaged index entry is no error: it is
    /// warned of, and made anew.
    pub fn new(
        config: Config,
        keys: Box<dyn Keys>,
        actor: [u8; 16],
        restore: Vec<Record>,
        now: Time,
    ) -> Result<(Self, Vec<Output>), RestoreError> {
        let Stock { clock: last, replicants, members, warnings } = Stock::take(restore, config.doubtful)?;
        // Sequence numbers grow over restarts because they start from the clock, which never goes back.
        let mut clock = Clock::new(last, config.clock_bound_ms);
        let seq = clock.tick(now.wall_ms).0;
        let record = SiteRecord {
            site: config.site.clone(),
            node: config.node.clone(),
            labels: config.labels.clone(),
            addresses: Vec::new(),
            kinds: config.kinds.keys().cloned().collect(),
            version: config.version.clone(),
            away: config.unsure.iter().map(|kind| (kind.clone(), now.wall_ms)).collect(),
            seq,
        };
        let actor_tag = actor.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let mut engine = Self {
            members: Members::new(&config),
            sync: Sync::default(),
            asks: Asks::default(),
            config,
            keys,
            actors: Actors { seed: actor, given: 0 },
            actor_tag,
            now,
            clock,
            outbox: Outbox::default(),
            timers: Timers::default(),
            record,
            replicants,
            calls: BTreeMap::new(),
            waiting_calls: crate::work::Queue::default(),
            next_call: 0,
            full: None,
            counters: Counters::default(),
        };
        for signed in members {
            if let Ok(signed) = wire::decode(&signed)
                && let Err(error) = engine.learn_member(&signed, false)
            {
                engine.warn(None, format!("a stored site record is left out: {error}"));
            }
        }
        for message in warnings {
            engine.warn(None, message);
        }
        engine.start();
        let outputs = engine.finish();
        Ok((engine, outputs))
    }

    fn start(&mut self) {
        self.store_clock();
        self.subscribe_members();
        self.timers.set(Due::Heartbeat, self.now.plus(self.config.look));
        self.timers.set(Due::Announce, self.now.plus(self.config.look));
        self.timers.set(Due::Sweep, self.now.plus(self.config.session_timeout));
        self.take_up();
        self.update_topics();
    }

    /// Takes up what an earlier process, or a full disk, left undone.
    pub(crate) fn take_up(&mut self) {
        if self.config.doubtful {
            // Kept until each has been looked at, also by the next process.
            let doubtful = self.replicants.index.iter().filter(|(_, entry)| entry.doubtful);
            let doubtful: Vec<_> = doubtful.map(|(id, _)| id.clone()).take(MAX_DOUBTS).collect();
            doubtful.iter().for_each(|id| self.write_index(id));
        }
        // What needed attention may have got it: a driver that this node was started without, perhaps.
        let here = &self.config.site;
        let attention = |entry: &Entry| entry.reports.get(here).is_some_and(|said| said.1 == Status::NeedsAttention);
        let wanted = |entry: &Entry| !entry.settled || (!entry.dropped && attention(entry));
        let index = self.replicants.index.iter();
        let unsettled: Vec<_> = index.filter(|(_, entry)| wanted(entry)).map(|(id, _)| id.clone()).collect();
        for id in unsettled {
            self.wait_for_call(id);
        }
        self.next_waiting_call();
    }

    /// Takes in what happened at `now` and gives what is to be done about it, in that order.
    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Request { id, who, request } => self.user_request(id, who, request),
            Input::Abandoned { id } => self.abandoned(id),
            Input::Frame { from, bytes } => self.frame(&from, &bytes),
            Input::Gossip { source, bytes } => self.gossip(&source, &bytes),
            Input::PeerUp { node } => self.peer_up(&node),
            Input::PeerDown { node } => self.peer_down(&node),
            Input::Timer => {
                self.timers.fired();
                while let Some(due) = self.timers.pop(now.monotonic_us) {
                    self.due(due);
                }
            }
            Input::Stored { token } => self.outbox.stored(token),
            Input::StoreFailed { error, .. } => self.outbox.store_failed(&error),
            Input::StoreFull { error, restore } => self.disk_full(error, restore),
            Input::StoreRoom { restore } => self.disk_has_room(restore),
            Input::Loaded { replicant, prefix, records, damaged } => {
                if prefix == archives_prefix(&replicant) {
                    self.archives_loaded(&replicant, &records);
                } else {
                    self.loaded(&replicant, &records, &damaged);
                    self.waiting_calls.has_read(&replicant);
                    self.next_waiting_call();
                }
            }
            Input::Unread { replicant, prefix, error } => {
                if prefix == archives_prefix(&replicant) {
                    self.archives_unread(&replicant, &error);
                } else {
                    self.unread(&replicant, &error);
                    self.waiting_calls.has_read(&replicant);
                    self.next_waiting_call();
                }
            }
            Input::Driver { call, result } => self.driver_done(call, result),
            Input::Drifted { replicant } => {
                self.look_for_drift(replicant);
            }
            Input::Platform { kind, away_since } => self.platform(&kind, away_since),
            Input::Addresses { addresses } => self.addresses(addresses),
        }
        self.evict_if_crowded();
        self.finish()
    }

    /// Somebody may have changed a replica by hand.
    fn look_for_drift(&mut self, id: ReplicantId) {
        if self.is_full() {
            // What is seen could not be written down.
            self.timers.set(Due::Look(id), self.now.plus(self.config.session_timeout));
        } else if self.replicants.held(&id).is_some() {
            self.run(id, Task::Side(crate::work::Side::Drift));
        }
    }

    fn driver_done(&mut self, call: CallId, result: Result<crate::DriverDone, crate::DriverFailure>) {
        let Some((id, doing)) = self.calls.remove(&call) else { return };
        if doing == Doing::Forgotten {
            if let Some(resident) = self.replicants.resident.get_mut(&id).filter(|resident| resident.call == Some(call))
            {
                resident.call = None;
            }
            self.run(id, Task::Work);
        } else {
            self.run(id, Task::Done { doing, result });
        }
        self.next_waiting_call();
    }

    /// Works on a replicant as if a timer had asked for it.
    #[cfg(feature = "harness")]
    pub(crate) fn handle_task(&mut self, now: Time, id: &ReplicantId, task: Task) -> Vec<Output> {
        self.now = now;
        self.run(id.clone(), task);
        self.finish()
    }

    fn finish(&mut self) -> Vec<Output> {
        if let Some(at_us) = self.timers.announce() {
            self.outbox.now(Output::SetTimer { at_us });
        }
        self.outbox.drain()
    }

    fn due(&mut self, due: Due) {
        match due {
            // What must be written; it begins anew when there is room.
            Due::Reconcile(_) | Due::Flush(_) | Due::Work(_) | Due::Place | Due::Report(_) if self.is_full() => {}
            Due::Heartbeat => self.heartbeat(),
            Due::Announce => self.announce_periodically(),
            Due::Reconcile(node) => self.reconcile_with(&node),
            Due::Flush(id) => self.flush(&id),
            Due::Read(id) => self.read_again(&id),
            Due::Work(id) => match self.replicants.resident.get_mut(&id) {
                Some(resident) => {
                    resident.retry_us = None;
                    self.run(id, Task::Work);
                }
                None => {
                    self.wait_for_call(id);
                    self.next_waiting_call();
                }
            },
            Due::Look(id) => self.look_for_drift(id),
            Due::Session(node, id) => self.session_timed_out(&node, &id),
            Due::Ask(nonce) => self.ask_timed_out(nonce),
            Due::Gather(number) => self.gather_timed_out(number),
            Due::Job(number) => self.job_timed_out(number),
            Due::Wait(origin) => self.wait_timed_out(&origin),
            Due::Place => self.place_all(),
            Due::Close(id) => self.run(id, Task::Close),
            Due::Sweep => self.sweep(),
            Due::Report(id) => self.run(id, Task::Report),
            Due::Tell => self.tell_gathered(),
        }
    }

    fn frame(&mut self, from: &NodeId, bytes: &[u8]) {
        self.counters.frames_in += 1;
        if bytes.len() > self.config.frame_bytes {
            return self
                .refuse(from, format!("a frame of {} bytes, {} are allowed", bytes.len(), self.config.frame_bytes));
        }
        let frame = match wire::decode_frame::<Frame>(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.refuse(from, error.to_string()),
        };
        self.members.heard(from, self.now);
        if self.is_full() && frame.brings_changes() {
            // Comparing finds it again once there is room.
            return;
        }
        match frame {
            Frame::Members { records } => self.member_records(from, &records),
            Frame::Ping { sent_us, load, rtt_ms, known, echo, waits } => {
                let waits = waits || rtt_ms.as_ref().is_some_and(|rtt_ms| !rtt_ms.contains_key(&self.config.site));
                self.members.told(from, load, rtt_ms);
                self.members.pinged(from, sent_us, self.now);
                if let Some((sent_us, held_us)) = echo {
                    self.pong(from, sent_us, held_us);
                }
                self.tell_record_if_unknown(from, known);
                if waits {
                    self.send_now(from, &Frame::Pong { sent_us });
                }
            }
            Frame::Pong { sent_us } => self.pong(from, sent_us, 0),
            Frame::Shared { digest } => self.told_shared(from, &digest),
            Frame::Reconcile { round, reply, message } => self.reconcile_step(from, round, reply, &message),
            Frame::Want { items } => self.wanted(from, &items),
            Frame::Sync(frame) => self.run(frame.document.replicant.clone(), Task::Sync { from: from.clone(), frame }),
            Frame::NotHolder { heads, knows, .. } if heads.len().max(knows.len()) > MAX_HEADS => {
                self.refuse(from, format!("more than {MAX_HEADS} heads of a document"));
            }
            Frame::NotHolder { document, heads, knows, of } => {
                let others = if knows.is_empty() { Vec::new() } else { self.pass_on_answer(from, &document, &of) };
                for node in &others {
                    let (document, heads, knows) = (document.clone(), heads.clone(), knows.clone());
                    self.send(node, &Frame::NotHolder { document, heads, knows, of: BTreeSet::new() });
                }
                if self.is_shared_with(&document.replicant, from) {
                    let task = Task::Catchup { node: from.clone(), heads, knows, epoch: document.epoch };
                    self.run(document.replicant, task);
                } else if others.is_empty() {
                    self.counters.ignored += 1;
                }
            }
            Frame::Push(push) => self.run(push.document.replicant.clone(), Task::Push { from: from.clone(), push }),
            Frame::Reports { told } => self.told_reports(from, told),
            Frame::Ask { nonce, who, here, ask } => self.asked(from, nonce, who, &here, ask),
            Frame::Reply { nonce, reply } => self.replied(from, nonce, *reply),
        }
    }

    fn gossip(&mut self, source: &NodeId, bytes: &[u8]) {
        self.counters.gossip_in += 1;
        let signed = match wire::decode_frame::<Signed>(bytes) {
            Ok(signed) => signed,
            Err(error) => return self.refuse_gossip(source, None, &error.to_string()),
        };
        if signed.author == self.config.node {
            return;
        }
        if !self.keys.verify(&signed.author, &signed.body, &signed.signature) {
            let reason = format!("gossip with a signature that is not that of {}", signed.author);
            return self.refuse_gossip(source, None, &reason);
        }
        match wire::decode_frame::<Gossip>(&signed.body) {
            Ok(Gossip::Member(record)) => {
                if let Err(error) = self.learn_member(&record, true) {
                    self.refuse_gossip(source, Some(&signed.author), &error.to_string());
                }
            }
            Ok(Gossip::Push(_)) if self.is_full() => {}
            Ok(Gossip::Push(push)) => {
                self.run(push.document.replicant.clone(), Task::Push { from: signed.author, push })
            }
            Err(error) => self.refuse_gossip(source, Some(&signed.author), &error.to_string()),
        }
    }

    /// Counts a gossiped message that broke the rules. Nodes pass on what they have not read, so nobody is disconnected
    /// for it but its author.
    fn refuse_gossip(&mut self, source: &NodeId, author: Option<&NodeId>, reason: &str) {
        if author == Some(source) {
            return self.refuse(source, reason.to_owned());
        }
        self.counters.refused += 1;
        tracing::warn!(node = %source, ?author, %reason, "refused gossip");
    }

    /// Counts and disconnects a peer that broke the rules.
    pub(crate) fn refuse(&mut self, node: &NodeId, reason: String) {
        self.counters.refused += 1;
        tracing::warn!(%node, %reason, "refused");
        self.outbox.now(Output::Disconnect { node: node.clone(), reason });
    }

    /// Sends without waiting for the disk: only what says nothing of any document.
    pub(crate) fn send_now(&mut self, to: &NodeId, frame: &Frame) {
        if self.members.is_connected(to) {
            self.counters.frames_out += 1;
            self.members.sends(to, self.now);
            self.outbox.now(Output::Send { to: to.clone(), frame: wire::encode_frame(frame) });
        }
    }

    /// Sends once all that was written so far is stored. Whether the node is connected.
    pub(crate) fn send(&mut self, to: &NodeId, frame: &Frame) -> bool {
        self.send_to_all(std::slice::from_ref(to), frame) > 0
    }

    /// The same to several nodes, for which it is encoded once. To how many of them.
    pub(crate) fn send_to_all(&mut self, nodes: &[NodeId], frame: &Frame) -> usize {
        let connected: Vec<_> = nodes.iter().filter(|node| self.members.is_connected(node)).collect();
        let Some(first) = connected.first() else { return 0 };
        let bytes = wire::encode_frame(frame);
        if bytes.len() > self.config.frame_bytes || wire::has_too_many(&bytes) {
            self.warn(
                None,
                format!("a frame of {} bytes for {first} is larger than the limits and was not sent", bytes.len()),
            );
            return 0;
        }
        // What waits for a disk that is at a standstill is no sign of life.
        let moves = self.outbox.outstanding() == 0;
        for to in &connected {
            self.counters.frames_out += 1;
            if moves {
                self.members.sends(to, self.now);
            }
            self.outbox.after(Output::Send { to: (*to).clone(), frame: bytes.clone() });
        }
        connected.len()
    }

    /// Answers whoever asked.
    pub(crate) fn answer(&mut self, origin: &Origin, answer: Result<Response, RequestError>) {
        match origin {
            Origin::User(request) => self.answer_user(*request, answer),
            Origin::Node(node, nonce) => {
                let reply = Box::new(wire::Reply::Answer(answer));
                self.send(node, &Frame::Reply { nonce: *nonce, reply });
            }
        }
    }

    fn answer_user(&mut self, request: RequestId, answer: Result<Response, RequestError>) {
        self.outbox.after(Output::Answer { request, answer });
    }

    pub(crate) fn event(&mut self, what: Happening) {
        self.outbox.after(Output::Event(Event { at: self.now.wall_ms, what }));
    }

    pub(crate) fn warn(&mut self, replicant: Option<ReplicantId>, message: String) {
        tracing::warn!(replicant = replicant.as_ref().map(ReplicantId::as_str), "{message}");
        self.event(Happening::Warning { replicant, message });
    }
}
