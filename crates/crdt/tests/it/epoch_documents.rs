//! Epochs of documents: closed without coordination, byte for byte alike; what comes late is carried over and nothing is
//! lost or done twice.

use std::collections::BTreeMap;

use khufu_crdt::{
    ChangeHash, EditError, EpochRule, OperationId, Payload, Policy, Replicant, Ripeness, cut_after, frontier,
};
use serde_json::json;

use crate::document_sites::{actor, agree, author, exchange, id, spec, synchronise, two, two_with};
use crate::history::policy;

pub(crate) fn op(name: &str) -> OperationId {
    OperationId::new(name).unwrap()
}

pub(crate) fn rule(changes: usize) -> EpochRule {
    EpochRule { changes, age_ms: u64::MAX, aged_changes: usize::MAX }
}

pub(crate) fn operate(doc: &mut Replicant, site: &str, at: u64, name: &str, op_type: &str) {
    let state = doc.state();
    let parents = frontier(&state.operations);
    let cut = cut_after(&state.base, &state.operations, &parents, op_type, &state.policy);
    doc.operate(&author(site, at), op(name), op_type, Payload::Value(json!(name)), parents, cut).unwrap();
}

/// It may be closed at the first change at which that may ever be done.
fn at(cut: ChangeHash) -> Ripeness {
    Ripeness::Ripe { cut, first: cut }
}

pub(crate) fn ids<'a>(of: impl IntoIterator<Item = &'a OperationId>) -> Vec<&'a str> {
    of.into_iter().map(OperationId::as_str).collect()
}

pub(crate) fn closed(doc: &Replicant, cut: &ChangeHash, number: u8) -> Replicant {
    doc.close(cut, &actor(number)).unwrap().replicant
}

pub(crate) fn only_head(doc: &Replicant) -> ChangeHash {
    let [head] = doc.heads()[..] else { panic!("several heads") };
    head
}

pub(crate) fn files() -> Policy {
    policy(
        &[
            ("set", "set", "take-one"),
            ("add", "set", "take-both-reverse-order"),
            ("add", "add", "take-both-keep-order"),
        ],
        &["set"],
    )
}

#[test]
fn whoever_closes_at_the_same_cut_makes_the_same_document() {
    let (mut a, mut b) = two_with(khufu_crdt::Spec {
        policy: files(),
        ..spec(json!({"x": {"y": [1, {"name": "n", "b": 2, "c": 3}]}, "z": 1.5}))
    });
    for number in 0..6 {
        operate(&mut a.doc, "paris", 2000 + number, &format!("a{number}"), if number == 3 { "set" } else { "add" });
        a.set(json!({"x": {"y": [1, {"name": "n", "b": number, "c": 3}]}, "z": 1.5, "k": number}));
    }
    let cut = only_head(&a.doc);
    exchange(&mut a.doc, &mut b.doc);
    // What comes after, at both, apart.
    operate(&mut a.doc, "paris", 3000, "after-a", "add");
    a.set(json!({"x": 7, "z": 1.5, "k": 5, "new": {"q": 1, "a": {"d": 1, "c": 2}}}));
    b.set(json!({"x": {"y": [1, {"name": "n", "b": 9, "c": 3}]}, "z": 2, "k": 5}));
    operate(&mut b.doc, "rennes", 3001, "after-b", "add");
    b.set(json!({"x": {"y": [1, {"name": "n", "b": 9, "c": 3}]}, "z": 3, "k": 5}));
    exchange(&mut a.doc, &mut b.doc);
    let before = a.doc.state().clone();
    // Loaded from disk, the changes stand in another order there.
    let saved = b.doc.save();
    let c = Replicant::load(id(), &actor(7), Some(&saved), &[]).unwrap().replicant;
    let next: Vec<Replicant> =
        [(&a.doc, 11), (&b.doc, 12), (&c, 13)].into_iter().map(|(doc, number)| closed(doc, &cut, number)).collect();
    for other in &next[1..] {
        agree(&next[0], other);
        assert_eq!(next[0].changes_since(&[]).len(), other.changes_since(&[]).len());
        let bytes =
            |doc: &Replicant| doc.changes_since(&[]).into_iter().map(|c| (c.hash, c.bytes)).collect::<BTreeMap<_, _>>();
        assert_eq!(bytes(&next[0]), bytes(other));
    }
    let state = next[0].state();
    assert_eq!(next[0].id(), &id().next(13));
    assert_eq!(
        (&state.desired, &state.overrides, &state.placement),
        (&before.desired, &before.overrides, &before.placement)
    );
    assert_eq!((&state.policy, &state.kind, &state.scope), (&before.policy, &before.kind, &before.scope));
    assert_eq!(ids(&state.resolved().list), ["a3", "a4", "a5", "after-a", "after-b"]);
    assert_eq!(before.resolved().list, state.resolved().list);
    assert_eq!(ids(state.operations.keys()), ["after-a", "after-b"]);
    assert!(next[0].was_left_out(&op("a0")) && !next[0].was_left_out(&op("a3")));
    assert_eq!(next[0].cut(), Some(cut));
    // It is a document like any other: saved, loaded, synchronised, edited.
    let mut again = Replicant::genesis(next[0].id().clone(), &actor(21)).unwrap();
    synchronise(&mut again, &mut next[0].clone());
    let history = again.history();
    assert_eq!(history[0].what, "epoch");
    assert_eq!(history.iter().filter(|entry| entry.carried.is_some()).count(), 5);
    operate(&mut again, "paris", 4000, "later", "set");
    assert_eq!(ids(&again.state().resolved().list), ["later"]);
}

#[test]
fn a_cut_is_a_change_that_all_others_come_before_or_after_and_that_all_sites_have() {
    let (mut a, mut b) = two(json!({"k": 0}));
    assert_eq!(a.doc.ripeness(&rule(3), &[]), Ripeness::Young);
    a.set(json!({"k": 1}));
    a.set(json!({"k": 2}));
    let third = only_head(&a.doc);
    assert_eq!(a.doc.ripeness(&rule(3), &[b.doc.heads()]), Ripeness::Waiting(third));
    assert_eq!(a.doc.ripeness(&rule(4), &[a.doc.heads()]), Ripeness::Young);
    b.set(json!({"k": 3}));
    // Known, but not all that the other site says that it has.
    assert_eq!(a.doc.ripeness(&rule(3), &[b.doc.heads()]), Ripeness::Waiting(third));
    exchange(&mut a.doc, &mut b.doc);
    // The third has one beside it now.
    assert_eq!(a.doc.ripeness(&rule(3), &[b.doc.heads()]), Ripeness::Divided);
    let joined = a.doc.join(&author("paris", 5000)).unwrap().unwrap().hash;
    assert_eq!(a.doc.join(&author("paris", 5001)), Ok(None));
    assert_eq!(a.doc.ripeness(&rule(3), &[b.doc.heads()]), Ripeness::Waiting(joined));
    exchange(&mut a.doc, &mut b.doc);
    a.set(json!({"k": 4}));
    a.set(json!({"k": 5}));
    // The first that is far enough, however many there are by now.
    assert_eq!(a.doc.ripeness(&rule(3), &[b.doc.heads()]), at(joined));
    assert_eq!(b.doc.ripeness(&rule(3), &[b.doc.heads()]), at(joined));
    // An old epoch is closed with fewer changes.
    let aged = EpochRule { changes: 100, age_ms: 3000, aged_changes: 2 };
    assert_eq!(a.doc.ripeness(&aged, &[b.doc.heads()]), at(joined));
    assert_eq!(a.doc.ripeness(&EpochRule { age_ms: 30_000, ..aged }, &[b.doc.heads()]), Ripeness::Young);
    agree(&closed(&a.doc, &joined, 8), &{
        let mut b = closed(&b.doc, &joined, 9);
        exchange(&mut b, &mut closed(&a.doc, &joined, 10));
        b
    });
}

#[test]
fn a_site_that_comes_late_carries_over_what_only_it_has() {
    let (mut a, mut b) = two_with(khufu_crdt::Spec {
        policy: files(),
        ..spec(json!({"k": 0, "l": [{"name": "p", "v": 1}, {"name": "q", "v": 1}]}))
    });
    operate(&mut a.doc, "paris", 2000, "w", "set");
    exchange(&mut a.doc, &mut b.doc);
    // The second site is away, and edits.
    operate(&mut b.doc, "rennes", 2001, "late", "add");
    b.set(json!({"k": 0, "l": [{"name": "p", "v": 1}, {"name": "q", "v": 2}], "late": true}));
    let mut away = b.doc.clone();
    // Meanwhile several epochs are closed, as if it had been taken out.
    a.set(json!({"k": 1, "l": [{"name": "p", "v": 3}, {"name": "q", "v": 1}]}));
    operate(&mut a.doc, "paris", 2002, "v", "add");
    let mut next = closed(&a.doc, &only_head(&a.doc), 11);
    operate(&mut next, "paris", 2003, "u", "add");
    let mut next = closed(&next, &only_head(&next), 12);
    next.set_desired(
        &author("paris", 2004),
        &json!({"k": 2, "l": [{"name": "p", "v": 3}, {"name": "q", "v": 1}]}),
        None,
    )
    .unwrap();
    let third = closed(&next, &only_head(&next), 13);
    let (mut one, saved) = (third.clone(), third.clone().save());
    let mut two = Replicant::load(third.id().clone(), &actor(31), Some(&saved), &[]).unwrap().replicant;
    let made = away.carry_into(&mut one, &[]).unwrap();
    assert_eq!(made.made.len(), 2, "what it has in common with the others is not carried over");
    assert_eq!(ids(&one.state().resolved().list), ["w", "v", "u", "late"]);
    assert_eq!(one.state().desired, json!({"k": 2, "l": [{"name": "p", "v": 3}, {"name": "q", "v": 2}], "late": true}));
    // Whoever carries it over makes the same of it, also beside other edits, and once is as good as twice.
    operate(&mut two, "paris", 2005, "t", "add");
    assert_eq!(away.carry_into(&mut two, &[]).unwrap().made, made.made);
    assert_eq!(away.carry_into(&mut two, &[]).unwrap().made, vec![]);
    exchange(&mut one, &mut two);
    assert_eq!(ids(&one.state().resolved().list), ["w", "v", "u", "late", "t"]);
    // Closed over there, it is still known.
    one.join(&author("paris", 2006)).unwrap();
    let mut fourth = closed(&one, &only_head(&one), 14);
    assert_eq!(away.carry_into(&mut fourth, &[]).unwrap().made, vec![]);
    // What was asked for there before is not done again.
    let again = fourth.operate(&author("paris", 2007), op("late"), "add", Payload::Value(json!("late")), vec![], false);
    assert_eq!(again, Ok(None));
    // Where nobody remembers what was closed over, what others have said that they have is not carried over.
    away.delete(&author("rennes", 2008), false).unwrap();
    let shared = a.doc.heads();
    let mut other = Replicant::genesis(third.id().clone(), &actor(30)).unwrap();
    assert!(away.carry_into(&mut other, &shared).is_err(), "it follows nothing");
}

#[test]
fn an_operation_that_two_sites_were_asked_for_is_carried_over_alike_by_who_knows_of_one_and_who_knows_of_both() {
    let (mut a, mut b) = two_with(khufu_crdt::Spec { policy: files(), ..spec(json!({"k": 0})) });
    let cut = only_head(&a.doc);
    operate(&mut a.doc, "paris", 2001, "same", "add");
    operate(&mut b.doc, "rennes", 2002, "same", "add");
    let alone = [a.doc.clone(), b.doc.clone()];
    exchange(&mut a.doc, &mut b.doc);
    let mut next = [a.doc.clone(), alone[0].clone(), alone[1].clone()].map(|doc| closed(&doc, &cut, 11));
    let mut made = next.each_ref().map(|next| next.history().iter().map(|entry| entry.hash).collect::<Vec<_>>());
    made.iter_mut().for_each(|made| made.sort_unstable());
    assert!(
        made[1..].iter().all(|one| one.len() == 2 && one.iter().all(|change| made[0].contains(change))),
        "{made:?}"
    );
    let [both, one, other] = &mut next;
    exchange(one, other);
    exchange(both, one);
    exchange(both, other);
    assert_eq!(both.heads(), one.heads());
    assert_eq!(ids(&both.state().resolved().list), ["same"]);
}

/// A site that had gone from one epoch to the next but one carried over, a second time, what others had carried through
/// the epoch in between: an old edit came back beside those that had followed it.
#[test]
fn what_others_carried_through_an_epoch_in_between_is_not_carried_over_again() {
    let (mut a, mut b) = two(json!({"k": 0}));
    let cut = only_head(&a.doc);
    b.set(json!({"k": 1}));
    let away = b.doc.clone();
    exchange(&mut a.doc, &mut b.doc);
    let next = closed(&a.doc, &cut, 11);
    assert_eq!(next.state().desired, json!({"k": 1}));
    let first = next.history()[0].hash;
    let mut third = closed(&next, &first, 12);
    third.set_desired(&author("paris", 3000), &json!({"k": 2}), None).unwrap().unwrap();
    let carried = away.carry_into(&mut third, &[]).unwrap();
    assert_eq!(carried.made, vec![]);
    assert!(third.has(&carried.names[&only_head(&away)]), "it is known what it is there");
    assert_eq!(third.state().desired, json!({"k": 2}));
    assert_eq!(third.conflicts(), vec![]);
    // What follows it at the site that was away follows it in the later epoch.
    let mut away = away;
    away.set_desired(&author("rennes", 3001), &json!({"k": 1, "l": 1}), None).unwrap().unwrap();
    assert_eq!(away.carry_into(&mut third, &[]).unwrap().made.len(), 1);
    assert_eq!(third.state().desired, json!({"k": 2, "l": 1}));
    assert_eq!(third.conflicts(), vec![]);
}

#[test]
fn what_was_carried_through_many_epochs_is_still_known() {
    let (mut a, mut b) = two(json!({"k": 0}));
    let cut = only_head(&a.doc);
    b.set(json!({"k": 1}));
    let away = b.doc.clone();
    exchange(&mut a.doc, &mut b.doc);
    let mut next = closed(&a.doc, &cut, 11);
    // Each is closed at what it begins with, so that the edit is carried over again and again.
    for number in 12..20 {
        let first = next.history()[0].hash;
        next = closed(&next, &first, number);
    }
    next.set_desired(&author("paris", 3000), &json!({"k": 2}), None).unwrap().unwrap();
    assert_eq!(away.carry_into(&mut next, &[]).unwrap().made, vec![], "it is there");
    let mut last = closed(&next, &only_head(&next), 20);
    assert_eq!(away.carry_into(&mut last, &[]).unwrap().made, vec![], "it was closed over");
    assert_eq!(last.state().desired, json!({"k": 2}));
}

#[test]
fn what_was_not_settled_stays_open() {
    let (mut a, mut b) = two(json!({"k": 0, "same": 0, "map": {"x": 0}}));
    a.set(json!({"k": 1, "same": 5, "map": {"x": 1}}));
    b.set(json!({"k": 2, "same": 6, "map": {"x": 2}}));
    exchange(&mut a.doc, &mut b.doc);
    let before = a.doc.conflicts();
    assert_eq!(before.len(), 3);
    a.doc.join(&author("paris", 3000)).unwrap();
    let cut = only_head(&a.doc);
    let mut next = closed(&a.doc, &cut, 11);
    let sorted = |conflicts: Vec<khufu_crdt::Conflict>| {
        conflicts.into_iter().map(|c| (c.pointer(), c.values)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(sorted(next.conflicts()), sorted(before.clone()));
    // It goes on through the next closing, is settled by a choice, and by an edit.
    next.set_desired(
        &author("paris", 3001),
        &json!({"k": 3, "same": before[2].values[0].value, "map": next.state().desired["map"]}),
        None,
    )
    .unwrap();
    assert_eq!(sorted(next.conflicts()).keys().collect::<Vec<_>>(), ["/desired/map/x", "/desired/same"]);
    let mut third = closed(&next, &only_head(&next), 12);
    assert_eq!(sorted(third.conflicts()).keys().collect::<Vec<_>>(), ["/desired/map/x", "/desired/same"]);
    for conflict in third.conflicts() {
        for wanted in [false, true] {
            let mut third = third.clone();
            let value = conflict.values.iter().find(|value| value.winner == wanted).unwrap();
            third.pick(&author("paris", 3002), &conflict.pointer(), &value.change).unwrap().unwrap();
            assert!(!third.conflicts().iter().any(|left| left.path == conflict.path));
            assert_eq!(third.conflicts().len(), 1);
            let pointer = conflict.pointer();
            assert_eq!(third.state().desired.pointer(pointer.strip_prefix("/desired").unwrap()), Some(&value.value));
        }
    }
    let nobody = ChangeHash([7; 32]);
    assert!(matches!(third.pick(&author("paris", 3003), "/desired/same", &nobody), Err(EditError::NoSuchValue { .. })));
    // A choice that was made after the cut is carried over.
    let conflict = before.iter().find(|conflict| conflict.pointer() == "/desired/k").unwrap();
    for value in &conflict.values {
        let mut doc = a.doc.clone();
        doc.pick(&author("paris", 3004), "/desired/k", &value.change).unwrap().unwrap();
        let next = closed(&doc, &cut, 13);
        assert_eq!(next.state().desired["k"], value.value);
        assert_eq!(next.conflicts().len(), 2);
    }
}

#[test]
fn two_closings_of_one_epoch_come_together() {
    let (mut a, mut b) = two_with(khufu_crdt::Spec { policy: files(), ..spec(json!({"k": 0, "gone": 1})) });
    operate(&mut a.doc, "paris", 2000, "w", "set");
    let early = only_head(&a.doc);
    exchange(&mut a.doc, &mut b.doc);
    operate(&mut a.doc, "paris", 2001, "x", "add");
    operate(&mut a.doc, "paris", 2002, "v", "set");
    operate(&mut a.doc, "paris", 2003, "y", "add");
    a.set(json!({"k": 1}));
    let late = only_head(&a.doc);
    operate(&mut a.doc, "paris", 2004, "z", "add");
    exchange(&mut a.doc, &mut b.doc);
    operate(&mut b.doc, "rennes", 2005, "mine", "add");
    let (mut one, mut two) = (closed(&a.doc, &early, 11), closed(&b.doc, &late, 12));
    operate(&mut one, "paris", 2006, "more", "add");
    assert!(two.id().epoch > one.id().epoch && two.id().closings() == 1, "{} {}", one.id(), two.id());
    let before = two.clone();
    let carried = one.carry_into(&mut two, &[]).unwrap();
    assert_eq!(carried.made.len(), 1, "what followed the later cut is known, and what came before it");
    assert_eq!(ids(&two.state().resolved().list), ["v", "y", "z", "mine", "more"]);
    assert_eq!(two.state().desired, json!({"k": 1}));
    assert_eq!(two.conflicts(), vec![]);
    assert_eq!(two.cut(), Some(late));
    // What others have reported of an epoch that this one does not follow is carried over all the same: nobody may have.
    let mut other = before.clone();
    assert_eq!(one.carry_into(&mut other, &one.heads()).unwrap().made, carried.made);
    two.join(&author("paris", 2007)).unwrap();
    let closed_over = two.close(&only_head(&two), &actor(13)).unwrap();
    assert_eq!(closed_over.carried.made, vec![], "all of it is closed over, also what was made in the other document");
    let mut next = closed_over.replicant;
    assert_eq!(ids(&next.state().resolved().list), ["v", "y", "z", "mine", "more"]);
    assert!(next.was_left_out(&op("x")));
    // Whoever comes late out of the document that was left, which nothing followed, brings only what is new.
    assert!(next.remembers(one.id().epoch) && !next.remembers(next.id().epoch));
    assert_eq!(one.carry_into(&mut next, &[]).unwrap().made, vec![]);
    operate(&mut one, "paris", 2008, "last", "add");
    assert_eq!(one.carry_into(&mut next, &[]).unwrap().made.len(), 1);
    assert_eq!(ids(&next.state().resolved().list), ["v", "y", "z", "mine", "more", "last"]);
    // And whoever was left behind before all that.
    assert_eq!(b.doc.carry_into(&mut next, &[]).unwrap().made, vec![]);
}
