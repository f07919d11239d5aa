//! How a Kubernetes object is doing, read from the object alone.
//!
//! The words and most rules are those of kstatus (of the cli-utils of Kubernetes): an object is current once its
//! controller has seen the last change and done what it asks. Where kstatus shows as current what an operator would
//! call broken, the rule is stricter here, and says so. There is no clock: what kstatus calls failed after some seconds
//! is in progress with its reason, and whoever shows it knows since when it is so.

mod kinds;
mod object;
#[cfg(test)]
mod tests;
mod text;
mod workloads;

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use object::Object;

/// How an object is doing.
///
/// In the order of what an operator wants to hear of first, so that the greatest of several is the worst. What is in
/// progress gets there by itself; what is terminating is about to be gone; what is not found does not run at all, but
/// the next apply puts it there; what failed has been given up by its controller, and no apply of the same state helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It is as it shall be.
    Current,
    /// Its controller is at it, has not seen it yet, or waits for something.
    InProgress,
    /// It was deleted and is not gone yet.
    Terminating,
    /// It is not there. No object says that: whoever asked for it knows.
    NotFound,
    /// Its controller gave up.
    Failed,
}

impl Health {
    /// The word for it: `current`, `in-progress`, `terminating`, `not-found` or `failed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::InProgress => "in-progress",
            Self::Terminating => "terminating",
            Self::NotFound => "not-found",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no health.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no health: one of current, in-progress, terminating, not-found, failed")]
pub struct UnknownHealth(String);

impl FromStr for Health {
    type Err = UnknownHealth;

    fn from_str(word: &str) -> Result<Self, UnknownHealth> {
        [Self::Current, Self::InProgress, Self::Terminating, Self::NotFound, Self::Failed]
            .into_iter()
            .find(|health| health.as_str() == word)
            .ok_or_else(|| UnknownHealth(text::clean(word)))
    }
}

/// The health of an object and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it is doing.
    pub health: Health,
    /// Why, in the words of its controller where that says something: one line of at most 500 characters, without
    /// control characters.
    pub message: String,
}

impl Verdict {
    fn new(health: Health, message: impl AsRef<str>) -> Self {
        Self { health, message: text::clean(message.as_ref()) }
    }

    fn current(message: impl AsRef<str>) -> Self {
        Self::new(Health::Current, message)
    }

    fn in_progress(message: impl AsRef<str>) -> Self {
        Self::new(Health::InProgress, message)
    }

    fn failed(message: impl AsRef<str>) -> Self {
        Self::new(Health::Failed, message)
    }

    /// Of an object that the API server does not have.
    pub(crate) fn not_found() -> Self {
        Self::new(Health::NotFound, "the API server does not have it")
    }
}

/// The health of any object, as the API server shows it. What makes no sense is in progress or current, never failed.
pub(crate) fn of(object: &Value) -> Verdict {
    let object = Object::new(object);
    if !object.is_object() {
        return Verdict::in_progress("this is no Kubernetes object");
    }
    kinds::of_any(&object).unwrap_or_else(|| of_its_kind(&object))
}

/// By group as well as by kind: others have a `Service` or a `Deployment` of their own.
fn of_its_kind(object: &Object<'_>) -> Verdict {
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
pub(crate) fn rolled_up<'a, N: fmt::Display>(verdicts: impl IntoIterator<Item = (N, &'a Verdict)>) -> Option<Verdict> {
    let mut worst: Option<(N, &Verdict)> = None;
    let mut others = 0_usize;
    for (name, verdict) in verdicts {
        match &worst {
            Some((_, known)) if known.health > verdict.health => {}
            Some((_, known)) if known.health == verdict.health => others += 1,
            _ => (worst, others) = (Some((name, verdict)), 0),
        }
    }
    let (name, Verdict { health, message }) = worst?;
    let more = match others {
        0 => String::new(),
        1 => format!(" (and 1 more is {health})"),
        _ => format!(" (and {others} more are {health})"),
    };
    Some(Verdict { health: *health, message: text::clean_with(&format!("{name}: {message}"), &more) })
}
