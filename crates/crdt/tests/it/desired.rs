//! The desired state: edits as differences, lists by key, conflicts.

use khufu_crdt::Policy;
use serde_json::{Value, json};

use crate::document_sites::{Site, exchange, site, spec, synchronise, two, two_with};

/// Both edit, apart; gives what both read afterwards.
fn merged(start: Value, at_a: Value, at_b: Value) -> (Site, Site) {
    let (mut a, mut b) = two(start);
    a.set(at_a);
    b.set(at_b);
    exchange(&mut a.doc, &mut b.doc);
    (a, b)
}

fn paths(site: &Site) -> Vec<String> {
    site.doc.conflicts().iter().map(|conflict| conflict.pointer()).collect()
}

#[test]
fn edits_of_different_fields_both_count() {
    let start = json!({"spec": {"replicas": 1, "template": {"image": "a", "env": {"x": "1"}}}});
    let mut of_a = start.clone();
    of_a["spec"]["replicas"] = json!(5);
    of_a["spec"]["template"]["env"]["y"] = json!("2");
    let mut of_b = start.clone();
    of_b["spec"]["template"]["image"] = json!("b");
    of_b["spec"]["template"]["env"].as_object_mut().unwrap().remove("x");
    let (a, _) = merged(start, of_a, of_b);
    assert_eq!(a.desired(), &json!({"spec": {"replicas": 5, "template": {"image": "b", "env": {"y": "2"}}}}));
    assert_eq!(paths(&a), Vec::<String>::new());
}

#[test]
fn what_the_author_did_not_see_is_not_undone() {
    let (mut a, mut b) =
        two(json!({"replicas": 1, "image": "a", "gone": 1, "list": [1, 2, 3], "by": [{"name": "x", "v": 1}]}));
    let seen = a.doc.heads();
    b.set(json!({"replicas": 2, "image": "a", "list": [1, 2, 3, 4], "new": {"k": 1}, "by": [{"name": "x", "v": 2}, {"name": "y"}]}));
    exchange(&mut a.doc, &mut b.doc);
    // Sent by someone who still looks at the first version, and changed the image, the list's head and one element.
    let wish =
        json!({"replicas": 1, "image": "b", "gone": 1, "list": [0, 1, 2, 3], "by": [{"name": "x", "v": 1, "w": 1}]});
    a.set_seen(wish, &seen);
    let both = json!({
        "replicas": 2, "image": "b", "list": [0, 1, 2, 3, 4], "new": {"k": 1},
        "by": [{"name": "x", "v": 2, "w": 1}, {"name": "y"}],
    });
    assert_eq!(a.desired(), &both);
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(b.desired(), &both);
}

#[test]
fn an_unknown_base_is_refused() {
    let (mut a, mut b) = two(json!({"a": 1}));
    b.set(json!({"a": 2}));
    let at = a.author();
    let heads = b.doc.heads();
    let error = a.doc.set_desired(&at, &json!({"a": 3}), Some(&heads)).unwrap_err();
    assert!(error.to_string().contains(&heads[0].to_string()), "{error}");
}

#[test]
fn elements_with_a_key_are_edited_one_by_one() {
    let start = json!({"containers": [{"name": "web", "image": "a"}, {"name": "log", "image": "l"}, {"name": "old"}]});
    let of_a = json!({"containers": [
        {"name": "new-a", "image": "n"}, {"name": "web", "image": "b"}, {"name": "log", "image": "l"}, {"name": "old"},
    ]});
    let of_b = json!({"containers": [
        {"name": "web", "image": "a", "tty": true}, {"name": "log", "image": "m"}, {"name": "new-b"},
    ]});
    let (a, _) = merged(start, of_a, of_b);
    assert_eq!(
        a.desired(),
        &json!({"containers": [
            {"name": "new-a", "image": "n"}, {"name": "web", "image": "b", "tty": true}, {"name": "log", "image": "m"},
            {"name": "new-b"},
        ]})
    );
    assert_eq!(paths(&a), Vec::<String>::new());
}

#[test]
fn elements_added_twice_under_one_key_are_one() {
    let (mut a, mut b) = merged(
        json!({"ports": []}),
        json!({"ports": [{"name": "http", "port": 80, "a": 1}]}),
        json!({"ports": [{"name": "dns", "port": 53}, {"name": "http", "port": 8080, "b": 1}]}),
    );
    let ports = a.desired()["ports"].as_array().unwrap().clone();
    assert_eq!(ports.len(), 2, "{ports:?}");
    let http = ports.iter().position(|port| port["name"] == "http").unwrap();
    assert_eq!((&ports[http]["a"], &ports[http]["b"]), (&json!(1), &json!(1)));
    let path = format!("/desired/ports/{http}/port");
    assert_eq!(paths(&a), std::slice::from_ref(&path));
    // Edits of the one reach both of what it consists of.
    let conflict = a.doc.conflicts().remove(0);
    let loser = conflict.values.iter().find(|value| !value.winner).unwrap();
    let at = a.author();
    a.doc.pick(&at, &path, &loser.change).unwrap().unwrap();
    let at = b.author();
    b.doc.patch_desired(&at, &json!({"more": true})).unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(paths(&b), Vec::<String>::new());
    assert_eq!(b.desired()["ports"][http]["port"], loser.value);
    b.set(json!({"ports": [{"name": "dns", "port": 53}]}));
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(a.desired(), &json!({"ports": [{"name": "dns", "port": 53}]}));
}

#[test]
fn two_of_one_name_on_purpose_stay_two() {
    let both = json!({"ports": [{"name": "dns", "p": "tcp"}, {"name": "dns", "p": "udp"}]});
    let (mut a, mut b) = two(both.clone());
    assert_eq!(a.desired(), &both);
    let three =
        json!({"ports": [{"name": "dns", "p": "tcp"}, {"name": "dns", "p": "udp"}, {"name": "dns", "p": "sctp"}]});
    a.set(three.clone());
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(b.desired(), &three);
    // Also one after the other.
    let (mut a, mut b) = two(json!([{"name": "x", "v": 1}]));
    b.set(json!([{"name": "x", "v": 1}, {"name": "x", "v": 2}]));
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(a.desired(), &json!([{"name": "x", "v": 1}, {"name": "x", "v": 2}]));
}

#[test]
fn removing_an_element_wins_over_editing_it() {
    let start = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
    let without = json!({"env": [{"name": "B", "value": "2"}]});
    let edited = json!({"env": [{"name": "A", "value": "9"}, {"name": "B", "value": "3"}]});
    let (a, _) = merged(start, without, edited);
    assert_eq!(a.desired(), &json!({"env": [{"name": "B", "value": "3"}]}));
}

#[test]
fn a_new_order_of_elements_keeps_what_others_did_before() {
    let named = |names: &[&str]| Value::Array(names.iter().map(|name| json!({"name": name})).collect());
    let (mut a, mut b) = two(named(&["a", "b", "c", "d"]));
    let seen = b.doc.heads();
    a.set(json!([{"name": "a"}, {"name": "b", "x": 1}, {"name": "c"}, {"name": "d"}, {"name": "e"}]));
    exchange(&mut a.doc, &mut b.doc);
    b.set_seen(named(&["d", "b", "a", "c"]), &seen);
    let names: Vec<&str> = b.desired().as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    let order: Vec<&str> = names.iter().copied().filter(|name| *name != "e").collect();
    assert_eq!(order, ["d", "b", "a", "c"]);
    assert!(names.contains(&"e"));
    assert!(b.desired().as_array().unwrap().contains(&json!({"name": "b", "x": 1})));
    // Both move the same one at once: it is there once.
    let (a, _) = merged(named(&["a", "b", "c"]), named(&["c", "a", "b"]), named(&["c", "a", "b"]));
    assert_eq!(a.desired(), &named(&["c", "a", "b"]));
}

#[test]
fn the_policy_says_by_what_elements_are_matched() {
    let policy = Policy { list_keys: vec!["port".into(), "name".into()], ..Policy::default() };
    let mut wanted = spec(json!({"ports": [{"port": 80, "x": 1}], "env": [{"name": "A", "v": 1}]}));
    wanted.policy = policy;
    let (mut a, mut b) = two_with(wanted);
    a.set(json!({"ports": [{"port": 79}, {"port": 80, "x": 2}], "env": [{"name": "Z"}, {"name": "A", "v": 1}]}));
    b.set(json!({"ports": [{"port": 80, "x": 1, "y": 1}], "env": [{"name": "A", "v": 2}]}));
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(
        a.desired(),
        &json!({
            "ports": [{"port": 79}, {"port": 80, "x": 2, "y": 1}], "env": [{"name": "Z"}, {"name": "A", "v": 2}],
        })
    );
}

#[test]
fn lists_without_keys_merge_by_place() {
    let (a, _) = merged(json!([1, 2, 3, 4]), json!([0, 1, 2, 4]), json!([1, 2, 3, 4, 5]));
    assert_eq!(a.desired(), &json!([0, 1, 2, 4, 5]));
    let (a, _) =
        merged(json!([{"p": 1}, {"p": 2}]), json!([{"p": 1, "a": 1}, {"p": 2}]), json!([{"p": 1}, {"p": 2, "b": 1}]));
    assert_eq!(a.desired(), &json!([{"p": 1, "a": 1}, {"p": 2, "b": 1}]));
    let (a, _) = merged(json!(["--x=1", "--y"]), json!(["--x=2", "--y"]), json!(["--x=3", "--y"]));
    assert_eq!(a.desired().as_array().unwrap().len(), 2);
    assert_eq!(paths(&a), ["/desired/0"]);
}

#[test]
fn the_same_field_set_twice_is_a_conflict_until_somebody_picks() {
    let (mut a, mut b) = merged(json!({"s": {"r": 1}}), json!({"s": {"r": 2}}), json!({"s": {"r": 3}}));
    let conflict = a.doc.conflicts().remove(0);
    assert_eq!(conflict.pointer(), "/desired/s/r");
    let values: Vec<(&Value, bool)> = conflict.values.iter().map(|value| (&value.value, value.winner)).collect();
    assert_eq!(values[0], (&a.desired()["s"]["r"], true));
    assert_eq!(values.len(), 2);
    assert!(!values[1].1);
    let by = if values[0].0 == 2 { "paris" } else { "rennes" };
    assert_eq!(conflict.values[0].by, Some(site(by)));
    assert!(conflict.values[0].who.contains(by));
    let json = serde_json::to_value(&conflict).unwrap();
    assert_eq!(json["path"], "/desired/s/r");
    let at = a.author();
    assert!(a.doc.pick(&at, "/desired/s/nope", &conflict.values[1].change).is_err());
    assert!(a.doc.pick(&at, "desired", &conflict.values[1].change).is_err());
    assert!(a.doc.pick(&at, "/operations", &conflict.values[1].change).is_err());
    let heads = a.doc.heads();
    assert!(a.doc.pick(&at, "/desired/s/r", &khufu_crdt::ChangeHash([0; 32])).is_err());
    assert_eq!(a.doc.heads(), heads);
    a.doc.pick(&at, "/desired/s/r", &conflict.values[1].change).unwrap().unwrap();
    synchronise(&mut a.doc, &mut b.doc);
    assert_eq!(b.doc.conflicts(), []);
    assert_eq!(&b.desired()["s"]["r"], &conflict.values[1].value);
}

#[test]
fn picking_at_two_sites_at_once_ends_the_conflict() {
    for (pick_a, pick_b) in [(0, 0), (1, 1), (0, 1), (1, 0)] {
        let start = json!({"f": 1, "m": 1, "l": [1]});
        let (mut a, mut b) =
            merged(start, json!({"f": 2, "m": {"x": 1}, "l": [[1]]}), json!({"f": 3, "m": "text", "l": [{"y": 1}]}));
        assert_eq!(paths(&a), ["/desired/f", "/desired/l/0", "/desired/m"]);
        for conflict in a.doc.conflicts() {
            let (at_a, at_b) = (a.author(), b.author());
            a.doc.pick(&at_a, &conflict.pointer(), &conflict.values[pick_a].change).unwrap().unwrap();
            b.doc.pick(&at_b, &conflict.pointer(), &conflict.values[pick_b].change).unwrap().unwrap();
            assert_eq!((a.doc.conflicts().len(), b.doc.conflicts().len()), (2, 2));
            exchange(&mut a.doc, &mut b.doc);
            let left: Vec<String> = paths(&a).into_iter().filter(|path| *path == conflict.pointer()).collect();
            if pick_a == pick_b {
                assert_eq!(left, Vec::<String>::new(), "{pick_a} {pick_b}");
            }
            for conflict in a.doc.conflicts().into_iter().filter(|left| left.pointer() == conflict.pointer()) {
                let at = a.author();
                a.doc.pick(&at, &conflict.pointer(), &conflict.values[0].change).unwrap().unwrap();
            }
            exchange(&mut a.doc, &mut b.doc);
            a = again(a, &mut b, &conflict.pointer());
        }
    }
}

/// The next round starts from a conflict elsewhere, so this one must be gone for good.
fn again(a: Site, b: &mut Site, gone: &str) -> Site {
    assert!(!paths(&a).iter().any(|path| path == gone));
    // Bring the number of conflicts back to three.
    let mut a = a;
    let n = paths(&a).len();
    for i in n..3 {
        let key = format!("z{i}{}", gone.replace('/', "-"));
        let (at_a, at_b) = (a.author(), b.author());
        a.doc.patch_desired(&at_a, &json!({ key.as_str(): 1 })).unwrap();
        b.doc.patch_desired(&at_b, &json!({ key.as_str(): 2 })).unwrap();
    }
    exchange(&mut a.doc, &mut b.doc);
    a
}

#[test]
fn overrides_of_two_sites_are_apart() {
    let (mut a, mut b) = two(json!({"replicas": 3, "image": "a"}));
    let (at_a, at_b) = (a.author(), b.author());
    a.doc.set_override(&at_a, &site("paris"), Some(&json!({"replicas": 1}))).unwrap().unwrap();
    b.doc.set_override(&at_b, &site("rennes"), Some(&json!({"image": null}))).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(a.doc.effective(&site("paris")).unwrap(), json!({"replicas": 1, "image": "a"}));
    assert_eq!(a.doc.effective(&site("rennes")).unwrap(), json!({"replicas": 3}));
    assert_eq!(a.doc.effective(&site("lyon")).unwrap(), json!({"replicas": 3, "image": "a"}));
    let at = a.author();
    a.doc.set_override(&at, &site("rennes"), None).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(b.doc.effective(&site("rennes")).unwrap(), json!({"replicas": 3, "image": "a"}));
}

#[test]
fn policies_merge_field_by_field() {
    let (mut a, mut b) = two(json!({}));
    let (at_a, at_b) = (a.author(), b.author());
    let keys = Policy { list_keys: vec!["port".into()], ..Policy::default() };
    let types = Policy { types: [("set".to_owned(), Default::default())].into(), ..Policy::default() };
    a.doc.set_policy(&at_a, &keys, None).unwrap().unwrap();
    b.doc.set_policy(&at_b, &types, None).unwrap().unwrap();
    exchange(&mut a.doc, &mut b.doc);
    assert_eq!(a.doc.state().policy, Policy { list_keys: keys.list_keys, ..types });
}

#[test]
fn numbers_keep_their_kind() {
    let (mut a, mut b) = two(json!({"a": 1, "b": 1.0}));
    a.set(json!({"a": 1.0, "b": 1}));
    exchange(&mut a.doc, &mut b.doc);
    assert!(b.desired()["a"].is_f64() && b.desired()["b"].is_i64());
}

#[test]
fn a_small_edit_is_a_small_change() {
    let big: Vec<Value> =
        (0..500).map(|i| json!({"name": format!("c{i}"), "image": "x".repeat(50), "args": [1, 2, 3]})).collect();
    let (mut a, _) = two(json!({"containers": big.clone()}));
    let mut next = big;
    next[250]["args"][1] = json!(9);
    next.push(json!({"name": "last"}));
    let at = a.author();
    let change = a.doc.set_desired(&at, &json!({"containers": next}), None).unwrap().unwrap();
    assert!(change.bytes.len() < 400, "{}", change.bytes.len());
    assert_eq!(a.doc.history().last().unwrap().edits, 3);
}
