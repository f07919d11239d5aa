//! `khufu.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, ENVIRONMENT, IN_CLUSTER, Layer, Pace};

/// The keys of the file; any other is refused, since a mistyped one would silently do nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    site: Option<String>,
    data: Option<PathBuf>,
    listen: Option<OneOrMany>,
    api: Option<String>,
    psk_file: Option<PathBuf>,
    bootstrap: Option<OneOrMany>,
    drivers: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    tokens: Option<PathBuf>,
    kubernetes_front: Option<String>,
    kubernetes_front_cert: Option<PathBuf>,
    kubernetes_front_key: Option<PathBuf>,
    cheops_api: Option<String>,
    cheops_open: Option<bool>,
    http_fronts: Option<BTreeMap<String, String>>,
    http_front_open: Option<bool>,
    mdns: Option<bool>,
    allow_faults: Option<bool>,
    open_network: Option<bool>,
    pace: Option<Pace>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(value: OneOrMany) -> Self {
        match value {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// Reads a file. Relative paths in it start at the directory that it is in.
///
/// # Errors
/// [`ConfigError`] naming the file and, for a mistake in it, line and column.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let file: File = toml::from_str(text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string().trim().to_owned() })?;
    let base = path.parent().unwrap_or(Path::new(""));
    let at_base = |path: PathBuf| if base.as_os_str().is_empty() { path } else { base.join(path) };
    Ok(Layer {
        site: file.site,
        data: file.data.map(at_base),
        listen: file.listen.map(Into::into),
        api: file.api,
        psk_file: file.psk_file.map(at_base),
        bootstrap: file.bootstrap.map(Into::into),
        drivers: file.drivers.map(|drivers| relocate(drivers, base)),
        labels: file.labels,
        tokens: file.tokens.map(at_base),
        kubernetes_front: file.kubernetes_front,
        kubernetes_front_cert: file.kubernetes_front_cert.map(at_base),
        kubernetes_front_key: file.kubernetes_front_key.map(at_base),
        cheops_api: file.cheops_api,
        cheops_open: file.cheops_open,
        http_fronts: file.http_fronts,
        http_front_open: file.http_front_open,
        mdns: file.mdns,
        allow_faults: file.allow_faults,
        open_network: file.open_network,
        pace: file.pace,
    })
}

/// Whether the option of a driver is a path.
fn is_path(kind: &str, option: &str) -> bool {
    match kind {
        "files" | "http" | "shell" => true,
        "kubernetes" => option != IN_CLUSTER,
        "openstack" => option != ENVIRONMENT,
        _ => false,
    }
}

/// The options of the drivers are paths, too.
fn relocate(drivers: BTreeMap<String, String>, base: &Path) -> BTreeMap<String, String> {
    drivers
        .into_iter()
        .map(|(kind, option)| {
            let path = base.join(&option);
            match path.to_str() {
                Some(path) if is_path(&kind, &option) => (kind, path.to_owned()),
                _ => (kind, option),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_start_at_the_file() {
        let text = "site = 'paris'\ndata = 'data'\npsk_file = '/etc/khufu/swarm.key'\nlisten = '/ip4/0.0.0.0/tcp/1'\n\
                    [drivers]\nfiles = 'replicas'\nhttp = 'http.toml'\nshell = 'shell.toml'\nopenstack = 'clouds.yaml#paris'\n";
        let layer = parse(Path::new("/srv/paris/khufu.toml"), text).unwrap();
        assert_eq!(layer.data.unwrap(), PathBuf::from("/srv/paris/data"));
        assert_eq!(layer.psk_file.unwrap(), PathBuf::from("/etc/khufu/swarm.key"));
        let drivers = layer.drivers.unwrap();
        assert_eq!(drivers["files"], "/srv/paris/replicas");
        assert_eq!(drivers["http"], "/srv/paris/http.toml");
        assert_eq!(drivers["shell"], "/srv/paris/shell.toml");
        assert_eq!(drivers["openstack"], "/srv/paris/clouds.yaml#paris");
        assert_eq!(layer.listen.unwrap(), ["/ip4/0.0.0.0/tcp/1"]);
        assert!(!is_path("openstack", ENVIRONMENT) && !is_path("kubernetes", IN_CLUSTER));
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_with_its_line() {
        let error = parse(Path::new("khufu.toml"), "site = 'paris'\nbootstraps = []\n").unwrap_err().to_string();
        assert!(error.contains("khufu.toml") && error.contains("line 2"), "{error}");
        assert!(error.contains("bootstraps") && error.contains("bootstrap"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_line() {
        let error = parse(Path::new("khufu.toml"), "site = 'paris'\n\nlisten = 7\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("string"), "{error}");
    }
}
