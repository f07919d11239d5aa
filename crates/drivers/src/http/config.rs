//! The configuration: where a service is, how much may be asked of it, and how its resources are spoken of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Why the driver cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, has a key that nobody knows, or a value of another type.
    #[error("{} is not as it should be: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and what is expected.
        message: String,
    },
    /// A value cannot be used here.
    #[error("{key}: {reason}")]
    Value {
        /// The key in the file.
        key: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The directory with the state cannot be used.
    #[error("state: {0}")]
    State(#[from] crate::DriverError),
}

impl ConfigError {
    pub(super) fn value(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value { key: key.into(), reason: reason.into() }
    }
}

/// A text that is kept outside of the configuration. Read anew for each request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secret {
    /// The file that has it; an end of line at its end does not count.
    pub file: Option<PathBuf>,
    /// The variable of the node's environment that has it.
    pub env: Option<String>,
    /// What stands before it, such as `Bearer `.
    pub before: String,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a header is text, or { file = \"...\" } or { env = \"...\" }")]
pub enum Header {
    /// What everybody may see.
    Plain(String),
    /// What is kept elsewhere.
    Secret(Secret),
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Its method; what is usual for what it does unless given.
    pub method: Option<String>,
    /// Its path below the base, with holes.
    pub path: String,
    /// Headers, with holes.
    pub headers: BTreeMap<String, String>,
    /// Its body, with holes.
    pub body: Option<Value>,
    /// The statuses that mean success; all of 200 to 299 unless given.
    pub success: Vec<u16>,
    /// The statuses that mean that there is nothing; 404 and 410 unless given.
    pub gone: Option<Vec<u16>>,
    /// Whether sending it twice is the same as sending it once; that of the method unless given.
    pub idempotent: Option<bool>,
    /// The header that gets a word by which the service does not do the same request twice.
    pub key: Option<String>,
}

/// How something is found in a list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Find {
    /// The path of the list, with holes.
    pub path: String,
    /// The pointer to the list in the answer; the answer itself unless given.
    pub list: String,
    /// The pointer to the field of an element by which it is known; the mark unless given.
    pub field: Option<String>,
    /// What that field has, with holes; the replicant or the operation unless given.
    pub value: Option<String>,
    /// The pointer to the path or URL of the next page, or `Link` for the header of that name.
    pub next: Option<String>,
    /// The pointer to what the service calls an element; `local_id` unless given.
    pub local_id: Option<String>,
}

/// What the service says of how something is doing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthField {
    /// The pointer to the field.
    pub field: String,
    /// Its values where all is well.
    pub current: Vec<Value>,
    /// Its values while something is still being done.
    pub progress: Vec<Value>,
    /// Its values where something has failed.
    pub failed: Vec<Value>,
    /// The pointer to the reason.
    pub message: Option<String>,
}

/// What operations may ask for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operations {
    /// The method.
    pub method: String,
    /// The path: `*` is any segment, `**` at its end any number of them.
    pub path: String,
    /// The statuses that mean success; all of 200 to 299 unless given.
    pub success: Vec<u16>,
    /// Whether sending it twice is the same as sending it once; that of the method unless given.
    pub idempotent: Option<bool>,
    /// The header that gets a word by which the service does not do the same request twice.
    pub key: Option<String>,
    /// The pointer to the field of a JSON body that gets the id of the operation.
    pub mark: Option<String>,
    /// How what it made is found again.
    pub find: Option<Find>,
    /// Whether it creates the replica, so that `local_id` is in its answer.
    pub creates: bool,
    /// What is kept of its answer, by name: pointers. For `undo`.
    pub keep: BTreeMap<String, String>,
    /// What takes it back.
    pub undo: Option<Request>,
}

/// One kind of resource.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resource {
    /// Creates one.
    pub create: Option<Request>,
    /// Reads one.
    pub read: Option<Request>,
    /// Changes one.
    pub update: Option<Request>,
    /// Removes one.
    pub delete: Option<Request>,
    /// The pointer to what the service calls it, in the answer to `create`, or `Location` for the last segment of the header of
    /// that name; without it, it is called as the replicant is.
    pub local_id: Option<String>,
    /// The pointer to the field that gets the id of the replicant.
    pub mark: Option<String>,
    /// How one is found by its mark.
    pub find: Option<Find>,
    /// The pointer to the object in answers to `create`, `read` and `update`; the whole answer unless given.
    pub answer: String,
    /// What the service is to have, with holes; the desired state unless given.
    pub object: Option<Value>,
    /// Pointers to the fields that are compared between sites and for drift; those of the desired state unless given.
    pub contents: Vec<String>,
    /// Pointers to fields that are not compared.
    pub ignore: Vec<String>,
    /// How one is doing.
    pub health: Option<HealthField>,
    /// How long the service may go on with a request whose answer was lost, in milliseconds.
    pub settle_ms: Option<u64>,
    /// Whether `update` also takes back whatever operations have done.
    pub update_resets: bool,
    /// Whether one is created again where nobody can say whether the service has created one.
    pub create_again: bool,
    /// What operations may ask for.
    pub operations: Vec<Operations>,
}

/// Where a service is, how much may be asked of it, and how its resources are spoken of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The origin and the path that all requests stay below.
    pub base: String,
    /// The directory for what has to be remembered. One driver uses it at a time.
    pub state: PathBuf,
    /// Certificates of the authorities that are believed, as PEM; those that the machine believes unless given.
    pub ca: Option<PathBuf>,
    /// Sent with every request.
    #[serde(default)]
    pub headers: BTreeMap<String, Header>,
    /// A user and a password, sent with every request.
    pub basic: Option<Basic>,
    /// Seconds that one request may take; at most 20.
    #[serde(default = "usual_time")]
    pub time_limit_s: u64,
    /// Bytes that an answer may have; at most 16 MiB.
    #[serde(default = "usual_answer")]
    pub answer_limit_bytes: usize,
    /// Requests a second, over a longer time.
    #[serde(default = "usual_rate")]
    pub rate: u32,
    /// Requests at once.
    #[serde(default = "usual_at_once")]
    pub at_once: usize,
    /// What is asked to see whether the service is there.
    #[serde(default = "usual_probe")]
    pub probe: String,
    /// Statuses after which nothing was done, and which come by themselves: the request is sent again. 425 and 429 always
    /// are, and 503 with a `Retry-After`.
    #[serde(default)]
    pub not_done: Vec<u16>,
    /// Statuses of 400 to 499 after which the work is tried again as the policy says. All others are its last word.
    #[serde(default)]
    pub retry: Vec<u16>,
    /// The kinds of resources, by name.
    pub resources: BTreeMap<String, Resource>,
}

fn usual_time() -> u64 {
    10
}

fn usual_answer() -> usize {
    1 << 20
}

fn usual_rate() -> u32 {
    50
}

fn usual_at_once() -> usize {
    8
}

fn usual_probe() -> String {
    "/".into()
}

impl Config {
    /// Reads a file. Relative paths in it start at the directory that it is in.
    ///
    /// # Errors
    /// [`ConfigError`] naming the line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
        let whole = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let here = whole.parent().unwrap_or(Path::new("/"));
        config.state = here.join(&config.state);
        config.ca = config.ca.map(|file| here.join(file));
        let in_headers = config.headers.values_mut().filter_map(|header| match header {
            Header::Secret(secret) => Some(secret),
            Header::Plain(_) => None,
        });
        for secret in in_headers.chain(config.basic.as_mut().map(|basic| &mut basic.password)) {
            secret.file = secret.file.take().map(|file| here.join(file));
        }
        Ok(config)
    }
}
