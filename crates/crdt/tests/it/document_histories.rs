//! Random histories at several sites: whoever holds the same changes reads the same, however they came.

use std::collections::BTreeMap;

use khufu_crdt::{Author, Change, Edit, Hlc, OperationId, Payload, Policy, Replicant, SiteName};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::document_sites::{actor, agree, exchange, id, placement, site, spec, synchronise};

const NAMES: [&str; 5] = ["paris", "rennes", "nantes", "lyon", "lille"];

#[derive(Debug, Clone)]
enum What {
    /// Set the whole desired state, having seen it as it is, or as it was that many edits ago.
    Desired(Value, Option<Index>),
    /// Lay a merge patch over it.
    Patch(Value),
    /// Replace one element or field by another, deep inside.
    Operate(u8, Value, bool),
    Override(usize, Option<Value>),
    Scope(Vec<usize>),
    ListKeys(bool),
    Pick(Index, Index),
    Delete(bool),
}

#[derive(Debug, Clone)]
enum Action {
    Edit(usize, What),
    /// Some of one site's changes reach another, in this order.
    Send(usize, usize, Vec<Index>),
    /// Two sites talk until they agree.
    Sync(usize, usize),
    /// A site stops and starts again from its last snapshot, and perhaps makes a new one.
    Restart(usize, bool),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => (0..4_i64).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!(1.0)),
        1 => "[xy]".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let named =
            (prop::sample::select(vec!["p", "q", "r", "s"]), prop::collection::btree_map("[ab]", inner.clone(), 0..2))
                .prop_map(|(name, fields)| {
                    let mut element = json!(fields);
                    element["name"] = json!(name);
                    element
                });
        prop_oneof![
            2 => prop::collection::btree_map("[abc]", inner.clone(), 0..4).prop_map(|fields| json!(fields)),
            2 => prop::collection::vec(named, 0..4).prop_map(Value::from),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

/// Mostly maps with the same few fields, so that edits meet.
fn desired() -> impl Strategy<Value = Value> {
    prop_oneof![6 => prop::collection::btree_map("[abc]", value(), 0..4).prop_map(|fields| json!(fields)), 1 => value()]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        8 => (desired(), prop::option::of(any::<Index>())).prop_map(|(value, seen)| What::Desired(value, seen)),
        4 => desired().prop_map(What::Patch),
        3 => (0..6_u8, value(), any::<bool>()).prop_map(|(id, payload, cut)| What::Operate(id, payload, cut)),
        2 => (0..NAMES.len(), prop::option::of(desired())).prop_map(|(site, value)| What::Override(site, value)),
        1 => prop::collection::vec(0..NAMES.len(), 1..4).prop_map(What::Scope),
        1 => any::<bool>().prop_map(What::ListKeys),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(conflict, value)| What::Pick(conflict, value)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let who = 0..NAMES.len();
    prop_oneof![
        12 => (who.clone(), what()).prop_map(|(site, what)| Action::Edit(site, what)),
        5 => (who.clone(), who.clone(), prop::collection::vec(any::<Index>(), 1..12))
            .prop_map(|(from, to, which)| Action::Send(from, to, which)),
        3 => (who.clone(), who.clone()).prop_map(|(a, b)| Action::Sync(a, b)),
        2 => (who, any::<bool>()).prop_map(|(site, save)| Action::Restart(site, save)),
    ]
}

/// A site with what it has stored.
struct Node {
    number: u8,
    doc: Replicant,
    snapshot: Option<Vec<u8>>,
    stored: Vec<Vec<u8>>,
    seen: Vec<Vec<khufu_crdt::ChangeHash>>,
    clock: u64,
}

impl Node {
    fn new(number: usize) -> Self {
        let number = u8::try_from(number).unwrap();
        let doc = Replicant::genesis(id(), &actor(number)).unwrap();
        Self { number, doc, snapshot: None, stored: vec![], seen: vec![], clock: 0 }
    }

    fn name(&self) -> SiteName {
        site(NAMES[usize::from(self.number)])
    }

    fn author(&mut self) -> Author {
        self.clock += 1;
        Author { site: self.name(), at: Hlc::from_ms(self.clock), who: "it".into(), why: String::new() }
    }

    fn keep(&mut self, edit: Edit) {
        if let Some(change) = edit.unwrap() {
            assert!(self.doc.has(&change.hash));
            self.stored.push(change.bytes);
        }
        self.seen.push(self.doc.heads());
    }

    fn create(&mut self, value: Value) {
        let author = self.author();
        let mut wanted = spec(value);
        wanted.placement = placement(&["paris"], self.name().as_str(), self.clock);
        let edit = self.doc.create(&author, wanted);
        self.keep(edit);
    }

    fn edit(&mut self, what: What) {
        if !self.doc.is_created() {
            return self.create(json!({"a": 1}));
        }
        if self.doc.state().deleted.is_some() {
            if let What::Desired(value, None) = what {
                self.create(value.clone());
                assert_eq!((&self.doc.state().desired, &self.doc.state().deleted), (&value, &None));
            }
            return;
        }
        let author = self.author();
        match what {
            What::Desired(value, None) => {
                let edit = self.doc.set_desired(&author, &value, None);
                self.keep(edit);
                assert_eq!(self.doc.state().desired, value, "what is set is what is read");
                assert_eq!(self.doc.set_desired(&author, &value, None), Ok(None));
            }
            What::Desired(value, Some(seen)) => {
                let seen = seen.get(&self.seen).clone();
                let edit = self.doc.set_desired(&author, &value, Some(&seen));
                self.keep(edit);
            }
            What::Patch(patch) => {
                let edit = self.doc.patch_desired(&author, &patch);
                self.keep(edit);
            }
            What::Operate(number, payload, cut) => {
                let id = OperationId::new(format!("{}-{number}", self.name())).unwrap();
                let parents: Vec<OperationId> = self.doc.state().operations.keys().take(3).cloned().collect();
                let known = self.doc.history().iter().any(|entry| entry.operation.as_ref() == Some(&id));
                if !known {
                    let edit = self.doc.operate(&author, id.clone(), "set", Payload::Value(payload), parents, cut);
                    self.keep(edit);
                    assert!(self.doc.state().operations.contains_key(&id));
                }
            }
            What::Override(of, value) => {
                let of = site(NAMES[of]);
                let step = |value: &Value| json!({"op": "add", "path": "/x", "value": value});
                // Lists are JSON patches.
                let value = value.map(|value| match value {
                    Value::Array(items) => items.iter().map(step).collect(),
                    other => other,
                });
                let edit = self.doc.set_override(&author, &of, value.as_ref());
                self.keep(edit);
                assert_eq!(self.doc.state().overrides.get(&of), value.as_ref());
            }
            What::Scope(sites) => {
                let sites: Vec<&str> = sites.into_iter().map(|i| NAMES[i]).collect();
                let placement = placement(&sites, self.name().as_str(), self.clock);
                let edit = self.doc.set_scope(&author, &placement.expression, &placement);
                self.keep(edit);
                assert_eq!(self.doc.state().placement.as_ref(), Some(&placement));
            }
            What::ListKeys(other) => {
                let list_keys = if other { vec!["a".to_owned(), "name".to_owned()] } else { vec![] };
                let edit = self.doc.set_policy(&author, &Policy { list_keys, ..Policy::default() }, None);
                self.keep(edit);
            }
            What::Pick(conflict, value) => {
                let conflicts = self.doc.conflicts();
                if conflicts.is_empty() {
                    return;
                }
                let conflict = conflict.get(&conflicts);
                let value = value.get(&conflict.values);
                let edit = self.doc.pick(&author, &conflict.pointer(), &value.change);
                self.keep(edit);
                let left = self.doc.conflicts();
                assert!(left.iter().all(|left| left.path != conflict.path), "{conflict:?} is left: {left:?}");
            }
            What::Delete(keep) => {
                let edit = self.doc.delete(&author, keep);
                self.keep(edit);
            }
        }
    }

    fn take(&mut self, changes: &[Vec<u8>]) {
        let received = self.doc.apply(changes).unwrap();
        assert_eq!(received.rejected, Vec::<String>::new());
        self.stored.extend(received.new.into_iter().map(|change| change.bytes));
        self.seen.push(self.doc.heads());
    }

    fn restart(&mut self, save: bool) {
        if save {
            self.snapshot = Some(self.doc.save());
            self.stored.clear();
        }
        let loaded = Replicant::load(id(), &actor(self.number), self.snapshot.as_deref(), &self.stored).unwrap();
        assert_eq!(loaded.damaged, Vec::<String>::new());
        agree(&loaded.replicant, &self.doc);
        assert_eq!(loaded.replicant.queued(), self.doc.queued());
        assert_eq!(loaded.replicant.missing(), self.doc.missing());
        self.doc = loaded.replicant;
    }
}

fn everything(doc: &Replicant) -> Vec<Vec<u8>> {
    let all: Vec<Change> = doc.changes_since(&[]).into_iter().chain(doc.queued()).collect();
    all.into_iter().map(|change| change.bytes).collect()
}

fn pair(nodes: &mut [Node], a: usize, b: usize) -> (&mut Node, &mut Node) {
    let (low, high) = (a.min(b), a.max(b));
    let (head, tail) = nodes.split_at_mut(high);
    (&mut head[low], &mut tail[0])
}

/// What a site reads, by the heads it reads it at.
fn same_heads_same_contents(nodes: &[Node]) {
    let mut read: BTreeMap<_, &Node> = BTreeMap::new();
    for node in nodes {
        if let Some(other) = read.insert(node.doc.heads(), node) {
            agree(&node.doc, &other.doc);
        }
    }
}

fn run(sites: usize, apart: bool, actions: Vec<Action>, end: Option<bool>) {
    let mut nodes: Vec<Node> = (0..sites).map(Node::new).collect();
    nodes[0].create(json!({"a": {"b": 1}, "b": [{"name": "p", "a": 1}], "c": [1, 2]}));
    if apart {
        // Created at all sites at once.
        for node in &mut nodes[1..] {
            node.create(json!({"a": {"c": 2}, "b": [{"name": "p", "b": 1}, {"name": "q"}], "c": [3]}));
        }
    } else {
        let first = everything(&nodes[0].doc);
        nodes[1..].iter_mut().for_each(|node| node.take(&first));
    }
    for action in actions {
        match action {
            Action::Edit(at, what) => nodes[at % sites].edit(what),
            Action::Send(from, to, which) => {
                let all = everything(&nodes[from % sites].doc);
                let some: Vec<Vec<u8>> = which.iter().map(|index| index.get(&all).clone()).collect();
                nodes[to % sites].take(&some);
            }
            Action::Sync(a, b) if a % sites != b % sites => {
                let (a, b) = pair(&mut nodes, a % sites, b % sites);
                let (was_a, was_b) = (a.doc.heads(), b.doc.heads());
                synchronise(&mut a.doc, &mut b.doc);
                for (node, was) in [(a, was_a), (b, was_b)] {
                    let news = node.doc.changes_since(&was);
                    node.stored.extend(news.into_iter().map(|change| change.bytes));
                    node.seen.push(node.doc.heads());
                }
            }
            Action::Sync(..) => {}
            Action::Restart(at, save) => nodes[at % sites].restart(save),
        }
        same_heads_same_contents(&nodes);
    }
    if let Some(keep) = end {
        nodes[0].edit(What::Delete(keep));
    }
    for i in 1..sites {
        let (a, b) = pair(&mut nodes, 0, i);
        exchange(&mut a.doc, &mut b.doc);
    }
    for i in 1..sites {
        let (a, b) = pair(&mut nodes, 0, i);
        if i % 2 == 0 {
            exchange(&mut a.doc, &mut b.doc)
        } else {
            _ = synchronise(&mut a.doc, &mut b.doc)
        }
        assert!(b.doc.queued().is_empty() && b.doc.missing().is_empty());
    }
    let mut fresh = Replicant::genesis(id(), &actor(99)).unwrap();
    synchronise(&mut fresh, &mut nodes[0].doc);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100), ..ProptestConfig::default() })]

    #[test]
    fn whoever_holds_the_same_changes_reads_the_same(
        sites in 2..=5_usize, apart: bool, actions in prop::collection::vec(action(), 1..40), end: Option<bool>,
    ) {
        run(sites, apart, actions, end);
    }

    /// Two sites that are never apart for long: many edits of one value.
    #[test]
    fn what_is_set_is_what_is_read(
        apart: bool, rounds in prop::collection::vec((desired(), desired(), desired(), any::<bool>()), 1..6),
    ) {
        let mut actions = vec![];
        for (a, b, c, both) in rounds {
            actions.push(Action::Edit(0, What::Desired(a, None)));
            actions.push(Action::Edit(1, What::Desired(b, None)));
            actions.push(Action::Sync(0, 1));
            actions.push(Action::Edit(0, What::Desired(c.clone(), None)));
            if both {
                actions.push(Action::Edit(1, What::Desired(c, None)));
            }
        }
        run(2, apart, actions, None);
    }
}

/// More with PROPTEST_CASES.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}
