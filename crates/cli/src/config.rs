//! The configuration of a node: where each value comes from, and what is in force in the end.
//!
//! A value is taken from the first of: the command line, the environment, the file, the default. A list or a table given
//! at one of these places replaces the one below it as a whole.

mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file that is read if it is there and `--config` names no other.
pub(crate) const DEFAULT_FILE: &str = "khufu.toml";

/// The option with which the driver `openstack` takes the cloud of the variables `OS_*`; any other is a path.
pub(crate) const ENVIRONMENT: &str = "env";
/// The option with which the driver `kubernetes` takes the cluster that the node runs in; any other is a path.
pub(crate) const IN_CLUSTER: &str = "in-cluster";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not as it should be, or holds a key that nobody knows.
    #[error("the configuration {} is not as it should be: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what is expected.
        message: String,
    },
    /// A variable of the environment is not as it should be.
    #[error("the variable {name} is not as it should be: {message}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is expected.
        message: String,
    },
    /// A value that has no default is missing.
    #[error(
        "no {what} is given: use {flag}, the variable {variable}, or {key} in khufu.toml (`khufu init` writes one)"
    )]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The argument.
        flag: &'static str,
        /// The variable.
        variable: &'static str,
        /// The key in the file.
        key: &'static str,
    },
}

/// What one place says; a field that it does not speak of is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layer {
    /// The site that the node serves.
    pub(crate) site: Option<String>,
    /// The directory that the node keeps its state in.
    pub(crate) data: Option<PathBuf>,
    /// Multiaddresses to listen on.
    pub(crate) listen: Option<Vec<String>>,
    /// The address that the API is served at.
    pub(crate) api: Option<String>,
    /// The key of the private network.
    pub(crate) psk_file: Option<PathBuf>,
    /// Multiaddresses of nodes to connect to.
    pub(crate) bootstrap: Option<Vec<String>>,
    /// Drivers with their option.
    pub(crate) drivers: Option<BTreeMap<String, String>>,
    /// Labels of the site.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// The tokens that the API accepts.
    pub(crate) tokens: Option<PathBuf>,
    /// The address that the front for kubectl is served at.
    pub(crate) kubernetes_front: Option<String>,
    /// Its certificate and key.
    pub(crate) kubernetes_front_cert: Option<PathBuf>,
    pub(crate) kubernetes_front_key: Option<PathBuf>,
    /// The address that the API of Cheops is served at, and whether without tokens.
    pub(crate) cheops_api: Option<String>,
    pub(crate) cheops_open: Option<bool>,
    /// Fronts of HTTP services: where each is served, and where the service is; and whether beyond this machine.
    pub(crate) http_fronts: Option<BTreeMap<String, String>>,
    pub(crate) http_front_open: Option<bool>,
    /// Whether other nodes of the local network are looked for.
    pub(crate) mdns: Option<bool>,
    /// Whether faults can be injected.
    pub(crate) allow_faults: Option<bool>,
    /// Whether a node without a key may listen beyond loopback.
    pub(crate) open_network: Option<bool>,
    /// How patient the node is.
    pub(crate) pace: Option<Pace>,
}

/// How patient a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pace {
    /// Sites some tens of milliseconds apart.
    #[default]
    Production,
    /// Sites on one machine or in one building: heartbeats, reconciliation and reconnection several times as often.
    Fast,
}

/// The place that a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Built in.
    Default,
    /// `khufu.toml`.
    File,
    /// `KHUFU_...`.
    Environment,
    /// The command line.
    Argument,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Argument => "argument",
        }
    }
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Settings {
    /// The site that the node serves.
    pub(crate) site: String,
    /// The directory that the node keeps its state in.
    pub(crate) data: PathBuf,
    /// Multiaddresses to listen on.
    pub(crate) listen: Vec<String>,
    /// The address that the API is served at.
    pub(crate) api: String,
    /// The file with the key of the private network. Only its name: the key itself is never printed.
    pub(crate) psk_file: Option<PathBuf>,
    /// Multiaddresses of nodes to connect to.
    pub(crate) bootstrap: Vec<String>,
    /// Drivers with their option.
    pub(crate) drivers: BTreeMap<String, String>,
    /// Labels of the site.
    pub(crate) labels: BTreeMap<String, String>,
    /// The file with the tokens that the API accepts.
    pub(crate) tokens: Option<PathBuf>,
    /// The address that the front for kubectl is served at.
    pub(crate) kubernetes_front: Option<String>,
    /// The certificate of the front, and its key.
    pub(crate) kubernetes_front_cert: Option<PathBuf>,
    pub(crate) kubernetes_front_key: Option<PathBuf>,
    /// The address that the API of Cheops is served at.
    pub(crate) cheops_api: Option<String>,
    /// Whether that is open to everybody who gets there.
    pub(crate) cheops_open: bool,
    /// Fronts of HTTP services: where each is served, and where the service is.
    pub(crate) http_fronts: BTreeMap<String, String>,
    /// Whether they may be served beyond this machine.
    pub(crate) http_front_open: bool,
    /// Whether other nodes of the local network are looked for.
    pub(crate) mdns: bool,
    /// Whether faults can be injected.
    pub(crate) allow_faults: bool,
    /// Whether a node without a key may listen beyond loopback.
    pub(crate) open_network: bool,
    /// How patient the node is.
    pub(crate) pace: Pace,
}

/// What is in force, and where each value came from.
#[derive(Debug, Clone)]
pub(crate) struct Effective {
    /// The values.
    pub(crate) settings: Settings,
    sources: Vec<(&'static str, Source)>,
}

impl Effective {
    /// The configuration line by line, with the place each value came from. Holds no key and no token.
    pub(crate) fn lines(&self) -> Vec<String> {
        let values = serde_json::to_value(&self.settings).unwrap_or_default();
        self.sources.iter().map(|(key, source)| format!("{key} = {} ({})", values[*key], source.word())).collect()
    }
}

/// Reads the file that `--config` names, or [`DEFAULT_FILE`] if there is one, or nothing.
///
/// # Errors
/// [`ConfigError`] if the file cannot be read, or is not as it should be.
pub(crate) fn read_file(named: Option<&Path>) -> Result<Layer, ConfigError> {
    match named {
        Some(path) => file::read(path),
        None if Path::new(DEFAULT_FILE).exists() => file::read(Path::new(DEFAULT_FILE)),
        None => Ok(Layer::default()),
    }
}

/// Reads the variables `KHUFU_...` that configure a node.
///
/// # Errors
/// [`ConfigError::Environment`] naming the variable.
pub(crate) fn read_environment(get: impl Fn(&str) -> Option<String>) -> Result<Layer, ConfigError> {
    let text = |name: &'static str| get(name).filter(|value| !value.is_empty());
    let list = |name| text(name).map(|value| value.split(',').map(|item| item.trim().to_owned()).collect());
    let pairs = |name| text(name).map(|value| parse_pairs(name, &value, ',', "a=x,b=y")).transpose();
    let switch = |name| text(name).map(|value| parse_switch(name, &value)).transpose();
    Ok(Layer {
        site: text("KHUFU_SITE"),
        data: text("KHUFU_DATA").map(PathBuf::from),
        listen: list("KHUFU_LISTEN"),
        api: text("KHUFU_API_LISTEN"),
        psk_file: text("KHUFU_PSK_FILE").map(PathBuf::from),
        bootstrap: list("KHUFU_BOOTSTRAP"),
        drivers: pairs("KHUFU_DRIVERS")?,
        labels: pairs("KHUFU_LABELS")?,
        tokens: text("KHUFU_TOKENS").map(PathBuf::from),
        kubernetes_front: text("KHUFU_KUBERNETES_FRONT"),
        kubernetes_front_cert: text("KHUFU_KUBERNETES_FRONT_CERT").map(PathBuf::from),
        kubernetes_front_key: text("KHUFU_KUBERNETES_FRONT_KEY").map(PathBuf::from),
        cheops_api: text("KHUFU_CHEOPS_API"),
        cheops_open: switch("KHUFU_CHEOPS_OPEN")?,
        http_fronts: text("KHUFU_HTTP_FRONTS")
            .map(|value| parse_pairs("KHUFU_HTTP_FRONTS", &value, ';', "a=x;b=y"))
            .transpose()?,
        http_front_open: switch("KHUFU_HTTP_FRONT_OPEN")?,
        mdns: switch("KHUFU_MDNS")?,
        allow_faults: switch("KHUFU_ALLOW_FAULTS")?,
        open_network: switch("KHUFU_OPEN_NETWORK")?,
        pace: text("KHUFU_PACE").map(|value| parse_pace("KHUFU_PACE", &value)).transpose()?,
    })
}

fn parse_pairs(
    name: &'static str,
    value: &str,
    separator: char,
    example: &str,
) -> Result<BTreeMap<String, String>, ConfigError> {
    value
        .split(separator)
        .map(|pair| crate::args::values::key_value(pair.trim()))
        .collect::<Result<_, _>>()
        .map_err(|message| ConfigError::Environment { name, message: format!("{message}; write {example}") })
}

fn parse_switch(name: &'static str, value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(ConfigError::Environment { name, message: format!("{value:?} is neither true nor false") }),
    }
}

fn parse_pace(name: &'static str, value: &str) -> Result<Pace, ConfigError> {
    clap::ValueEnum::from_str(value, true)
        .map_err(|_| ConfigError::Environment { name, message: format!("{value:?} is neither production nor fast") })
}

/// Takes each value from the first place that speaks of it.
///
/// # Errors
/// [`ConfigError::Missing`] if nobody says which site this is.
pub(crate) fn merge(arguments: Layer, environment: Layer, file: Layer) -> Result<Effective, ConfigError> {
    let mut sources = Vec::new();
    macro_rules! pick {
        ($field:ident) => {{
            let (value, source) = if let Some(value) = arguments.$field {
                (Some(value), Source::Argument)
            } else if let Some(value) = environment.$field {
                (Some(value), Source::Environment)
            } else if let Some(value) = file.$field {
                (Some(value), Source::File)
            } else {
                (None, Source::Default)
            };
            sources.push((stringify!($field), source));
            value
        }};
    }
    let settings = Settings {
        site: pick!(site).ok_or(ConfigError::Missing {
            what: "site",
            flag: "--site NAME",
            variable: "KHUFU_SITE",
            key: "`site`",
        })?,
        data: pick!(data).unwrap_or_else(|| PathBuf::from("khufu-data")),
        listen: pick!(listen).unwrap_or_else(|| vec!["/ip4/127.0.0.1/tcp/7700".into()]),
        api: pick!(api).unwrap_or_else(|| "127.0.0.1:7780".into()),
        psk_file: pick!(psk_file),
        bootstrap: pick!(bootstrap).unwrap_or_default(),
        drivers: pick!(drivers).unwrap_or_default(),
        labels: pick!(labels).unwrap_or_default(),
        tokens: pick!(tokens),
        kubernetes_front: pick!(kubernetes_front),
        kubernetes_front_cert: pick!(kubernetes_front_cert),
        kubernetes_front_key: pick!(kubernetes_front_key),
        cheops_api: pick!(cheops_api),
        cheops_open: pick!(cheops_open).unwrap_or(false),
        http_fronts: pick!(http_fronts).unwrap_or_default(),
        http_front_open: pick!(http_front_open).unwrap_or(false),
        mdns: pick!(mdns).unwrap_or(false),
        allow_faults: pick!(allow_faults).unwrap_or(false),
        open_network: pick!(open_network).unwrap_or(false),
        pace: pick!(pace).unwrap_or_default(),
    };
    Ok(Effective { settings, sources })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn layer(site: &str) -> Layer {
        Layer { site: Some(site.into()), ..Layer::default() }
    }

    #[test]
    fn the_first_place_that_speaks_of_a_value_wins() {
        let file = Layer { api: Some("1.1.1.1:1".into()), mdns: Some(true), ..layer("file") };
        let environment = Layer { api: Some("2.2.2.2:2".into()), ..layer("environment") };
        let effective = merge(layer("argument"), environment, file).unwrap();
        assert_eq!(effective.settings.site, "argument");
        assert_eq!(effective.settings.api, "2.2.2.2:2");
        assert!(effective.settings.mdns);
        assert_eq!(effective.settings.data, PathBuf::from("khufu-data"));
        let lines = effective.lines();
        assert!(lines.contains(&"site = \"argument\" (argument)".to_owned()), "{lines:?}");
        assert!(lines.contains(&"api = \"2.2.2.2:2\" (environment)".to_owned()), "{lines:?}");
        assert!(lines.contains(&"mdns = true (file)".to_owned()), "{lines:?}");
        assert!(lines.contains(&"open_network = false (default)".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_list_replaces_the_one_below_it() {
        let file = Layer { bootstrap: Some(vec!["a".into(), "b".into()]), ..layer("x") };
        let arguments = Layer { bootstrap: Some(vec!["c".into()]), ..Layer::default() };
        assert_eq!(merge(arguments, Layer::default(), file).unwrap().settings.bootstrap, ["c"]);
    }

    #[test]
    fn without_a_site_the_ways_to_name_one_are_said() {
        let error = merge(Layer::default(), Layer::default(), Layer::default()).unwrap_err().to_string();
        assert!(error.contains("--site") && error.contains("KHUFU_SITE") && error.contains("khufu init"), "{error}");
    }

    #[test]
    fn the_environment_is_read_and_its_mistakes_named() {
        let from = |pairs: &'static [(&str, &str)]| {
            read_environment(move |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let layer = from(&[
            ("KHUFU_SITE", "paris"),
            ("KHUFU_LISTEN", "/ip4/127.0.0.1/tcp/0, /ip6/::1/tcp/0"),
            ("KHUFU_LABELS", "region=west,tier=edge"),
            ("KHUFU_ALLOW_FAULTS", "yes"),
            ("KHUFU_DATA", ""),
        ])
        .unwrap();
        assert_eq!(layer.listen.unwrap(), ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]);
        assert_eq!(layer.labels.unwrap()["tier"], "edge");
        assert_eq!(layer.allow_faults, Some(true));
        assert_eq!(layer.data, None);
        let error = from(&[("KHUFU_ALLOW_FAULTS", "maybe")]).unwrap_err().to_string();
        assert!(error.contains("KHUFU_ALLOW_FAULTS"), "{error}");
        let error = from(&[("KHUFU_DRIVERS", "files")]).unwrap_err().to_string();
        assert!(error.contains("KHUFU_DRIVERS") && error.contains("a=x"), "{error}");
    }
}
