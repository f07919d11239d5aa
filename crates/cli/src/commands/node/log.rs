//! Logs of a node: on standard error, filtered as `KHUFU_LOG` or `RUST_LOG` says.

use tracing_subscriber::EnvFilter;

/// What is logged if nobody says otherwise: the libraries below are talkative. Automerge says nothing, but describes each
/// column that it reads to whoever listens.
const DEFAULT: &str = "info,automerge=warn,libp2p=warn,libp2p_kad=error,libp2p_mdns=error,libp2p_gossipsub=warn";

/// Starts logging, for the whole process.
pub(super) fn start() {
    let filter = ["KHUFU_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| DEFAULT.to_owned());
    let (filter, mistake) = match EnvFilter::try_new(&filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let colour = crate::output::colour_on_stderr();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    if subscriber.try_init().is_ok()
        && let Some(error) = mistake
    {
        tracing::warn!(%error, "the filter of KHUFU_LOG or RUST_LOG makes no sense; the default is used");
    }
}
