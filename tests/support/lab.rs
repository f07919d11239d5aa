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

/// A pair of sites that are cut off from each other.
pub(crate) type Pair = (&'static str, &'static str);

impl Lab {
    /// Three sites that see each other: paris, rennes, nantes.
    pub(crate) async fn three(&self) -> [Site; 3] {
        let paris = self.site("paris").start().await;
        let (rennes, nantes) =
            tokio::join!(self.site("rennes").bootstrap(&paris).start(), self.site("nantes").bootstrap(&paris).start());
        self.met(&[&paris, &rennes, &nantes]).await;
        [paris, rennes, nantes]
    }

    /// Cuts these pairs apart and no others, and waits until it is so.
    pub(crate) async fn cut(&self, sites: &[&Site], pairs: &[Pair]) {
        let apart = |a: &str, b: &str| pairs.iter().any(|(c, d)| (a, b) == (*c, *d) || (b, a) == (*c, *d));
        let others =
            |site: &Site| sites.iter().filter(|other| other.node() != site.node()).copied().collect::<Vec<_>>();
        for site in sites {
            let cut: Vec<&str> =
                others(site).iter().map(|other| other.name()).filter(|other| apart(site.name(), other)).collect();
            site.cut(&cut).await;
        }
        for site in sites {
            until("the cuts are as wanted", || async {
                let peers = site.try_get("/v1/peers").await?;
                let connected = |other: &Site| {
                    peers.as_array().into_iter().flatten().any(|peer| peer["node"].as_str() == Some(other.node()))
                };
                let wrong = others(site).into_iter().find(|other| connected(other) == apart(site.name(), other.name()));
                match wrong {
                    None => Ok(()),
                    Some(other) => {
                        Err(format!("{} and {}: connected is {}", site.name(), other.name(), connected(other)))
                    }
                }
            })
            .await;
        }
    }

    /// Waits until these sites hold the same document, say that every site is done, and have the same file; gives it.
    pub(crate) async fn converged(&self, id: &str, sites: &[&Site]) -> String {
        until(&format!("all sites agree on {id} and are done"), || async {
            let mut first: Option<(Value, Option<String>)> = None;
            for site in sites {
                let view = site.try_get(&format!("/v1/replicants/{id}")).await?;
                let state = (view["heads"].clone(), site.file(id));
                if view["status"] != "applied" {
                    return Err(format!("at {}: {view}", site.name()));
                }
                match &first {
                    Some(first) if *first != state => {
                        return Err(format!("{first:?}, but at {}: {state:?}", site.name()));
                    }
                    Some(_) => {}
                    None => first = Some(state),
                }
            }
            first.and_then(|(_, file)| file).ok_or_else(|| "no file".to_owned())
        })
        .await
    }

    /// Waits until a site has these contents of a replicant on disk, whatever the others have.
    pub(crate) async fn here_is(&self, id: &str, contents: &str, site: &Site) {
        until(&format!("{} has made {id}", site.name()), || async {
            match site.file(id) {
                Some(file) if file == contents => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until no site of these has a file, nor lists the replicant.
    pub(crate) async fn gone(&self, id: &str, sites: &[&Site]) {
        until(&format!("{id} is gone"), || async {
            for site in sites {
                if site.file(id).is_some() {
                    return Err(format!("{} has the file", site.name()));
                }
                if site.lists(id).await? {
                    return Err(format!("{} lists it", site.name()));
                }
            }
            Ok(())
        })
        .await;
    }
}

impl Lab {
    /// Waits until an operation has been applied at one site.
    pub(crate) async fn here(&self, id: &str, operation: &str, site: &Site) {
        until(&format!("{operation} is applied at {}", site.name()), || async {
            let view = site.try_get(&format!("/v1/replicants/{id}")).await?;
            let report = &view["sites"][site.name()]["report"]["operations"][operation];
            if report["status"] == "applied" { Ok(()) } else { Err(view["sites"].to_string()) }
        })
        .await;
    }

    /// Waits until these sites hold the same document and have made the same file of it, whatever the other sites say.
    pub(crate) async fn same_document(&self, id: &str, sites: &[&Site]) {
        until(&format!("these sites hold the same {id}"), || async {
            let mut found = Vec::new();
            for site in sites {
                let view = site.try_get(&format!("/v1/replicants/{id}")).await?;
                let status = &view["sites"][site.name()];
                let done = status["current"] == true && status["report"]["status"] == "applied";
                found.push((view["heads"].clone(), done, site.file(id)));
            }
            let same = found.iter().all(|state| state == &found[0] && state.1);
            if same { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}
