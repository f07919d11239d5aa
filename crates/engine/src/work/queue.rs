//! Who waits for a place for a driver call: of each kind in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use khufu_crdt::ReplicantId;

/// Replicants that wait, each once.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By kind, each with its number.
    order: BTreeMap<Arc<str>, VecDeque<(u64, ReplicantId)>>,
    next: u64,
    inside: BTreeSet<ReplicantId>,
    /// Those of them that are being read from disk, and their kinds.
    reading: BTreeMap<ReplicantId, Arc<str>>,
}

impl Queue {
    pub(crate) fn push(&mut self, id: ReplicantId, kind: Arc<str>) {
        if self.inside.insert(id.clone()) {
            self.next += 1;
            self.order.entry(kind).or_default().push_back((self.next, id));
        }
    }

    /// The first of those of whose kind another call may begin.
    pub(crate) fn pop(&mut self, may: impl Fn(&str) -> bool) -> Option<(ReplicantId, Arc<str>)> {
        let first = self.order.iter().filter(|(kind, _)| may(kind));
        let first = first.filter_map(|(kind, waiting)| Some((waiting.front()?.0, kind.clone())));
        let (_, kind) = first.min()?;
        let waiting = self.order.get_mut(&kind)?;
        let (_, id) = waiting.pop_front()?;
        if waiting.is_empty() {
            self.order.remove(&kind);
        }
        self.inside.remove(&id);
        Some((id, kind))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// One of them must be read from disk first.
    pub(crate) fn reads(&mut self, id: &ReplicantId, kind: Arc<str>) {
        self.reading.insert(id.clone(), kind);
    }

    /// One was read, or could not be.
    pub(crate) fn has_read(&mut self, id: &ReplicantId) {
        self.reading.remove(id);
    }

    /// The kinds of those that are being read.
    pub(crate) fn reading(&self) -> impl Iterator<Item = &Arc<str>> {
        self.reading.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_first_is_next_and_nobody_waits_twice() {
        let id = |name: &str| ReplicantId::new(name).unwrap();
        let mut queue = Queue::default();
        for (name, kind) in [("b", "x"), ("a", "y"), ("b", "x"), ("c", "x")] {
            queue.push(id(name), kind.into());
        }
        let mut pop = |may: &[&str]| queue.pop(|kind| may.contains(&kind)).map(|(id, _)| id);
        assert_eq!(pop(&[]), None);
        assert_eq!([pop(&["y"]), pop(&["y"])], [Some(id("a")), None]);
        assert_eq!([pop(&["x", "y"]), pop(&["x", "y"]), pop(&["x", "y"])], [Some(id("b")), Some(id("c")), None]);
        queue.push(id("b"), "x".into());
        assert_eq!(queue.pop(|_| true), Some((id("b"), "x".into())));
    }
}
