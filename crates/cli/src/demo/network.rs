//! The private network of the demo.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use khufu_engine::{Liveness, SiteView};
use khufu_node::PeerView;
use khufu_p2p::Psk;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::site::Site;
use super::{DemoError, NAMES, until};
use crate::client::Ask;

/// How long the nodes may take to find each other.
const MEET: Duration = Duration::from_secs(30);
/// How long a cut may take to show.
const CUT: Duration = Duration::from_secs(15);

/// Several sites in a temporary directory. Dropping it kills the processes, then removes the directory.
#[derive(Debug)]
pub(crate) struct Network {
    /// The sites, the first is the one that the others bootstrap from.
    pub(crate) sites: Vec<Site>,
    root: TempDir,
}

impl Network {
    /// Starts `count` sites with a key of their own.
    ///
    /// # Errors
    /// [`DemoError`] if one does not start; nothing is left running.
    pub(crate) async fn start(count: usize) -> Result<Self, DemoError> {
        let io = |source| DemoError::Io { what: "make a temporary directory".into(), source };
        let root = tempfile::Builder::new().prefix("khufu-demo-").tempdir().map_err(io)?;
        let psk = root.path().join("swarm.key");
        Psk::generate().to_file(&psk)?;
        let names = NAMES.get(..count).unwrap_or(&NAMES);
        let mut sites = Vec::new();
        if let Some((first, others)) = names.split_first() {
            let first = Site::start(first, root.path(), &psk, None).await?;
            let start = |name: &&'static str| Site::start(name, root.path(), &psk, Some(&first.address));
            let others = try_join_all(others.iter().map(start)).await?;
            sites.push(first);
            sites.extend(others);
        }
        Ok(Self { sites, root })
    }

    /// Where everything is.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// How to talk to the sites, for programs.
    pub(crate) fn json(&self) -> Value {
        let site = |site: &Site| json!({"site": site.name, "api": site.api, "node": site.node, "listen": site.address, "files": site.replicas});
        json!({"directory": self.root(), "sites": self.sites.iter().map(site).collect::<Vec<_>>()})
    }

    /// Waits until every node knows every site to be alive, and has a connection with each.
    ///
    /// # Errors
    /// [`DemoError::Late`].
    pub(crate) async fn met(&self) -> Result<(), DemoError> {
        let count = self.sites.len();
        try_join_all(self.sites.iter().map(|site| {
            until("every site sees every other", MEET, async || {
                let (views, _): (Vec<SiteView>, Value) = ask(site, "/v1/sites").await?;
                let alive = views.iter().filter(|view| view.here || view.state == Liveness::Alive).count();
                let peers = peers(site).await?;
                let met = alive == count && peers.len() == count - 1;
                if met { Ok(()) } else { Err(format!("{} sees {alive} sites, {} connections", site.name, peers.len())) }
            })
        }))
        .await?;
        Ok(())
    }

    /// Cuts a site off from all others, and waits until nobody has a connection with it.
    ///
    /// # Errors
    /// If a node refuses, or the cut does not show.
    pub(crate) async fn cut(&self, cut: &Site) -> Result<(), DemoError> {
        let others = || self.sites.iter().filter(|site| site.name != cut.name);
        let names: Vec<&str> = others().map(|site| site.name).collect();
        cut.client.ask(Ask::new(Method::PUT, "/v1/faults").body(json!({"cut": names}))).await?;
        until("the cut shows", CUT, async || {
            let left = peers(cut).await?.len();
            if left > 0 {
                return Err(format!("{} still has {left} connections", cut.name));
            }
            for other in others() {
                if peers(other).await?.iter().any(|peer| peer.node.to_string() == cut.node) {
                    return Err(format!("{} still has a connection with {}", other.name, cut.name));
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes the cut back.
    ///
    /// # Errors
    /// If the node refuses.
    pub(crate) async fn heal(&self, cut: &Site) -> Result<(), DemoError> {
        cut.client.ask(Ask::new(Method::PUT, "/v1/faults").body(json!({}))).await?;
        Ok(())
    }

    /// Whether all processes still run.
    ///
    /// # Errors
    /// The first that does not, with the end of its log.
    pub(crate) fn runs(&mut self) -> Result<(), DemoError> {
        self.sites.iter_mut().try_for_each(Site::runs)
    }

    /// Ends all processes in order. With `keep` the directory stays, and where it is comes back.
    ///
    /// # Errors
    /// The first site that did not stop in order; none is left running then either.
    pub(crate) async fn stop(self, keep: bool) -> Result<Option<PathBuf>, DemoError> {
        let Self { sites, root } = self;
        let stopped = join_all(sites.into_iter().map(Site::stop)).await;
        let kept = keep.then(|| root.keep());
        stopped.into_iter().collect::<Result<(), _>>()?;
        Ok(kept)
    }
}

/// Asks a site; why it did not answer comes as text, for what is said if the time is over.
pub(super) async fn ask<T: serde::de::DeserializeOwned>(site: &Site, path: &str) -> Result<(T, Value), String> {
    site.client.ask_for(Ask::get(path)).await.map_err(|error| error.to_string())
}

async fn peers(site: &Site) -> Result<Vec<PeerView>, String> {
    ask(site, "/v1/peers").await.map(|(peers, _)| peers)
}
