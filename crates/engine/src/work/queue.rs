//! Who waits for a place for a driver call, in the order in which they came.

use std::collections::{BTreeSet, VecDeque};

use khufu_crdt::ReplicantId;

/// Replicants that wait, each once.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    order: VecDeque<ReplicantId>,
    inside: BTreeSet<ReplicantId>,
    /// Those of them that are being read from disk.
    reading: BTreeSet<ReplicantId>,
}

impl Queue {
    pub(crate) fn push(&mut self, id: ReplicantId) {
        if self.inside.insert(id.clone()) {
            self.order.push_back(id);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<ReplicantId> {
        let id = self.order.pop_front()?;
        self.inside.remove(&id);
        Some(id)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// One of them must be read from disk first.
    pub(crate) fn reads(&mut self, id: &ReplicantId) {
        self.reading.insert(id.clone());
    }

    /// One was read, or could not be.
    pub(crate) fn has_read(&mut self, id: &ReplicantId) {
        self.reading.remove(id);
    }

    /// How many are being read.
    pub(crate) fn reading(&self) -> usize {
        self.reading.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_first_is_next_and_nobody_waits_twice() {
        let id = |name: &str| ReplicantId::new(name).unwrap();
        let mut queue = Queue::default();
        for name in ["b", "a", "b"] {
            queue.push(id(name));
        }
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(id("b")), Some(id("a")), None]);
        queue.push(id("b"));
        assert_eq!(queue.pop(), Some(id("b")));
    }
}
