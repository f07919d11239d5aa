//! Overrides that are edited at several sites while these are apart: a JSON patch is one value.

use khufu_crdt::{Conflict, Policy, Replicant, Spec};
use serde_json::{Value, json};

use crate::document_sites::{Site, exchange, site, spec, take, two, two_with};
use crate::epoch_documents::{closed, only_head};

fn set(at: &mut Site, patch: &Value) {
    let author = at.author();
    at.doc.set_override(&author, &site("rennes"), Some(patch)).unwrap();
}

fn laid(doc: &Replicant) -> &Value {
    &doc.state().overrides[&site("rennes")]
}

fn only_conflict(doc: &Replicant) -> Conflict {
    let mut conflicts = doc.conflicts();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    conflicts.remove(0)
}

/// Edits of one step: what it does of the one, and where of the other, would be a step that nobody wrote.
fn edits() -> [Value; 3] {
    let rest = json!({"op": "remove", "path": "/old"});
    let with = |step: Value| json!([step, rest]);
    [
        with(json!({"op": "replace", "path": "/replicas", "value": 1})),
        with(json!({"op": "test", "path": "/replicas", "value": 3})),
        with(json!({"op": "replace", "path": "/image", "value": "1"})),
    ]
}

#[test]
fn of_two_edits_of_one_patch_one_counts_whole_and_the_other_is_a_conflict() {
    let [start, of_a, of_b] = edits();
    let (mut a, mut b) = two(json!({"replicas": 3, "image": "1", "old": true}));
    set(&mut a, &start);
    exchange(&mut a.doc, &mut b.doc);
    set(&mut a, &of_a);
    set(&mut b, &of_b);
    exchange(&mut a.doc, &mut b.doc);
    assert!([&of_a, &of_b].contains(&laid(&a.doc)), "{}", laid(&a.doc));
    let conflict = only_conflict(&a.doc);
    assert_eq!(conflict.pointer(), "/overrides/rennes");
    let values: Vec<_> = conflict.values.iter().map(|value| &value.value).collect();
    assert!(values.contains(&&of_a) && values.contains(&&of_b) && values[0] == laid(&a.doc), "{values:?}");

    // Until somebody picks, or writes another.
    let loser = conflict.values.iter().find(|value| !value.winner).unwrap().clone();
    let author = b.author();
    b.doc.pick(&author, "/overrides/rennes", &loser.change).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!((laid(&a.doc), a.doc.conflicts()), (&loser.value, vec![]));
    // And another site is as it was.
    assert_eq!(a.doc.effective(&site("paris")).unwrap()["replicas"], 3);
}

#[test]
fn patches_are_not_laid_together_by_the_merge_keys_of_lists() {
    let [start, of_a, of_b] = edits();
    for list_keys in [["path"], ["op"], ["value"]] {
        let policy = Policy { list_keys: list_keys.map(str::to_owned).to_vec(), ..Policy::default() };
        for given in [true, false] {
            let spec = Spec { policy: policy.clone(), ..spec(json!({"replicas": 3, "image": "1", "old": true})) };
            let (mut a, mut b) = two_with(spec);
            if given {
                set(&mut a, &start);
                exchange(&mut a.doc, &mut b.doc);
            }
            set(&mut a, &of_a);
            set(&mut b, &of_b);
            exchange(&mut a.doc, &mut b.doc);
            assert!([&of_a, &of_b].contains(&laid(&a.doc)), "{list_keys:?}: {}", laid(&a.doc));
            assert_eq!(only_conflict(&a.doc).values.len(), 2);
            // An edit of what stands there is whole, too.
            let mut more = laid(&a.doc).clone();
            more[0]["op"] = json!("add");
            set(&mut a, &more);
            exchange(&mut a.doc, &mut b.doc);
            assert_eq!((laid(&b.doc), b.doc.conflicts()), (&more, vec![]));
        }
    }
}

#[test]
fn an_edit_that_comes_after_its_epoch_is_carried_over_whole() {
    let [start, of_a, of_b] = edits();
    for (list_keys, one, other) in [(vec![], &of_a, &of_b), (vec!["op"], &of_b, &of_a), (vec!["path"], &of_a, &of_b)] {
        let policy = Policy { list_keys: list_keys.into_iter().map(str::to_owned).collect(), ..Policy::default() };
        let (mut a, mut b) = two_with(Spec { policy, ..spec(json!({"replicas": 3, "image": "1", "old": true})) });
        set(&mut a, &start);
        exchange(&mut a.doc, &mut b.doc);
        let cut = only_head(&a.doc);
        set(&mut a, one);
        set(&mut b, other);
        let (mut of_a, mut of_b) = (closed(&a.doc, &cut, 11), closed(&b.doc, &cut, 12));
        assert_eq!((laid(&of_a), laid(&of_b)), (one, other));
        // What the one made alone is laid on what the other has made already, as if there had been no epoch.
        let (from_a, from_b) = (of_a.changes_since(&[]), of_b.changes_since(&[]));
        take(&mut of_a, &from_b);
        take(&mut of_b, &from_a);
        assert_eq!(of_a.digest(), of_b.digest());
        assert!([one, other].contains(&laid(&of_a)), "{}", laid(&of_a));
        assert_eq!(only_conflict(&of_a).values.len(), 2);
        // One that knew of neither stands above both, whole.
        exchange(&mut a.doc, &mut b.doc);
        let mut last = laid(&a.doc).clone();
        last[0]["path"] = json!("/else");
        set(&mut a, &last);
        a.doc.carry_into(&mut of_a, &[]).unwrap();
        assert_eq!((laid(&of_a), of_a.conflicts()), (&last, vec![]));
    }
}

#[test]
fn merge_patches_still_merge_by_field() {
    let (mut a, mut b) = two(json!({"replicas": 3}));
    set(&mut a, &json!({"replicas": 1, "list": [{"name": "x", "n": 1}]}));
    exchange(&mut a.doc, &mut b.doc);
    set(&mut a, &json!({"replicas": 2, "list": [{"name": "x", "n": 1}]}));
    set(&mut b, &json!({"replicas": 1, "list": [{"name": "x", "n": 2}], "image": "2"}));
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(laid(&a.doc), &json!({"replicas": 2, "list": [{"name": "x", "n": 2}], "image": "2"}));
    assert_eq!(a.doc.conflicts(), vec![]);
}

#[test]
fn an_edit_that_did_not_see_what_was_closed_over_is_laid_on_it_whole() {
    let [start, ..] = edits();
    // The one changes where something is replaced, and the other by what.
    let of_a = json!([{"op": "replace", "path": "/image", "value": 1}, start[1]]);
    let of_b = json!([{"op": "replace", "path": "/replicas", "value": 9}, start[1]]);
    for list_keys in [vec![], vec!["op".to_owned()]] {
        let policy = Policy { list_keys, ..Policy::default() };
        let (mut a, mut b) = two_with(Spec { policy, ..spec(json!({"replicas": 3, "image": "1", "old": true})) });
        set(&mut a, &start);
        exchange(&mut a.doc, &mut b.doc);
        set(&mut a, &of_a);
        set(&mut b, &of_b);
        let cut = only_head(&b.doc);
        exchange(&mut a.doc, &mut b.doc);
        assert_eq!(laid(&closed(&a.doc, &cut, 13)), &of_a);
    }
}
