//! Sites that close epochs end with what they would have had without.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{Change, ChangeHash, OperationId, Policy, Replicant, Ripeness};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::document_sites::{Site, actor, agree, author, exchange, id, spec};
use crate::epoch_documents::{files, operate, rule};
use crate::histories::cases;
use crate::history::policy;

/// A world of sites that close epochs, and the same without.
#[derive(Debug, Clone)]
enum Action {
    /// An operation of a type.
    Operate(usize, usize),
    /// An edit of one of its own fields.
    Edit(usize, u8, u8),
    /// Two sites tell each other all.
    Meet(usize, usize),
    /// All but one do.
    Gather(usize),
    /// A site makes many changes before it meets all others, so that there is more to close over than one epoch's.
    Burst(usize),
    Join(usize),
    /// A site looks whether it can close, and closes as far on as it makes sense, or at the first change at which it may.
    Close(usize, bool),
    Restart(usize),
    Delete(usize),
    /// Puts what was deleted again.
    Again(usize),
}

fn action(sites: usize) -> impl Strategy<Value = Action> {
    let who = 0..sites;
    prop_oneof![
        6 => (who.clone(), 0..3_usize).prop_map(|(s, t)| Action::Operate(s, t)),
        3 => (who.clone(), 0..3_u8, 0..9_u8).prop_map(|(s, f, v)| Action::Edit(s, f, v)),
        3 => (who.clone(), who.clone()).prop_map(|(a, b)| Action::Meet(a, b)),
        3 => who.clone().prop_map(Action::Gather),
        2 => who.clone().prop_map(Action::Burst),
        1 => who.clone().prop_map(Action::Join),
        7 => (who.clone(), any::<bool>()).prop_map(|(s, far)| Action::Close(s, far)),
        1 => who.clone().prop_map(Action::Restart),
        1 => who.clone().prop_map(Action::Delete),
        4 => who.prop_map(Action::Again),
    ]
}

struct World {
    with: Vec<Replicant>,
    without: Vec<Replicant>,
    /// By listener and speaker: epoch and heads last said.
    said: BTreeMap<(usize, usize), (u64, Vec<ChangeHash>)>,
    clock: u64,
    actors: u8,
    closed: BTreeSet<(u64, ChangeHash)>,
    /// How often a site has left the document that followed an epoch for another that follows the same.
    changed: u64,
}

const SITES: [&str; 4] = ["paris", "rennes", "nantes", "lyon"];

impl World {
    fn new(sites: usize, policy: &Policy) -> Self {
        let mut first = Site::new("paris", 200);
        let wanted = khufu_crdt::Spec { policy: policy.clone(), ..spec(json!({})) };
        first.doc.create(&author("paris", 1), wanted).unwrap().unwrap();
        let all: Vec<Vec<u8>> = first.doc.changes_since(&[]).into_iter().map(|change| change.bytes).collect();
        let site = |number: usize, offset: usize| {
            let mut doc = Replicant::genesis(id(), &actor(u8::try_from(number + offset).unwrap())).unwrap();
            doc.apply(&all).unwrap();
            doc
        };
        let (with, without) = ((0..sites).map(|n| site(n, 0)).collect(), (0..sites).map(|n| site(n, 0)).collect());
        Self { with, without, said: BTreeMap::new(), clock: 1000, actors: 20, closed: BTreeSet::new(), changed: 0 }
    }

    fn actor(&mut self) -> khufu_crdt::Actor {
        self.actors += 1;
        actor(self.actors)
    }

    fn is_deleted(&self, site: usize) -> bool {
        self.with[site].state().deleted.is_some()
    }

    fn delete(&mut self, site: usize) {
        self.clock += 1;
        for doc in [&mut self.with[site], &mut self.without[site]] {
            doc.delete(&author(SITES[site], self.clock), false).unwrap();
        }
    }

    fn again(&mut self, site: usize, policy: &Policy) {
        if !self.is_deleted(site) {
            return;
        }
        self.clock += 1;
        let wanted = khufu_crdt::Spec { policy: policy.clone(), ..spec(json!({ SITES[site]: {"again": self.clock} })) };
        for doc in [&mut self.with[site], &mut self.without[site]] {
            doc.create(&author(SITES[site], self.clock), wanted.clone()).unwrap();
        }
    }

    fn operate(&mut self, site: usize, op_type: &str) {
        if self.is_deleted(site) {
            return;
        }
        self.clock += 1;
        // Some clocks are slow.
        let at = if site == 1 { 10 } else { self.clock };
        for doc in [&mut self.with[site], &mut self.without[site]] {
            operate(doc, SITES[site], at, &format!("o{}", self.clock), op_type);
        }
    }

    fn edit(&mut self, site: usize, field: u8, value: u8) {
        if self.is_deleted(site) {
            return;
        }
        self.clock += 1;
        let value = if value == 0 { Value::Null } else { json!({"v": value}) };
        let patch = json!({ SITES[site]: { format!("f{field}"): value } });
        for doc in [&mut self.with[site], &mut self.without[site]] {
            doc.patch_desired(&author(SITES[site], self.clock), &patch).unwrap();
        }
    }

    /// What the engine does when another site is in a later epoch.
    fn catch_up(&mut self, site: usize, other: usize) {
        if self.with[site].id().epoch >= self.with[other].id().epoch {
            return;
        }
        let actor = self.actor();
        self.changed += u64::from(self.with[site].id().closings() == self.with[other].id().closings());
        let mut next = Replicant::genesis(self.with[other].id().clone(), &actor).unwrap();
        let all: Vec<Change> = self.with[other].changes_since(&[]);
        next.apply(&all.into_iter().map(|change| change.bytes).collect::<Vec<_>>()).unwrap();
        self.with[site].carry_into(&mut next, &[]).unwrap();
        self.with[site] = next;
    }

    fn meet(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.catch_up(a, b);
        self.catch_up(b, a);
        for docs in [&mut self.with, &mut self.without] {
            let (mut one, mut two) = (docs[a].clone(), docs[b].clone());
            exchange(&mut one, &mut two);
            (docs[a], docs[b]) = (one, two);
        }
        // Each says what it has, and passes on what others said.
        for (from, to) in [(a, b), (b, a)] {
            for speaker in 0..self.with.len() {
                let known = self.said.get(&(from, speaker)).cloned();
                let said =
                    if speaker == from { Some((self.with[from].id().epoch, self.with[from].heads())) } else { known };
                let Some(said) = said else { continue };
                let old = self.said.get(&(to, speaker));
                let newer = |old: &(u64, Vec<ChangeHash>)| {
                    said.0 > old.0
                        || (said.0 == old.0
                            && old.1.iter().all(|head| self.with[from].has(head))
                            && said.1.iter().all(|h| self.with[to].has(h)))
                };
                if speaker != to && old.is_none_or(newer) {
                    self.said.insert((to, speaker), said);
                }
            }
        }
    }

    fn gather(&mut self, who: impl Fn(usize) -> bool) {
        let all: Vec<_> = (0..self.with.len()).filter(|site| who(*site)).collect();
        for _ in 0..2 {
            all.windows(2).for_each(|pair| self.meet(pair[0], pair[1]));
        }
    }

    fn close(&mut self, site: usize, changes: usize, far: bool) {
        let epoch = self.with[site].id().epoch;
        let said = |other| self.said.get(&(site, other)).filter(|(of, _)| *of == epoch).map(|(_, heads)| heads.clone());
        let reported: Option<Vec<_>> = (0..self.with.len()).filter(|other| *other != site).map(said).collect();
        let Some(reported) = reported else { return };
        if let Ripeness::Ripe { cut, first } = self.with[site].ripeness(&rule(changes), &reported) {
            self.closed.insert((epoch, if far { cut } else { first }));
            let actor = self.actor();
            let cut = if far { cut } else { first };
            let next = self.with[site].close(&cut, &actor).unwrap().replicant;
            assert_eq!(self.with[site].next_at(&cut).as_ref(), Some(next.id()));
            self.with[site] = next;
        }
    }

    fn restart(&mut self, site: usize) {
        let saved = self.with[site].save();
        let (document, actor) = (self.with[site].id().clone(), self.actor());
        let loaded = Replicant::load(document, &actor, Some(&saved), &[]).unwrap();
        assert_eq!(loaded.damaged, Vec::<String>::new());
        agree(&loaded.replicant, &self.with[site]);
        self.with[site] = loaded.replicant;
    }

    fn check(&self, site: usize) {
        let (with, without) = (self.with[site].state(), self.without[site].state());
        let (short, long) = (with.resolved().list, without.resolved().list);
        assert!(long.ends_with(&short), "{short:?} of {long:?}");
        let absolute = |id: &&OperationId| without.policy.is_absolute(&without.operations[*id].op_type);
        let left = &long[..long.len() - short.len()];
        assert!(left.is_empty() || absolute(&short.first().unwrap()), "{left:?} left out before {short:?}");
        assert_eq!(with.desired, without.desired);
        assert_eq!(with.deleted.is_some(), without.deleted.is_some());
        for id in without.operations.keys() {
            assert!(with.operation(id).is_some() || self.with[site].was_left_out(id), "{id} is lost");
        }
        for id in with.all_operations().keys() {
            assert!(without.operations.contains_key(id), "{id} is from nowhere");
        }
    }
}

fn run(sites: usize, changes: usize, policy: &Policy, actions: &[Action]) -> World {
    let mut world = World::new(sites, policy);
    for action in actions {
        match *action {
            Action::Operate(site, op_type) => world.operate(site % sites, ["set", "add", "sum"][op_type]),
            Action::Edit(site, field, value) => world.edit(site % sites, field, value),
            Action::Meet(a, b) => world.meet(a % sites, b % sites),
            Action::Gather(but) => world.gather(|site| site != but || sites == 2),
            Action::Burst(site) => {
                for number in 0..3 * u8::try_from(changes).unwrap() {
                    match number % 4 {
                        0 => world.operate(site % sites, "add"),
                        value => world.edit(site % sites, value, number),
                    }
                }
                world.gather(|_| true);
            }
            Action::Join(site) => {
                world.clock += 1;
                let by = author(SITES[site % sites], world.clock);
                world.with[site % sites].join(&by).unwrap();
            }
            Action::Close(site, far) => world.close(site % sites, changes, far),
            Action::Restart(site) => world.restart(site % sites),
            Action::Delete(site) => world.delete(site % sites),
            Action::Again(site) => world.again(site % sites, policy),
        }
        (0..sites).for_each(|site| world.check(site));
    }
    for _ in 0..3 {
        (1..sites).for_each(|site| world.meet(0, site));
    }
    (1..sites).for_each(|site| agree(&world.with[0], &world.with[site]));
    world.check(0);
    world
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(files()),
        Just(policy(&[("sum", "sum", "take-both-any-order"), ("set", "set", "take-one")], &[])),
        crate::histories::any_policy().prop_map(|given| {
            // The types of any policy are called otherwise.
            let name = |t: &str| {
                match t {
                    "a" => "set",
                    "b" => "add",
                    _ => "sum",
                }
                .to_owned()
            };
            Policy {
                resolutions: given
                    .resolutions
                    .into_iter()
                    .map(|mut r| {
                        r.before = name(&r.before);
                        r.after = name(&r.after);
                        r
                    })
                    .collect(),
                types: given.types.into_iter().map(|(t, of)| (name(&t), of)).collect(),
                ..Policy::default()
            }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), ..ProptestConfig::default() })]

    #[test]
    fn closings_at_any_moment_change_nothing_that_shows(
        sites in 2..=4_usize, changes in 2..6_usize, policy in policies(), actions in prop::collection::vec(action(4), 1..60),
    ) {
        run(sites, changes, &policy, &actions);
    }
}

/// The property above says nothing if no epoch is ever closed.
#[test]
fn epochs_really_occur_in_such_worlds() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let story = prop::collection::vec(action(3), 80);
    let (mut epochs, mut changed) = (0, 0);
    for _ in 0..20 {
        let world = run(3, 2, &files(), &story.new_tree(&mut runner).unwrap().current());
        epochs += world.with[0].id().closings();
        changed += world.changed;
    }
    assert!(epochs >= 10, "{epochs} epochs in twenty worlds");
    assert!(changed >= 3, "only {changed} times two sites closed one epoch at different changes");
}
