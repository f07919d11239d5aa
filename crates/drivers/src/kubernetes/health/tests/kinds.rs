//! The other kinds, and what holds for all.

use serde_json::{Value, json};

use super::workloads::{available, deployment, of_three, rolled_out};
use super::{Current, Failed, InProgress, Terminating, check, condition, object};

#[test]
fn volumes_and_claims() {
    for (kind, status, health, message) in [
        ("PersistentVolumeClaim", json!({ "phase": "Bound" }), Current, "bound"),
        (
            "PersistentVolumeClaim",
            json!({ "phase": "Pending" }),
            InProgress,
            "no volume is bound to it yet (phase Pending)",
        ),
        (
            "PersistentVolumeClaim",
            json!({ "phase": "Lost" }),
            Failed,
            "the volume that it was bound to does not exist any more",
        ),
        ("PersistentVolumeClaim", json!({}), InProgress, "its controller has not seen it yet"),
        ("PersistentVolume", json!({ "phase": "Available" }), Current, "available"),
        ("PersistentVolume", json!({ "phase": "Bound" }), Current, "bound"),
        ("PersistentVolume", json!({ "phase": "Released" }), Current, "released: its claim is gone"),
        ("PersistentVolume", json!({ "phase": "Failed", "message": "disk is busy" }), Failed, "disk is busy"),
        ("PersistentVolume", json!({ "phase": "Failed" }), Failed, "it could not be reclaimed"),
        ("PersistentVolume", json!({ "phase": "Pending" }), InProgress, "its phase is Pending"),
        ("PersistentVolume", json!({}), InProgress, "its controller has not seen it yet"),
    ] {
        check(kind, &object("v1", kind, json!({}), status), health, message);
    }
}

#[test]
fn services_and_ingresses() {
    let waiting = "no load balancer has given it an address yet";
    for (spec, status, health, message) in [
        (
            json!({ "type": "ClusterIP", "clusterIP": "10.0.0.9" }),
            json!({ "loadBalancer": {} }),
            Current,
            "it is there",
        ),
        (json!({ "clusterIP": "None" }), json!({}), Current, "it is there"),
        (json!({ "type": "ExternalName", "externalName": "db.example" }), json!({}), Current, "it is there"),
        (
            json!({ "type": "LoadBalancer", "clusterIP": "10.0.0.9" }),
            json!({ "loadBalancer": {} }),
            InProgress,
            waiting,
        ),
        (json!({ "type": "LoadBalancer" }), json!({ "loadBalancer": { "ingress": [{}] } }), InProgress, waiting),
        (
            json!({ "type": "LoadBalancer" }),
            json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.7", "ipMode": "VIP" }] } }),
            Current,
            "reached at 192.0.2.7",
        ),
        (
            json!({ "type": "LoadBalancer" }),
            json!({ "loadBalancer": { "ingress": [{ "hostname": "lb.example" }] } }),
            Current,
            "reached at lb.example",
        ),
    ] {
        check(message, &object("v1", "Service", spec, status), health, message);
    }
    // Many controllers of these never write a status.
    for api_version in ["networking.k8s.io/v1", "extensions/v1beta1"] {
        let ingress = object(api_version, "Ingress", json!({}), json!({ "loadBalancer": {} }));
        check(api_version, &ingress, Current, "it is there");
    }
}

#[test]
fn resource_definitions_and_api_services() {
    let names = |status, reason, message| condition("NamesAccepted", status, reason, message);
    let established = |status, reason, message| condition("Established", status, reason, message);
    let accepted = names("True", "NoConflicts", "no conflicts found");
    for (conditions, health, message) in [
        (json!([accepted, established("True", "InitialNamesAccepted", "accepted")]), Current, "served"),
        (
            json!([accepted, established("False", "Installing", "the initial names have been accepted")]),
            InProgress,
            "not served yet",
        ),
        (json!([accepted]), InProgress, "not served yet"),
        (json!([]), InProgress, "not served yet"),
        (
            json!([
                names("False", "PluralConflict", "\"shops\" is already in use"),
                established("True", "InitialNamesAccepted", "")
            ]),
            Failed,
            "PluralConflict: \"shops\" is already in use",
        ),
        (
            json!([established("False", "NotAccepted", "not all names are accepted")]),
            Failed,
            "NotAccepted: not all names are accepted",
        ),
    ] {
        let definition = object(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            json!({}),
            json!({ "conditions": conditions }),
        );
        check(message, &definition, health, message);
    }
    let down = condition("Available", "False", "MissingEndpoints", "endpoints for service/metrics have no addresses");
    for (conditions, health, message) in [
        (json!([condition("Available", "True", "Passed", "all checks passed")]), Current, "available"),
        (json!([down]), InProgress, "MissingEndpoints: endpoints for service/metrics have no addresses"),
        (json!([]), InProgress, "not looked at yet"),
    ] {
        let service = object("apiregistration.k8s.io/v1", "APIService", json!({}), json!({ "conditions": conditions }));
        check(message, &service, health, message);
    }
}

#[test]
fn disruption_budgets() {
    let budget = |conditions: Value| {
        let status = json!({ "observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
                             "expectedPods": 1, "conditions": conditions });
        object("policy/v1", "PodDisruptionBudget", json!({ "minAvailable": 1 }), status)
    };
    let tight = condition("DisruptionAllowed", "False", "InsufficientPods", "");
    let lost =
        condition("DisruptionAllowed", "False", "SyncFailed", "jobs.batch does not implement the scale subresource");
    check("1.20", &budget(json!(null)), Current, "disruptions allowed: 0");
    check("1.33", &budget(json!([tight])), Current, "disruptions allowed: 0");
    check(
        "uncounted",
        &budget(json!([lost])),
        InProgress,
        "SyncFailed: jobs.batch does not implement the scale subresource",
    );
}

#[test]
fn deletion() {
    let mut doomed = deployment(of_three(), [3, 3, 3, 3], &[rolled_out(), available()]);
    doomed["metadata"]["deletionTimestamp"] = json!("2024-05-01T10:00:00Z");
    check("deleted", &doomed, Terminating, "being deleted");
    doomed["metadata"]["finalizers"] = json!(["foregroundDeletion", 7, "shop.example/backup"]);
    let held = "being deleted, once these finalizers are done: foregroundDeletion, shop.example/backup";
    check("held", &doomed, Terminating, held);
    doomed["metadata"]["deletionTimestamp"] = json!(null);
    check("not deleted", &doomed, Current, "3 of 3 pods are available");

    let namespace = |status: Value| object("v1", "Namespace", json!({ "finalizers": ["kubernetes"] }), status);
    check("active", &namespace(json!({ "phase": "Active" })), Current, "active");
    check("new", &namespace(json!({})), InProgress, "not active yet");
    check("terminating", &namespace(json!({ "phase": "Terminating" })), Terminating, "being deleted");
    let left = json!({ "phase": "Terminating", "conditions": [
        condition("NamespaceDeletionContentFailure", "False", "ContentDeleted", "All content successfully deleted"),
        condition("NamespaceContentRemaining", "True", "SomeResourcesRemain", "pods. has 2 resource instances"),
    ] });
    check("held by pods", &namespace(left), Terminating, "SomeResourcesRemain: pods. has 2 resource instances");
}

#[test]
fn kinds_of_others() {
    let own = |status: Value| object("shop.example/v1", "Till", json!({}), status);
    let with = |conditions: &[&Value]| own(json!({ "conditions": conditions }));
    let ready = condition("Ready", "True", "Ok", "all tills are open");
    let stalled = condition("Stalled", "True", "BadSpec", "no such currency");
    let reconciling = condition("Reconciling", "True", "Progressing", "opening tills");
    let unavailable = condition("Available", "False", "NoQuorum", "1 of 3");
    for (name, object, health, message) in [
        ("no status", own(json!(null)), Current, "it is there"),
        ("no conditions", own(json!({ "phase": "Broken" })), Current, "it is there"),
        ("ready", with(&[&ready]), Current, "Ok: all tills are open"),
        ("not ready", with(&[&condition("Ready", "False", "Cash", "no cash")]), InProgress, "Cash: no cash"),
        ("unknown", with(&[&condition("Ready", "Unknown", "", "not asked")]), InProgress, "not asked"),
        ("odd", with(&[&condition("Ready", "maybe", "", "")]), InProgress, "it is not ready"),
        ("not available", with(&[&unavailable]), InProgress, "NoQuorum: 1 of 3"),
        ("ready counts first", with(&[&unavailable, &ready]), Current, "Ok: all tills are open"),
        ("stalled", with(&[&ready, &stalled]), Failed, "BadSpec: no such currency"),
        ("reconciling", with(&[&ready, &reconciling]), InProgress, "Progressing: opening tills"),
        ("both", with(&[&reconciling, &stalled]), Failed, "BadSpec: no such currency"),
        (
            "neither",
            with(&[&condition("Stalled", "False", "", ""), &condition("Reconciling", "False", "", "")]),
            Current,
            "it is there",
        ),
        (
            "behind",
            own(json!({ "observedGeneration": 1, "conditions": [ready.clone()] })),
            InProgress,
            "its controller has seen generation 1, and this is 2",
        ),
        (
            "behind, written as text",
            own(json!({ "observedGeneration": "1", "conditions": [ready.clone()] })),
            InProgress,
            "its controller has seen generation 1, and this is 2",
        ),
        (
            "seen",
            own(json!({ "observedGeneration": "2", "conditions": [ready.clone()] })),
            Current,
            "Ok: all tills are open",
        ),
    ] {
        check(name, &object, health, message);
    }
    let mut old = with(&[&ready, &stalled]);
    old["status"]["conditions"][0]["observedGeneration"] = json!(1);
    old["status"]["conditions"][1]["observedGeneration"] = json!(1);
    check("conditions of before", &old, InProgress, "what its controller says is about an earlier generation");

    // Kinds that share no more than the name with those of Kubernetes.
    let other = object("serving.knative.dev/v1", "Service", json!({ "type": "LoadBalancer" }), json!({}));
    check("service", &other, Current, "it is there");
    check("deployment", &object("shop.example/v1", "Deployment", json!({}), json!({})), Current, "it is there");
    for kind in ["ConfigMap", "Secret", "ServiceAccount", "LimitRange"] {
        check(
            kind,
            &json!({ "apiVersion": "v1", "kind": kind, "metadata": {}, "data": { "status": "x" } }),
            Current,
            "it is there",
        );
    }
}
