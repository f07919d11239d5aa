//! Waiting for all sites to report on an operation. Nothing else waits meanwhile.

use std::collections::BTreeMap;

use khufu_crdt::{OperationId, OperationReport, ReplicantId, SiteName, Status};

use super::Wait;
use super::view::not_found;
use crate::origin::Origin;
use crate::timers::Due;
use crate::{Engine, NodeId, OperationAnswer, RequestError, RequestId, Response};

/// The longest that anybody can wait, in milliseconds.
const MAX_WAIT_MS: u64 = 10 * 60 * 1000;

impl Engine {
    pub(super) fn wait(&mut self, id: &ReplicantId, operation: OperationId, origin: Origin, wait_ms: u64) {
        let answer = self.operation_answer(id, &operation);
        let done = answer.as_ref().map_or(true, |answer| answer.complete);
        if done || wait_ms == 0 {
            return self.answer(&origin, answer.map(|answer| Response::Operation(Box::new(answer))));
        }
        self.end_wait(&origin);
        let at = self.now.plus(std::time::Duration::from_millis(wait_ms.min(MAX_WAIT_MS)));
        self.timers.set(Due::Wait(origin.clone()), at);
        self.asks.by_replicant.entry(id.clone()).or_default().insert(origin.clone());
        self.asks.waits.insert(origin, Wait { replicant: id.clone(), operation });
    }

    fn operation_answer(&mut self, id: &ReplicantId, operation: &OperationId) -> Result<OperationAnswer, RequestError> {
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        let listed = resident.listed();
        let state = resident.doc.state();
        let operation = state.operation(operation).cloned().ok_or_else(|| not_found(id))?;
        let epoch = resident.doc.id().epoch;
        let sites: BTreeMap<SiteName, OperationReport> = state
            .placement
            .iter()
            .flat_map(|placement| placement.sites.iter().filter(|site| placement.has_replica(site)))
            .map(|site| {
                let report = resident.reports.get(site).filter(|report| report.epoch == epoch);
                let known = report.and_then(|report| {
                    // A site that a person must look at has said its last word on what it has not run.
                    let gone = report.status == Status::Removed;
                    let stuck = report.status == Status::NeedsAttention;
                    let mut known = report.operations.get(&operation.id).cloned()?;
                    if stuck && known.status == Status::Pending {
                        known.status = Status::NeedsAttention;
                    }
                    if gone && known.status == Status::Pending {
                        known.status = Status::Removed;
                    }
                    Some(known)
                });
                (site.clone(), known.unwrap_or_default())
            })
            .collect();
        let complete = sites.values().all(|report| report.status != Status::Pending);
        Ok(OperationAnswer { operation, resolved: listed.resolved.list.clone(), sites, complete })
    }

    /// Something was heard of a replicant: those who waited for just that are answered.
    pub(crate) fn check_waits(&mut self, id: &ReplicantId) {
        let Some(origins) = self.asks.by_replicant.get(id) else { return };
        for origin in origins.clone() {
            let Some(operation) = self.asks.waits.get(&origin).map(|wait| wait.operation.clone()) else { continue };
            let answer = self.operation_answer(id, &operation);
            if answer.as_ref().map_or(true, |answer| answer.complete) {
                self.end_wait(&origin);
                self.answer(&origin, answer.map(|answer| Response::Operation(Box::new(answer))));
            }
        }
    }

    /// Nobody can say whether what is waited for was stored.
    pub(crate) fn end_waits(&mut self, refusal: &RequestError) {
        let origins: Vec<_> = self.asks.waits.keys().cloned().collect();
        for origin in origins {
            self.end_wait(&origin);
            self.answer(&origin, Err(refusal.clone()));
        }
    }

    /// Answers those who wait for certain operations with what is known by now.
    pub(crate) fn end_waits_for(&mut self, id: &ReplicantId, which: impl Fn(&OperationId) -> bool) {
        let Some(origins) = self.asks.by_replicant.get(id) else { return };
        for origin in origins.clone() {
            if self.asks.waits.get(&origin).is_some_and(|wait| which(&wait.operation)) {
                self.wait_timed_out(&origin);
            }
        }
    }

    fn end_wait(&mut self, origin: &Origin) -> Option<Wait> {
        self.timers.cancel(&Due::Wait(origin.clone()));
        let wait = self.asks.waits.remove(origin)?;
        if let Some(origins) = self.asks.by_replicant.get_mut(&wait.replicant) {
            origins.remove(origin);
            if origins.is_empty() {
                self.asks.by_replicant.remove(&wait.replicant);
            }
        }
        Some(wait)
    }

    /// Whoever asked has gone: a place is free for somebody else.
    pub(crate) fn abandoned(&mut self, id: RequestId) {
        self.end_wait(&Origin::User(id));
    }

    /// The same of a node, and all who asked there.
    pub(super) fn end_waits_of(&mut self, node: &NodeId) {
        let all = Origin::Node(node.clone(), 0)..=Origin::Node(node.clone(), u64::MAX);
        let theirs: Vec<_> = self.asks.waits.range(all).map(|(origin, _)| origin.clone()).collect();
        for origin in theirs {
            self.end_wait(&origin);
        }
    }

    /// Time is up: the answer is what is known by now.
    pub(crate) fn wait_timed_out(&mut self, origin: &Origin) {
        let Some(wait) = self.end_wait(origin) else { return };
        let answer = self.operation_answer(&wait.replicant, &wait.operation);
        self.answer(origin, answer.map(|answer| Response::Operation(Box::new(answer))));
    }

    /// Whether somebody waits for news of a replicant.
    pub(crate) fn is_waited_for(&self, id: &ReplicantId) -> bool {
        self.asks.by_replicant.contains_key(id) || self.asks.histories.contains_key(id)
    }
}
