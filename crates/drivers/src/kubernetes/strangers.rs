//! What would go with an object and is somebody else's: the objects in a namespace, and those of a defined kind.

use std::ops::ControlFlow;

use kube::core::ObjectMeta;
use serde_json::Value;

use super::kinds::{Kind, is_missing};
use super::manifest::Key;
use super::replicas::Replicas;
use super::server::PAGE;
use super::stamp::{self, Mark};
use crate::DriverError;

/// So many are named.
const MAX_NAMED: usize = 5;
/// Groups whose objects are only another view of others.
const VIEWS: [&str; 3] = ["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];
/// What a cluster makes by itself in each namespace, or beside what is in it.
const BY_ITSELF: [&str; 5] = ["Event", "Endpoints", "EndpointSlice", "Lease", "PodMetrics"];

/// Whether somebody has made an object who is neither the cluster nor the replicant. What has an owner in its namespace goes
/// with that one anyway.
fn is_strange(kind: &Kind, object: &ObjectMeta, mark: Mark<'_>, in_namespace: bool) -> bool {
    let has = |annotation: &str| object.annotations.as_ref().and_then(|all| all.get(annotation));
    let owned = in_namespace && object.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
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
    /// [`DriverError::Refused`] names some of them, or what may not be looked at.
    pub(super) async fn holds_no_strangers(&self, key: &Key, live: &Value, mark: Mark<'_>) -> Result<(), DriverError> {
        let (kinds, namespace) = match (key.group.as_str(), key.kind.as_str()) {
            ("", "Namespace") => {
                let (kinds, complete) = self.server.all_kinds().await?;
                if !complete {
                    let reason = "whether it holds objects of others cannot be seen, since the API server does not say which \
                                  kinds some of its groups have";
                    return Err(DriverError::Unavailable { reason: format!("{key}: {reason}"), retry_after: None });
                }
                let kinds =
                    kinds.into_iter().filter(|kind| kind.namespaced && !VIEWS.contains(&kind.resource.group.as_str()));
                (kinds.collect(), Some(key.name.as_str()))
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
                let defined = Key { group, kind, namespace: String::new(), name: "*".into() };
                match self.server.kind(&defined, None).await {
                    Ok(kind) => (vec![kind], None),
                    // It was never served, so there are none.
                    Err(error) if is_missing(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            _ => return Ok(()),
        };
        let mut named = Vec::new();
        for kind in &kinds {
            let look = |object: ObjectMeta| {
                if is_strange(kind, &object, mark, namespace.is_some()) {
                    let key = kind.of(object.namespace.unwrap_or_default(), object.name.unwrap_or_default());
                    named.push(key.to_string());
                }
                if named.len() >= MAX_NAMED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match self.server.each(kind, "", namespace, PAGE, look).await {
                Ok(()) => {}
                Err(error) if is_missing(&error) => {}
                Err(DriverError::Refused { reason, .. }) => {
                    return Err(refused(key, &format!("whether it holds objects of others cannot be seen: {reason}")));
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

fn refused(key: &Key, reason: &str) -> DriverError {
    let reason = format!(
        "{reason}. Remove these, or it, by hand; while the replicant is there its policy may say \"retain\": true, or \"cascade\": true \
         to have all go"
    );
    DriverError::Refused { place: key.to_string(), reason }
}
