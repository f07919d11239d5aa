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
    name(put, keys, there.ok());
}

/// Names the fields, now that it was looked whether the replicant is there: where nobody knows, and it may have a policy,
/// nothing is said of policies.
fn name(put: &mut Put, keys: Vec<String>, there: Option<Result<Response, RequestError>>) {
    match there {
        Some(Ok(Response::Replicant(view))) if view.deleted.is_none() => {
            if let Some(policy) = &mut put.policy {
                policy.list_keys = view.policy.list_keys.clone();
            }
        }
        Some(Ok(Response::Replicant(_)) | Err(RequestError::NotFound { .. })) => {
            put.policy.get_or_insert_default().list_keys = keys;
        }
        // What was asked for says so itself.
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_says_whether_it_is_there_its_policy_is_left_alone() {
        let new = || Put {
            id: "web".parse().unwrap(),
            kind: Some("kubernetes".into()),
            scope: None,
            policy: None,
            desired: None,
            overrides: None,
            base: None,
        };
        let keys = || vec!["containerPort".to_owned(), "name".to_owned()];
        let unsaid = [None, Some(Err(RequestError::Busy { message: String::new() }))];
        for there in unsaid {
            let mut put = new();
            name(&mut put, keys(), there);
            assert_eq!(put.policy, None);
        }
        let mut put = new();
        let missing = RequestError::NotFound { id: put.id.clone(), unreachable: Vec::new() };
        name(&mut put, keys(), Some(Err(missing)));
        assert_eq!(put.policy.unwrap().list_keys, keys());
    }
}
