//! Turns: of what is done to one thing, one is done after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

/// How long one waits for its turn: longer than it is waited for one edit.
const PATIENCE: Duration = Duration::from_secs(40);

/// Whose turn it is, by the name of the thing. There are no more of them than requests.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>);

/// It was waited in vain for a turn.
#[derive(Debug)]
pub(crate) struct Late;

impl Turns {
    /// Waits for a turn; it ends when what is given is dropped.
    pub(crate) async fn take(&self, thing: String) -> Result<OwnedMutexGuard<()>, Late> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(&thing).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::<tokio::sync::Mutex<()>>::default();
                    turns.insert(thing, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        tokio::time::timeout(PATIENCE, turn.lock_owned()).await.map_err(|_| Late)
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
