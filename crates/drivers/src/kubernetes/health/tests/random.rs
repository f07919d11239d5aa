//! Broken and random objects.

use khufu_crdt::Health;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::workloads::{available, deployment, job, of_three, pod, rolled_out};
use super::{Current, InProgress, MAX_CHARS, NotFound, check, condition, object, of};

#[test]
fn nonsense() {
    for nonsense in [json!(null), json!([]), json!("Deployment"), json!(7)] {
        check("no object", &nonsense, InProgress, "this is no Kubernetes object");
    }
    check("empty", &json!({}), Current, "it is there");
    let huge = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "generation": u64::MAX },
        "spec": { "replicas": 1e300, "paused": "yes" },
        "status": { "observedGeneration": u64::MAX, "replicas": -1e300, "conditions": { "type": "Available" } },
    });
    check("huge", &huge, InProgress, "0 of 9223372036854775807 pods are created");
    let negative = deployment(json!({ "replicas": -5 }), [0, 0, 0, 0], &[available()]);
    check("negative", &negative, Current, "0 of 0 pods are available");
    let mut shrinking = deployment(of_three(), [0, 0, 0, 0], &[]);
    shrinking["status"]["replicas"] = json!(i64::MAX);
    shrinking["status"]["updatedReplicas"] = json!(3);
    check("many", &shrinking, InProgress, "9223372036854775807 pods are there, 3 are wanted");
}

/// One of each kind that is current.
fn healthy() -> Vec<Value> {
    let pods = json!({
        "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
        "fullyLabeledReplicas": 3, "currentRevision": "a", "updateRevision": "a", "desiredNumberScheduled": 3,
        "currentNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 3, "numberAvailable": 3,
        "conditions": [rolled_out(), available()],
    });
    let complete =
        json!({ "startTime": "2024-05-01T10:00:00Z", "conditions": [condition("Complete", "True", "", "")] });
    let ready = json!({ "phase": "Running", "conditions": [condition("Ready", "True", "", "")],
                        "containerStatuses": [{ "name": "web", "ready": true, "state": { "running": {} } }] });
    let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } });
    let names = [condition("NamesAccepted", "True", "NoConflicts", ""), condition("Established", "True", "", "")];
    vec![
        object("apps/v1", "Deployment", of_three(), pods.clone()),
        object("apps/v1", "StatefulSet", of_three(), pods.clone()),
        object("apps/v1", "DaemonSet", json!({}), pods.clone()),
        object("apps/v1", "ReplicaSet", of_three(), pods),
        job(json!({}), complete),
        pod(ready),
        object("v1", "PersistentVolumeClaim", json!({}), json!({ "phase": "Bound" })),
        object("v1", "PersistentVolume", json!({}), json!({ "phase": "Bound" })),
        object("v1", "Namespace", json!({}), json!({ "phase": "Active" })),
        object("v1", "Service", json!({ "type": "LoadBalancer" }), balanced),
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), json!({ "conditions": names })),
        object("apiregistration.k8s.io/v1", "APIService", json!({}), json!({ "conditions": [available()] })),
        object(
            "policy/v1",
            "PodDisruptionBudget",
            json!({}),
            json!({ "observedGeneration": 2, "disruptionsAllowed": 1 }),
        ),
        object("shop.example/v1", "Till", json!({}), json!({ "conditions": [condition("Ready", "True", "", "")] })),
    ]
}

/// The pointers of everything in a value but itself.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut visit = |key: &str, inner: &Value| {
        let place = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places(inner, &place, found);
        found.push(place);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, inner)| visit(key, inner)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, inner)| visit(&index.to_string(), inner)),
        _ => {}
    }
}

/// Replaces what is at a place, or takes it away.
fn mutate(object: &mut Value, place: &str, by: Option<Value>) {
    let (parent, key) = place.rsplit_once('/').unwrap();
    let name = key.replace("~1", "/").replace("~0", "~");
    match (object.pointer_mut(parent).unwrap(), by) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(name, value)),
        (Value::Object(fields), None) => drop(fields.remove(&name)),
        (Value::Array(items), Some(value)) => items[key.parse::<usize>().unwrap()] = value,
        (Value::Array(items), None) => drop(items.remove(key.parse().unwrap())),
        _ => unreachable!("{place} is in nothing"),
    }
}

/// Failure needs somebody who says so: no object becomes failed, or deleted, by something that is missing.
#[test]
fn what_is_missing_fails_nothing() {
    let mut changed = 0;
    for healthy in healthy() {
        assert_eq!(of(&healthy).condition, Current, "{healthy}");
        let mut found = Vec::new();
        places(&healthy, "", &mut found);
        for place in found {
            for by in [None, Some(json!(null)), Some(json!([])), Some(json!({})), Some(json!(-1)), Some(json!(1e300))] {
                let mut object = healthy.clone();
                mutate(&mut object, &place, by.clone());
                let health = of(&object);
                assert!(health.condition <= InProgress, "{place} {by:?}: {health:?}");
                changed += usize::from(health.condition == InProgress);
            }
        }
    }
    assert!(changed > 100, "only {changed} mutations were seen at all");
}

fn word() -> impl Strategy<Value = String> {
    const WORDS: [&str; 36] = [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "generation",
        "observedGeneration",
        "conditions",
        "type",
        "reason",
        "message",
        "phase",
        "replicas",
        "updatedReplicas",
        "deletionTimestamp",
        "finalizers",
        "True",
        "False",
        "Ready",
        "Available",
        "Progressing",
        "Stalled",
        "Failed",
        "Running",
        "apps/v1",
        "batch/v1",
        "v1",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "Pod",
        "Namespace",
        "containerStatuses",
        "state",
        "waiting",
    ];
    prop_oneof![8 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => "\\PC{0,4}", 1 => any::<String>()]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), -2_i64..5].prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
        (100_usize..400).prop_map(|times| Value::from("é\u{1b}x".repeat(times))),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn check_shape(health: &Health) -> Result<(), TestCaseError> {
    let message = &health.message;
    prop_assert!(message.chars().count() <= MAX_CHARS, "{message}");
    prop_assert!(!message.chars().any(char::is_control), "{message:?}");
    prop_assert!(!message.is_empty());
    prop_assert_ne!(health.condition, NotFound);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_has_a_health(value in any_json()) {
        check_shape(&of(&value))?;
    }

    /// Random parts below the fields that are read, of a kind that has rules.
    #[test]
    fn any_status_has_a_health(
        which in any::<prop::sample::Index>(), spec in any_json(), status in any_json(), conditions in any_json(),
    ) {
        let mut object = which.get(&healthy()).clone();
        object["spec"] = spec;
        object["status"] = status;
        if let Some(status) = object["status"].as_object_mut() {
            status.insert("conditions".to_owned(), conditions);
        }
        check_shape(&of(&object))?;
    }

    #[test]
    fn mutated_objects_have_a_health(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any_json())), 1..6),
    ) {
        let mut object = which.get(&healthy()).clone();
        for (place, by) in mutations {
            let mut found = Vec::new();
            places(&object, "", &mut found);
            if !found.is_empty() {
                mutate(&mut object, place.get(&found).as_str(), by);
                check_shape(&of(&object))?;
            }
        }
    }
}
