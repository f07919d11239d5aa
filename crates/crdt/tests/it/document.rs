//! Documents: creation, storage, changes from elsewhere.

use std::collections::BTreeMap;

use khufu_crdt::{
    Author, Change, DocumentId, EditError, Hlc, Limits, OperationId, Payload, Policy, Replicant, ReplicantId,
    TypePolicy,
};
use serde_json::{Value, json};

use crate::document_sites::{
    Site, actor, agree, author, exchange, id, placement, site, spec, synchronise, take, two, two_with,
};

fn op(name: &str) -> OperationId {
    OperationId::new(name).unwrap()
}

fn bytes(changes: &[Change]) -> Vec<Vec<u8>> {
    changes.iter().map(|change| change.bytes.clone()).collect()
}

#[test]
fn the_first_change_is_the_same_everywhere_and_differs_by_document() {
    let first = |id: DocumentId, number| Replicant::genesis(id, &actor(number)).unwrap().changes_since(&[]);
    let here = first(id(), 1);
    assert_eq!(here.len(), 1);
    assert_eq!(here, first(id(), 2));
    // Of all versions of this program: a change of these bytes is a new schema.
    assert_eq!(here[0].hash.to_string(), GENESIS_OF_WEB);
    assert_ne!(here, first(DocumentId { epoch: 1, ..id() }, 1));
    assert_ne!(here, first(DocumentId { replicant: ReplicantId::new("other").unwrap(), epoch: 0 }, 1));
}

const GENESIS_OF_WEB: &str = "769f57b0e1a4276ec542fb1b5ea42d74972a01f4834e2b4f21cb6a3a99c01daf";

#[test]
fn a_document_says_what_it_was_created_with() {
    let mut a = Site::new("paris", 1);
    assert!(!a.doc.is_created());
    let policy = Policy {
        types: [("set".to_owned(), TypePolicy { absolute: true, ..TypePolicy::default() })].into(),
        ..Policy::default()
    };
    let desired = json!({
        "text": "été", "null": null, "yes": true, "int": -3, "big": u64::MAX, "float": 1.0, "small": 1e-9,
        "list": [1, [2, {"x": null}], {}], "": {"empty": []},
    });
    let overrides: BTreeMap<_, _> = [(site("rennes"), json!({"int": 4, "text": null, "yes": {"no": 1}}))].into();
    let wanted = khufu_crdt::Spec { policy: policy.clone(), overrides: overrides.clone(), ..spec(desired.clone()) };
    let author = a.author();
    let change = a.doc.create(&author, wanted.clone()).unwrap().unwrap();
    assert!(a.doc.is_created());
    assert_eq!(a.doc.heads(), [change.hash]);
    let state = a.doc.state();
    assert_eq!((state.kind.as_str(), state.scope.as_str()), ("files", "paris & rennes"));
    assert_eq!(state.placement.as_ref(), Some(&wanted.placement));
    assert_eq!((&state.policy, &state.desired, &state.overrides), (&policy, &desired, &overrides));
    assert_eq!(state.deleted, None);
    let mut at_rennes = desired;
    at_rennes["int"] = json!(4);
    at_rennes["yes"] = json!({"no": 1});
    at_rennes.as_object_mut().unwrap().remove("text");
    assert_eq!(a.doc.effective(&site("rennes")).unwrap(), at_rennes);
    assert_eq!(&a.doc.effective(&site("paris")).unwrap(), a.desired());
    let again = a.author();
    assert!(matches!(a.doc.create(&again, wanted), Err(EditError::AlreadyCreated(_))));
}

#[test]
fn any_json_value_can_be_the_desired_state() {
    for value in [json!("text"), json!(5), json!(1.5), json!(true), json!([1, 2]), json!({"a": 1})] {
        let (mut a, mut b) = two(value.clone());
        assert_eq!(b.desired(), &value);
        for next in [json!([3]), json!({"x": {"y": 1}}), json!(null), json!("end")] {
            a.set(next.clone());
            exchange(&mut a.doc, &mut b.doc);
            assert_eq!(b.desired(), &next);
        }
    }
    let (a, _) = two(json!(null));
    assert_eq!(a.desired(), &json!({}));
    assert!(!a.doc.state().has_desired());
}

#[test]
fn two_sites_that_create_it_at_once_agree_on_both() {
    let (mut a, mut b) = (Site::new("paris", 1), Site::new("rennes", 2));
    let (at_a, at_b) = (a.author(), b.author());
    let mut from_b = spec(json!({"metadata": {"name": "web"}, "spec": {"image": "nginx", "replicas": 3}}));
    from_b.overrides = [(site("rennes"), json!({"spec": {"replicas": 1}}))].into();
    a.doc
        .create(&at_a, spec(json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {"replicas": 2}})))
        .unwrap();
    b.doc.create(&at_b, from_b).unwrap();
    exchange(&mut a.doc, &mut b.doc);
    let desired = a.desired();
    assert_eq!(desired["metadata"], json!({"name": "web", "labels": {"a": "1"}}));
    assert_eq!(desired["spec"]["image"], "nginx");
    assert!(desired["spec"]["replicas"] == 2 || desired["spec"]["replicas"] == 3);
    let conflicts = a.doc.conflicts();
    let paths: Vec<String> = conflicts.iter().map(|conflict| conflict.pointer()).collect();
    assert_eq!(paths, ["/desired/spec/replicas"]);
    assert_eq!(a.doc.state().overrides.len(), 1);
}

#[test]
fn an_edit_that_changes_nothing_makes_no_change() {
    let (mut a, _) = two(json!({"a": {"b": [1, {"name": "x", "v": 1}]}, "n": null}));
    let heads = a.doc.heads();
    let author = a.author();
    let now = a.desired().clone();
    let state = a.doc.state().clone();
    assert_eq!(a.doc.set_desired(&author, &now, None).unwrap(), None);
    assert_eq!(a.doc.set_desired(&author, &now, Some(&heads)).unwrap(), None);
    assert_eq!(a.doc.patch_desired(&author, &json!({"a": {"c": null}})).unwrap(), None);
    assert_eq!(a.doc.set_policy(&author, &state.policy, None).unwrap(), None);
    assert_eq!(a.doc.set_overrides(&author, &state.overrides).unwrap(), None);
    assert_eq!(a.doc.set_override(&author, &site("paris"), None).unwrap(), None);
    assert_eq!(a.doc.set_scope(&author, &state.scope, state.placement.as_ref().unwrap()).unwrap(), None);
    assert_eq!(a.doc.heads(), heads);
}

#[test]
fn operations_are_kept_and_repeating_one_is_harmless() {
    let (mut a, mut b) = two(json!(null));
    let payload = Payload::Value(json!({"append": "x"}));
    let at = a.author();
    a.doc.operate(&at, op("o1"), "append", payload.clone(), vec![], false).unwrap().unwrap();
    let blob = Payload::Blob(format!("sha256:{}", "ab".repeat(32)));
    let second = a.author();
    a.doc.operate(&second, op("o2"), "write", blob.clone(), vec![op("o1")], true).unwrap().unwrap();
    let later = a.author();
    assert_eq!(a.doc.operate(&later, op("o1"), "append", payload.clone(), vec![op("o2")], true).unwrap(), None);
    assert!(matches!(
        a.doc.operate(&later, op("o1"), "write", payload.clone(), vec![], false),
        Err(EditError::OperationExists(_))
    ));
    assert!(matches!(
        a.doc.operate(&later, op("o3"), "append", payload.clone(), vec![op("nope")], false),
        Err(EditError::UnknownParent(_))
    ));
    let bad = Payload::Blob("sha256:12".into());
    assert!(matches!(
        a.doc.operate(&later, op("o3"), "append", bad, vec![], false),
        Err(EditError::BadOperation { .. })
    ));
    exchange(&mut a.doc, &mut b.doc);
    let operations = &b.doc.state().operations;
    assert_eq!(operations.len(), 2);
    let o1 = &operations["o1"];
    assert_eq!((o1.op_type.as_str(), &o1.payload, o1.cut, o1.at, &o1.by), ("append", &payload, false, at.at, &at.site));
    let o2 = &operations["o2"];
    assert_eq!((&o2.payload, o2.cut, o2.parents.as_slice()), (&blob, true, [op("o1")].as_slice()));
    let history = b.doc.history();
    assert_eq!(
        history.iter().map(|entry| entry.what.as_str()).collect::<Vec<_>>(),
        ["create", "operation", "operation"]
    );
    assert_eq!(history[1].operation, Some(op("o1")));
    assert_eq!(history[1].author.as_ref(), Some(&at));
    assert_eq!(history[2].parents, [history[1].hash]);
}

#[test]
fn of_two_placements_decided_at_once_one_wins_whole_and_nobody_is_forgotten() {
    let (mut a, mut b) = two(json!(null));
    let (at_a, at_b) = (a.author(), b.author());
    let mut of_a = placement(&["paris", "lyon"], "paris", 5);
    of_a.leaving = [site("rennes")].into();
    a.doc.set_scope(&at_a, "paris & lyon", &of_a).unwrap().unwrap();
    let of_b = placement(&["rennes", "nantes"], "rennes", 5);
    b.doc.set_scope(&at_b, "rennes & nantes", &of_b).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    let state = a.doc.state();
    let winner = state.placement.clone().unwrap();
    assert_eq!(state.scope, winner.expression);
    if winner.sites == of_a.sites {
        assert_eq!(winner.leaving, [site("rennes"), site("nantes")].into());
    } else {
        assert_eq!(winner.sites, of_b.sites);
        assert_eq!(winner.leaving, [site("paris"), site("lyon")].into());
    }
    let paths: Vec<String> = a.doc.conflicts().iter().map(|conflict| conflict.pointer()).collect();
    assert_eq!(paths, ["/scope", "/placement"]);
    // The next decision settles it.
    let again = b.author();
    b.doc.set_scope(&again, "all", &placement(&["paris", "rennes"], "rennes", 9)).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(a.doc.conflicts(), []);
    assert!(a.doc.state().placement.as_ref().unwrap().leaving.is_empty());
}

#[test]
fn who_is_left_out_when_a_placement_is_picked_is_not_forgotten() {
    for pick in 0..2 {
        let (mut a, mut b) = two(json!(null));
        let (at_a, at_b) = (a.author(), b.author());
        let mut of_a = placement(&["paris", "lyon"], "paris", 5);
        of_a.leaving = [site("lille")].into();
        a.doc.set_scope(&at_a, "paris & lyon", &of_a).unwrap().unwrap();
        let of_b = placement(&["paris", "nantes"], "rennes", 5);
        b.doc.set_scope(&at_b, "paris & nantes", &of_b).unwrap().unwrap();
        exchange(&mut a.doc, &mut b.doc);
        let found = a.doc.conflicts();
        let conflict = found.iter().find(|conflict| conflict.pointer() == "/placement").unwrap();
        let chosen = conflict.values[pick].clone();
        let again = a.author();
        a.doc.pick(&again, "/placement", &chosen.change).unwrap().unwrap();
        exchange(&mut a.doc, &mut b.doc);
        let now = b.doc.state().placement.clone().unwrap();
        let (wanted, other) = if chosen.by == Some(site("paris")) { (of_a, "nantes") } else { (of_b, "lyon") };
        assert_eq!(now.leaving, [site(other), site("lille")].into());
        assert_eq!((now.sites, now.expression), (wanted.sites, wanted.expression));
        assert!(!b.doc.conflicts().iter().any(|conflict| conflict.pointer() == "/placement"));
    }
}

#[test]
fn a_deleted_replicant_takes_no_more_edits_and_keeps_if_either_said_so() {
    let (mut a, mut b) = two(json!({"a": 1}));
    let (at_a, at_b) = (a.author(), b.author());
    a.doc.delete(&at_a, true).unwrap().unwrap();
    b.doc.delete(&at_b, false).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert!(a.doc.state().deleted.as_ref().unwrap().keep);
    assert_eq!(a.doc.conflicts(), []);
    let at = a.author();
    assert_eq!(a.doc.delete(&at, true).unwrap(), None);
    assert!(matches!(a.doc.set_desired(&at, &json!({}), None), Err(EditError::Deleted(_))));
    assert!(matches!(
        a.doc.operate(&at, op("o"), "append", Payload::default(), vec![], false),
        Err(EditError::Deleted(_))
    ));
}

#[test]
fn a_deletion_ends_what_was_known_and_nothing_else() {
    let (mut a, mut b) = two(json!({"old": 1, "both": 1}));
    let at = a.author();
    a.doc.operate(&at, op("known"), "set", Payload::default(), vec![], false).unwrap();
    exchange(&mut a.doc, &mut b.doc);
    // Put again at both sites after deletions that did not know of each other, at one of them twice.
    for number in [1, 2] {
        let (at, then) = (a.author(), a.author());
        a.doc.delete(&at, false).unwrap().unwrap();
        assert!(matches!(a.doc.set_desired(&then, &json!({}), None), Err(EditError::Deleted(_))));
        a.doc.create(&then, spec(json!({"paris": number, "both": "paris"}))).unwrap().unwrap();
        assert_eq!(a.desired(), &json!({"paris": number, "both": "paris"}));
        assert!(matches!(a.doc.create(&then, spec(json!({}))), Err(EditError::AlreadyCreated(_))));
    }
    let at = b.author();
    b.doc.operate(&at, op("unknown"), "set", Payload::default(), vec![op("known")], false).unwrap();
    let (at, then) = (b.author(), b.author());
    b.doc.delete(&at, false).unwrap().unwrap();
    b.doc.create(&then, spec(json!({"rennes": 1, "both": "rennes"}))).unwrap().unwrap();
    // Somebody who never heard of it makes something of that name.
    let mut c = Site::new("nantes", 9);
    let at = c.author();
    c.doc.create(&at, spec(json!({"mine": "nantes"}))).unwrap().unwrap();
    for _ in 0..2 {
        exchange(&mut a.doc, &mut b.doc);
        exchange(&mut b.doc, &mut c.doc);
    }
    agree(&a.doc, &b.doc);
    agree(&a.doc, &c.doc);
    assert_eq!(a.doc.state().deleted, None);
    let desired = a.desired();
    assert_eq!(
        (&desired["paris"], &desired["rennes"], &desired["mine"], desired.get("old")),
        (&json!(2), &json!(1), &json!("nantes"), None)
    );
    assert_eq!(a.doc.conflicts().iter().map(|of| of.pointer()).collect::<Vec<_>>(), ["/desired/both"]);
    assert!(a.doc.state().operations.is_empty(), "each was known to a deletion");
    // An id is given once, also if what it was given to has ended.
    let at = a.author();
    let again = a.doc.operate(&at, op("known"), "set", Payload::default(), vec![], false);
    assert_eq!(again, Err(EditError::OperationExists(op("known"))));
    // What nobody knew when it was deleted stays.
    let at = a.author();
    a.doc.delete(&at, false).unwrap().unwrap();
    let at = b.author();
    b.doc.operate(&at, op("late"), "set", Payload::default(), vec![], false).unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert!(b.doc.state().deleted.is_some(), "an edit of what was deleted does not bring it back");
    let at = b.author();
    b.doc.create(&at, spec(json!(null))).unwrap().unwrap();
    assert_eq!(b.desired(), &json!({}));
    assert_eq!(b.doc.state().operations.keys().collect::<Vec<_>>(), [&op("late")]);
}

#[test]
fn nothing_can_be_edited_before_it_is_created() {
    let mut a = Site::new("paris", 1);
    let at = a.author();
    assert!(matches!(a.doc.set_desired(&at, &json!({}), None), Err(EditError::NotCreated(_))));
    assert!(matches!(a.doc.delete(&at, false), Err(EditError::NotCreated(_))));
    assert!(matches!(a.doc.set_scope(&at, "all", &placement(&["paris"], "paris", 1)), Err(EditError::NotCreated(_))));
}

#[test]
fn what_is_too_large_is_refused_with_figures_and_nothing_changes() {
    let (mut a, _) = two(json!({"a": 1}));
    a.doc = a.doc.with_limits(Limits { max_bytes: 10_000, warn_bytes: 5_000, ..Limits::default() });
    assert!(!a.doc.is_large());
    let heads = a.doc.heads();
    let at = a.author();
    let error = a.doc.set_desired(&at, &json!({"a": "x".repeat(10_001)}), None).unwrap_err();
    assert!(matches!(&error, EditError::TooLarge { max: 10_000, .. }), "{error}");
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!({ "d": deep });
    }
    assert!(matches!(a.doc.set_desired(&at, &deep, None), Err(EditError::TooDeep { max: 64, .. })));
    let chatty = Author { why: "y".repeat(5000), ..at.clone() };
    assert!(matches!(a.doc.set_desired(&chatty, &json!({}), None), Err(EditError::TooLong { .. })));
    assert_eq!(a.doc.heads(), heads);
    // Letters that do not compress.
    let noise = |mut seed: u64| -> String {
        let letter = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + ((seed >> 33) % 26) as u8)
        };
        (0..2000).map(letter).collect()
    };
    let mut operate = |i: u64| {
        let payload = Payload::Value(json!(noise(i * 7919)));
        a.doc.operate(&at, op(&format!("o{i}")), "append", payload, vec![], false).err()
    };
    let full = (0..100).find_map(&mut operate);
    assert!(matches!(&full, Some(EditError::TooLarge { what: "the document", .. })), "{full:?}");
    assert!(a.doc.is_large());
    // What was refused left no trace, and smaller edits go on.
    a.doc.patch_desired(&at, &json!({"a": 2})).unwrap().unwrap();
    assert_eq!(a.desired(), &json!({"a": 2}));
}

#[test]
fn the_number_of_operations_is_bounded_here_but_not_from_elsewhere() {
    let (mut a, mut b) = two(json!(null));
    a.doc = a.doc.with_limits(Limits { max_operations: 2, ..Limits::default() });
    let at = b.author();
    for name in ["o1", "o2", "o3"] {
        b.doc.operate(&at, op(name), "t", Payload::default(), vec![], false).unwrap();
    }
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(a.doc.state().operations.len(), 3);
    let error = a.doc.operate(&at, op("o4"), "t", Payload::default(), vec![], false).unwrap_err();
    assert_eq!(error, EditError::TooManyOperations { max: 2 });
}

#[test]
fn a_document_is_loaded_as_it_was_saved_with_what_waits() {
    let (mut a, mut b) = two(json!({"a": 1}));
    a.set(json!({"a": 2}));
    let missing = a.doc.heads()[0];
    let held_back = a.doc.changes_since(&b.doc.heads());
    a.set(json!({"a": 3}));
    let last = a.doc.change(&a.doc.heads()[0]).unwrap();
    take(&mut b.doc, std::slice::from_ref(&last));
    assert_eq!(b.doc.missing(), [missing]);
    assert_eq!(b.doc.queued(), std::slice::from_ref(&last));
    assert!(!b.doc.has(&last.hash) && b.doc.change(&last.hash).is_some());
    let saved = b.doc.save();
    // From the snapshot; from the changes; from both, with some twice.
    let all = bytes(&b.doc.changes_since(&[]));
    let waiting = bytes(&b.doc.queued());
    for (snapshot, changes) in [
        (Some(saved.as_slice()), vec![]),
        (None, [all.clone(), waiting.clone()].concat()),
        (Some(saved.as_slice()), [waiting.clone(), all.clone()].concat()),
    ] {
        let loaded = Replicant::load(id(), &actor(9), snapshot, &changes).unwrap();
        assert_eq!(loaded.damaged, Vec::<String>::new());
        let mut doc = loaded.replicant;
        agree(&doc, &b.doc);
        assert_eq!((doc.missing(), doc.queued()), (b.doc.missing(), b.doc.queued()));
        take(&mut doc, &held_back);
        agree(&doc, &a.doc);
        assert!(doc.queued().is_empty());
    }
}

#[test]
fn a_damaged_change_or_snapshot_is_named_and_the_rest_is_usable() {
    let (mut a, mut b) = two(json!({"a": 1}));
    for n in 2..6 {
        a.set(json!({"a": n, "n": n}));
    }
    let mut changes = bytes(&a.doc.changes_since(&[]));
    let middle = changes[3].len() - 5;
    changes[3][middle] ^= 1;
    let loaded = Replicant::load(id(), &actor(1), None, &changes).unwrap();
    assert_eq!(loaded.damaged.len(), 1, "{:?}", loaded.damaged);
    assert!(loaded.damaged[0].contains("change 4"), "{:?}", loaded.damaged);
    let mut mended = loaded.replicant;
    assert_eq!(mended.state().desired, json!({"a": 2, "n": 2}));
    assert_eq!(mended.queued().len(), 2);
    // What is missing comes from a peer, also while this site writes on under the actor it was given.
    mended.patch_desired(&author("paris", 5000), &json!({"more": 1})).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    synchronise(&mut mended, &mut b.doc);
    assert_eq!(mended.state().desired, json!({"a": 5, "n": 5, "more": 1}));

    let mut saved = a.doc.save();
    let middle = saved.len() / 2;
    saved[middle] ^= 1;
    let loaded = Replicant::load(id(), &actor(1), Some(&saved), &[]).unwrap();
    assert!(loaded.damaged[0].contains("snapshot"), "{:?}", loaded.damaged);
    let mut empty = loaded.replicant;
    assert!(!empty.is_created());
    synchronise(&mut empty, &mut b.doc);
}

#[test]
fn an_actor_is_never_used_twice() {
    let (mut a, mut b) = two(json!({"a": 1}));
    // The document leaves memory and comes back within the same process; what it wrote last was never sent.
    let saved = a.doc.save();
    let mut again = Replicant::load(id(), &actor(1), Some(&saved), &[]).unwrap().replicant;
    again.patch_desired(&author("paris", 1), &json!({"b": 1})).unwrap().unwrap();
    a.set(json!({"a": 2}));
    exchange(&mut a.doc, &mut again);
    synchronise(&mut a.doc, &mut b.doc);
    assert_eq!(b.desired(), &json!({"a": 2, "b": 1}));

    // Two processes with one actor: the second to be heard of is refused, by name, and nothing breaks.
    let mut twin = Replicant::genesis(id(), &actor(2)).unwrap();
    take(&mut twin, &b.doc.changes_since(&[]));
    twin.patch_desired(&author("rennes", 1), &json!({"twin": 1})).unwrap().unwrap();
    b.set(json!({"a": 3, "b": 1}));
    let received = b.doc.apply(&bytes(&twin.changes_since(&b.doc.heads()))).unwrap();
    assert!(received.rejected[0].contains("actor"), "{received:?}");
    let news = b.doc.changes_since(&a.doc.heads());
    take(&mut a.doc, &news);
    let received = a.doc.apply(&bytes(&twin.changes_since(&a.doc.heads()))).unwrap();
    assert!(received.rejected[0].contains("used twice"), "{received:?}");
    agree(&a.doc, &b.doc);
    let saved = a.doc.save();
    assert!(Replicant::load(id(), &actor(7), Some(&saved), &[]).unwrap().damaged.is_empty());
}

#[test]
fn changes_of_another_document_are_refused_by_name() {
    let (mut a, _) = two(json!({"a": 1}));
    let other_id = DocumentId { epoch: 1, ..id() };
    let mut other = Replicant::genesis(other_id.clone(), &actor(3)).unwrap();
    other.create(&author("lyon", 1), spec(json!({"b": 1}))).unwrap();
    other.patch_desired(&author("lyon", 2), &json!({"b": 2})).unwrap();
    let theirs = other.changes_since(&[]);
    let before = a.doc.digest();
    a.set(json!({"a": 2}));
    let (mut of_a, mut of_other) = Default::default();
    let received = a.doc.apply(&bytes(&theirs)).unwrap();
    assert_eq!(received.new, []);
    assert_eq!(received.rejected.len(), 3, "{received:?}");
    assert!(received.rejected.iter().any(|reason| reason.contains("another document")), "{received:?}");
    // Out of order: what came first waits, and is thrown out when its beginning shows.
    let received = a.doc.apply(&bytes(&theirs[1..])).unwrap();
    assert_eq!((received.new.len(), received.rejected.len()), (2, 0));
    let received = a.doc.apply(&bytes(&theirs[..1])).unwrap();
    assert!(received.rejected.iter().any(|reason| reason.contains("another document")), "{received:?}");
    assert!(a.doc.queued().is_empty());
    // As a snapshot, and by the sync protocol.
    assert_eq!(Replicant::load(id(), &actor(4), Some(&other.save()), &[]).unwrap().damaged.len(), 1);
    for _ in 0..10 {
        if let Some(message) = other.sync_message(&mut of_other) {
            a.doc.receive_sync(&mut of_a, &message).unwrap();
        }
        if let Some(message) = a.doc.sync_message(&mut of_a) {
            other.receive_sync(&mut of_other, &message).unwrap();
        }
    }
    assert_eq!((a.desired(), &other.state().desired), (&json!({"a": 2}), &json!({"b": 2})));
    assert_ne!(before, a.doc.digest());
}

#[test]
fn a_replica_made_from_the_first_change_and_the_protocol_is_equal() {
    let (mut a, mut b) = two(json!({"list": [{"name": "x"}]}));
    for n in 0..30 {
        let at = b.author();
        b.doc.operate(&at, op(&format!("o{n}")), "append", Payload::Value(json!(n)), vec![], false).unwrap();
        a.set(json!({"list": [{"name": "x", "n": n}], "extra": {"n": n}}));
    }
    synchronise(&mut a.doc, &mut b.doc);
    let mut c = Replicant::genesis(id(), &actor(3)).unwrap();
    let rounds = synchronise(&mut c, &mut a.doc);
    assert!(rounds <= 3, "{rounds}");
    assert_eq!(c.changes_since(&[]).len(), 62);
    assert_eq!(c.history(), b.doc.history());
}

#[test]
fn changes_from_elsewhere_are_refused_only_far_beyond_the_limit() {
    let (mut a, mut b) = two(json!({"a": 1}));
    let limit = a.doc.size() + 3000;
    a.doc = a.doc.with_limits(Limits { max_bytes: limit, ..Limits::default() });
    let text =
        |n: usize| -> String { (0..2500).map(|i| char::from(b'a' + ((i * 7 + n * 13 + i * i) % 26) as u8)).collect() };
    b.set(json!({"a": text(1)}));
    b.set(json!({"a": text(2)}));
    exchange(&mut a.doc, &mut b.doc);
    let at = a.author();
    assert!(matches!(a.doc.patch_desired(&at, &json!({"x": text(3)})), Err(EditError::TooLarge { .. })));
    for n in 3..12 {
        b.set(json!({"a": text(n)}));
    }
    let received = a.doc.apply(&bytes(&b.doc.changes_since(&a.doc.heads()))).unwrap();
    assert!(!received.rejected.is_empty() && received.rejected.iter().all(|reason| reason.contains("max_bytes")));
    // Nothing is lost for good.
    a.doc = a.doc.with_limits(Limits::default());
    exchange(&mut a.doc, &mut b.doc);
}

#[test]
fn a_change_says_who_made_it_where_when_and_why() {
    let (mut a, _) = two_with(spec(json!({})));
    let at = Author { site: site("paris"), at: Hlc::from_ms(1_700_000_000_000), who: "ann".into(), why: "more".into() };
    let change = a.doc.patch_desired(&at, &json!({"replicas": 3})).unwrap().unwrap();
    let raw = automerge::Change::from_bytes(change.bytes).unwrap();
    let message: serde_json::Value = serde_json::from_str(raw.message().unwrap()).unwrap();
    assert_eq!(message["who"], "ann");
    assert_eq!(message["site"], "paris");
    assert_eq!(message["why"], "more");
    assert_eq!(message["at"], json!(at.at.0));
    assert_eq!(raw.timestamp(), 1_700_000_000);
}

#[test]
fn the_same_edits_have_the_same_bytes_however_maps_are_held_in_memory() {
    // Maps of Automerge's values have another order each time that one is made. None of it may show: what several sites
    // write from the same state must be the same document.
    let map = |name: &str| -> Value { (0..100).map(|n| (format!("{name}{n}"), json!({"n": n, "x": [n]}))).collect() };
    let large = |name: &str| -> Value {
        let fields = (0..20).map(|n| (format!("field{n}"), json!({"inner": map(name), "list": [map("in a list"), n]})));
        fields.collect()
    };
    let write = || {
        let mut a = Site::new("paris", 1);
        let author = a.author();
        let overrides: BTreeMap<_, _> = ["paris", "rennes"].map(|name| (site(name), map("laid over"))).into();
        let spec = khufu_crdt::Spec { overrides, ..spec(large("first")) };
        a.doc.create(&author, spec).unwrap();
        a.doc
            .patch_desired(&author, &json!({"field3": large("second"), "field4": null, "new": [map("third")]}))
            .unwrap();
        a.doc.set_desired(&author, &large("fourth"), None).unwrap();
        a.doc.operate(&author, op("o"), "set", Payload::Value(map("payload")), Vec::new(), false).unwrap();
        (bytes(&a.doc.changes_since(&[])), a.doc.save())
    };
    let first = write();
    for _ in 0..3 {
        assert!(write() == first, "the bytes are others");
    }
}
