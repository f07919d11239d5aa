//! Notices that somebody changed a platform by hand: from drivers that can tell, and by looking now and then.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use khufu_crdt::ReplicantId;
use khufu_drivers::Changes;
use khufu_engine::{ListQuery, Page, Request, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::handle::Handle;

/// Before the first look at everything: what has just started has other work to do.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Replicas that are looked at in one go.
const PAGE: usize = 100;
/// The pause after each such go, so that a look at thousands does not crowd out other work.
const BREATH: Duration = Duration::from_secs(1);

/// Watches the replicas of one kind until the node stops. All of them are looked at soon after the start, for what
/// happened while nobody watched; again when the driver has lost count; and every `interval` if it cannot watch.
pub(crate) async fn look(handle: Handle, kind: String, changes: Option<Changes>, interval: Duration) {
    let mut closed = handle.closed();
    let all = || look_at_all(&handle, &kind).boxed();
    let one = |replicant| handle.drifted(replicant).map(drop).boxed();
    tokio::select! {
        () = watch(&kind, changes, interval, all, one) => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
}

/// Has `one` look at what has changed, and `all` at everything, which says whether it came to its end: if it did not, it is
/// begun again after `interval`. What changes while it is under way is heard of.
async fn watch<'a>(
    kind: &str,
    mut changes: Option<Changes>,
    interval: Duration,
    all: impl Fn() -> BoxFuture<'a, bool>,
    one: impl Fn(ReplicantId) -> BoxFuture<'a, ()>,
) {
    let mut look = Some(Instant::now() + FIRST_LOOK.min(interval));
    let mut looking = None;
    loop {
        tokio::select! {
            () = crate::runner::until(look), if looking.is_none() => {
                look = None;
                looking = Some(all());
            }
            complete = ended(&mut looking) => {
                looking = None;
                if look.is_none() && (changes.is_none() || !complete) {
                    look = Some(Instant::now() + interval);
                }
            }
            change = next(&mut changes) => match change {
                Ok(replicant) => one(replicant).await,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(kind, missed, "changes on the platform came too fast: looking at all replicas");
                    look = Some(Instant::now());
                }
                Err(RecvError::Closed) => {
                    tracing::warn!(kind, "the driver no longer watches its platform: looking now and then");
                    changes = None;
                    look = Some(Instant::now() + interval);
                }
            },
        }
    }
}

async fn ended(looking: &mut Option<BoxFuture<'_, bool>>) -> bool {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

/// Says whether the platform of a kind can be reached once that is known, and whenever it changes, until the node stops.
pub(crate) async fn follow(handle: Handle, kind: String, mut reachable: Receiver<Option<bool>>) {
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

async fn next(changes: &mut Option<Changes>) -> Result<ReplicantId, RecvError> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether it came to its end.
async fn look_at_all(handle: &Handle, kind: &str) -> bool {
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
            tracing::warn!(kind, "not all replicas could be looked at: looking again later");
            return false;
        };
        for item in items.into_iter().filter(|item| !item.deleted) {
            if !handle.drifted(item.id).await {
                return false;
            }
        }
        if next.is_none() {
            return true;
        }
        after = next;
        tokio::time::sleep(BREATH).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{Notify, broadcast};

    use super::*;

    const SOON: Duration = Duration::from_millis(10);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Watches until something is so.
    async fn until(watched: impl Future<Output = ()>, is_so: impl Future<Output = ()>) {
        tokio::select! {
            () = watched => unreachable!(),
            is_so = tokio::time::timeout(PATIENCE, is_so) => is_so.expect("not in time"),
        }
    }

    #[tokio::test]
    async fn a_look_at_all_that_does_not_come_to_its_end_is_begun_again() {
        let (_sender, changes) = broadcast::channel(8);
        let (looks, third) = (AtomicUsize::new(0), Notify::new());
        let all = || {
            if looks.fetch_add(1, Ordering::Relaxed) == 2 {
                third.notify_one();
            }
            async { false }.boxed()
        };
        until(watch("files", Some(changes), SOON, all, |_| async {}.boxed()), third.notified()).await;
    }

    #[tokio::test]
    async fn changes_are_heard_of_while_all_is_looked_at() {
        // Of two that are not heard of, one is lost.
        let (sender, changes) = broadcast::channel(1);
        let (begun, heard) = (Notify::new(), Notify::new());
        let said = Mutex::new(Vec::new());
        let all = || {
            begun.notify_one();
            std::future::pending().boxed()
        };
        let one = |id: ReplicantId| {
            said.lock().unwrap().push(id.to_string());
            heard.notify_one();
            async {}.boxed()
        };
        let writes = async {
            begun.notified().await;
            for name in ["a", "b", "c"] {
                sender.send(name.parse().unwrap()).unwrap();
                heard.notified().await;
            }
        };
        until(watch("files", Some(changes), SOON, all, one), writes).await;
        assert_eq!(*said.lock().unwrap(), ["a", "b", "c"]);
    }
}
