//! A private network in a temporary directory.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{Site, SiteBuilder, until};

/// A directory for sites, and the key that they share. Make it before the sites, so that it goes after them.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: TempDir,
}

impl Lab {
    /// A new directory with a new key.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("khufu-e2e-").tempdir().expect("a temporary directory");
        let lab = Self { dir };
        khufu_p2p::Psk::generate().to_file(lab.psk()).expect("a key");
        lab
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The key of the network.
    pub(crate) fn psk(&self) -> PathBuf {
        self.path().join("swarm.key")
    }

    /// A site to be started, with its data in a folder of its name.
    pub(crate) fn site(&self, name: &str) -> SiteBuilder {
        SiteBuilder::new(name, self.path().join(name), self.psk())
    }

    /// Waits until each of these sites knows all the others to be alive.
    pub(crate) async fn met(&self, sites: &[&Site]) {
        for site in sites {
            until("all sites see each other", || async {
                let views = site.try_get("/v1/sites").await?;
                let alive = |name: &str| {
                    let mut views = views.as_array().into_iter().flatten();
                    views.any(|view| view["site"] == name && (view["here"] == true || view["state"] == "alive"))
                };
                match sites.iter().find(|other| !alive(other.name())) {
                    None => Ok(()),
                    Some(other) => Err(format!("{} does not see {}: {views}", site.name(), other.name())),
                }
            })
            .await;
        }
    }

    /// Waits until all these sites have the same contents of a replicant on disk, and gives them.
    pub(crate) async fn same_file(&self, id: &str, sites: &[&Site]) -> String {
        until(&format!("all sites have the same {id}"), || async {
            let files: Vec<Option<String>> = sites.iter().map(|site| site.file(id)).collect();
            match files.first() {
                Some(Some(first)) if files.iter().all(|file| file.as_ref() == Some(first)) => Ok(first.clone()),
                _ => Err(format!("{files:?}")),
            }
        })
        .await
    }

    /// Waits until `verify`, asked at `site`, finds everything the same, and gives its report.
    pub(crate) async fn verified(&self, site: &Site) -> Value {
        until("verify finds everything the same", || async {
            let report = site.try_get("/v1/verify").await?;
            if report["same"] == true { Ok(report) } else { Err(report.to_string()) }
        })
        .await
    }
}
