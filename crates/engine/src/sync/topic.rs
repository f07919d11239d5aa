//! Gossip topics: one for each replica set of two sites or more, under a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use khufu_crdt::{ReplicantId, SiteName};
use sha2::{Digest, Sha256};

use crate::{Engine, Output};

/// Which topics there are, how many replicants need each, and which are subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    of: BTreeMap<ReplicantId, Arc<str>>,
    users: BTreeMap<Arc<str>, usize>,
    subscribed: BTreeSet<String>,
}

/// The topic of a replica set.
fn name(holders: &BTreeSet<SiteName>) -> String {
    let mut digest = Sha256::new();
    for site in holders {
        digest.update(site.as_str().as_bytes());
        digest.update([0]);
    }
    let short: String = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("khufu/r/{short}")
}

impl Topics {
    /// The topic of a replicant, if it is subscribed to.
    pub(crate) fn subscribed(&self, id: &ReplicantId) -> Option<&str> {
        self.of.get(id).map(AsRef::as_ref).filter(|topic| self.subscribed.contains(*topic))
    }

    /// Notes the replica set of a replicant; none if it is gone from here. What to subscribe to, and what not any more.
    fn set(&mut self, id: &ReplicantId, topic: Option<String>, limit: usize) -> (Vec<String>, Vec<String>) {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        // The same one for all who need it.
        let topic = topic.map(|topic| match self.users.get_key_value(topic.as_str()) {
            Some((known, _)) => known.clone(),
            None => Arc::from(topic),
        });
        let old = match &topic {
            Some(topic) => self.of.insert(id.clone(), topic.clone()),
            None => self.of.remove(id),
        };
        if old == topic {
            return (begin, end);
        }
        if let Some(topic) = topic {
            *self.users.entry(topic).or_insert(0) += 1;
        }
        if let Some(old) = old
            && let Some(users) = self.users.get_mut(&old)
        {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&old);
                if self.subscribed.remove(&*old) {
                    end.push(old.to_string());
                }
            }
        }
        if self.subscribed.len() < limit {
            let free = limit - self.subscribed.len();
            let new = self.users.keys().filter(|topic| !self.subscribed.contains(&***topic));
            let next: Vec<_> = new.take(free).map(ToString::to_string).collect();
            self.subscribed.extend(next.iter().cloned());
            begin.extend(next);
        }
        (begin, end)
    }
}

impl Engine {
    /// The replica set of a replicant may have changed.
    pub(crate) fn update_topic(&mut self, id: &ReplicantId) {
        let topic = self.replicants.held(id).map(|entry| entry.holders()).filter(|holders| holders.len() > 1);
        let (begin, end) = self.sync.topics.set(id, topic.map(|holders| name(&holders)), self.config.topics);
        for topic in begin {
            self.outbox.now(Output::Subscribe { topic });
        }
        for topic in end {
            self.outbox.now(Output::Unsubscribe { topic });
        }
    }

    pub(crate) fn update_topics(&mut self) {
        let ids: Vec<_> = self.replicants.index.keys().cloned().collect();
        for id in ids {
            self.update_topic(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_stay_under_the_limit_and_free_places_are_filled() {
        let id = |name: &str| ReplicantId::new(name).unwrap();
        let mut topics = Topics::default();
        assert_eq!(topics.set(&id("a"), Some("x".into()), 1).0, ["x"]);
        assert_eq!(topics.set(&id("b"), Some("x".into()), 1), (vec![], vec![]));
        assert_eq!(topics.set(&id("c"), Some("y".into()), 1), (vec![], vec![]));
        assert!(topics.subscribed(&id("c")).is_none());
        assert_eq!(topics.set(&id("a"), None, 1), (vec![], vec![]));
        assert_eq!(topics.set(&id("b"), None, 1), (vec!["y".to_owned()], vec!["x".to_owned()]));
        assert!(topics.subscribed(&id("c")).is_some());
    }
}
