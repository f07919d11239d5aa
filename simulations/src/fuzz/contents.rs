//! What a replica must hold: the list of operations carried out on a fresh platform; and what an operation replaces. Both
//! the obvious way.

use khufu_crdt::{Operation, OperationId, Operations, Payload, Policy, Replicant, Rule, SiteName, resolve};
use serde_json::Value;

/// The text of the replica of a document at a site.
pub(super) fn contents(document: &Replicant, site: &SiteName) -> String {
    let state = document.state();
    let mut text = match document.effective(site).unwrap_or_default() {
        Value::Null => String::new(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        value => format!("{value}\n"),
    };
    let operations = state.all_operations();
    for id in state.resolved().list {
        let Some(operation) = operations.get(&id) else { continue };
        let Payload::Value(payload) = &operation.payload else { continue };
        let word = payload.as_str().unwrap_or_default();
        match operation.op_type.as_str() {
            "set" => word.clone_into(&mut text),
            "add" => text.push_str(word),
            "inc" => {
                let number: i64 = text.trim().parse().unwrap_or(0);
                text = (number + payload.as_i64().unwrap_or(1)).to_string();
            }
            // It fails everywhere, and leaves the contents as they were.
            _ => {}
        }
    }
    text
}

/// Whether a document tells of an operation, be it only that it was replaced in an epoch that is closed.
pub(super) fn tells_of(document: &Replicant, operation: &OperationId) -> bool {
    document.state().all_operations().contains_key(operation) || document.left_out().contains(operation)
}

/// Whether an operation was written in a document, whatever has become of it: replaced, closed over, or ended by a deletion.
pub(super) fn has_seen(document: &Replicant, operation: &OperationId) -> bool {
    tells_of(document, operation)
        || document.was_ended(operation)
        || document.history().iter().any(|entry| entry.operation.as_ref() == Some(operation))
}

/// Whether an operation replaces what it comes after, by the rules: the last operation of the list of all that. None if
/// not all of that is known any more, since a deletion ended some of it.
pub(super) fn cuts(operation: &Operation, operations: &Operations, policy: &Policy) -> Option<bool> {
    let mut past = Operations::new();
    let mut left = operation.parents.clone();
    while let Some(next) = left.pop() {
        let parent = operations.get(&next)?;
        if past.insert(next, parent.clone()).is_none() {
            left.extend(parent.parents.iter().cloned());
        }
    }
    let list = resolve(&past, policy).list;
    let last = list.last().and_then(|last| past.get(last));
    Some(
        last.is_some_and(|last| {
            matches!(policy.rule(&last.op_type, &operation.op_type), Rule::TakeOne | Rule::Reverse)
        }),
    )
}
