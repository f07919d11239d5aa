//! Objects as API servers of 1.20 and of 1.33 show them, and nonsense.

mod kinds;
mod random;
mod workloads;

use khufu_crdt::Condition::{self, Current, Failed, InProgress, NotFound, Terminating};
use khufu_crdt::Health;
use serde_json::{Value, json};

use super::text::MAX_CHARS;
use super::{not_found, of, rolled_up, said};

/// An object of generation 2; `status.observedGeneration` is what the status says.
fn object(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    let metadata = json!({ "name": "it", "namespace": "shop", "uid": "7f0c", "generation": 2 });
    json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, "status": status })
}

fn condition(name: &str, status: &str, reason: &str, message: &str) -> Value {
    let at = "2024-05-01T10:00:00Z";
    json!({ "type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": at })
}

#[track_caller]
fn check(name: &str, object: &Value, condition: Condition, message: &str) {
    let health = of(object);
    assert_eq!((health.condition, health.message.as_str()), (condition, message), "{name}");
}

/// Straight from an apply: the controllers of these always write a status, and have not yet.
#[test]
fn without_a_status() {
    for (api_version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
        ("v1", "Pod"),
        ("v1", "PersistentVolumeClaim"),
        ("v1", "PersistentVolume"),
        ("v1", "Namespace"),
        ("policy/v1", "PodDisruptionBudget"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apiregistration.k8s.io/v1", "APIService"),
    ] {
        for replicas in [json!(0), json!(3), json!(null)] {
            let mut new = object(api_version, kind, json!({ "replicas": replicas }), json!(null));
            assert_eq!(of(&new).condition, InProgress, "{kind}");
            new.as_object_mut().unwrap().remove("status");
            assert_eq!(of(&new).condition, InProgress, "{kind}");
        }
    }
}

#[test]
fn messages_are_clipped_and_harmless() {
    let saying = |message: &str| {
        let conditions = json!([condition("Ready", "False", "", message)]);
        of(&object("shop.example/v1", "Till", json!({}), json!({ "conditions": conditions }))).message
    };
    assert_eq!(saying("a\nb\tc\u{1b}[31md\0\u{202e}e\n"), "a b c\u{fffd}[31md\u{fffd}\u{fffd}e");
    let whole = "é".repeat(MAX_CHARS);
    assert_eq!(saying(&whole), whole);
    assert_eq!(saying(&format!("{whole}x")), format!("{}…", "é".repeat(MAX_CHARS - 1)));
}

#[test]
fn what_is_not_there_is_worse_than_what_goes_and_better_than_what_has_failed() {
    assert!([Current, InProgress, Terminating, NotFound, Failed].is_sorted());
    assert_eq!(not_found().condition, NotFound);
}

#[test]
fn several_are_as_bad_as_the_worst() {
    let healths = |list: &[(&'static str, Condition)]| -> Vec<(&'static str, Health)> {
        list.iter().map(|&(name, condition)| (name, said(condition, "because"))).collect()
    };
    let up = |list: &[(&'static str, Condition)]| {
        let health = rolled_up(healths(list).iter().map(|(name, health)| (name, health))).unwrap();
        (health.condition, health.message)
    };
    assert_eq!(rolled_up(std::iter::empty::<(&str, &Health)>()), None);
    assert_eq!(up(&[("a", Current)]), (Current, "a: because".to_owned()));
    assert_eq!(up(&[("a", Current), ("b", Current)]), (Current, "a: because (and 1 more is current)".to_owned()));
    let mixed = [
        ("a", InProgress),
        ("b", InProgress),
        ("c", Failed),
        ("d", Current),
        ("e", Failed),
        ("f", NotFound),
        ("g", Failed),
    ];
    assert_eq!(up(&mixed), (Failed, "c: because (and 2 more are failed)".to_owned()));
    // The end stays when the message has to be cut.
    let long = Health { condition: Failed, message: "x".repeat(5 * MAX_CHARS) };
    let cut = rolled_up([("a", &long), ("b", &long)]).unwrap().message;
    assert_eq!(cut.chars().count(), MAX_CHARS);
    assert!(cut.starts_with("a: xxx") && cut.ends_with("x… (and 1 more is failed)"), "{cut}");
}
