//! Sites that hold one document, for the tests about documents.

use khufu_crdt::{
    Actor, Author, Change, ChangeHash, DocumentId, Hlc, Mode, Placement, Policy, Replicant, ReplicantId, SiteName,
    Spec, SyncState,
};
use serde_json::Value;

pub(crate) fn id() -> DocumentId {
    DocumentId { replicant: ReplicantId::new("web").unwrap(), epoch: 0 }
}

pub(crate) fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

pub(crate) fn actor(number: u8) -> Actor {
    Actor::new([number; 16])
}

pub(crate) fn author(site_name: &str, at: u64) -> Author {
    Author { site: site(site_name), at: Hlc::from_ms(at), who: format!("someone at {site_name}"), why: "test".into() }
}

pub(crate) fn placement(sites: &[&str], by: &str, at: u64) -> Placement {
    Placement {
        sites: sites.iter().map(|name| site(name)).collect(),
        leaving: [].into(),
        mode: Mode::Replicate,
        prime: None,
        expression: sites.join(" & "),
        decided_at: Hlc::from_ms(at),
        decided_by: site(by),
    }
}

pub(crate) fn spec(desired: Value) -> Spec {
    Spec {
        kind: "files".into(),
        scope: "paris & rennes".into(),
        placement: placement(&["paris", "rennes"], "paris", 1),
        policy: Policy::default(),
        desired,
        overrides: [].into(),
    }
}

/// One site with its document, and a clock.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) doc: Replicant,
    clock: u64,
}

impl Site {
    pub(crate) fn new(name: &'static str, number: u8) -> Self {
        Self { name, doc: Replicant::genesis(id(), &actor(number)).unwrap(), clock: 1000 }
    }

    pub(crate) fn author(&mut self) -> Author {
        self.clock += 1;
        author(self.name, self.clock)
    }

    pub(crate) fn set(&mut self, new: Value) {
        let author = self.author();
        self.doc.set_desired(&author, &new, None).unwrap();
    }

    pub(crate) fn set_seen(&mut self, new: Value, seen: &[ChangeHash]) {
        let author = self.author();
        self.doc.set_desired(&author, &new, Some(seen)).unwrap();
    }

    pub(crate) fn desired(&self) -> &Value {
        &self.doc.state().desired
    }
}

/// Two sites that were together when `desired` was created, and have been apart since.
pub(crate) fn two(desired: Value) -> (Site, Site) {
    two_with(spec(desired))
}

pub(crate) fn two_with(spec: Spec) -> (Site, Site) {
    let (mut a, mut b) = (Site::new("paris", 1), Site::new("rennes", 2));
    let author = a.author();
    a.doc.create(&author, spec).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    (a, b)
}

/// Gives each what the other has, and checks that they agree.
pub(crate) fn exchange(a: &mut Replicant, b: &mut Replicant) {
    let all = |of: &Replicant, to: &Replicant| [of.changes_since(&to.heads()), of.queued()].concat();
    let (from_a, from_b) = (all(a, b), all(b, a));
    take(b, &from_a);
    take(a, &from_b);
    agree(a, b);
}

pub(crate) fn take(doc: &mut Replicant, changes: &[Change]) {
    let bytes: Vec<Vec<u8>> = changes.iter().map(|change| change.bytes.clone()).collect();
    let received = doc.apply(&bytes).unwrap();
    assert_eq!(received.rejected, Vec::<String>::new());
}

/// The same through the sync protocol; gives how many messages it took.
pub(crate) fn synchronise(a: &mut Replicant, b: &mut Replicant) -> usize {
    let (mut of_a, mut of_b) = (SyncState::default(), SyncState::default());
    for round in 0..200 {
        let to_b = a.sync_message(&mut of_a);
        if let Some(message) = &to_b {
            assert_eq!(b.receive_sync(&mut of_b, message).unwrap().rejected, Vec::<String>::new());
        }
        let to_a = b.sync_message(&mut of_b);
        if let Some(message) = &to_a {
            assert_eq!(a.receive_sync(&mut of_a, message).unwrap().rejected, Vec::<String>::new());
        }
        if to_a.is_none() && to_b.is_none() {
            agree(a, b);
            return round;
        }
    }
    panic!("the exchange does not end");
}

pub(crate) fn agree(a: &Replicant, b: &Replicant) {
    assert_eq!(a.heads(), b.heads());
    assert_eq!(a.state(), b.state());
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.conflicts(), b.conflicts());
    assert_eq!(a.change_count(), b.change_count());
}
