//! The configuration: what may run, as whom, and how much of everything it may take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::user::Name;
use super::{MAX_OUTPUT_BYTES, MAX_TIME_S};

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

/// A command: words, or one text that is split into words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a command is text or a list of words")]
pub enum Command {
    /// One text.
    Text(String),
    /// Words, the first of which is the program.
    Words(Vec<String>),
}

/// How to look at a replica.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Its standard output is the contents.
    pub command: Command,
    /// The exit codes that say that there is no replica.
    #[serde(default)]
    pub absent: Vec<i32>,
}

/// A command that takes something away.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// What is run.
    pub command: Command,
}

/// How much one command may take. None is no limit, unless there is a default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds of processor time of each process.
    pub cpu_s: Option<u64>,
    /// Bytes of address space of each process.
    pub memory_bytes: Option<u64>,
    /// Bytes of each file that is written.
    pub file_bytes: Option<u64>,
    /// Processes of the user that it runs as, others that the user has included. Means nothing for root.
    pub processes: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_s: Some(30),
            memory_bytes: Some(1 << 30),
            file_bytes: Some(1 << 30),
            processes: Some(512),
            open_files: Some(1024),
        }
    }
}

/// What may run, as whom, and how much of everything it may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory for what ran, and for the files of operations while they run. One driver uses it at a time.
    pub state: PathBuf,
    /// The programs that operations may run: absolute paths, or names that are looked for in `path`, once.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Commands that are text are given to `sh -c`, and may then run anything.
    #[serde(default)]
    pub shell: bool,
    /// Whom commands run as. Needed if the node is root; else it can only be the node's own user.
    pub user: Option<Name>,
    /// The group; the user's own unless given.
    pub group: Option<Name>,
    /// Where commands are started; in a new, empty directory unless given.
    pub directory: Option<PathBuf>,
    /// Where programs are looked for, once, at the start.
    #[serde(default = "usual_path")]
    pub path: Vec<PathBuf>,
    /// All variables that commands are given (and `KHUFU_RUN`).
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Seconds after which an operation is ended; at most 30.
    #[serde(default = "usual_time")]
    pub time_limit_s: u64,
    /// Bytes that are kept of what a command writes; at most 1 MiB.
    #[serde(default = "usual_output")]
    pub output_limit_bytes: usize,
    /// The exit codes after which an operation is tried again. All others but 0 are its last word.
    #[serde(default)]
    pub retry: Vec<i32>,
    /// How much one command may take.
    #[serde(default)]
    pub limits: Limits,
    /// How to look at a replica.
    pub observe: Option<Look>,
    /// How to remove a replica.
    pub delete: Option<Removal>,
    /// How to make a replica as new.
    pub reset: Option<Removal>,
}

fn usual_path() -> Vec<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from).to_vec()
}

fn usual_time() -> u64 {
    30
}

fn usual_output() -> usize {
    16 << 10
}

impl Config {
    /// Reads a file. Relative paths in it start at the directory that it is in.
    ///
    /// # Errors
    /// [`ConfigError`] naming the line, or the key and what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
        let whole = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let here = whole.parent().unwrap_or(Path::new("/"));
        config.state = here.join(&config.state);
        config.directory = config.directory.map(|directory| here.join(directory));
        Ok(config)
    }

    /// Whether the values can be used at all.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.commands.is_empty() && !self.shell {
            return Err(ConfigError::value("commands", "it is empty, so no operation could run: name the programs"));
        }
        if !(1..=MAX_TIME_S).contains(&self.time_limit_s) {
            return Err(ConfigError::value("time_limit_s", format!("it has to be 1 to {MAX_TIME_S}")));
        }
        if self.output_limit_bytes > MAX_OUTPUT_BYTES {
            return Err(ConfigError::value("output_limit_bytes", format!("it has to be at most {MAX_OUTPUT_BYTES}")));
        }
        let absent = self.observe.as_ref().map(|look| look.absent.as_slice()).unwrap_or_default();
        for (key, codes) in [("retry", self.retry.as_slice()), ("observe.absent", absent)] {
            if let Some(wrong) = codes.iter().find(|code| !(1..=255).contains(*code)) {
                return Err(ConfigError::value(
                    key,
                    format!("{wrong} is no exit code of a failure: those are 1 to 255"),
                ));
            }
        }
        let plain = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        if let Some((name, _)) =
            self.environment.iter().find(|(name, value)| !plain(name) || value.contains('\0') || *name == super::RUN)
        {
            return Err(ConfigError::value(format!("environment.{name}"), "no variable can be called or valued so"));
        }
        if let Some(directory) = &self.directory
            && !directory.is_dir()
        {
            return Err(ConfigError::value("directory", format!("{} is no directory: make it", directory.display())));
        }
        Ok(())
    }
}
