//! Deletions over several epochs: each ends what it knew, however late it comes.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{EditError, Payload, Replicant};
use serde_json::json;

use crate::document_sites::{actor, author, exchange, id, spec, two, two_with};
use crate::epoch_documents::{closed, files, ids, only_head, op, operate};

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
