//! Turns: of the writes to one object, one is made after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::answer::Refusal;

/// How long one waits for its turn: longer than it is waited for one edit.
const PATIENCE: Duration = Duration::from_secs(40);

/// Whose turn it is, by object. There are no more of them than requests.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for a turn; it ends when what is given is dropped.
    pub(super) async fn take(&self, object: String) -> Result<OwnedMutexGuard<()>, Refusal> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(&object).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::<tokio::sync::Mutex<()>>::default();
                    turns.insert(object, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        let late = |_| Refusal::too_many("other writes to this object are still under way");
        tokio::time::timeout(PATIENCE, turn.lock_owned()).await.map_err(late)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_object_has_one_turn_at_a_time() {
        let turns = Turns::default();
        let one = turns.take("a".into()).await.unwrap();
        let other = turns.take("b".into()).await.unwrap();
        assert!(turns.take("a".into()).now_or_never().is_none());
        drop(one);
        let again = turns.take("a".into()).await.unwrap();
        drop((other, again));
        drop(turns.take("c".into()).await.unwrap());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "what has ended is forgotten");
    }
}
