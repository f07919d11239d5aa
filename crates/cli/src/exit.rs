//! How a command ends: its exit code, and the errors that decide it.

use std::io;
use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::demo::DemoError;
use crate::input::InputError;

/// The exit codes, part of what scripts rely on. `docs/cli.md` has the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and what was claimed is true.
    Ok = 0,
    /// It failed, or a claim that was checked is not true.
    Failed = 1,
    /// The command line, a file or an expression makes no sense.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The node refused: it contradicts what there is, is too large or not allowed, or there is no space for it.
    Refused = 4,
    /// Nobody answered in time: the node itself, or a site that has to.
    Unreachable = 5,
    /// Accepted and safe, but not every site has said its last word within the time given.
    Partial = 6,
}

/// The table for `--help`.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done, and what was claimed is true
  1  it failed, or a claim that was checked is not true (verify, demo, policy resolve)
  2  the command line, a file or an expression makes no sense
  3  there is no such thing
  4  refused: it contradicts what there is, is too large, or is not allowed
  5  nobody answered in time: the node itself, or a site that has to
  6  accepted and safe, but not every site has said its last word within --wait

Without arguments of its own a command asks the node at --api, else KHUFU_API, else http://127.0.0.1:7780.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early. The message is for the person who typed it and says the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The node could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The configuration of a node is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file given on the command line cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The demo could not go on.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Arguments that clap cannot judge are wrong.
    #[error("{0}")]
    Usage(String),
    /// Something that was asked for by name is not there.
    #[error("{0}")]
    NotFound(String),
    /// What there is stands in the way.
    #[error("{0}")]
    Refused(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signal(#[source] io::Error),
    /// Standard output or a terminal failed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code that tells a script the same.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Config(_) | Self::Input(_) | Self::Usage(_) => Exit::Usage,
            Self::NotFound(_) => Exit::NotFound,
            Self::Refused(_) => Exit::Refused,
            Self::Demo(_) | Self::Failed(_) | Self::Write { .. } | Self::Signal(_) | Self::Output(_) => Exit::Failed,
        }
    }

    /// Whether the reader of our output went away, as `head` does: nothing to complain about.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
