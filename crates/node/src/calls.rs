//! Calls of drivers: each in a task of its own, with a time limit.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use khufu_drivers::{Done, Driver, DriverError, Observed, Registry, Replica, Work};
use khufu_engine::{CallId, DiffWork, DriverCall, DriverDone, DriverFailure, Input, ReplicaRef};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::holds::Holds;
use crate::metrics::{DriverLabels, Metrics};

/// The drivers of a node, and what they are doing. Dropping it breaks their work off.
pub(crate) struct Calls {
    drivers: Registry,
    limit: Duration,
    metrics: Metrics,
    inputs: UnboundedSender<Input>,
    holds: Holds,
    tasks: JoinSet<()>,
    running: usize,
    closed: bool,
}

impl Calls {
    pub(crate) fn new(
        drivers: Registry,
        limit: Duration,
        metrics: Metrics,
        inputs: UnboundedSender<Input>,
        holds: Holds,
    ) -> Self {
        Self { drivers, limit, metrics, inputs, holds, tasks: JoinSet::new(), running: 0, closed: false }
    }

    /// Breaks off what drivers are doing.
    pub(crate) async fn break_off(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Begins a call, which ends in an [`Input::Driver`].
    pub(crate) fn start(&mut self, call: CallId, kind: String, replica: ReplicaRef, work: DriverCall) {
        while self.tasks.try_join_next().is_some() {}
        if self.closed {
            // The intent is stored: the next process finds out how far this came.
            return;
        }
        self.running += 1;
        let (inputs, metrics, limit) = (self.inputs.clone(), self.metrics.clone(), self.limit);
        let holds = self.holds.clone();
        let driver = self.drivers.get(&kind).cloned();
        let name = name_of(&work);
        let operation = operation_of(&work);
        let span =
            tracing::info_span!("driver", %kind, call = name, replicant = %replica.id, site = %replica.site, operation);
        let task = async move {
            holds.free(&replica.id).await;
            let started = Instant::now();
            let result = match driver {
                Some(driver) => within(limit, driver, replica, work).await,
                None => Err(failure(format!("this site has no driver for the kind {kind:?}"), true)),
            };
            let outcome = match &result {
                Ok(_) => "done",
                Err(_) => "failed",
            };
            if let Err(failure) = &result {
                tracing::warn!(message = failure.message, permanent = failure.permanent, "a driver call failed");
            }
            metrics.driver(DriverLabels { kind, call: name, outcome }, started.elapsed());
            let _ = inputs.send(Input::Driver { call, result });
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// The result of a call was handed in.
    pub(crate) fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Calls whose result has not been handed in.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// No more calls are begun.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

/// A driver that hangs or panics fails its call, and nothing else. Whether the platform did as told is then not known.
async fn within(
    limit: Duration,
    driver: Arc<dyn Driver>,
    replica: ReplicaRef,
    work: DriverCall,
) -> Result<DriverDone, DriverFailure> {
    let replica = to_replica(replica);
    let call = AssertUnwindSafe(perform(driver.as_ref(), &replica, work)).catch_unwind();
    let message = match tokio::time::timeout(limit, call).await {
        Ok(Ok(Err(error @ (DriverError::Timeout { .. } | DriverError::Unanswered { .. })))) => error.to_string(),
        Ok(Ok(result)) => return result.map_err(|error| refused(&error)),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            format!("the driver panicked, which is a defect of it: {text}")
        }
        Err(_) => format!("the driver did not answer within {} ms", limit.as_millis()),
    };
    Err(DriverFailure { message, permanent: false, retry_after_ms: None, unknown: true, lost: false })
}

fn failure(message: String, permanent: bool) -> DriverFailure {
    DriverFailure { message, permanent, retry_after_ms: None, unknown: false, lost: false }
}

fn to_replica(replica: ReplicaRef) -> Replica {
    let ReplicaRef { id, site, local_id, expected, options, written } = replica;
    Replica { id, site, local_id, expected, options, written }
}

async fn perform(driver: &dyn Driver, replica: &Replica, work: DriverCall) -> Result<DriverDone, DriverError> {
    match work {
        DriverCall::Desired(value) => driver.apply(replica, Work::Desired(value)).await.map(done),
        DriverCall::Operation(operation) => driver.apply(replica, Work::Operation(operation)).await.map(done),
        DriverCall::Undo(operation) => driver.undo(replica, &operation).await.map(done),
        DriverCall::Reset => driver.reset(replica).await.map(done),
        DriverCall::Delete => driver.delete(replica).await.map(done),
        DriverCall::Observe => driver.observe(replica).await.map(observed),
        DriverCall::Diff(works) => {
            let works: Vec<Work> = works.into_iter().map(to_work).collect();
            let diff = driver.diff(replica, &works).await;
            diff.map(|output| DriverDone { output, ..DriverDone::default() })
        }
    }
}

fn done(done: Done) -> DriverDone {
    let Done { output, local_id, digest, health } = done;
    DriverDone { output, local_id, digest, health, ..DriverDone::default() }
}

fn observed(observed: Observed) -> DriverDone {
    let Observed { digest, drift, local_id, marker, unsettled, health, .. } = observed;
    let (marker, unsettled) = (marker.map(String::from), unsettled.map(String::from));
    DriverDone { output: String::new(), local_id, digest, drift, marker, unsettled, health }
}

fn refused(error: &DriverError) -> DriverFailure {
    DriverFailure {
        message: error.to_string(),
        permanent: error.is_permanent(),
        retry_after_ms: error.retry_after().map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        unknown: false,
        lost: matches!(error, DriverError::Lost { .. }),
    }
}

fn to_work(work: DiffWork) -> Work {
    match work {
        DiffWork::Reset => Work::Reset,
        DiffWork::Desired(value) => Work::Desired(value),
        DiffWork::Operation(operation) => Work::Operation(operation),
    }
}

fn name_of(work: &DriverCall) -> &'static str {
    match work {
        DriverCall::Desired(_) => "desired",
        DriverCall::Operation(_) => "operation",
        DriverCall::Undo(_) => "undo",
        DriverCall::Reset => "reset",
        DriverCall::Delete => "delete",
        DriverCall::Observe => "observe",
        DriverCall::Diff(_) => "diff",
    }
}

fn operation_of(work: &DriverCall) -> Option<String> {
    match work {
        DriverCall::Operation(operation) | DriverCall::Undo(operation) => Some(operation.id.to_string()),
        _ => None,
    }
}
