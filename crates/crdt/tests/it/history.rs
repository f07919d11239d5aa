//! Short ways to write down sets of operations.

use khufu_crdt::{
    Combine, Hlc, Operation, OperationId, Operations, Payload, Policy, Resolution, Resolved, SiteName, TypePolicy,
    cut_for, resolve,
};

pub(crate) fn id(name: &str) -> OperationId {
    OperationId::new(name).unwrap()
}

/// Adds an operation whose `cut` its author's node decides from what it has seen.
pub(crate) fn issue(
    operations: &mut Operations,
    policy: &Policy,
    name: &str,
    op_type: &str,
    parents: &[&str],
    at: u64,
    by: &str,
) {
    let parents: Vec<_> = parents.iter().map(|p| id(p)).collect();
    let cut = cut_for(operations, &parents, op_type, policy);
    insert(operations, name, op_type, parents, cut, at, by);
}

pub(crate) fn insert(
    operations: &mut Operations,
    name: &str,
    op_type: &str,
    parents: Vec<OperationId>,
    cut: bool,
    at: u64,
    by: &str,
) {
    let by = SiteName::new(by).unwrap();
    let op_type = op_type.to_owned();
    let id = id(name);
    let operation = Operation { id: id.clone(), op_type, parents, cut, at: Hlc(at), by, payload: Payload::default() };
    assert!(operations.insert(id, operation).is_none(), "{name} twice");
}

/// A policy of entries `(before, after, result)`, with the given absolute types.
pub(crate) fn policy(entries: &[(&str, &str, &str)], absolute: &[&str]) -> Policy {
    let resolutions = entries
        .iter()
        .map(|(before, after, result)| Resolution {
            before: (*before).into(),
            after: (*after).into(),
            result: Combine::from((*result).to_owned()),
        })
        .collect();
    let types =
        absolute.iter().map(|t| ((*t).to_owned(), TypePolicy { absolute: true, ..TypePolicy::default() })).collect();
    Policy { resolutions, types, ..Policy::default() }
}

/// The list, as text.
pub(crate) fn list(operations: &Operations, policy: &Policy) -> String {
    names(&resolve(operations, policy))
}

pub(crate) fn names(resolved: &Resolved) -> String {
    resolved.list.iter().map(OperationId::as_str).collect::<Vec<_>>().join(" ")
}
