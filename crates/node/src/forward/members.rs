//! Which node is of which site, as the signed records say.

use std::sync::Arc;
use std::time::Duration;

use khufu_crdt::SiteName;
use khufu_engine::{Liveness, NodeId, Request, Response, SiteView};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::handle::Handle;

/// What is known is asked for again after so long,
const FRESH: Duration = Duration::from_secs(1);
/// and sooner, at most so often, for a node or a site that was not known then.
const AGAIN: Duration = Duration::from_millis(100);

/// What the engine last said of the sites.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<Option<(Instant, Arc<Vec<SiteView>>)>>);

impl Members {
    /// The sites as they were that long ago at most; none if the engine does not say.
    async fn sites(&self, handle: &Handle, at_most: Duration) -> Option<Arc<Vec<SiteView>>> {
        // Held over the question, so that many who want to know make one question.
        let mut known = self.0.lock().await;
        if let Some((at, sites)) = known.as_ref().filter(|(at, _)| at.elapsed() < at_most) {
            tracing::trace!(age = ?at.elapsed(), "the sites are known");
            return Some(sites.clone());
        }
        let Ok(Response::Sites(sites)) = handle.request("forward".to_owned(), Request::Sites).await else {
            return None;
        };
        let sites = Arc::new(sites);
        *known = Some((Instant::now(), sites.clone()));
        Some(sites)
    }

    /// What `look` finds, in what is known or, if it is not there, in what is known now.
    async fn find<T>(&self, handle: &Handle, look: impl Fn(&[SiteView]) -> Option<T>) -> Option<T> {
        for at_most in [FRESH, AGAIN] {
            if let Some(found) = look(&self.sites(handle, at_most).await?) {
                return Some(found);
            }
        }
        None
    }

    /// The site of a node.
    pub(super) async fn site_of(&self, handle: &Handle, node: &str) -> Option<SiteName> {
        let is_of = |site: &&SiteView| site.nodes.iter().any(|one| one.node.0 == node);
        self.find(handle, |sites| sites.iter().find(is_of).map(|site| site.site.clone())).await
    }

    /// A node of that site that is up, the least suspected first.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn node_of(&self, handle: &Handle, site: &SiteName) -> Result<NodeId, String> {
        let up = |sites: &[SiteView]| {
            let nodes = sites.iter().filter(|one| one.site == *site).flat_map(|one| &one.nodes);
            let up = nodes.filter(|node| handle.network().is_up(&node.node.0));
            up.min_by(|one, other| one.phi.total_cmp(&other.phi)).map(|node| node.node.clone())
        };
        if let Some(node) = self.find(handle, up).await {
            return Ok(node);
        }
        let sites = self.sites(handle, FRESH).await;
        Err(match sites.as_deref().and_then(|sites| sites.iter().find(|one| one.site == *site)) {
            None => "nobody of that name is known here; `khufu sites` lists the sites".to_owned(),
            Some(known) if known.state == Liveness::Down => "it is down".to_owned(),
            Some(_) => "this node has no connection to any of its nodes".to_owned(),
        })
    }
}
