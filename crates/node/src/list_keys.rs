//! By which fields lists merge in what is made here: the driver knows more than a policy that says nothing of it.

use std::time::Duration;

use khufu_drivers::Registry;
use khufu_engine::{Put, Request, RequestError, Response};

use crate::handle::Handle;

/// The longest that a driver is asked, and that it is looked for a replicant that may be there already: neither must hold up
/// who makes something at a site that is cut off.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names the fields in the policy of a replicant that is about to be made, if nobody has. One that is there keeps those that
/// its policy has, also if it is given another policy that names none.
pub(crate) async fn complete(handle: &Handle, drivers: &Registry, who: &str, put: &mut Put) {
    if put.policy.as_ref().is_some_and(|policy| !policy.list_keys.is_empty()) {
        return;
    }
    // Whoever makes something says of which kind.
    let (Some(kind), Some(desired)) = (&put.kind, &put.desired) else { return };
    let Some(driver) = drivers.get(kind) else { return };
    let options = put.policy.as_ref().map(|policy| policy.options.clone()).unwrap_or_default();
    let keys = tokio::time::timeout(PATIENCE, driver.list_keys(desired, &options)).await.unwrap_or_default();
    // By `name` they merge anyway.
    if keys.iter().all(|key| key == "name") {
        return;
    }
    let get = Request::Get { id: put.id.clone() };
    let there = tokio::time::timeout(PATIENCE, handle.request_as_is(who.to_owned(), get)).await;
    match there {
        Ok(Ok(Response::Replicant(view))) if view.deleted.is_none() => {
            if let Some(policy) = &mut put.policy {
                policy.list_keys = view.policy.list_keys.clone();
            }
        }
        Ok(Ok(_) | Err(RequestError::NotFound { .. })) | Err(_) => {
            put.policy.get_or_insert_default().list_keys = keys;
        }
        // It says so itself.
        Ok(Err(_)) => {}
    }
}
