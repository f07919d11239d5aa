//! Which node is of which site, as the signed records say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use khufu_crdt::SiteName;
use khufu_engine::{Liveness, NodeId, Request, Response, SiteView};
use tokio::time::{Instant, timeout};

use crate::handle::Handle;

/// What is known is asked for again after so long,
const FRESH: Duration = Duration::from_secs(1);
/// and sooner, at most so often, for a node or a site that was not known then.
const AGAIN: Duration = Duration::from_millis(100);
/// The engine answers within so long, or what it said before has to do.
const ANSWER: Duration = Duration::from_secs(2);
/// Of a node that is suspected so much (phi), others of its site are asked first.
const SUSPECT: f64 = 3.0;

/// What the engine last said of the sites.
#[derive(Debug, Default)]
pub(super) struct Members(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    sites: Option<Arc<Vec<SiteView>>>,
    /// When it last answered, or did not.
    asked: Option<Instant>,
    failed: bool,
    /// Many who want to know make one question.
    asking: Option<Shared<BoxFuture<'static, ()>>>,
    /// The nodes in the order in which they became known.
    since: BTreeMap<NodeId, u64>,
    nodes: u64,
}

/// The engine does not say what it knows.
#[derive(Debug)]
pub(super) struct Unready;

/// Why there is no node to ask.
#[derive(Debug)]
pub(super) enum NoNode {
    /// It is not known.
    Unready,
    /// In words.
    Unreachable(String),
}

impl From<Unready> for NoNode {
    fn from(_: Unready) -> Self {
        Self::Unready
    }
}

impl Known {
    fn learn(&mut self, sites: Vec<SiteView>) {
        self.since.retain(|node, _| sites.iter().flat_map(|site| &site.nodes).any(|view| view.node == *node));
        for view in sites.iter().flat_map(|site| &site.nodes) {
            if !self.since.contains_key(&view.node) {
                self.nodes += 1;
                self.since.insert(view.node.clone(), self.nodes);
            }
        }
        self.sites = Some(Arc::new(sites));
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask(known: Arc<Mutex<Known>>, handle: Handle) {
    let answer = timeout(ANSWER, handle.request("forward".to_owned(), Request::Sites)).await;
    let mut known = lock(&known);
    known.asking = None;
    known.asked = Some(Instant::now());
    known.failed = true;
    match answer {
        Ok(Ok(Response::Sites(sites))) => {
            handle.network().set_members(sites.iter().flat_map(|site| &site.nodes).map(|view| view.node.0.as_str()));
            known.learn(sites);
            known.failed = false;
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the engine does not say which sites there are"),
        Err(_) => tracing::warn!("the engine has not said within {} s which sites there are", ANSWER.as_secs()),
    }
}

impl Members {
    /// The sites as they were that long ago at most, if the engine says so in time; else as they were before.
    pub(super) async fn sites(&self, handle: &Handle, at_most: Duration) -> Result<Arc<Vec<SiteView>>, Unready> {
        let asking = {
            let mut known = lock(&self.0);
            // Who did not answer is not asked at once again.
            let at_most = if known.failed { FRESH } else { at_most };
            if known.asked.is_some_and(|at| at.elapsed() < at_most) {
                return known.sites.clone().ok_or(Unready);
            }
            // A task of its own, so that it goes on when whoever asked first has gone.
            let begin = || tokio::spawn(ask(self.0.clone(), handle.clone())).map(drop).boxed().shared();
            known.asking.get_or_insert_with(begin).clone()
        };
        asking.await;
        lock(&self.0).sites.clone().ok_or(Unready)
    }

    /// What `look` finds, in what is known or, if it is not there, in what is known now.
    async fn find<T>(&self, handle: &Handle, look: impl Fn(&[SiteView]) -> Option<T>) -> Result<Option<T>, Unready> {
        if let Some(found) = look(&self.sites(handle, FRESH).await?) {
            return Ok(Some(found));
        }
        let asked = lock(&self.0).asked;
        if let Some(asked) = asked {
            tokio::time::sleep_until(asked + AGAIN).await;
        }
        if let Some(found) = look(&self.sites(handle, AGAIN).await?) {
            return Ok(Some(found));
        }
        // What was not known then may be known by now.
        if lock(&self.0).failed { Err(Unready) } else { Ok(None) }
    }

    /// The site of a node; none if it has no record.
    pub(super) async fn site_of(&self, handle: &Handle, node: &NodeId) -> Result<Option<SiteName>, Unready> {
        if node == handle.node() {
            return Ok(Some(handle.site().clone()));
        }
        let is_of = |site: &&SiteView| site.nodes.iter().any(|one| one.node == *node);
        self.find(handle, |sites| sites.iter().find(is_of).map(|site| site.site.clone())).await
    }

    /// The other nodes of that site that are up, the one to ask first first: whoever is not suspected before who is, and who
    /// has been known for longer before who is new. Anybody can say of himself that he is of a site.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn nodes_of(&self, handle: &Handle, site: &SiteName) -> Result<Vec<NodeId>, NoNode> {
        let up = |sites: &[SiteView]| {
            let nodes = sites.iter().filter(|one| one.site == *site).flat_map(|one| &one.nodes);
            let up = nodes.filter(|node| node.node != *handle.node() && handle.network().is_up(&node.node.0));
            let known = lock(&self.0);
            let mut up: Vec<_> =
                up.map(|node| (node.phi >= SUSPECT, known.since.get(&node.node).copied(), node.node.clone())).collect();
            up.sort();
            Some(up.into_iter().map(|(_, _, node)| node).collect::<Vec<_>>()).filter(|up| !up.is_empty())
        };
        if let Some(nodes) = self.find(handle, up).await? {
            return Ok(nodes);
        }
        let sites = self.sites(handle, FRESH).await?;
        Err(NoNode::Unreachable(match sites.iter().find(|one| one.site == *site) {
            None => "nobody of that name is known here; `khufu sites` lists the sites".to_owned(),
            Some(known) if known.state == Liveness::Down => "it is down".to_owned(),
            Some(_) => "this node has no connection to any of its nodes".to_owned(),
        }))
    }
}
