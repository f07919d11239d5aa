//! How a Kubernetes object is doing, read from the object alone.
//!
//! The words and most rules are those of kstatus (of the cli-utils of Kubernetes): an object is current once its
//! controller has seen the last change and done what it asks. Where kstatus shows as current what an operator would
//! call broken, the rule is stricter here, and says so. There is no clock: what kstatus calls failed after some seconds
//! is in progress with its reason, and whoever shows it knows since when it is so. Messages are one line of at most 500
//! characters, without control characters.

mod kinds;
mod object;
#[cfg(test)]
mod tests;
mod text;
mod workloads;

use std::fmt;

use khufu_crdt::{Condition, Health};
use serde_json::Value;

use object::Object;

fn said(condition: Condition, message: impl AsRef<str>) -> Health {
    Health { condition, message: text::clean(message.as_ref()) }
}

fn current(message: impl AsRef<str>) -> Health {
    said(Condition::Current, message)
}

fn in_progress(message: impl AsRef<str>) -> Health {
    said(Condition::InProgress, message)
}

fn failed(message: impl AsRef<str>) -> Health {
    said(Condition::Failed, message)
}

fn terminating(message: impl AsRef<str>) -> Health {
    said(Condition::Terminating, message)
}

/// Of an object that the API server does not have.
pub(super) fn not_found() -> Health {
    said(Condition::NotFound, "the API server does not have it")
}

/// The health of any object, as the API server shows it. What makes no sense is in progress or current, never failed.
pub(super) fn of(object: &Value) -> Health {
    let object = Object::new(object);
    if !object.is_object() {
        return in_progress("this is no Kubernetes object");
    }
    kinds::of_any(&object).unwrap_or_else(|| of_its_kind(&object))
}

/// By group as well as by kind: others have a `Service` or a `Deployment` of their own.
fn of_its_kind(object: &Object<'_>) -> Health {
    match (object.group(), object.kind()) {
        ("apps" | "extensions", "Deployment") => workloads::deployment(object),
        ("apps" | "extensions", "DaemonSet") => workloads::daemon_set(object),
        ("apps" | "extensions", "ReplicaSet") | ("", "ReplicationController") => workloads::replica_set(object),
        ("apps", "StatefulSet") => workloads::stateful_set(object),
        ("batch", "Job") => workloads::job(object),
        ("batch", "CronJob") => workloads::cron_job(object),
        ("", "Pod") => workloads::pod(object),
        ("", "PersistentVolumeClaim") => kinds::claim(object),
        ("", "PersistentVolume") => kinds::volume(object),
        ("", "Service") => kinds::service(object),
        ("", "Namespace") => kinds::namespace(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => kinds::resource_definition(object),
        ("apiregistration.k8s.io", "APIService") => kinds::api_service(object),
        ("policy", "PodDisruptionBudget") => kinds::disruption_budget(object),
        _ => kinds::by_conditions(object),
    }
}

/// Rolls several up, each with what it is called, such as `Deployment shop/web`: the worst of them, with the message of
/// the first that is so bad and how many others are. `None` of nothing: that must not look as if all were well.
pub(super) fn rolled_up<'a, N: fmt::Display>(healths: impl IntoIterator<Item = (N, &'a Health)>) -> Option<Health> {
    let mut worst: Option<(N, &Health)> = None;
    let mut others = 0_usize;
    for (name, health) in healths {
        match &worst {
            Some((_, known)) if known.condition > health.condition => {}
            Some((_, known)) if known.condition == health.condition => others += 1,
            _ => (worst, others) = (Some((name, health)), 0),
        }
    }
    let (name, Health { condition, message }) = worst?;
    let word = condition.as_str();
    let more = match others {
        0 => String::new(),
        1 => format!(" (and 1 more is {word})"),
        _ => format!(" (and {others} more are {word})"),
    };
    Some(Health { condition: *condition, message: text::clean_with(&format!("{name}: {message}"), &more) })
}
