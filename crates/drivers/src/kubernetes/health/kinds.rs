//! What holds for every object, and the kinds that run no pods.

use khufu_crdt::Health;

use super::object::{Condition, Object, text};
use super::workloads::unseen;
use super::{current, failed, in_progress, terminating};

/// What keeps a namespace from going away, the worst first.
const NAMESPACE_HELD_BY: [&str; 5] = [
    "NamespaceDeletionContentFailure",
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceFinalizersRemaining",
    "NamespaceContentRemaining",
];

/// So many finalizers are named.
const NAMED_FINALIZERS: usize = 5;

/// What can be said of an object of any kind; `None` if its kind has to be asked.
pub(super) fn of_any(object: &Object<'_>) -> Option<Health> {
    if !object.text("/metadata/deletionTimestamp").is_empty() {
        return Some(going_away(object));
    }
    if let Some((now, seen)) = object.generation().zip(object.observed_generation()).filter(|(now, seen)| now != seen) {
        return Some(in_progress(format!("its controller has seen generation {seen}, and this is {now}")));
    }
    let holds = |name| object.condition(name).filter(|it: &Condition<'_>| it.is_true() && !it.is_stale(object));
    // Both at once contradict each other; then the one that calls for a person counts.
    if let Some(condition) = holds("Stalled") {
        return Some(failed(condition.words_or("its controller cannot go on")));
    }
    holds("Reconciling").map(|condition| in_progress(condition.words_or("its controller is at it")))
}

fn going_away(object: &Object<'_>) -> Health {
    let held_by: Vec<&str> = object
        .items("/metadata/finalizers")
        .iter()
        .map(|finalizer| text(finalizer, ""))
        .filter(|finalizer| !finalizer.is_empty())
        .take(NAMED_FINALIZERS)
        .collect();
    let message = if let Some(condition) = object.first_true(&NAMESPACE_HELD_BY) {
        condition.words_or("something is left in it")
    } else if held_by.is_empty() {
        "being deleted".to_owned()
    } else {
        format!("being deleted, once these finalizers are done: {}", held_by.join(", "))
    };
    terminating(message)
}

/// What says of itself whether it is ready, or else whether it is available. The latter is beyond kstatus: kinds
/// without the former (many operators' own) use it for the same, and to show them as current while they are not
/// available would hide what an operator most wants to see. All else is current: nothing tells a kind without a status
/// from one whose controller has not come by yet.
pub(super) fn by_conditions(object: &Object<'_>) -> Health {
    match object.condition("Ready").or_else(|| object.condition("Available")) {
        Some(condition) if !condition.is_true() => in_progress(condition.words_or("it is not ready")),
        Some(condition) if condition.is_stale(object) => {
            in_progress("what its controller says is about an earlier generation")
        }
        Some(condition) => current(condition.words_or("ready")),
        None => current("it is there"),
    }
}

/// Bound. Unlike in kstatus one whose volume is gone has failed, with what was stored.
pub(super) fn claim(object: &Object<'_>) -> Health {
    match object.text("/status/phase") {
        "Bound" => current("bound"),
        "Lost" => failed("the volume that it was bound to does not exist any more"),
        "" => in_progress("its controller has not seen it yet"),
        phase => in_progress(format!("no volume is bound to it yet (phase {phase})")),
    }
}

/// There, be it used or not; failed if it could not be recycled or deleted after use.
pub(super) fn volume(object: &Object<'_>) -> Health {
    match object.text("/status/phase") {
        "Available" => current("available"),
        "Bound" => current("bound"),
        "Released" => current("released: its claim is gone"),
        "Failed" => match object.text("/status/message") {
            "" => failed("it could not be reclaimed"),
            message => failed(message),
        },
        "" => in_progress("its controller has not seen it yet"),
        phase => in_progress(format!("its phase is {phase}")),
    }
}

/// One of type `LoadBalancer` is reached once it has an address outside, for which kstatus does not wait.
pub(super) fn service(object: &Object<'_>) -> Health {
    if object.text("/spec/type") != "LoadBalancer" {
        return current("it is there");
    }
    let address = |ingress| [text(ingress, "/ip"), text(ingress, "/hostname")].into_iter().find(|it| !it.is_empty());
    match object.items("/status/loadBalancer/ingress").iter().find_map(address) {
        Some(address) => current(format!("reached at {address}")),
        None => in_progress("no load balancer has given it an address yet"),
    }
}

pub(super) fn namespace(object: &Object<'_>) -> Health {
    match object.text("/status/phase") {
        "Active" => current("active"),
        "Terminating" => going_away(object),
        _ => in_progress("not active yet"),
    }
}

/// Served by the API server. A name that something else has is not waited for.
pub(super) fn resource_definition(object: &Object<'_>) -> Health {
    if let Some(condition) = object.condition("NamesAccepted").filter(Condition::is_false) {
        return failed(condition.words_or("its names are taken"));
    }
    match object.condition("Established") {
        Some(condition) if condition.is_true() => current("served"),
        Some(condition) if condition.is_false() && condition.reason != "Installing" => {
            failed(condition.words_or("it is not served"))
        }
        _ => in_progress("not served yet"),
    }
}

/// The server behind it may come up at any time, so that it never fails.
pub(super) fn api_service(object: &Object<'_>) -> Health {
    match object.condition("Available") {
        Some(condition) if condition.is_true() => current("available"),
        Some(condition) => in_progress(condition.words_or("not available")),
        None => in_progress("not looked at yet"),
    }
}

/// Counted. That it allows no disruption at the moment is what it is for.
pub(super) fn disruption_budget(object: &Object<'_>) -> Health {
    if let Some(verdict) = unseen(object) {
        return verdict;
    }
    match object.condition("DisruptionAllowed").filter(|condition| condition.reason == "SyncFailed") {
        Some(condition) => in_progress(condition.words_or("")),
        None => {
            let allowed = object.count("/status/disruptionsAllowed");
            current(format!("disruptions allowed: {allowed}"))
        }
    }
}
