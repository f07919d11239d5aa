//! Notices that somebody changed a platform by hand: from drivers that can tell, and by looking now and then.

use std::time::Duration;

use khufu_drivers::Changes;
use khufu_engine::{ListQuery, Page, Request, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::handle::Handle;

/// Before the first look at everything: what has just started has other work to do.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Replicas that are looked at in one go.
const PAGE: usize = 100;
/// The pause after each such go, so that a look at thousands does not crowd out other work.
const BREATH: Duration = Duration::from_secs(1);

/// Watches the replicas of one kind until the node stops. All of them are looked at soon after the start, for what
/// happened while nobody watched; again when the driver has lost count; and every `interval` if it cannot watch.
pub(crate) async fn look(handle: Handle, kind: String, mut changes: Option<Changes>, interval: Duration) {
    let mut closed = handle.closed();
    let watch = async {
        let mut look = Some(tokio::time::Instant::now() + FIRST_LOOK.min(interval));
        loop {
            tokio::select! {
                () = crate::runner::until(look) => {
                    look_at_all(&handle, &kind).await;
                    look = changes.is_none().then(|| tokio::time::Instant::now() + interval);
                }
                change = next(&mut changes) => match change {
                    Ok(replicant) => drop(handle.drifted(replicant).await),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(kind, missed, "changes on the platform came too fast: looking at all replicas");
                        look = Some(tokio::time::Instant::now());
                    }
                    Err(RecvError::Closed) => {
                        tracing::warn!(kind, "the driver no longer watches its platform: looking now and then");
                        changes = None;
                        look = Some(tokio::time::Instant::now() + interval);
                    }
                },
            }
        }
    };
    tokio::select! {
        () = watch => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
}

/// Says whether the platform of a kind can be reached once that is known, and whenever it changes, until the node stops.
pub(crate) async fn follow(handle: Handle, kind: String, mut reachable: watch::Receiver<Option<bool>>) {
    let mut closed = handle.closed();
    let follow = async {
        let mut said = None;
        loop {
            let Ok(now) = reachable.wait_for(|now| now.is_some() && *now != said).await.map(|now| *now) else { return };
            said = now;
            let away_since = (now != Some(true)).then(crate::clock::wall_ms);
            if !handle.platform(kind.clone(), away_since).await {
                return;
            }
        }
    };
    tokio::select! {
        () = follow => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
}

async fn next(changes: &mut Option<Changes>) -> Result<khufu_crdt::ReplicantId, RecvError> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

async fn look_at_all(handle: &Handle, kind: &str) {
    let mut after = None;
    loop {
        let query = ListQuery {
            kind: Some(kind.to_owned()),
            site: Some(handle.site().clone()),
            after: after.take(),
            limit: PAGE,
            ..ListQuery::default()
        };
        let Ok(Response::List(Page { items, next })) = handle.request("drift".to_owned(), Request::List(query)).await
        else {
            return;
        };
        for item in items.into_iter().filter(|item| !item.deleted) {
            if !handle.drifted(item.id).await {
                return;
            }
        }
        if next.is_none() {
            return;
        }
        after = next;
        tokio::time::sleep(BREATH).await;
    }
}
