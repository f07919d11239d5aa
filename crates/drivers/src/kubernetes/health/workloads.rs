//! What runs pods, and pods.

use serde_json::Value;

use super::{current, failed, in_progress};
use khufu_crdt::Health;

use super::object::{Object, integer, text, words};

/// What a controller writes into the deadline of a Deployment that has none.
const NO_DEADLINE: i64 = i32::MAX as i64;

/// Controllers of workloads always say which generation they have seen. Until they do, the counts mean nothing.
pub(super) fn unseen(object: &Object<'_>) -> Option<Health> {
    object.observed_generation().is_none().then(|| in_progress("its controller has not seen it yet"))
}

/// How many pods are wanted: 1 where it does not say, as the API server fills in.
fn wanted_pods(object: &Object<'_>) -> i64 {
    object.integer("/spec/replicas").unwrap_or(1).max(0)
}

/// The first of several counts that is too low.
fn too_few(wanted: i64, counts: &[(i64, &str)]) -> Option<String> {
    let (have, what) = counts.iter().find(|(have, _)| *have < wanted)?;
    Some(format!("{have} of {wanted} pods are {what}"))
}

fn too_many(wanted: i64, have: i64) -> Option<String> {
    (have > wanted).then(|| format!("{have} pods are there, {wanted} are wanted"))
}

/// Rolled out, and available as long as its `minReadySeconds` ask. Failed only once its deadline has passed: refused
/// pods (`ReplicaFailure`) are tried again until then.
pub(super) fn deployment(object: &Object<'_>) -> Health {
    if let Some(verdict) = unseen(object) {
        return verdict;
    }
    let progressing = object.condition("Progressing");
    if let Some(condition) = progressing.as_ref().filter(|condition| condition.reason == "ProgressDeadlineExceeded") {
        return failed(condition.words_or(""));
    }
    let wanted = wanted_pods(object);
    let pods = object.count("/status/replicas");
    let updated = object.count("/status/updatedReplicas");
    let ready = object.count("/status/readyReplicas");
    let available = object.count("/status/availableReplicas");
    let paused = object.flag("/spec/paused");
    let lacking = too_few(wanted, &[(pods, "created"), (updated, "updated")])
        .or_else(|| too_many(wanted, pods))
        .or_else(|| too_few(wanted, &[(ready, "ready"), (available, "available")]));
    if let Some(lacking) = lacking {
        // A person who paused it wants to know that it waits for them.
        let hindrance = if paused {
            Some("the roll-out is paused".to_owned())
        } else {
            object
                .first_true(&["ReplicaFailure"])
                .or_else(|| progressing.filter(|condition| condition.is_false()))
                .map(|condition| condition.words_or("pods are refused"))
        };
        return in_progress(words(&lacking, hindrance.as_deref().unwrap_or_default()).unwrap_or_default());
    }
    // A paused one keeps a condition that says only this. One without a deadline has no such condition.
    let may_lack_it = paused || object.integer("/spec/progressDeadlineSeconds").unwrap_or(NO_DEADLINE) >= NO_DEADLINE;
    let rolled_out = progressing.as_ref().is_some_and(|it| it.is_true() && it.reason == "NewReplicaSetAvailable");
    if !rolled_out && !may_lack_it {
        let said = progressing.map(|condition| condition.words_or("")).unwrap_or_default();
        return in_progress(words("the roll-out is not finished", &said).unwrap_or_default());
    }
    match object.condition("Available") {
        Some(condition) if condition.is_true() => {
            let note = if paused { ", and roll-outs are paused" } else { "" };
            current(format!("{available} of {wanted} pods are available{note}"))
        }
        Some(condition) => in_progress(condition.words_or("it is not available")),
        None => in_progress("its controller does not say yet whether it is available"),
    }
}

/// All pods ready, and those above the partition updated. With `OnDelete` the operator updates the pods, so that old
/// ones are no reason to wait; unlike in kstatus they have to be ready.
pub(super) fn stateful_set(object: &Object<'_>) -> Health {
    if let Some(verdict) = unseen(object) {
        return verdict;
    }
    let wanted = wanted_pods(object);
    let pods = object.count("/status/replicas");
    let ready = object.count("/status/readyReplicas");
    let lacking =
        too_few(wanted, &[(pods, "created"), (ready, "ready")]).or_else(|| too_many(wanted, pods)).or_else(|| {
            // Before 1.22 there is neither this wish nor this count.
            let steady = object.count("/spec/minReadySeconds") > 0;
            steady.then(|| too_few(wanted, &[(object.count("/status/availableReplicas"), "available")])).flatten()
        });
    if let Some(lacking) = lacking {
        return in_progress(lacking);
    }
    if object.text("/spec/updateStrategy/type") == "OnDelete" {
        return current(format!("{ready} of {wanted} pods are ready; they are updated when deleted"));
    }
    let partition = object.count("/spec/updateStrategy/rollingUpdate/partition");
    let to_update = wanted.saturating_sub(partition).max(0);
    let updated = object.count("/status/updatedReplicas");
    if let Some(lacking) = too_few(to_update, &[(updated, "updated")]) {
        return in_progress(lacking);
    }
    if partition > 0 {
        return current(format!("{ready} of {wanted} pods are ready, {updated} updated above the partition"));
    }
    if object.text("/status/currentRevision") != object.text("/status/updateRevision") {
        return in_progress("the roll-out of the last revision is not finished");
    }
    current(format!("{ready} of {wanted} pods are ready"))
}

/// Available on every node that it is meant for, be that none. With `OnDelete` old pods are no reason to wait.
pub(super) fn daemon_set(object: &Object<'_>) -> Health {
    if let Some(verdict) = unseen(object) {
        return verdict;
    }
    let Some(wanted) = object.integer("/status/desiredNumberScheduled") else {
        return in_progress("its controller does not say yet on how many nodes it shall run");
    };
    let wanted = wanted.max(0);
    let available = object.count("/status/numberAvailable");
    let by_hand = object.text("/spec/updateStrategy/type") == "OnDelete";
    let updated = if by_hand { wanted } else { object.count("/status/updatedNumberScheduled") };
    let counts = [
        (object.count("/status/currentNumberScheduled"), "created"),
        (updated, "updated"),
        (object.count("/status/numberReady"), "ready"),
        (available, "available"),
    ];
    match too_few(wanted, &counts) {
        Some(lacking) => in_progress(lacking),
        None => current(format!("{available} of {wanted} pods are available")),
    }
}

/// As many pods as wanted, available. A ReplicationController is the same.
pub(super) fn replica_set(object: &Object<'_>) -> Health {
    if let Some(verdict) = unseen(object) {
        return verdict;
    }
    let wanted = wanted_pods(object);
    let pods = object.count("/status/replicas");
    let available = object.count("/status/availableReplicas");
    let counts = [
        (pods, "created"),
        (object.count("/status/fullyLabeledReplicas"), "labelled"),
        (object.count("/status/readyReplicas"), "ready"),
        (available, "available"),
    ];
    // Pods that are refused are tried again for ever.
    if let Some(condition) = object.first_true(&["ReplicaFailure"]) {
        return in_progress(condition.words_or("pods are refused"));
    }
    match too_few(wanted, &counts).or_else(|| too_many(wanted, pods)) {
        Some(lacking) => in_progress(lacking),
        None => current(format!("{available} of {wanted} pods are available")),
    }
}

/// Current from its start on, as in kstatus: what a Job does may take days, and nothing is amiss meanwhile. Failed as
/// soon as its fate is sealed, though its last pods may still be stopping.
pub(super) fn job(object: &Object<'_>) -> Health {
    let [active, succeeded, failed, stopping] =
        ["active", "succeeded", "failed", "terminating"].map(|name| object.count(&format!("/status/{name}")));
    if object.first_true(&["Complete"]).is_some() {
        return current(format!("complete: {succeeded} succeeded"));
    }
    if let Some(condition) = object.first_true(&["Failed", "FailureTarget"]) {
        return super::failed(condition.words_or(&format!("pods failed: {failed}")));
    }
    if object.first_true(&["SuccessCriteriaMet"]).is_some() {
        return current(format!("succeeded; pods still stopping: {}", active.max(stopping)));
    }
    // One that was resumed shows the old condition until its controller has seen that.
    if object.flag("/spec/suspend") && object.first_true(&["Suspended"]).is_some() {
        return current("suspended");
    }
    if object.text("/status/startTime").is_empty() {
        return in_progress("not started yet");
    }
    let stopping = if stopping > 0 { format!(", {stopping} stopping") } else { String::new() };
    current(format!("running: {active} active, {succeeded} succeeded, {failed} failed{stopping}"))
}

/// It only makes Jobs, which have a health of their own.
pub(super) fn cron_job(object: &Object<'_>) -> Health {
    current(if object.flag("/spec/suspend") { "suspended" } else { "scheduled" })
}

/// Ready or done. Unlike in kstatus a failed pod is failed, since nothing starts it again, and so is one whose init
/// container crashes again and again.
pub(super) fn pod(object: &Object<'_>) -> Health {
    let ready = object.condition("Ready");
    let phase = object.text("/status/phase");
    match phase {
        "Succeeded" => return current("all containers succeeded"),
        "Failed" => {
            let said = words(object.text("/status/reason"), object.text("/status/message"));
            let said = said.or_else(|| containers(object).find_map(|container| exit(container, "/state/terminated")));
            return failed(said.as_deref().unwrap_or("a container failed"));
        }
        "Running" if ready.as_ref().is_some_and(|condition| condition.is_true()) => return current("ready"),
        _ => {}
    }
    // What goes on for ever counts before what may pass.
    let hopeless = containers(object).find(|it| matches!(waiting(it), "CrashLoopBackOff" | "InvalidImageName"));
    if let Some(container) = hopeless {
        let last =
            exit(container, "/lastState/terminated").map(|last| format!("; last time {last}")).unwrap_or_default();
        return failed(format!("{}{last}", why_waiting(container)));
    }
    let held_up = containers(object).find(|it| !matches!(waiting(it), "" | "ContainerCreating" | "PodInitializing"));
    if let Some(container) = held_up {
        return in_progress(why_waiting(container));
    }
    if let Some(condition) = object.condition("PodScheduled").filter(|condition| !condition.is_true()) {
        return in_progress(condition.words_or("no node was found for it yet"));
    }
    match (phase, ready) {
        ("", _) => in_progress("no node has taken it yet"),
        ("Running", Some(condition)) => in_progress(condition.words_or("running, but not ready")),
        ("Running", None) => in_progress("running, but not ready"),
        _ => in_progress(format!("its phase is {phase}")),
    }
}

/// The states of its containers, those that have to run first before the others.
fn containers<'a>(object: &Object<'a>) -> impl Iterator<Item = &'a Value> {
    object.items("/status/initContainerStatuses").iter().chain(object.items("/status/containerStatuses"))
}

fn waiting(container: &Value) -> &str {
    text(container, "/state/waiting/reason")
}

fn why_waiting(container: &Value) -> String {
    let why = words(waiting(container), text(container, "/state/waiting/message")).unwrap_or_default();
    words(text(container, "/name"), &why).unwrap_or_default()
}

/// How a container ended, if not well.
fn exit(container: &Value, pointer: &str) -> Option<String> {
    let end = container.pointer(pointer)?;
    let code = end.pointer("/exitCode").and_then(integer).filter(|code| *code != 0)?;
    let name = text(container, "/name");
    words(&format!("{name} ended with {code}"), &words(text(end, "/reason"), text(end, "/message")).unwrap_or_default())
}
