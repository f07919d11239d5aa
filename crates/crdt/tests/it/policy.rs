//! Policies as operators write them.

use khufu_crdt::{Combine, Policy, PolicyError, PolicyWarning, Rule};
use serde_json::{Value, json};

use crate::history::policy;

fn refused(value: Value) -> String {
    Policy::parse(value).unwrap_err().to_string()
}

#[test]
fn what_serde_writes_can_be_read_again() {
    let mut policy = policy(&[("a", "b", "take-one")], &["a"]);
    policy.types.get_mut("a").unwrap().undo = Some("b".into());
    policy.retry.attempts = 2;
    policy.list_keys = vec!["id".into()];
    assert_eq!(Policy::parse(serde_json::to_value(&policy).unwrap()).unwrap(), policy);
    assert_eq!(Policy::parse(json!({})).unwrap(), Policy::default());
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let cases = [
        (json!([]), "policy cannot be read"),
        (json!({"resolution": []}), "resolution is no field"),
        (json!({"resolutions": {}}), "resolutions cannot be read: a list is wanted, an object was found"),
        (
            json!({"resolutions": [{"before": "a", "after": "b", "result": "take-one"}, {"before": "a"}]}),
            "resolutions[1].after is missing",
        ),
        (
            json!({"resolutions": [{"before": "a", "after": "b", "result": "take-two"}]}),
            "resolutions[0].result is \"take-two\"",
        ),
        (
            json!({"resolutions": [{"before": "a", "after": "b", "result": "take-one", "why": 1}]}),
            "resolutions[0].why is no field",
        ),
        (
            json!({"resolutions": [{"before": "", "after": "b", "result": "take-one"}]}),
            "resolutions[0].before cannot be read",
        ),
        (json!({"types": {"set": {"absolut": true}}}), "types.set.absolut is no field"),
        (json!({"types": {"set": {"absolute": "yes"}}}), "types.set.absolute cannot be read"),
        (json!({"types": {"x".repeat(101): {}}}), "is too large: 101, the limit is 100"),
        (json!({"retry": {"attempts": 0}}), "retry.attempts cannot be read"),
        (json!({"retry": {"attempts": 1001}}), "retry.attempts is too large"),
        (json!({"retry": {"backoff_ms": 86_400_001}}), "retry.backoff_ms is too large"),
        (json!({"retry": {"pause": 1}}), "retry.pause is no field"),
        (json!({"after_failure": "stop"}), "after_failure cannot be read"),
        (json!({"consistency": "strong"}), "consistency cannot be read"),
        (json!({"list_keys": [1]}), "list_keys[0] cannot be read"),
    ];
    for (value, wanted) in cases {
        let error = refused(value);
        assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
    }
}

#[test]
fn the_number_of_entries_is_limited() {
    let entry = |n: usize| json!({"before": format!("t{n}"), "after": "b", "result": "take-one"});
    let entries = |n: usize| json!({"resolutions": (0..n).map(entry).collect::<Vec<_>>()});
    assert!(Policy::parse(entries(1_000)).is_ok());
    let error = Policy::parse(entries(1_001)).unwrap_err();
    assert_eq!(error, PolicyError::TooLarge { path: "resolutions".into(), limit: 1_000, found: 1_001 });
}

#[test]
fn a_document_of_a_newer_node_is_read_all_the_same() {
    let newer = json!({"resolutions": [{"before": "a", "after": "b", "result": "take-two"}, {"before": "a", "after": "b", "result": "take-one"}], "colour": 1});
    let policy: Policy = serde_json::from_value(newer).unwrap();
    assert_eq!(policy.resolutions[0].result, Combine::Unknown("take-two".into()));
    assert_eq!(policy.rule("a", "b"), Rule::TakeOne, "a result that nobody knows is no entry");
    assert_eq!(policy.warnings().len(), 1);
}

#[test]
fn rules_are_read_forwards_then_in_a_mirror() {
    let policy = policy(
        &[
            ("a", "b", "take-both-keep-order"),
            ("a", "b", "take-one"),
            ("c", "d", "take-both-any-order"),
            ("e", "f", "take-both-any-order"),
            ("f", "e", "take-both-keep-order"),
            ("g", "g", "take-both-any-order"),
            ("h", "h", "take-both-reverse-order"),
        ],
        &[],
    );
    assert_eq!((policy.rule("a", "b"), policy.rule("b", "a")), (Rule::Keep, Rule::Reverse));
    assert_eq!((policy.rule("h", "h"), policy.rule("x", "y")), (Rule::Reverse, Rule::AnyOrder));
    assert_eq!((policy.written_rule("d", "c"), policy.written_rule("x", "y")), (Some(Rule::AnyOrder), None));
    assert!(policy.commute("c", "d") && policy.commute("d", "c") && policy.commute("g", "g"));
    assert!(!policy.commute("e", "f") && !policy.commute("x", "y") && !policy.commute("a", "b"));
}

/// Entries, and a part of the warning, if there is one.
type Warned<'a> = (&'a [(&'a str, &'a str, &'a str)], Option<&'a str>);

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let cases: &[Warned<'_>] = &[
        (&[("a", "b", "take-one")], None),
        (&[("a", "b", "take-both-keep-order"), ("b", "a", "take-both-reverse-order")], None),
        (&[("a", "b", "take-both-keep-order"), ("b", "a", "take-both-keep-order")], None),
        (&[("a", "b", "take-one"), ("b", "a", "take-both-keep-order")], Some("depends on clocks")),
        (&[("a", "b", "take-both-any-order"), ("b", "a", "take-both-keep-order")], Some("prescribes one")),
        (&[("a", "b", "take-one"), ("a", "b", "take-both-keep-order")], Some("only the first counts")),
        (&[("a", "a", "take-both-reverse-order")], Some("the later first")),
        (&[("abs", "a", "take-both-any-order")], Some("is absolute")),
        (&[("abs", "abs", "take-both-any-order")], Some("is absolute")),
        (
            &[
                ("b", "c", "take-both-keep-order"),
                ("a", "b", "take-both-keep-order"),
                ("a", "c", "take-both-reverse-order"),
            ],
            Some("before the first: a, b, c."),
        ),
    ];
    for (entries, wanted) in cases {
        let warnings: Vec<String> = policy(entries, &["abs"]).warnings().iter().map(PolicyWarning::to_string).collect();
        match wanted {
            None => assert_eq!(warnings, [""; 0], "{entries:?}"),
            Some(wanted) => {
                assert_eq!(warnings.len(), 1, "{entries:?}: {warnings:?}");
                assert!(warnings[0].contains(wanted), "{warnings:?}");
            }
        }
    }
}
