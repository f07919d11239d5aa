//! What would go with an object and is somebody else's: the objects in a namespace, and those of a defined kind.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use serde_json::Value;

use super::definitions::was_served;
use super::kinds::{Kind, is_missing};
use super::manifest::Key;
use super::replicas::Replicas;
use super::server::PAGE;
use super::stamp::{self, Mark};
use crate::DriverError;

/// So many are named.
const MAX_NAMED: usize = 5;
/// What a cluster makes by itself in each namespace, or beside what is in it.
const BY_ITSELF: [&str; 5] = ["Event", "Endpoints", "EndpointSlice", "Lease", "PodMetrics"];

/// Whether somebody has made an object who is neither the cluster nor the replicant. What is owned only by objects of kinds
/// that go with it goes anyway, once it is known of these whose they are; an owner that is in no namespace stays.
fn is_strange(kind: &Kind, object: &ObjectMeta, mark: Mark<'_>, going_too: &BTreeSet<(&str, &str)>) -> bool {
    let has = |annotation: &str| object.annotations.as_ref().and_then(|all| all.get(annotation));
    let goes = |owner: &OwnerReference| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        going_too.contains(&(group, owner.kind.as_str()))
    };
    let owned = object.owner_references.as_ref().is_some_and(|owners| !owners.is_empty() && owners.iter().all(goes));
    let name = object.name.as_deref().unwrap_or_default();
    let by_itself = match kind.resource.kind.as_str() {
        "ServiceAccount" => name == "default",
        "ConfigMap" => name == "kube-root-ca.crt",
        "Secret" => has("kubernetes.io/service-account.name").is_some(),
        kind => BY_ITSELF.contains(&kind),
    };
    let going = object.deletion_timestamp.is_some();
    // A copy, or what another site has made in the same cluster, is not.
    let key = kind.of(object.namespace.clone().unwrap_or_default(), name.to_owned());
    let ours = stamp::is_marked(&key, object, mark);
    !(owned || by_itself || going || ours)
}

impl Replicas {
    /// Refuses to remove what would take objects of others with it.
    ///
    /// # Errors
    /// [`DriverError::Refused`] names some of them, or what may not be looked at; [`DriverError::Unavailable`] says that it
    /// cannot be seen now whether there are some.
    pub(super) async fn holds_no_strangers(&self, key: &Key, live: &Value, mark: Mark<'_>) -> Result<(), DriverError> {
        let (kinds, namespace) = match (key.group.as_str(), key.kind.as_str()) {
            ("", "Namespace") => {
                let served = self.server.settled_kinds().await?;
                if let Some(why) = served.missed {
                    return Err(unseen(key, &why));
                }
                if let Some(reason) = served.refused {
                    return Err(invisible(key, &reason));
                }
                (served.kinds.into_iter().filter(|kind| kind.namespaced).collect(), Some(key.name.as_str()))
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
                let defined = Key { group, kind, namespace: String::new(), name: "*".into() };
                let served = match self.server.kind(&defined, None).await {
                    Ok(kind) => Some(kind).filter(|kind| kind.resource.plural == text("/spec/names/plural")),
                    Err(error) if is_missing(&error) => None,
                    Err(error) => return Err(error),
                };
                match served {
                    Some(kind) => (vec![kind], None),
                    None if !was_served(live) => return Ok(()),
                    // What is stored stays there, and comes back with the kind.
                    None => return Err(unseen(key, "no version of the kind is served now")),
                }
            }
            _ => return Ok(()),
        };
        let mut named = Vec::new();
        let resources = kinds.iter().map(|kind| (kind.resource.group.as_str(), kind.resource.kind.as_str()));
        // Of a defined kind, only its objects go, and not what these are owned by.
        let going_too = if namespace.is_some() { resources.collect() } else { BTreeSet::new() };
        for kind in &kinds {
            let look = |object: ObjectMeta| {
                if is_strange(kind, &object, mark, &going_too) {
                    let key = kind.of(object.namespace.unwrap_or_default(), object.name.unwrap_or_default());
                    named.push(key.to_string());
                }
                if named.len() >= MAX_NAMED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match self.server.each(kind, "", namespace, PAGE, look).await {
                Ok(()) => {}
                // It was served a moment ago: what there is of it is stored all the same.
                Err(error) if is_missing(&error) => {
                    return Err(unseen(key, &format!("{} is not served any more", kind.resource.plural)));
                }
                Err(DriverError::Refused { reason, .. }) => {
                    return Err(invisible(key, &reason));
                }
                Err(error) => return Err(error),
            }
            if named.len() >= MAX_NAMED {
                break;
            }
        }
        if named.is_empty() {
            return Ok(());
        }
        Err(refused(key, &format!("objects that are not of this replicant would go with it: {}", named.join(", "))))
    }
}

/// Nobody knows now whether there are objects of others.
fn unseen(key: &Key, why: &str) -> DriverError {
    let reason = format!(
        "{key}: whether objects of others would go with it cannot be seen: {why}. While the replicant is there its policy may \
         say \"retain\": true, or \"cascade\": true to have all go"
    );
    DriverError::Unavailable { reason, retry_after: None }
}

/// Whoever may not look does not know whether there are objects of others.
fn invisible(key: &Key, reason: &str) -> DriverError {
    refused(key, &format!("whether it holds objects of others cannot be seen: {reason}"))
}

fn refused(key: &Key, reason: &str) -> DriverError {
    let reason = format!(
        "{reason}. Remove these, or it, by hand; while the replicant is there its policy may say \"retain\": true, or \"cascade\": true \
         to have all go"
    );
    DriverError::Refused { place: key.to_string(), reason }
}
