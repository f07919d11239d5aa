//! Why a driver could not do what it was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a driver could not do what it was asked. The replica is then as it was before.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// What was asked makes no sense to this driver, now and later.
    #[error("{field}: {reason}")]
    Invalid {
        /// The part of the request that is wrong, such as `payload.append`.
        field: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The driver cannot do this at all.
    #[error("the driver {kind} cannot {what}")]
    Unsupported {
        /// The kind of the driver.
        kind: String,
        /// What it cannot, such as `undo`.
        what: &'static str,
    },
    /// The platform is in a state in which it must not be touched; a person has to look.
    #[error("{place}: {reason}")]
    Refused {
        /// Where on the platform.
        place: String,
        /// Why, and the way out.
        reason: String,
    },
    /// The platform cannot be reached, or has too much to do.
    #[error("the platform is not available: {reason}")]
    Unavailable {
        /// What it said.
        reason: String,
        /// It asked to be left alone for so long.
        retry_after: Option<Duration>,
    },
    /// What an operation was to change was taken away by somebody else. Whoever asked makes it anew first, with all that was
    /// done before, and asks again.
    #[error("{place} was removed by hand: it is put back first")]
    Lost {
        /// What is gone.
        place: String,
    },
    /// The platform did not answer in time. Whether it did what was asked is not known.
    #[error("the platform did not answer within {} ms", after.as_millis())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The connection to the platform was lost while it was asked for something, or it was broken off in the middle. Whether
    /// it did that, or a part of it, is not known.
    #[error("the platform has not said whether it was done: {reason}")]
    Unanswered {
        /// What happened.
        reason: String,
    },
    /// The platform did as told, and says that it failed.
    #[error("{reason}")]
    Failed {
        /// What it said.
        reason: String,
        /// Whether trying again may help.
        again: bool,
    },
    /// The operating system refused an operation on a file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `read`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl DriverError {
    /// Whether trying the same again cannot help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. } | Self::Unsupported { .. } | Self::Refused { .. } | Self::Failed { again: false, .. }
        )
    }

    /// How long the platform asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source: Arc::new(source) }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}
