//! The main job shown on one machine: several sites, each a process of its own, are cut apart and agree again.
//!
//! Nothing is taken on trust: each claim is checked on the files that the sites made and on what their nodes answer.

mod network;
mod site;
mod story;
mod teller;

use std::io;
use std::time::Duration;

pub(crate) use network::Network;
pub(crate) use story::tell;
pub(crate) use teller::Teller;

use crate::client::ClientError;

/// The names of the sites, in the order they are taken.
pub(crate) const NAMES: [&str; 9] = ["paris", "rennes", "nantes", "lyon", "lille", "brest", "nice", "dijon", "metz"];

/// How often a condition is looked at while waiting for it.
const INTERVAL: Duration = Duration::from_millis(10);

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DemoError {
    /// A file or a process of the demo could not be made.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The key of the private network could not be written.
    #[error("cannot write the key of the network: {0}")]
    Key(#[from] khufu_p2p::PskError),
    /// A site did not start, or stopped.
    #[error("the site {site} {what}; the last it said:\n{log}")]
    Site {
        /// Which.
        site: String,
        /// What happened.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// Something did not become true in time.
    #[error("waited {} s for this in vain: {what}; what there was instead: {instead}", limit.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What was seen last.
        instead: String,
    },
    /// A site's node refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output failed.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

/// Looks until `look` gives a value; what it gives instead is told if the time is over.
///
/// # Errors
/// [`DemoError::Late`] after `limit`. Errors of the look itself count as not yet.
async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, DemoError> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(instead) if tokio::time::Instant::now() >= deadline => {
                return Err(DemoError::Late { what: what.to_owned(), limit, instead });
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
