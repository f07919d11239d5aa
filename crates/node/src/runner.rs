//! The one task that owns the engine: hands in what happens, and does what comes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use khufu_engine::{Engine, Event, Happening, Input, NodeId, Output, RequestError, RequestId, Response};
use khufu_p2p::{Discovery, Event as NetworkEvent, Network, Refusal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Stopped;
use crate::book::Book;
use crate::calls::Calls;
use crate::clock::{Clock, wall_ms};
use crate::disk::Disk;
use crate::events::EventLog;
use crate::handle::{Command, Handle};

/// Batches handed to the store and not stored yet, from which on nothing new is taken in: a slow disk slows users and
/// peers down instead of filling the memory.
const MAX_UNSTORED: usize = 512;
/// Users that may wait for answers at once.
const MAX_ASKED: usize = 4096;
/// Users who have gone are looked for so often at most.
const FORGET_EVERY: Duration = Duration::from_millis(250);
/// Frames that are delayed on purpose at once; more are lost.
const MAX_DELAYED: usize = 10_000;
/// What is under way when the node stops gets so long.
const GRACE: Duration = Duration::from_secs(5);
/// The same warning about refused connections is given so often at most.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);
/// Where peers are is noted so long after one has come up, when it will have said so.
const NOTE_SOON: Duration = Duration::from_millis(500);
/// Where peers are is noted again so often.
const NOTE_AGAIN: Duration = Duration::from_secs(60);
/// So many steps are made of what has come already before others get a turn.
const IN_A_ROW: usize = 16;
/// A step of the engine that takes longer is logged.
const SLOW_STEP: Duration = Duration::from_millis(250);

pub(crate) struct Runner {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) handle: Handle,
    pub(crate) network: Network,
    pub(crate) from_network: mpsc::Receiver<NetworkEvent>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Answers of the disk and of drivers. Unbounded, and yet no more than what was asked of them.
    pub(crate) inputs: mpsc::UnboundedReceiver<Input>,
    pub(crate) disk: Disk,
    pub(crate) calls: Calls,
    pub(crate) events: Arc<EventLog>,
    pub(crate) book: Book,
    pub(crate) listening: BTreeSet<String>,
    pub(crate) addresses: watch::Sender<Vec<String>>,
    pub(crate) closed: watch::Receiver<bool>,
    pub(crate) state: State,
}

/// What the runner remembers from step to step.
#[derive(Default)]
pub(crate) struct State {
    asked: BTreeMap<RequestId, oneshot::Sender<Result<Response, RequestError>>>,
    next_request: u64,
    forgotten: Option<Instant>,
    timer: Option<Instant>,
    unstored: usize,
    delayed: VecDeque<(Instant, Input)>,
    in_a_row: usize,
    refusals: BTreeMap<&'static str, Instant>,
    note_due: Option<Instant>,
    failed: Option<String>,
}

// One lives at a time, and not for long.
#[allow(clippy::large_enum_variant)]
enum Step {
    Input(Input),
    Command(Command),
    Network(NetworkEvent),
    NotePeers,
    Idle,
    Close,
}

impl Runner {
    /// Runs until it is told to close or the disk fails; then everything is stored, closed and given free.
    pub(crate) async fn run(mut self, first: Vec<Output>) -> Stopped {
        self.execute(first);
        while self.state.failed.is_none() {
            match self.next().await {
                Step::Input(input) => self.step(input),
                Step::Command(command) => self.command(command),
                Step::Network(event) => self.network_event(event),
                Step::NotePeers => self.note_peers().await,
                Step::Idle => {}
                Step::Close => break,
            }
        }
        self.drain().await;
        self.note_peers().await;
        self.network.shutdown().await;
        let Self { disk, state, mut calls, .. } = self;
        calls.break_off().await;
        // Drivers may have something to bring to an end, and so has the disk.
        let closing = move || {
            drop(calls);
            disk.close();
        };
        if tokio::task::spawn_blocking(closing).await.is_err() {
            tracing::error!("the disk thread could not be waited for");
        }
        state.failed.map_or(Stopped::Asked, Stopped::Failed)
    }

    async fn next(&mut self) -> Step {
        let room = self.state.unstored < MAX_UNSTORED;
        // To wait for all that may come takes longer than most steps.
        if self.state.in_a_row < IN_A_ROW
            && let Some(step) = self.has_come(room)
        {
            self.state.in_a_row += 1;
            return step;
        }
        if std::mem::take(&mut self.state.in_a_row) == IN_A_ROW {
            tokio::task::yield_now().await;
        }
        let timer = self.state.timer;
        let note = self.state.note_due;
        let late = self.state.delayed.front().map(|(due, _)| *due);
        tokio::select! {
            _ = self.closed.wait_for(|closed| *closed) => Step::Close,
            Some(input) = self.inputs.recv() => Step::Input(input),
            () = until(timer) => {
                self.state.timer = None;
                Step::Input(Input::Timer)
            }
            () = until(late) => self.state.delayed.pop_front().map_or(Step::Idle, |(_, input)| Step::Input(input)),
            () = until(note) => Step::NotePeers,
            command = self.commands.recv(), if room => command.map_or(Step::Close, Step::Command),
            event = self.from_network.recv(), if room => match event {
                Some(event) => Step::Network(event),
                None => {
                    self.state.failed = Some("the network has ended: see the log for why".to_owned());
                    Step::Close
                }
            },
        }
    }

    /// What is there already, of each kind in turn.
    fn has_come(&mut self, room: bool) -> Option<Step> {
        if self.state.timer.take_if(|timer| *timer <= Instant::now()).is_some() {
            return Some(Step::Input(Input::Timer));
        }
        let first = self.state.in_a_row;
        (first..first + 3).find_map(|kind| match kind % 3 {
            0 => self.inputs.try_recv().ok().map(Step::Input),
            1 if room => self.from_network.try_recv().ok().map(Step::Network),
            2 if room => self.commands.try_recv().ok().map(Step::Command),
            _ => None,
        })
    }

    fn step(&mut self, input: Input) {
        if matches!(input, Input::Stored { .. } | Input::StoreFailed { .. }) {
            self.state.unstored = self.state.unstored.saturating_sub(1);
        }
        if matches!(input, Input::Driver { .. }) {
            self.calls.ended();
        }
        let full = matches!(input, Input::StoreFull { .. });
        let name = name_of(&input);
        let started = Instant::now();
        let outputs = self.engine.handle(self.clock.now(), input);
        let took = started.elapsed();
        self.handle.metrics().handled(took);
        if took > SLOW_STEP {
            tracing::warn!(input = name, ?took, "a slow step of the engine");
        }
        if full {
            self.state.unstored = 0;
            self.disk.forgotten();
        }
        self.execute(outputs);
    }

    fn execute(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist { token, writes, urgent } => {
                    self.state.unstored += 1;
                    self.disk.persist(token, writes, urgent);
                }
                Output::Load { replicant, prefix } => self.disk.load(replicant, prefix),
                Output::Send { to, frame } => {
                    if let Err(error) = self.network.send(&to.0, frame) {
                        tracing::debug!(%to, %error, "a frame was not sent");
                        self.handle.metrics().dropped("send");
                    }
                }
                Output::Publish { topic, frame } => {
                    if let Err(error) = self.network.publish(&topic, frame) {
                        tracing::debug!(topic, %error, "not published");
                        self.handle.metrics().dropped("publish");
                    }
                }
                Output::Subscribe { topic } => {
                    if let Err(error) = self.network.subscribe(&topic) {
                        tracing::warn!(topic, %error, "not subscribed: its changes come by reconciliation only");
                    }
                }
                Output::Unsubscribe { topic } => {
                    if let Err(error) = self.network.unsubscribe(&topic) {
                        tracing::debug!(topic, %error, "not unsubscribed");
                    }
                }
                Output::SetTimer { at_us } => self.state.timer = Some(self.clock.instant(at_us)),
                Output::CallDriver { call, kind, replica, work } => self.calls.start(call, kind, replica, work),
                Output::Answer { request, answer } => {
                    if let Some(reply) = self.state.asked.remove(&request) {
                        // Whoever asked may have gone.
                        let _ = reply.send(answer);
                    }
                }
                Output::Event(event) => self.events.push(event),
                Output::Disconnect { node, reason } => {
                    tracing::warn!(%node, reason, "a peer broke the rules");
                    if let Err(error) = self.network.disconnect(&node.0) {
                        tracing::debug!(%node, %error, "not disconnected");
                    }
                }
                Output::Stop { reason } => {
                    tracing::error!(reason, "the node stops");
                    self.state.failed = Some(reason);
                    return;
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.forget_the_gone();
        match command {
            Command::Request { who, request, reply } => {
                if self.state.asked.len() >= MAX_ASKED {
                    let message = format!("{MAX_ASKED} requests wait for answers at this node: try again in a second");
                    let _ = reply.send(Err(RequestError::Busy { message }));
                    return;
                }
                let id = RequestId(self.state.next_request);
                self.state.next_request += 1;
                self.state.asked.insert(id, reply);
                self.step(Input::Request { id, who, request: *request });
            }
            Command::Drifted { replicant } => self.step(Input::Drifted { replicant }),
            Command::Platform { kind, away_since } => self.step(Input::Platform { kind, away_since }),
            Command::Inspect { reply } => {
                let _ = reply.send(self.engine.metrics());
            }
            Command::Stats { reply } => self.disk.stats(reply),
        }
    }

    /// Gives the places of those free who asked and went away, so that they keep nobody else out.
    fn forget_the_gone(&mut self) {
        let now = Instant::now();
        if self.state.forgotten.is_some_and(|at| now.duration_since(at) < FORGET_EVERY) {
            return;
        }
        self.state.forgotten = Some(now);
        let gone: Vec<RequestId> =
            self.state.asked.iter().filter(|(_, reply)| reply.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.state.asked.remove(&id);
            self.step(Input::Abandoned { id });
        }
    }

    fn network_event(&mut self, event: NetworkEvent) {
        let input = match event {
            NetworkEvent::PeerUp { peer, address } => {
                tracing::info!(peer, address, "peer up");
                self.state.note_due = Some(Instant::now() + NOTE_SOON);
                Input::PeerUp { node: NodeId(peer) }
            }
            NetworkEvent::PeerDown { peer, reason } => {
                tracing::info!(peer, %reason, "peer down");
                Input::PeerDown { node: NodeId(peer) }
            }
            NetworkEvent::Frame { from, frame } => Input::Frame { from: NodeId(from), bytes: frame },
            NetworkEvent::Gossip { source, frame, .. } => Input::Gossip { source: NodeId(source), bytes: frame },
            NetworkEvent::Listening { address } => {
                tracing::info!(address, "listening");
                self.listening.insert(address);
                return self.addresses_changed();
            }
            NetworkEvent::ListeningEnded { address, reason } => {
                tracing::warn!(address, reason, "no longer listening");
                self.listening.remove(&address);
                return self.addresses_changed();
            }
            NetworkEvent::Discovered { peer, addresses, source: Discovery::Identify } => {
                return self.note(&peer, addresses);
            }
            NetworkEvent::Refused { peer, address, reason } => return self.refused(peer, address, &reason),
            _ => return,
        };
        self.with_faults(input);
    }

    /// Writes down where the peers are that are up.
    async fn note_peers(&mut self) {
        let peers = self.network.peers().await;
        self.state.note_due = (!peers.is_empty()).then(|| Instant::now() + NOTE_AGAIN);
        for peer in peers {
            self.note(&peer.id, peer.addresses);
        }
    }

    fn note(&mut self, peer: &str, addresses: Vec<String>) {
        let writes = self.book.note(peer, addresses, wall_ms());
        if !writes.is_empty() {
            self.disk.note(writes);
        }
    }

    /// Hands in what came from the network, late or not at all where faults on purpose say so.
    fn with_faults(&mut self, input: Input) {
        let Some(switch) = self.handle.faults() else { return self.step(input) };
        if let Input::Frame { from: node, .. } | Input::Gossip { source: node, .. } = &input
            && (switch.is_blocked(node) || switch.loses())
        {
            return self.handle.metrics().dropped("fault");
        }
        let delay = switch.delay();
        if delay.is_zero() && self.state.delayed.is_empty() {
            return self.step(input);
        }
        if self.state.delayed.len() >= MAX_DELAYED && matches!(input, Input::Frame { .. } | Input::Gossip { .. }) {
            return self.handle.metrics().dropped("fault");
        }
        // In order, also where the delay was just made shorter.
        let last = self.state.delayed.back().map(|(due, _)| *due);
        let due = last.into_iter().fold(Instant::now() + delay, Instant::max);
        self.state.delayed.push_back((due, input));
    }

    fn addresses_changed(&mut self) {
        let announced = self.network.external_addresses();
        let addresses: Vec<String> = announced.into_iter().chain(self.listening.iter().cloned()).collect();
        let node = self.handle.node();
        let full = addresses.iter().map(|address| format!("{address}/p2p/{node}")).collect();
        self.addresses.send_replace(full);
        self.step(Input::Addresses { addresses });
    }

    /// A wrong key looks like silence: an operator who follows events or logs is told, and not flooded.
    fn refused(&mut self, peer: Option<String>, address: Option<String>, reason: &Refusal) {
        // Nodes that are cut off on purpose keep trying.
        if matches!(reason, Refusal::Blocked | Refusal::Itself) {
            return;
        }
        let now = Instant::now();
        let told = self.state.refusals.get(reason.kind()).is_some_and(|at| now.duration_since(*at) < REFUSALS_EVERY);
        if told {
            return;
        }
        self.state.refusals.insert(reason.kind(), now);
        let whom = peer.or(address).unwrap_or_else(|| "an unknown address".to_owned());
        let message = format!("no connection with {whom}: {reason}");
        tracing::warn!("{message}");
        self.events.push(Event { at: wall_ms(), what: Happening::Warning { replicant: None, message } });
    }

    /// Lets what is under way end: batches become durable and are answered, drivers report.
    async fn drain(&mut self) {
        self.commands.close();
        self.from_network.close();
        self.calls.close();
        let all = async {
            while self.state.failed.is_none() && (self.state.unstored > 0 || self.calls.running() > 0) {
                match self.inputs.recv().await {
                    Some(input) => self.step(input),
                    None => break,
                }
            }
        };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!(drivers = self.calls.running(), "stopping although not all work has ended");
        }
    }
}

/// That moment; never, if there is none.
pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn name_of(input: &Input) -> &'static str {
    match input {
        Input::Request { .. } => "request",
        Input::Abandoned { .. } => "abandoned",
        Input::Frame { .. } => "frame",
        Input::Gossip { .. } => "gossip",
        Input::PeerUp { .. } => "peer-up",
        Input::PeerDown { .. } => "peer-down",
        Input::Timer => "timer",
        Input::Stored { .. } => "stored",
        Input::StoreFailed { .. } => "store-failed",
        Input::StoreFull { .. } => "store-full",
        Input::StoreRoom { .. } => "store-room",
        Input::Loaded { .. } => "loaded",
        Input::Unread { .. } => "unread",
        Input::Driver { .. } => "driver",
        Input::Drifted { .. } => "drifted",
        Input::Platform { .. } => "platform",
        Input::Addresses { .. } => "addresses",
    }
}
