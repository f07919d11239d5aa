//! Overrides as JSON patches (RFC 6902).

use khufu_crdt::{EditError, OverrideError, State};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::document_sites::{exchange, site, two};

/// What a desired state is at a site with this override.
fn over(desired: &Value, laid: &Value) -> Result<Value, OverrideError> {
    let overrides = [(site("rennes"), laid.clone())].into();
    State { desired: desired.clone(), overrides, ..State::default() }.effective(&site("rennes"))
}

/// The cases of the RFC's appendix A that are not about how JSON is written.
#[test]
fn does_what_the_rfc_says() {
    for (desired, patch, result) in [
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            Some(json!({"baz": "qux", "foo": "bar"})),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            Some(json!({"foo": ["bar", "qux", "baz"]})),
        ),
        (json!({"baz": "qux", "foo": "bar"}), json!([{"op": "remove", "path": "/baz"}]), Some(json!({"foo": "bar"}))),
        (
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/1"}]),
            Some(json!({"foo": ["bar", "baz"]})),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
            Some(json!({"baz": "boo", "foo": "bar"})),
        ),
        (
            json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
            json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
            Some(json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}})),
        ),
        (
            json!({"foo": ["all", "grass", "cows", "eat"]}),
            json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
            Some(json!({"foo": ["all", "cows", "eat", "grass"]})),
        ),
        (
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
            Some(json!({"baz": "qux", "foo": ["a", 2, "c"]})),
        ),
        (json!({"baz": "qux"}), json!([{"op": "test", "path": "/baz", "value": "bar"}]), None),
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
            Some(json!({"foo": "bar", "child": {"grandchild": {}}})),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
            Some(json!({"foo": "bar", "baz": "qux"})),
        ),
        (json!({"foo": "bar"}), json!([{"op": "add", "path": "/baz/bat", "value": "qux"}]), None),
        (
            json!({"/": 9, "~1": 10}),
            json!([{"op": "test", "path": "/~01", "value": 10}]),
            Some(json!({"/": 9, "~1": 10})),
        ),
        (json!({"/": 9, "~1": 10}), json!([{"op": "test", "path": "/~01", "value": "10"}]), None),
        (
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
            Some(json!({"foo": ["bar", ["abc", "def"]]})),
        ),
        (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": [1]}]), Some(json!([1]))),
        (json!({"a": 1}), json!([]), Some(json!({"a": 1}))),
    ] {
        assert_eq!(over(&desired, &patch).ok(), result, "{desired} {patch}");
    }
}

#[test]
fn elements_of_lists_are_found_by_what_they_are_called() {
    let desired = json!({"containers": [{"name": "side", "image": "s"}, {"name": "web", "image": "1", "port": 80}]});
    let replaced = |path: &str| over(&desired, &json!([{"op": "replace", "path": path, "value": "2"}]));
    let mut wanted = desired.clone();
    wanted["containers"][1]["image"] = json!("2");
    assert_eq!(replaced("/containers/[name=web]/image").unwrap(), wanted);
    assert_eq!(replaced("/containers/[port=80]/image").unwrap(), wanted);
    let error = replaced("/containers/[name=db]/image").unwrap_err().to_string();
    assert!(error.contains("[0]") && error.contains("no element has name=db"), "{error}");
    // Also after what a step before has done, and not where there is no list.
    let steps = json!([
        {"op": "remove", "path": "/containers/0"},
        {"op": "move", "from": "/containers/[name=web]/image", "path": "/[name=web]"},
        {"op": "test", "path": "/[name=web]", "value": "1"},
    ]);
    assert_eq!(
        over(&desired, &steps).unwrap(),
        json!({"containers": [{"name": "web", "port": 80}], "[name=web]": "1"})
    );
    let twice = json!({"l": [{"name": "a"}, {"name": "a"}]});
    // What is moved is taken out of its list before it is put anywhere.
    let list = json!({"l": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    let moved = over(&list, &json!([{"op": "move", "from": "/l/[name=a]", "path": "/l/[name=b]/x"}])).unwrap();
    assert_eq!(moved, json!({"l": [{"name": "b", "x": {"name": "a"}}, {"name": "c"}]}));
    let error = over(&twice, &json!([{"op": "remove", "path": "/l/[name=a]"}])).unwrap_err().to_string();
    assert!(error.contains("several"), "{error}");
}

#[test]
fn what_is_no_json_patch_is_refused_when_it_is_given_with_its_place() {
    let (mut a, _) = two(json!({"replicas": 1}));
    let before = a.doc.heads();
    for (patch, place) in [
        (json!([3]), "[0]"),
        (json!([{"op": "add", "path": "/a", "value": 1}, {"op": "put", "path": "/a"}]), "[1].op"),
        (json!([{"op": "remove", "path": "a"}]), "[0].path"),
        (json!([{"op": "remove", "path": "/~2"}]), "[0].path"),
        (json!([{"op": "remove"}]), "[0].path"),
        (json!([{"op": "copy", "path": "/a"}]), "[0].from"),
        (json!([{"op": "replace", "path": "/a"}]), "[0].value"),
        (Value::Array(vec![json!({"op": "remove", "path": "/a"}); 1_001]), "1001 steps"),
    ] {
        let author = a.author();
        let error = a.doc.set_override(&author, &site("rennes"), Some(&patch)).unwrap_err();
        assert!(matches!(error, EditError::BadOverride { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("overrides.rennes") && text.contains(place), "{place}: {text}");
        assert!(a.doc.set_overrides(&author, &[(site("rennes"), patch)].into()).is_err());
    }
    assert_eq!(a.doc.heads(), before);
}

#[test]
fn what_is_copied_again_and_again_does_not_grow_without_bounds() {
    let step = |from: &str, path: &str| json!({"op": "copy", "from": from, "path": path});
    // Each step makes it twice as large; and then twice as deep.
    let wide: Vec<_> = (0..1_000).map(|n| step("/a", &format!("/a/{n}"))).collect();
    let mut path = String::new();
    let deep: Vec<_> = (0..1_000)
        .map(|_| {
            path.push_str("/a");
            step("", &path)
        })
        .collect();
    for steps in [wide, deep] {
        let error = over(&json!({"a": {"text": "x".repeat(100)}}), &Value::Array(steps)).unwrap_err();
        assert!(error.to_string().contains("too large or nested too deeply"), "{error}");
    }
}

#[test]
fn all_steps_of_a_patch_have_one_budget() {
    let numbers = |len: usize| Value::Array(vec![json!(1); len]);
    let named = |len: usize| Value::Array((0..len).map(|n| json!({"name": format!("n{n}"), "x": 1})).collect());
    let steps = |pair: [Value; 2]| Value::Array(std::iter::repeat_n(pair, 500).flatten().collect());
    let back_and_forth =
        [("/a", "/b"), ("/b", "/a")].map(|(from, path)| json!({"op": "move", "from": from, "path": path}));
    let at_the_front = [json!({"op": "add", "path": "/l/0", "value": 0}), json!({"op": "remove", "path": "/l/0"})];
    let by_name = |number: usize| {
        let path = format!("/l/[name=n{number}]/x");
        [json!({"op": "replace", "path": path, "value": 2}), json!({"op": "test", "path": path, "value": 2})]
    };
    let taken_out = [
        json!({"op": "move", "from": "/l/[name=n1]", "path": "/l/[name=n0]/y"}),
        json!({"op": "move", "from": "/l/[name=n0]/y", "path": "/l/-"}),
    ];
    for (desired, patch, done) in [
        // Each looks at 300,002 values: at the number of levels of what is moved.
        (json!({"a": {"x": numbers(300_000)}}), steps(back_and_forth), 13),
        // Each shifts the elements that are behind.
        (json!({"l": numbers(1_000_000)}), steps(at_the_front), 3),
        // Each looks through the list.
        (json!({"l": named(100_000)}), steps(by_name(99_999)), 39),
        (json!({"l": named(100_000)}), steps(taken_out), 15),
        // A long name takes longer to compare.
        (
            json!({"l": named(10_000)}),
            steps(
                [0; 2]
                    .map(|_| json!({"op": "test", "path": format!("/l/[name={}]/x", "n".repeat(64_000)), "value": 1})),
            ),
            0,
        ),
    ] {
        let error = over(&desired, &patch).unwrap_err();
        assert_eq!(error, OverrideError::TooMuch { step: done });
        let text = error.to_string();
        assert!(text.contains(&format!("[{done}]")) && text.contains("replace at once"), "{text}");
    }
    // Long patches of long lists are nothing unusual.
    let desired = json!({"l": named(1_000)});
    assert!(over(&desired, &steps(by_name(999))).is_ok());
}

/// The slow way: trees are taken apart and put together again.
mod slow {
    use super::*;

    fn tokens(path: &str) -> Vec<String> {
        path.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
    }

    fn place(token: &str, below: usize) -> Option<usize> {
        let digits = !token.is_empty() && token.chars().all(|digit| digit.is_ascii_digit());
        let plain = digits && (token == "0" || !token.starts_with('0'));
        token.parse().ok().filter(|place| plain && *place < below)
    }

    fn get(value: &Value, path: &[String]) -> Option<Value> {
        let Some((first, rest)) = path.split_first() else { return Some(value.clone()) };
        match value {
            Value::Object(fields) => get(fields.get(first)?, rest),
            Value::Array(items) => get(&items[place(first, items.len())?], rest),
            _ => None,
        }
    }

    /// The value with another at a path: beside what is there if it is `new`, else in its place, or gone.
    fn with(value: &Value, path: &[String], new: bool, other: Option<&Value>) -> Option<Value> {
        let Some((first, rest)) = path.split_first() else { return other.cloned() };
        match value {
            Value::Object(fields) => {
                let mut fields = fields.clone();
                if rest.is_empty() {
                    if !new && !fields.contains_key(first) {
                        return None;
                    }
                    fields.remove(first);
                    fields.extend(other.map(|other| (first.clone(), other.clone())));
                } else {
                    let below = with(fields.get(first)?, rest, new, other)?;
                    fields.insert(first.clone(), below);
                }
                Some(Value::Object(fields))
            }
            Value::Array(items) => {
                let mut items = items.clone();
                if rest.is_empty() && new {
                    let at = if first == "-" { items.len() } else { place(first, items.len() + 1)? };
                    items.insert(at, other?.clone());
                    return Some(Value::Array(items));
                }
                let at = place(first, items.len())?;
                if rest.is_empty() {
                    items.splice(at..=at, other.cloned());
                } else {
                    items[at] = with(&items[at], rest, new, other)?;
                }
                Some(Value::Array(items))
            }
            _ => None,
        }
    }

    pub(super) fn over(desired: &Value, steps: &[Value]) -> Option<Value> {
        let mut value = desired.clone();
        for step in steps {
            let path = tokens(step["path"].as_str()?);
            let from = step["from"].as_str().map(tokens).unwrap_or_default();
            value = match step["op"].as_str()? {
                "add" => with(&value, &path, true, Some(&step["value"]))?,
                "remove" if path.is_empty() => return None,
                "remove" => with(&value, &path, false, None)?,
                "replace" => with(&value, &path, false, Some(&step["value"]))?,
                "copy" => with(&value, &path, true, Some(&get(&value, &from)?))?,
                "move" if path.len() > from.len() && path.starts_with(&from) => return None,
                "move" if from.is_empty() => return None,
                "move" => {
                    let moved = get(&value, &from)?;
                    with(&with(&value, &from, false, None)?, &path, true, Some(&moved))?
                }
                _ => (get(&value, &path)? == step["value"]).then_some(value)?,
            };
        }
        Some(value)
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), Just(json!(1)), Just(json!("x"))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let key = prop_oneof![Just("a"), Just("b"), Just("~"), Just("/"), Just("0"), Just("")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn pointer() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        4 => Just("a"), 2 => Just("b"), 3 => Just("0"), 2 => Just("1"), 1 => Just("-"), 1 => Just("~0"), 1 => Just("~1"),
        1 => Just("01"), 1 => Just(""), 1 => Just("+1"),
    ];
    prop::collection::vec(token, 0..3)
        .prop_map(|tokens| tokens.iter().map(|token| format!("/{token}")).collect::<String>())
}

fn step() -> impl Strategy<Value = Value> {
    let op = prop_oneof![Just("add"), Just("remove"), Just("replace"), Just("move"), Just("copy"), Just("test")];
    (op, pointer(), pointer(), document())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

proptest! {
    #[test]
    fn patches_do_what_the_slow_way_does(desired in document(), steps in prop::collection::vec(step(), 0..4)) {
        let fast = over(&desired, &Value::Array(steps.clone()));
        prop_assert_eq!(fast.clone().ok(), slow::over(&desired, &steps), "{:?}", fast);
    }

    /// Whatever two sites made of one patch while apart, they read the same, and the same counts or fails.
    #[test]
    fn patches_edited_apart_converge(
        start in prop::collection::vec(step(), 0..4),
        at_a in prop::collection::vec(step(), 0..4),
        at_b in prop::collection::vec(step(), 0..4),
    ) {
        let (mut a, mut b) = two(json!({"a": {"b": [1, 2]}, "b": 1}));
        let set = |site_of: &mut crate::document_sites::Site, patch: Vec<Value>| {
            let author = site_of.author();
            site_of.doc.set_override(&author, &site("rennes"), Some(&Value::Array(patch))).unwrap();
        };
        set(&mut a, start);
        exchange(&mut a.doc, &mut b.doc);
        set(&mut a, at_a.clone());
        set(&mut b, at_b.clone());
        exchange(&mut a.doc, &mut b.doc);
        let laid = &a.doc.state().overrides[&site("rennes")];
        prop_assert!([json!(at_a), json!(at_b)].contains(laid), "{}", laid);
        prop_assert_eq!(a.doc.state().digest(), b.doc.state().digest());
        prop_assert_eq!(a.doc.effective(&site("rennes")), b.doc.effective(&site("rennes")));
        prop_assert_eq!(&a.doc.effective(&site("paris")).unwrap(), a.desired());
    }
}
