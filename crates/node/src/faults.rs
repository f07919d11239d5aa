//! Faults on purpose, for drills, demonstrations and tests. Only in nodes that were started to allow them.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use khufu_crdt::SiteName;
use khufu_engine::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The longest delay, in milliseconds.
const MAX_DELAY_MS: u64 = 60_000;
/// The most sites that can be cut off at once.
const MAX_CUT: usize = 1000;

/// What goes wrong on purpose at one node. All of it concerns this node only: to cut two sites apart it is enough to do
/// so at one of them, to delay both directions it takes both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Sites whose nodes this one refuses to be connected with, also those it learns of later.
    pub cut: BTreeSet<SiteName>,
    /// What comes in is handed on so many milliseconds late, in order. At most 60,000.
    pub delay_ms: u64,
    /// The share of frames that is lost on their way in, from 0 to 1.
    pub loss: f64,
}

/// Why faults were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultsError {
    /// The share is none.
    #[error("loss: {0} is not between 0 and 1")]
    Loss(f64),
    /// The delay is too long.
    #[error("delay_ms: {0} is more than the {MAX_DELAY_MS} allowed")]
    Delay(u64),
    /// A site cannot be cut off from itself.
    #[error("cut: {0} is the site of this node, which cannot be cut off from itself: name the others")]
    Itself(SiteName),
    /// Too many sites.
    #[error("cut: {0} sites are more than the {MAX_CUT} allowed")]
    Sites(usize),
    /// The node was started without.
    #[error("this node was started without --allow-faults")]
    NotAllowed,
}

impl Faults {
    pub(crate) fn check(&self, here: &SiteName) -> Result<(), FaultsError> {
        if !(0.0..=1.0).contains(&self.loss) {
            return Err(FaultsError::Loss(self.loss));
        }
        if self.delay_ms > MAX_DELAY_MS {
            return Err(FaultsError::Delay(self.delay_ms));
        }
        if self.cut.len() > MAX_CUT {
            return Err(FaultsError::Sites(self.cut.len()));
        }
        if self.cut.contains(here) {
            return Err(FaultsError::Itself(here.clone()));
        }
        Ok(())
    }
}

/// The faults in force, and the nodes they concern.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    faults: watch::Sender<Faults>,
    blocked: RwLock<BTreeSet<NodeId>>,
    /// Held while nodes are blocked and unblocked, so that two changes do not mix.
    pub(crate) applying: tokio::sync::Mutex<()>,
}

impl Switch {
    pub(crate) fn current(&self) -> Faults {
        self.faults.borrow().clone()
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.faults.borrow().delay_ms)
    }

    pub(crate) fn loses(&self) -> bool {
        let loss = self.faults.borrow().loss;
        loss > 0.0 && rand::random::<f64>() < loss
    }

    pub(crate) fn is_blocked(&self, node: &NodeId) -> bool {
        self.blocked.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// Answers which nodes are to be blocked and which no longer.
    pub(crate) fn replace_blocked(&self, wanted: BTreeSet<NodeId>) -> (Vec<NodeId>, Vec<NodeId>) {
        let mut blocked = self.blocked.write().unwrap_or_else(PoisonError::into_inner);
        let block = wanted.difference(&blocked).cloned().collect();
        let unblock = blocked.difference(&wanted).cloned().collect();
        *blocked = wanted;
        (block, unblock)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let here = SiteName::new("paris").unwrap();
        let parse = |text: &str| serde_json::from_str::<Faults>(text);
        assert!(parse(r#"{"cut": ["rennes"], "delay_ms": 20, "loss": 0.5}"#).unwrap().check(&here).is_ok());
        assert!(parse("{}").unwrap().check(&here).is_ok());
        assert_eq!(parse(r#"{"loss": 2}"#).unwrap().check(&here), Err(FaultsError::Loss(2.0)));
        assert_eq!(parse(r#"{"delay_ms": 70000}"#).unwrap().check(&here), Err(FaultsError::Delay(70_000)));
        assert!(matches!(parse(r#"{"cut": ["paris"]}"#).unwrap().check(&here), Err(FaultsError::Itself(_))));
        assert!(Faults { loss: f64::NAN, ..Faults::default() }.check(&here).is_err());
        assert!(parse(r#"{"cuts": []}"#).is_err());
    }

    #[test]
    fn blocking_is_a_difference() {
        let switch = Switch::default();
        let nodes = |names: &[&str]| names.iter().map(|name| NodeId((*name).to_owned())).collect::<BTreeSet<_>>();
        assert_eq!(switch.replace_blocked(nodes(&["a", "b"])).0.len(), 2);
        let (block, unblock) = switch.replace_blocked(nodes(&["b", "c"]));
        assert_eq!((block, unblock), (vec![NodeId("c".into())], vec![NodeId("a".into())]));
        assert!(switch.is_blocked(&NodeId("c".into())) && !switch.is_blocked(&NodeId("a".into())));
    }
}
