//! Connections that have become another protocol.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

/// Passes on what comes over each of two connections over the other, until one of them ends or the node stops. `kept` is
/// kept for as long.
pub(crate) async fn join<T>(
    client: OnUpgrade,
    server: OnUpgrade,
    mut closed: watch::Receiver<bool>,
    kept: T,
    through: &'static str,
) {
    let joined = async {
        let (client, server) = tokio::try_join!(client, server)?;
        let ended = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
        // Whichever of the two has gone, has told the other.
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection through {through} has ended");
        }
        Ok::<_, hyper::Error>(())
    };
    tokio::select! {
        ended = joined => if let Err(error) = ended {
            tracing::debug!(%error, "a connection through {through} was not taken over");
        },
        _ = closed.wait_for(|closed| *closed) => {}
    }
    drop(kept);
}
