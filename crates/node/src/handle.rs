//! What everybody shares who talks to a running node: those who embed it, and its API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use khufu_crdt::{ReplicantId, SiteName};
use khufu_engine::{Metrics as EngineMetrics, NodeId, Request, RequestError, Response};
use khufu_p2p::Network;
use khufu_store::Stats;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};

use crate::events::{Cursor, EventLog, Events};
use crate::faults::{Faults, FaultsError, Switch};
#[cfg(feature = "kubernetes")]
use crate::holds::{Held, Holds};
use crate::metrics::Metrics;
use crate::{PeerView, Stopped};

/// A request is given up after so long, beside the time that it asks to wait. The engine answers sooner.
const PATIENCE: Duration = Duration::from_secs(25);
/// The engine must take a question within so long to be called ready.
const READY: Duration = Duration::from_secs(2);
/// Nodes of cut sites are looked for so often.
const CUT_REFRESH: Duration = Duration::from_millis(250);

/// What the runner is asked besides what happens by itself.
pub(crate) enum Command {
    Request { who: String, request: Box<Request>, reply: oneshot::Sender<Result<Response, RequestError>> },
    Drifted { replicant: ReplicantId },
    Platform { kind: String, away_since: Option<u64> },
    Inspect { reply: oneshot::Sender<EngineMetrics> },
    Stats { reply: oneshot::Sender<Stats> },
}

/// Clones talk to the same node.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) site: SiteName,
    pub(crate) node: NodeId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: Arc<EventLog>,
    /// Set once everything is to end.
    pub(crate) closed: watch::Sender<bool>,
    /// Set once everything has ended.
    pub(crate) stopped: watch::Sender<Option<Stopped>>,
    pub(crate) network: Network,
    pub(crate) faults: Option<Switch>,
    pub(crate) registry: Registry,
    pub(crate) drivers: khufu_drivers::Registry,
    /// The replicas that drivers leave alone now.
    #[cfg(feature = "kubernetes")]
    pub(crate) holds: Holds,
    pub(crate) metrics: Metrics,
    /// Where the node can be reached, with its peer id.
    pub(crate) addresses: watch::Receiver<Vec<String>>,
    /// Whether the node was told to listen at all.
    pub(crate) listens: bool,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("site", &self.0.site).field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn site(&self) -> &SiteName {
        &self.0.site
    }

    pub(crate) fn node(&self) -> &NodeId {
        &self.0.node
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(crate) fn faults(&self) -> Option<&Switch> {
        self.0.faults.as_ref()
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.0.addresses.borrow().clone()
    }

    pub(crate) async fn request(&self, who: String, mut request: Request) -> Result<Response, RequestError> {
        if let Request::Put(put) = &mut request {
            crate::list_keys::complete(self, &self.0.drivers, &who, put).await;
        }
        self.request_as_is(who, request).await
    }

    /// Asks the engine, as it stands.
    pub(crate) async fn request_as_is(&self, who: String, request: Request) -> Result<Response, RequestError> {
        let wait = match &request {
            Request::Operate(operate) => Duration::from_millis(operate.wait_ms),
            // Every replica of every site is looked at, and there may be thousands.
            Request::Verify { .. } => Duration::from_secs(240),
            _ => Duration::ZERO,
        };
        let (reply, answer) = oneshot::channel();
        let ask = async {
            let command = Command::Request { who, request: Box::new(request), reply };
            self.0.commands.send(command).await.map_err(|_| self.gone())?;
            answer.await.map_err(|_| self.gone())?
        };
        let patience = PATIENCE.saturating_add(wait);
        tokio::time::timeout(patience, ask).await.unwrap_or_else(|_| {
            Err(RequestError::Busy {
                message: format!(
                    "no answer within {} s, so it is not known whether this was done: look, then ask again",
                    patience.as_secs()
                ),
            })
        })
    }

    fn gone(&self) -> RequestError {
        let message = match &*self.0.stopped.borrow() {
            Some(Stopped::Failed(reason)) => format!("this node has stopped: {reason}"),
            _ => "this node is stopping: ask another, or this one once it is back".to_owned(),
        };
        RequestError::Unreachable { message }
    }

    pub(crate) fn follow(&self, after: Option<Cursor>) -> Events {
        self.0.events.follow(after, self.0.closed.subscribe())
    }

    /// Comes before the first event of this process.
    pub(crate) fn first_event(&self) -> Cursor {
        self.0.events.start()
    }

    pub(crate) async fn peers(&self) -> Vec<PeerView> {
        self.0.network.peers().await.into_iter().map(PeerView::from).collect()
    }

    /// Whether the node can serve; if not, why.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        if *self.0.closed.borrow() {
            return Err("the node is stopping".to_owned());
        }
        if self.0.listens && self.0.addresses.borrow().is_empty() {
            return Err("the network does not listen yet, or no longer".to_owned());
        }
        match self.inspect().await?.full {
            0 => Ok(()),
            _ => {
                Err("the disk is full: what is there can be read, and changes are refused until there is room"
                    .to_owned())
            }
        }
    }

    async fn inspect(&self) -> Result<EngineMetrics, String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Inspect { reply }, answer).await
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, String> {
        let ask = async {
            self.0.commands.send(command).await.map_err(|_| ())?;
            answer.await.map_err(|_| ())
        };
        match tokio::time::timeout(READY, ask).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(())) => Err("the engine has stopped".to_owned()),
            Err(_) => Err(format!("the engine has not answered for {} s", READY.as_secs())),
        }
    }

    /// All metrics as OpenMetrics text.
    pub(crate) async fn scrape(&self) -> Result<String, String> {
        let engine = self.inspect().await?;
        let (reply, answer) = oneshot::channel();
        // A disk that hangs must not hide the other metrics.
        let stats = self.ask(Command::Stats { reply }, answer).await.ok();
        let rtt = self.0.network.peers().await.into_iter().filter_map(|peer| Some((peer.id, peer.rtt_ms?)));
        self.0.metrics.update(engine, stats, rtt);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)
            .map_err(|error| format!("the metrics cannot be written: {error}"))?;
        Ok(text)
    }

    pub(crate) async fn set_faults(&self, faults: Faults) -> Result<(), FaultsError> {
        let switch = self.faults().ok_or(FaultsError::NotAllowed)?;
        faults.check(&self.0.site)?;
        tracing::warn!(?faults, "faults on purpose");
        switch.set(faults);
        self.apply_cut(switch).await;
        Ok(())
    }

    /// Blocks the nodes of the sites that are cut off, and no others.
    async fn apply_cut(&self, switch: &Switch) {
        let _applying = switch.applying.lock().await;
        let cut = switch.current().cut;
        let wanted = if cut.is_empty() {
            BTreeSet::new()
        } else {
            match self.request("faults".to_owned(), Request::Sites).await {
                Ok(Response::Sites(sites)) => {
                    let concerned = sites.into_iter().filter(|site| cut.contains(&site.site));
                    concerned.flat_map(|site| site.nodes).map(|node| node.node).collect()
                }
                // Blocked nodes stay blocked; the next attempt comes soon.
                _ => return,
            }
        };
        let (block, unblock) = switch.replace_blocked(wanted);
        for node in block {
            if let Err(error) = self.0.network.block(&node.0) {
                tracing::warn!(%node, %error, "cannot block");
            }
        }
        for node in unblock {
            if let Err(error) = self.0.network.unblock(&node.0) {
                tracing::warn!(%node, %error, "cannot unblock");
            }
        }
    }

    /// Keeps nodes out that are learned of only after their site was cut off.
    pub(crate) async fn keep_cut(self) {
        let Some(switch) = self.faults() else { return };
        let mut faults = switch.watch();
        let mut closed = self.0.closed.subscribe();
        let keep = async {
            loop {
                if faults.wait_for(|faults| !faults.cut.is_empty()).await.is_err() {
                    return;
                }
                self.apply_cut(switch).await;
                tokio::time::sleep(CUT_REFRESH).await;
            }
        };
        tokio::select! {
            () = keep => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// Keeps the driver from a replica until what is given is dropped.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn hold(&self, replicant: ReplicantId) -> Held {
        self.0.holds.hold(replicant)
    }

    /// Has the engine look at a replica. False once the node stops.
    pub(crate) async fn drifted(&self, replicant: ReplicantId) -> bool {
        self.0.commands.send(Command::Drifted { replicant }).await.is_ok()
    }

    /// The platform of a kind cannot be reached since then, or can be again. False once the node stops.
    pub(crate) async fn platform(&self, kind: String, away_since: Option<u64>) -> bool {
        self.0.commands.send(Command::Platform { kind, away_since }).await.is_ok()
    }

    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.0.closed.subscribe()
    }

    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    pub(crate) fn has_stopped(&self, stopped: Stopped) {
        self.close();
        self.0.stopped.send_replace(Some(stopped));
    }

    pub(crate) async fn stopped(&self) -> Stopped {
        let mut stopped = self.0.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Stopped::Asked),
            Err(_) => Stopped::Asked,
        }
    }
}
