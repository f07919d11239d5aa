//! Epochs of documents: closed without coordination, byte for byte alike; what comes late is carried over and nothing is
//! lost or done twice.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{
    Change, ChangeHash, DocumentId, EditError, EpochRule, OperationId, Payload, Policy, Replicant, Ripeness, cut_after,
    frontier,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::document_sites::{Site, actor, agree, author, exchange, id, spec, synchronise, two, two_with};
use crate::histories::cases;
use crate::history::policy;

fn op(name: &str) -> OperationId {
    OperationId::new(name).unwrap()
}

fn rule(changes: usize) -> EpochRule {
    EpochRule { changes, age_ms: u64::MAX, aged_changes: usize::MAX }
}

fn operate(doc: &mut Replicant, site: &str, at: u64, name: &str, op_type: &str) {
    let state = doc.state();
    let parents = frontier(&state.operations);
    let cut = cut_after(&state.base, &state.operations, &parents, op_type, &state.policy);
    doc.operate(&author(site, at), op(name), op_type, Payload::Value(json!(name)), parents, cut).unwrap();
}

fn ids<'a>(of: impl IntoIterator<Item = &'a OperationId>) -> Vec<&'a str> {
    of.into_iter().map(OperationId::as_str).collect()
}

fn closed(doc: &Replicant, cut: &ChangeHash, number: u8) -> Replicant {
    doc.close(cut, &actor(number)).unwrap().replicant
}

fn only_head(doc: &Replicant) -> ChangeHash {
    let [head] = doc.heads()[..] else { panic!("several heads") };
    head
}

fn files() -> Policy {
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
    assert_eq!(next[0].id(), &DocumentId { epoch: 1, ..id() });
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
    assert_eq!(a.doc.ripeness(&rule(3), &[b.doc.heads()]), Ripeness::Ripe(joined));
    assert_eq!(b.doc.ripeness(&rule(3), &[b.doc.heads()]), Ripeness::Ripe(joined));
    // An old epoch is closed with fewer changes.
    let aged = EpochRule { changes: 100, age_ms: 3000, aged_changes: 2 };
    assert_eq!(a.doc.ripeness(&aged, &[b.doc.heads()]), Ripeness::Ripe(joined));
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
    exchange(&mut one, &mut two);
    assert_eq!(ids(&one.state().resolved().list), ["v", "y", "z", "mine", "more"]);
    assert_eq!(one.state().desired, json!({"k": 1}));
    assert_eq!(one.cut(), Some(late));
    one.join(&author("paris", 2007)).unwrap();
    let next = closed(&one, &only_head(&one), 13);
    assert_eq!(ids(&next.state().resolved().list), ["v", "y", "z", "mine", "more"]);
    assert!(next.was_left_out(&op("x")));
}

#[test]
fn what_was_deleted_is_deleted_in_the_next_epoch_too() {
    let (mut a, mut b) = two(json!({"k": 0}));
    let cut = only_head(&a.doc);
    b.doc.delete(&author("rennes", 3000), true).unwrap();
    assert_eq!(closed(&b.doc, &only_head(&b.doc), 10).state().deleted, b.doc.state().deleted);
    // Deleted by one while another closes: it is deleted in the next epoch.
    a.set(json!({"k": 1}));
    let mut next = closed(&a.doc, &cut, 11);
    let carried = b.doc.carry_into(&mut next, &[]).unwrap();
    assert_eq!(carried.made.len(), 1);
    assert_eq!(next.state().deleted, b.doc.state().deleted);
    // Put again there, it is there, in this epoch and in the next.
    next.create(&author("paris", 3001), spec(json!({"again": 1}))).unwrap().unwrap();
    assert_eq!(next.state().deleted, None);
    assert_eq!(b.doc.carry_into(&mut next, &[]).unwrap().made, vec![]);
    let mut third = closed(&next, &only_head(&next), 12);
    assert_eq!((third.state().deleted.as_ref(), &third.state().desired), (None, &json!({"again": 1})));
    // A deletion that knew of it ends it, also when it comes an epoch too late.
    next.delete(&author("rennes", 3002), false).unwrap().unwrap();
    next.carry_into(&mut third, &[]).unwrap();
    assert!(third.state().deleted.is_some());
}

#[test]
fn a_deletion_that_comes_an_epoch_too_late_ends_no_more_than_it_knew() {
    let (mut a, mut b) = two_with(khufu_crdt::Spec { policy: files(), ..spec(json!({"k": 0})) });
    operate(&mut a.doc, "paris", 2000, "w", "set");
    exchange(&mut a.doc, &mut b.doc);
    // One deletes and puts again, and closes; the other has deleted what was before, and put it again, too.
    a.doc.delete(&author("paris", 2001), false).unwrap().unwrap();
    a.doc
        .create(&author("paris", 2002), khufu_crdt::Spec { policy: files(), ..spec(json!({"a": 1})) })
        .unwrap()
        .unwrap();
    operate(&mut a.doc, "paris", 2003, "x", "set");
    let mut next = closed(&a.doc, &only_head(&a.doc), 11);
    assert!(next.was_left_out(&op("w")));
    operate(&mut b.doc, "rennes", 2004, "y", "add");
    b.doc.delete(&author("rennes", 2005), false).unwrap().unwrap();
    b.doc
        .create(&author("rennes", 2006), khufu_crdt::Spec { policy: files(), ..spec(json!({"b": 1})) })
        .unwrap()
        .unwrap();
    operate(&mut b.doc, "rennes", 2007, "z", "add");
    b.doc.carry_into(&mut next, &[]).unwrap();
    assert_eq!(next.state().deleted, None);
    assert_eq!(next.state().desired, json!({"a": 1, "b": 1}));
    assert_eq!(ids(&next.state().resolved().list), ["x", "z"]);
    // Somebody who had never heard of it has made something of that name, and deleted it: that was all they knew.
    let mut stranger = Replicant::genesis(id(), &actor(40)).unwrap();
    stranger.create(&author("lyon", 10), spec(json!({"mine": 1}))).unwrap().unwrap();
    stranger.delete(&author("lyon", 11), false).unwrap().unwrap();
    stranger.carry_into(&mut next, &[]).unwrap();
    assert_eq!((next.state().deleted.as_ref(), &next.state().desired), (None, &json!({"a": 1, "b": 1})));
    // And if they did not delete it, it is there, and the sites of both know where it lived.
    let mut stranger = Replicant::genesis(id(), &actor(41)).unwrap();
    let there = crate::document_sites::placement(&["lyon"], "lyon", 12);
    stranger.create(&author("lyon", 12), khufu_crdt::Spec { placement: there, ..spec(json!({"mine": 1})) }).unwrap();
    stranger.carry_into(&mut next, &[]).unwrap();
    assert_eq!(next.state().desired, json!({"a": 1, "b": 1, "mine": 1}));
    let placement = next.state().placement.clone().unwrap();
    let sites: BTreeSet<_> = placement.sites.iter().chain(&placement.leaving).map(|site| site.as_str()).collect();
    assert_eq!(sites, ["lyon", "paris", "rennes"].into());
}

#[test]
fn what_a_stranger_has_put_meets_what_was_closed_as_if_it_had_not_been() {
    let (a, _) = two(json!({"k": 1, "own": 1}));
    let there = crate::document_sites::placement(&["lyon"], "lyon", 12);
    let mut stranger = Replicant::genesis(id(), &actor(40)).unwrap();
    let put = khufu_crdt::Spec { placement: there, kind: "shell".into(), ..spec(json!({"k": 2, "mine": 1})) };
    stranger.create(&author("lyon", 12), put).unwrap().unwrap();
    stranger.patch_desired(&author("lyon", 13), &json!({"mine": 2})).unwrap().unwrap();
    let said = |doc: &Replicant| {
        let values = |of: khufu_crdt::Conflict| of.values.into_iter().map(|of| of.value.to_string());
        let conflicts = doc.conflicts().into_iter();
        conflicts.map(|of| (of.pointer(), values(of).collect::<BTreeSet<_>>())).collect::<BTreeMap<_, _>>()
    };
    let (mut plain, mut next) = (a.doc.clone(), closed(&a.doc, &only_head(&a.doc), 11));
    exchange(&mut plain, &mut stranger.clone());
    stranger.carry_into(&mut next, &[]).unwrap();
    assert_eq!(said(&next).keys().collect::<Vec<_>>(), ["/desired/k", "/kind", "/placement"]);
    assert_eq!(said(&next), said(&plain));
    assert_eq!((&next.state().desired["own"], &next.state().desired["mine"]), (&json!(1), &json!(2)));
    // It is closed like any other once that is brought together.
    next.join(&author("paris", 14)).unwrap();
    let mut third = closed(&next, &only_head(&next), 12);
    assert_eq!(said(&third).keys().collect::<Vec<_>>(), ["/desired/k", "/kind"], "a placement is decided");
    assert_eq!(third.state().desired, next.state().desired);
    // What is known to have been deleted does not come back by being offered again.
    third.delete(&author("paris", 15), false).unwrap().unwrap();
    assert_eq!(stranger.carry_into(&mut third, &[]).unwrap().made, vec![]);
    assert!(third.state().deleted.is_some());
    // What the stranger deletes is what the stranger knew.
    stranger.delete(&author("lyon", 16), false).unwrap().unwrap();
    let mut next = closed(&a.doc, &only_head(&a.doc), 13);
    stranger.carry_into(&mut next, &[]).unwrap();
    assert_eq!((next.state().deleted.as_ref(), &next.state().desired), (None, &json!({"k": 1, "own": 1})));
}

#[test]
fn who_left_long_ago_does_not_come_back_with_what_is_put_again() {
    let (mut a, _) = two(json!({"k": 1}));
    let mut moved = crate::document_sites::placement(&["paris"], "paris", 5);
    moved.leaving = [crate::document_sites::site("rennes")].into();
    a.doc.set_scope(&author("paris", 2000), "paris", &moved).unwrap().unwrap();
    let cut = only_head(&a.doc);
    a.doc.delete(&author("paris", 3000), false).unwrap().unwrap();
    // Rennes has cleaned up long ago, so it is not named any more.
    let alone = crate::document_sites::placement(&["paris"], "paris", 6);
    a.doc.create(&author("paris", 3001), khufu_crdt::Spec { placement: alone, ..spec(json!({})) }).unwrap().unwrap();
    let next = closed(&a.doc, &cut, 11);
    assert_eq!(next.state().placement, a.doc.state().placement);
}

#[test]
fn an_operation_of_an_earlier_epoch_that_a_deletion_ended_is_not_taken_for_done() {
    let (mut a, _) = two_with(khufu_crdt::Spec { policy: files(), ..spec(json!({})) });
    operate(&mut a.doc, "paris", 2000, "w", "set");
    let mut next = closed(&a.doc, &only_head(&a.doc), 11);
    next.delete(&author("paris", 3000), false).unwrap().unwrap();
    next.create(&author("paris", 3001), khufu_crdt::Spec { policy: files(), ..spec(json!({})) }).unwrap().unwrap();
    let again = next.operate(&author("paris", 3002), op("w"), "set", Payload::Value(json!("w")), vec![], true);
    assert_eq!(again, Err(EditError::OperationExists(op("w"))));
}

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
    Join(usize),
    /// A site looks whether it can close.
    Close(usize),
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
        1 => who.clone().prop_map(Action::Join),
        7 => who.clone().prop_map(Action::Close),
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
        Self { with, without, said: BTreeMap::new(), clock: 1000, actors: 20, closed: BTreeSet::new() }
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

    fn close(&mut self, site: usize, changes: usize) {
        let epoch = self.with[site].id().epoch;
        let said = |other| self.said.get(&(site, other)).filter(|(of, _)| *of == epoch).map(|(_, heads)| heads.clone());
        let reported: Option<Vec<_>> = (0..self.with.len()).filter(|other| *other != site).map(said).collect();
        let Some(reported) = reported else { return };
        if let Ripeness::Ripe(cut) = self.with[site].ripeness(&rule(changes), &reported) {
            self.closed.insert((epoch, cut));
            let actor = self.actor();
            self.with[site] = self.with[site].close(&cut, &actor).unwrap().replicant;
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

fn run(sites: usize, changes: usize, policy: &Policy, actions: &[Action]) -> u64 {
    let mut world = World::new(sites, policy);
    for action in actions {
        match *action {
            Action::Operate(site, op_type) => world.operate(site % sites, ["set", "add", "sum"][op_type]),
            Action::Edit(site, field, value) => world.edit(site % sites, field, value),
            Action::Meet(a, b) => world.meet(a % sites, b % sites),
            Action::Gather(but) => {
                let all: Vec<_> = (0..sites).filter(|site| *site != but || sites == 2).collect();
                for _ in 0..2 {
                    all.windows(2).for_each(|pair| world.meet(pair[0], pair[1]));
                }
            }
            Action::Join(site) => {
                world.clock += 1;
                let by = author(SITES[site % sites], world.clock);
                world.with[site % sites].join(&by).unwrap();
            }
            Action::Close(site) => world.close(site % sites, changes),
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
    let epochs: BTreeSet<u64> = world.closed.iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(epochs.len(), world.closed.len(), "two cuts in one epoch: {:?}", world.closed);
    world.with[0].id().epoch
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
    let epochs = (0..20).map(|_| run(3, 2, &files(), &story.new_tree(&mut runner).unwrap().current())).sum::<u64>();
    assert!(epochs >= 10, "{epochs} epochs in twenty worlds");
}
