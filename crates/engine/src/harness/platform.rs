//! A simulated platform: one text for each replica, written by a desired state, `write` and `append`, and counted with
//! `set` and `inc`. It survives crashes of the node, as real platforms do.

use std::collections::BTreeMap;

use khufu_crdt::{Capabilities, Health, Operation, OperationId, Payload, ReplicantId};
use sha2::{Digest, Sha256};

use crate::{DriverCall, DriverDone, DriverFailure, ReplicaRef};

/// One replica on a simulated platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SimulatedReplica {
    /// Its contents.
    pub text: String,
    /// The last operation that was carried out on it.
    pub marker: Option<String>,
    /// All operations that were carried out on it since it was last written as a whole, in order, for checks that none was
    /// run twice.
    pub ran: Vec<String>,
    /// What it held before each operation since it was last written as a whole, for those that are taken back.
    before: Vec<(OperationId, String, Option<String>)>,
}

/// What a driver did to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It wrote a desired state.
    Wrote,
    /// It carried out an operation.
    Ran {
        /// Which.
        operation: OperationId,
        /// Whether nothing of what was there before is left.
        anew: bool,
    },
    /// It took back the last operation.
    TookBack(OperationId),
    /// It made the replica as new.
    Reset,
    /// It removed the replica, which was there.
    Removed,
}

/// The platform of one site.
#[derive(Debug, Clone, Default)]
pub struct SimulatedPlatform {
    replicas: BTreeMap<ReplicantId, SimulatedReplica>,
    /// All that was done, in order, until somebody takes it from here.
    pub effects: Vec<(ReplicantId, Effect)>,
    /// What every driver call does to the platform, before its answer is known.
    pub calls: u64,
    /// How all replicas are said to be doing, if the platform says.
    pub health: Option<Health>,
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the simulated driver can do.
#[must_use]
pub fn capabilities() -> Capabilities {
    Capabilities { operations: true, undo: false, reset: true, reset_is_loss: false, observe: true, dry_run: true }
}

impl SimulatedPlatform {
    /// The contents of a replica, none if there is no replica.
    #[must_use]
    pub fn text(&self, id: &ReplicantId) -> Option<&str> {
        self.replicas.get(id).map(|replica| replica.text.as_str())
    }

    /// A whole replica.
    #[must_use]
    pub fn replica(&self, id: &ReplicantId) -> Option<&SimulatedReplica> {
        self.replicas.get(id)
    }

    /// Somebody changes a replica by hand.
    pub fn tamper(&mut self, id: &ReplicantId, text: &str) {
        self.replicas.entry(id.clone()).or_default().text = text.to_owned();
    }

    /// Carries out a driver call.
    ///
    /// # Errors
    /// [`DriverFailure`] if the operation is not one of this platform. It is then as it was.
    pub fn carry_out(&mut self, replica: &ReplicaRef, call: &DriverCall) -> Result<DriverDone, DriverFailure> {
        self.calls += 1;
        let id = &replica.id;
        let effect = match call {
            DriverCall::Desired(value) => {
                let now = self.replicas.entry(id.clone()).or_default();
                now.text = format!("{value}\n");
                now.marker = None;
                now.before.clear();
                now.ran.clear();
                Effect::Wrote
            }
            DriverCall::Operation(operation) => {
                let mut now = self.replicas.get(id).cloned().unwrap_or_default();
                now.before.push((operation.id.clone(), now.text.clone(), now.marker.take()));
                let anew = run(&mut now.text, operation)?;
                now.marker = Some(operation.id.to_string());
                now.ran.push(operation.id.to_string());
                self.replicas.insert(id.clone(), now);
                Effect::Ran { operation: operation.id.clone(), anew }
            }
            DriverCall::Undo(operation) => {
                let replica = self.replicas.get_mut(id);
                let last = replica.and_then(|now| Some((now.before.pop_if(|(last, ..)| *last == operation.id)?, now)));
                let Some(((operation, text, marker), now)) = last else {
                    return Err(failure("only the last operation can be taken back"));
                };
                (now.text, now.marker) = (text, marker);
                Effect::TookBack(operation)
            }
            DriverCall::Reset => {
                self.replicas.remove(id);
                Effect::Reset
            }
            DriverCall::Delete => {
                if self.replicas.remove(id).is_none() {
                    // Whoever does not know whether anything is left removes it to be sure.
                    return Ok(self.done(id));
                }
                Effect::Removed
            }
            DriverCall::Observe => {
                let now = self.replicas.get(id);
                let digest = now.map(|now| digest(&now.text));
                let drift = (digest != replica.expected).then(|| "the text is another".to_owned());
                let marker = now.and_then(|now| now.marker.clone());
                return Ok(DriverDone { digest, drift, marker, health: self.health.clone(), ..DriverDone::default() });
            }
            DriverCall::Diff(work) => {
                return Ok(DriverDone { output: format!("{} steps", work.len()), ..DriverDone::default() });
            }
        };
        self.effects.push((id.clone(), effect));
        Ok(self.done(id))
    }

    fn done(&self, id: &ReplicantId) -> DriverDone {
        let digest = self.replicas.get(id).map(|now| digest(&now.text));
        let local_id = Some(format!("local-{id}"));
        DriverDone { digest, local_id, health: self.health.clone(), ..DriverDone::default() }
    }
}

fn failure(message: &str) -> DriverFailure {
    DriverFailure { message: message.to_owned(), permanent: true, retry_after_ms: None, unknown: false, lost: false }
}

/// Whether nothing of what was there before is left.
fn run(text: &mut String, operation: &Operation) -> Result<bool, DriverFailure> {
    let Payload::Value(value) = &operation.payload else { return Err(failure("payloads outside of documents")) };
    let word = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match operation.op_type.as_str() {
        "write" | "set" => {
            *text = word;
            return Ok(true);
        }
        "append" | "add" => text.push_str(&word),
        "inc" => {
            let number: i64 = text.trim().parse().unwrap_or(0);
            *text = number.saturating_add(value.as_i64().unwrap_or(1)).to_string();
        }
        other => return Err(failure(&format!("there is no operation {other:?}"))),
    }
    Ok(false)
}
