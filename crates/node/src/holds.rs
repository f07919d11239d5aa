//! Replicas that their driver leaves alone for a moment, while somebody else does his part of what is asked for of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use khufu_crdt::ReplicantId;
use tokio::sync::watch;

/// How often each is held. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(Arc<watch::Sender<BTreeMap<ReplicantId, usize>>>);

/// Holds a replica until it is dropped.
#[cfg(feature = "kubernetes")]
#[derive(Debug)]
pub(crate) struct Held {
    holds: Holds,
    id: ReplicantId,
}

impl Holds {
    /// Holds a replica: calls of its driver that begin from now on wait. Whoever holds it has a limit of his own.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn hold(&self, id: ReplicantId) -> Held {
        self.0.send_modify(|held| *held.entry(id.clone()).or_default() += 1);
        Held { holds: self.clone(), id }
    }

    /// Waits until nobody holds a replica.
    pub(crate) async fn free(&self, id: &ReplicantId) {
        // The sender is there as long as this is.
        let _ = self.0.subscribe().wait_for(|held| !held.contains_key(id)).await;
    }
}

#[cfg(feature = "kubernetes")]
impl Drop for Held {
    fn drop(&mut self) {
        self.holds.0.send_modify(|held| {
            if let Some(count) = held.get_mut(&self.id) {
                *count -= 1;
                if *count == 0 {
                    held.remove(&self.id);
                }
            }
        });
    }
}

#[cfg(all(test, feature = "kubernetes"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_held_is_free_when_nobody_holds_it_any_more() {
        let holds = Holds::default();
        let [web, other] = ["web", "other"].map(|id| ReplicantId::new(id).unwrap());
        let (one, two) = (holds.hold(web.clone()), holds.hold(web.clone()));
        assert!(holds.free(&other).now_or_never().is_some());
        let waiting = tokio::spawn({
            let (holds, web) = (holds.clone(), web.clone());
            async move { holds.free(&web).await }
        });
        drop(one);
        assert!(holds.free(&web).now_or_never().is_none() && !waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
        assert!(holds.free(&web).now_or_never().is_some());
    }
}
