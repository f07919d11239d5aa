//! What runs pods, and pods.

use serde_json::{Value, json};

use super::{Current, Failed, InProgress, check, condition, object};

/// `[replicas, updated, ready, available]` and the conditions.
pub(super) fn deployment(spec: Value, [pods, updated, ready, available]: [u32; 4], conditions: &[Value]) -> Value {
    let status = json!({
        "observedGeneration": 2, "replicas": pods, "updatedReplicas": updated, "readyReplicas": ready,
        "availableReplicas": available, "conditions": conditions,
    });
    object("apps/v1", "Deployment", spec, status)
}

pub(super) fn rolled_out() -> Value {
    condition("Progressing", "True", "NewReplicaSetAvailable", "ReplicaSet \"it-1\" has successfully progressed.")
}

pub(super) fn available() -> Value {
    condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
}

pub(super) fn of_three() -> Value {
    json!({ "replicas": 3, "progressDeadlineSeconds": 600 })
}

#[test]
fn deployments() {
    let good = [rolled_out(), available()];
    let rolling =
        [condition("Progressing", "True", "ReplicaSetUpdated", "ReplicaSet \"it-2\" is progressing."), available()];
    let done = deployment(of_three(), [3, 3, 3, 3], &good);
    check("done", &done, Current, "3 of 3 pods are available");

    // 1.33 with the gate for terminating pods: those of the last roll-out still stop.
    let mut newer = done.clone();
    newer["status"]["terminatingReplicas"] = json!(2);
    check("pods of before are stopping", &newer, Current, "3 of 3 pods are available");
    let mut older = done.clone();
    older["apiVersion"] = json!("extensions/v1beta1");
    check("extensions", &older, Current, "3 of 3 pods are available");

    for (counts, message) in [
        ([2, 2, 2, 2], "2 of 3 pods are created"),
        ([4, 1, 3, 3], "1 of 3 pods are updated"),
        ([4, 3, 3, 3], "4 pods are there, 3 are wanted"),
        ([3, 3, 2, 2], "2 of 3 pods are ready"),
        ([3, 3, 3, 2], "2 of 3 pods are available"),
    ] {
        check(message, &deployment(of_three(), counts, &rolling), InProgress, message);
    }
    check(
        "counts are right, the controller has not drawn the line",
        &deployment(of_three(), [3, 3, 3, 3], &rolling),
        InProgress,
        "the roll-out is not finished: ReplicaSetUpdated: ReplicaSet \"it-2\" is progressing.",
    );
    check(
        "no condition yet",
        &deployment(of_three(), [3, 3, 3, 3], &[available()]),
        InProgress,
        "the roll-out is not finished",
    );
    let endless = json!({ "replicas": 3, "progressDeadlineSeconds": i32::MAX });
    check("no deadline", &deployment(endless, [3, 3, 3, 3], &[available()]), Current, "3 of 3 pods are available");
    check(
        "not said to be available",
        &deployment(of_three(), [3, 3, 3, 3], &[rolled_out()]),
        InProgress,
        "its controller does not say yet whether it is available",
    );
    let unavailable = condition("Available", "False", "MinimumReplicasUnavailable", "no minimum availability.");
    check(
        "said not to be available",
        &deployment(of_three(), [3, 3, 3, 3], &[rolled_out(), unavailable.clone()]),
        InProgress,
        "MinimumReplicasUnavailable: no minimum availability.",
    );

    let late = condition("Progressing", "False", "ProgressDeadlineExceeded", "ReplicaSet \"it-2\" has timed out.");
    check(
        "deadline passed",
        &deployment(of_three(), [3, 1, 2, 2], &[unavailable, late]),
        Failed,
        "ProgressDeadlineExceeded: ReplicaSet \"it-2\" has timed out.",
    );
    let refused = condition("ReplicaFailure", "True", "FailedCreate", "exceeded quota: pods=2");
    check(
        "quota",
        &deployment(of_three(), [2, 2, 2, 2], &[rolling[0].clone(), refused]),
        InProgress,
        "2 of 3 pods are created: FailedCreate: exceeded quota: pods=2",
    );
    let no_set = condition("Progressing", "False", "ReplicaSetCreateError", "admission denied");
    check(
        "replica set refused, which is tried again",
        &deployment(of_three(), [0, 0, 0, 0], &[no_set]),
        InProgress,
        "0 of 3 pods are created: ReplicaSetCreateError: admission denied",
    );

    let paused = json!({ "replicas": 3, "progressDeadlineSeconds": 600, "paused": true });
    let halted = condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
    check(
        "paused with a change",
        &deployment(paused.clone(), [3, 0, 3, 3], &[halted.clone(), available()]),
        InProgress,
        "0 of 3 pods are updated: the roll-out is paused",
    );
    check(
        "paused without one",
        &deployment(paused, [3, 3, 3, 3], &[halted, available()]),
        Current,
        "3 of 3 pods are available, and roll-outs are paused",
    );
    let none = json!({ "replicas": 0, "progressDeadlineSeconds": 600 });
    check("none wanted", &deployment(none, [0, 0, 0, 0], &good), Current, "0 of 0 pods are available");
    let unsaid = json!({ "progressDeadlineSeconds": 600 });
    check("one by default", &deployment(unsaid, [0, 0, 0, 0], &good), InProgress, "0 of 1 pods are created");
}

#[test]
fn stateful_sets() {
    let set = |spec: Value, [pods, ready, updated]: [u32; 3], revisions: [&str; 2]| {
        let status = json!({
            "observedGeneration": 2, "replicas": pods, "readyReplicas": ready, "currentReplicas": pods - updated,
            "updatedReplicas": updated, "currentRevision": revisions[0], "updateRevision": revisions[1],
        });
        object("apps/v1", "StatefulSet", spec, status)
    };
    let rolling = |partition: u32| {
        let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": partition } });
        json!({ "replicas": 3, "updateStrategy": strategy })
    };
    let by_hand = json!({ "replicas": 3, "updateStrategy": { "type": "OnDelete" } });
    let (same, new) = (["it-1", "it-1"], ["it-1", "it-2"]);
    for (name, object, health, message) in [
        ("done", set(rolling(0), [3, 3, 3], same), Current, "3 of 3 pods are ready"),
        ("one after the other", set(rolling(0), [1, 1, 1], same), InProgress, "1 of 3 pods are created"),
        ("not ready", set(rolling(0), [3, 2, 3], same), InProgress, "2 of 3 pods are ready"),
        ("shrinking", set(rolling(0), [5, 5, 5], same), InProgress, "5 pods are there, 3 are wanted"),
        ("roll-out", set(rolling(0), [3, 3, 1], new), InProgress, "1 of 3 pods are updated"),
        ("last step", set(rolling(0), [3, 3, 3], new), InProgress, "the roll-out of the last revision is not finished"),
        ("canary to come", set(rolling(2), [3, 3, 0], new), InProgress, "0 of 1 pods are updated"),
        ("canary", set(rolling(2), [3, 3, 1], new), Current, "3 of 3 pods are ready, 1 updated above the partition"),
        ("all below", set(rolling(9), [3, 3, 0], new), Current, "3 of 3 pods are ready, 0 updated above the partition"),
        (
            "by hand",
            set(by_hand.clone(), [3, 3, 0], new),
            Current,
            "3 of 3 pods are ready; they are updated when deleted",
        ),
        ("by hand, broken", set(by_hand, [3, 1, 0], new), InProgress, "1 of 3 pods are ready"),
    ] {
        check(name, &object, health, message);
    }
    // 1.25 and later.
    let mut steady = set(rolling(0), [3, 3, 3], same);
    steady["spec"]["minReadySeconds"] = json!(10);
    steady["status"]["availableReplicas"] = json!(2);
    check("ready for too short", &steady, InProgress, "2 of 3 pods are available");
    steady["status"]["availableReplicas"] = json!(3);
    check("long enough", &steady, Current, "3 of 3 pods are ready");
}

#[test]
fn daemon_sets() {
    let set = |strategy: &str, [wanted, current, updated, ready, available]: [u32; 5]| {
        let status = json!({
            "observedGeneration": 2, "desiredNumberScheduled": wanted, "currentNumberScheduled": current,
            "numberMisscheduled": 0, "updatedNumberScheduled": updated, "numberReady": ready, "numberAvailable": available,
        });
        object("apps/v1", "DaemonSet", json!({ "updateStrategy": { "type": strategy } }), status)
    };
    for (strategy, counts, health, message) in [
        ("RollingUpdate", [4, 4, 4, 4, 4], Current, "4 of 4 pods are available"),
        ("RollingUpdate", [0, 0, 0, 0, 0], Current, "0 of 0 pods are available"),
        ("RollingUpdate", [4, 3, 3, 3, 3], InProgress, "3 of 4 pods are created"),
        ("RollingUpdate", [4, 4, 1, 4, 4], InProgress, "1 of 4 pods are updated"),
        ("OnDelete", [4, 4, 1, 4, 4], Current, "4 of 4 pods are available"),
        ("OnDelete", [4, 4, 1, 2, 2], InProgress, "2 of 4 pods are ready"),
        ("RollingUpdate", [4, 4, 4, 4, 3], InProgress, "3 of 4 pods are available"),
    ] {
        check(message, &set(strategy, counts), health, message);
    }
    let uncounted = object("apps/v1", "DaemonSet", json!({}), json!({ "observedGeneration": 2 }));
    check("uncounted", &uncounted, InProgress, "its controller does not say yet on how many nodes it shall run");
}

#[test]
fn replica_sets() {
    for (api_version, kind) in [("apps/v1", "ReplicaSet"), ("v1", "ReplicationController")] {
        let set = |[pods, labelled, ready, available]: [u32; 4], conditions: Value| {
            let status = json!({
                "observedGeneration": 2, "replicas": pods, "fullyLabeledReplicas": labelled, "readyReplicas": ready,
                "availableReplicas": available, "conditions": conditions,
            });
            object(api_version, kind, json!({ "replicas": 2 }), status)
        };
        for (counts, health, message) in [
            ([2, 2, 2, 2], Current, "2 of 2 pods are available"),
            ([1, 1, 1, 1], InProgress, "1 of 2 pods are created"),
            ([2, 1, 2, 2], InProgress, "1 of 2 pods are labelled"),
            ([2, 2, 1, 1], InProgress, "1 of 2 pods are ready"),
            ([2, 2, 2, 1], InProgress, "1 of 2 pods are available"),
            ([3, 3, 3, 3], InProgress, "3 pods are there, 2 are wanted"),
        ] {
            check(kind, &set(counts, json!([])), health, message);
        }
        let refused = json!([condition("ReplicaFailure", "True", "FailedCreate", "webhook denied the request")]);
        check(kind, &set([0, 0, 0, 0], refused), InProgress, "FailedCreate: webhook denied the request");
    }
}

pub(super) fn job(spec: Value, status: Value) -> Value {
    let mut job = object("batch/v1", "Job", spec, status);
    job["metadata"]["generation"] = json!(1);
    job
}

#[test]
fn jobs() {
    let start = "2024-05-01T10:00:00Z";
    let complete = condition("Complete", "True", "", "");
    let met =
        condition("SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods");
    let failed = condition("Failed", "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    let target = condition("FailureTarget", "True", "PodFailurePolicy", "Container main failed with exit code 3");
    let suspended = condition("Suspended", "True", "JobSuspended", "Job suspended");
    let resumed = condition("Suspended", "False", "JobResumed", "Job resumed");
    for (name, spec, status, health, message) in [
        (
            "done in 1.20",
            json!({}),
            json!({ "startTime": start, "completionTime": start, "succeeded": 3, "conditions": [complete] }),
            Current,
            "complete: 3 succeeded",
        ),
        (
            "done in 1.33",
            json!({}),
            json!({ "startTime": start, "succeeded": 3, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {},
                    "conditions": [met, complete] }),
            Current,
            "complete: 3 succeeded",
        ),
        (
            "its end in 1.33",
            json!({}),
            json!({ "startTime": start, "succeeded": 3, "active": 0, "terminating": 2, "conditions": [met] }),
            Current,
            "succeeded; pods still stopping: 2",
        ),
        (
            "failed in 1.20",
            json!({}),
            json!({ "startTime": start, "failed": 7, "conditions": [failed] }),
            Failed,
            "BackoffLimitExceeded: Job has reached the specified backoff limit",
        ),
        (
            "failed without a word",
            json!({}),
            json!({ "startTime": start, "failed": 7, "conditions": [condition("Failed", "True", "", "")] }),
            Failed,
            "pods failed: 7",
        ),
        (
            "will fail, in 1.33",
            json!({}),
            json!({ "startTime": start, "failed": 1, "terminating": 2, "conditions": [target] }),
            Failed,
            "PodFailurePolicy: Container main failed with exit code 3",
        ),
        ("suspended", json!({ "suspend": true }), json!({ "conditions": [suspended] }), Current, "suspended"),
        (
            "resumed, unseen",
            json!({ "suspend": false }),
            json!({ "conditions": [suspended] }),
            InProgress,
            "not started yet",
        ),
        (
            "resumed",
            json!({ "suspend": false }),
            json!({ "startTime": start, "active": 1, "conditions": [resumed] }),
            Current,
            "running: 1 active, 0 succeeded, 0 failed",
        ),
        (
            "running",
            json!({}),
            json!({ "startTime": start, "active": 2, "ready": 2, "succeeded": 1, "failed": 4, "terminating": 1 }),
            Current,
            "running: 2 active, 1 succeeded, 4 failed, 1 stopping",
        ),
        ("unseen", json!({}), json!({}), InProgress, "not started yet"),
    ] {
        check(name, &job(spec, status), health, message);
    }
    let cron = |suspend: bool| object("batch/v1", "CronJob", json!({ "suspend": suspend }), json!({}));
    check("cron", &cron(false), Current, "scheduled");
    check("suspended cron", &cron(true), Current, "suspended");
}

pub(super) fn pod(status: Value) -> Value {
    let mut pod =
        object("v1", "Pod", json!({ "containers": [{ "name": "web", "image": "registry.example/web:1" }] }), status);
    // Before 1.33 pods have no generation.
    pod["metadata"].as_object_mut().unwrap().remove("generation");
    pod
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "name": "web", "ready": false, "state": { "waiting": { "reason": reason, "message": message } } })
}

#[test]
fn pods() {
    let ready = condition("Ready", "True", "", "");
    let unready = condition("Ready", "False", "ContainersNotReady", "containers with unready status: [web]");
    let scheduled = condition("PodScheduled", "True", "", "");
    let unschedulable =
        condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.");
    let gated = condition("PodScheduled", "False", "SchedulingGated", "Scheduling is blocked due to non-empty gates");
    let mut crashing = waiting("CrashLoopBackOff", "back-off 40s restarting failed container=web");
    crashing["lastState"] = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    let pulling = waiting("ImagePullBackOff", "Back-off pulling image \"registry.example/web:1\"");
    let ended = json!({ "name": "web", "state": { "terminated": { "exitCode": 2, "reason": "Error" } } });
    let well_ended = json!({ "name": "log", "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } });
    for (name, status, health, message) in [
        ("ready", json!({ "phase": "Running", "conditions": [scheduled, ready] }), Current, "ready"),
        ("done", json!({ "phase": "Succeeded" }), Current, "all containers succeeded"),
        (
            "failed",
            json!({ "phase": "Failed", "containerStatuses": [well_ended, ended] }),
            Failed,
            "web ended with 2: Error",
        ),
        (
            "evicted",
            json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." }),
            Failed,
            "Evicted: The node was low on resource: memory.",
        ),
        ("failed without a word", json!({ "phase": "Failed" }), Failed, "a container failed"),
        (
            "running",
            json!({ "phase": "Running", "conditions": [unready] }),
            InProgress,
            "ContainersNotReady: containers with unready status: [web]",
        ),
        ("running, unsaid", json!({ "phase": "Running" }), InProgress, "running, but not ready"),
        (
            "crashing",
            json!({ "phase": "Running", "conditions": [unready], "containerStatuses": [crashing] }),
            Failed,
            "web: CrashLoopBackOff: back-off 40s restarting failed container=web; last time web ended with 137: OOMKilled",
        ),
        (
            "crashing before its start",
            json!({ "phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff", "back-off")],
                    "containerStatuses": [waiting("PodInitializing", "")] }),
            Failed,
            "web: CrashLoopBackOff: back-off",
        ),
        (
            "no image",
            json!({ "phase": "Pending", "conditions": [scheduled, unready], "containerStatuses": [pulling] }),
            InProgress,
            "web: ImagePullBackOff: Back-off pulling image \"registry.example/web:1\"",
        ),
        (
            "image that cannot be",
            json!({ "phase": "Pending", "containerStatuses": [waiting("InvalidImageName", "couldn't parse")] }),
            Failed,
            "web: InvalidImageName: couldn't parse",
        ),
        (
            "unschedulable",
            json!({ "phase": "Pending", "conditions": [unschedulable] }),
            InProgress,
            "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            "gated",
            json!({ "phase": "Pending", "conditions": [gated] }),
            InProgress,
            "SchedulingGated: Scheduling is blocked due to non-empty gates",
        ),
        (
            "starting",
            json!({ "phase": "Pending", "conditions": [scheduled], "containerStatuses": [waiting("ContainerCreating", "")] }),
            InProgress,
            "its phase is Pending",
        ),
        (
            "preparing",
            json!({ "phase": "Pending", "conditions": [scheduled],
                    "initContainerStatuses": [{ "name": "prepare", "state": { "running": {} } }],
                    "containerStatuses": [waiting("PodInitializing", "")] }),
            InProgress,
            "its phase is Pending",
        ),
        ("lost node", json!({ "phase": "Unknown" }), InProgress, "its phase is Unknown"),
        ("new", json!({}), InProgress, "no node has taken it yet"),
    ] {
        check(name, &pod(status), health, message);
    }
    // Conditions of 1.33 keep the generation in which they were written, and hold nevertheless.
    let mut resized = pod(json!({ "phase": "Running", "observedGeneration": 2, "conditions": [ready] }));
    resized["metadata"]["generation"] = json!(2);
    resized["status"]["conditions"][0]["observedGeneration"] = json!(1);
    check("resized", &resized, Current, "ready");
    resized["metadata"]["generation"] = json!(3);
    check("to be resized", &resized, InProgress, "its controller has seen generation 2, and this is 3");
}
