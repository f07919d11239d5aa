//! Where it is written how an API server is reached: a file, one of its contexts, and the files that it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::DriverError;

/// What tells that a file may be another; none if it is not there.
type Written = Option<(SystemTime, u64)>;

/// All files by which a server is reached, as they were when they were read.
pub(super) type Files = BTreeMap<PathBuf, Written>;

fn written(path: &Path) -> Written {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The certificates, keys and tokens that a configuration does not hold itself.
fn named(config: &Kubeconfig) -> impl Iterator<Item = PathBuf> {
    let clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let users = config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    let files = users.flat_map(|user| [&user.client_certificate, &user.client_key, &user.token_file]);
    clusters.map(|cluster| &cluster.certificate_authority).chain(files).flatten().map(PathBuf::from)
}

/// A file with clusters and credentials, and one of its contexts.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) context: Option<String>,
}

impl Source {
    pub(super) async fn read(&self) -> Result<Config, DriverError> {
        self.read_all().await.map(|(config, _)| config)
    }

    /// The configuration, and the files that it is from as they were before they were read.
    async fn read_all(&self) -> Result<(Config, Files), DriverError> {
        let wrong = |error: String| DriverError::invalid(self.path.display().to_string(), error);
        let mut files = Files::from([(self.path.clone(), written(&self.path))]);
        let file = Kubeconfig::read_from(&self.path).map_err(|error| wrong(error.to_string()))?;
        files.extend(named(&file).map(|path| (path.clone(), written(&path))));
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(error.to_string()))?;
        Ok((config, files))
    }

    /// The configuration, which is to be read again when one of its files is written anew.
    pub(super) async fn followed(self) -> Result<(Config, Sourced), DriverError> {
        let (config, files) = self.read_all().await?;
        Ok((config, Sourced { source: self, files: Mutex::new(files), failed: Mutex::default() }))
    }
}

/// How the API server is reached, where that may change.
pub(super) struct Sourced {
    source: Source,
    files: Mutex<Files>,
    /// With these files it could not be reached anew, which was said.
    failed: Mutex<Files>,
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sourced {
    pub(super) fn path(&self) -> &Path {
        &self.source.path
    }

    /// What is written there now, if any file is another than when it was taken up.
    pub(super) async fn anew(&self) -> Option<(Config, Files)> {
        let now: Files = lock(&self.files).keys().map(|path| (path.clone(), written(path))).collect();
        // What is not there may be about to be written.
        if now.get(&self.source.path).is_none_or(Option::is_none) || *lock(&self.files) == now {
            return None;
        }
        match self.source.read_all().await {
            Ok(read) => Some(read),
            Err(error) => {
                self.failed(now, &error);
                None
            }
        }
    }

    /// It was taken up.
    pub(super) fn took(&self, files: Files) {
        *lock(&self.files) = files;
    }

    /// It may be half written, and is read again.
    pub(super) fn failed(&self, files: Files, error: &DriverError) {
        let mut failed = lock(&self.failed);
        if *failed != files {
            tracing::warn!(%error, "the API server is reached as before");
            *failed = files;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn every_file_that_is_named_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let pem = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
        let names = ["ca.crt", "client.crt", "client.key", "token"];
        names.iter().for_each(|name| write(name, &pem()));
        let user = json!({"client-certificate": "client.crt", "client-key": "client.key", "tokenFile": "token"});
        let cluster = json!({"server": "https://127.0.0.1:1", "certificate-authority": "ca.crt"});
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}], "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
        write("config", &config.to_string());
        let source = Source { path: folder.path().join("config"), context: None };
        let (_, sourced) = source.followed().await.unwrap();
        assert!(sourced.anew().await.is_none());
        for name in names {
            write(name, &format!("{}\n", pem()));
            let (_, files) = sourced.anew().await.unwrap();
            assert!(sourced.anew().await.is_some(), "{name} was not taken up yet");
            sourced.took(files);
            assert!(sourced.anew().await.is_none(), "{name}");
        }
        // What is not there is waited for, and what is broken is left alone.
        std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
        assert!(sourced.anew().await.is_none());
        write("ca.crt", &format!("{}\n\n", pem()));
        assert!(sourced.anew().await.is_some());
        write("config", "{");
        assert!(sourced.anew().await.is_none());
    }
}
