//! Waiting until all sites have done what is asked of them.

use std::time::Duration;

use khufu_crdt::{ReplicantId, SiteName, Status};
use khufu_engine::ReplicantView;
use serde_json::Value;
use tokio::time::Instant;

use super::apply::path;
use crate::client::{Ask, Client};
use crate::exit::{Exit, Failure};
use crate::output::remark;

/// How often a node is asked while waiting: it answers from memory.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until every site of the replica set has reported on the document as it is now, or the time is over.
///
/// The exit code is [`Exit::Ok`] if all have applied it, [`Exit::Failed`] if one says that it cannot, and
/// [`Exit::Partial`] if one has yet to report when the time is over.
///
/// # Errors
/// As any request. A node that goes away meanwhile is one.
pub(crate) async fn wait(
    client: &Client,
    id: &ReplicantId,
    limit: Duration,
) -> Result<(ReplicantView, Value, Exit), Failure> {
    let deadline = Instant::now() + limit;
    loop {
        let (view, json): (ReplicantView, Value) = client.ask_for(Ask::get(path(id))).await?;
        let waiting = waiting_for(&view);
        if waiting.is_empty() {
            let exit = exit_of(view.status);
            tell_failures(&view);
            return Ok((view, json, exit));
        }
        if Instant::now() >= deadline {
            remark(&format!(
                "{id}: it is safe, but after {} s these have yet to report: {}; they go on by themselves (khufu describe {id})",
                limit.as_secs(),
                waiting.join(", "),
            ));
            tell_failures(&view);
            return Ok((view, json, Exit::Partial));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The sites of the replica set that have yet to say their last word on the document as it is now.
fn waiting_for(view: &ReplicantView) -> Vec<String> {
    let Some(placement) = &view.placement else { return vec!["the decision where it lives".into()] };
    let gone = view.deleted.as_ref().is_some_and(|deleted| !deleted.keep);
    let settled = |site: &SiteName| {
        let Some(status) = view.sites.get(site).filter(|status| status.current) else { return false };
        let Some(report) = &status.report else { return false };
        match report.status {
            Status::Pending => false,
            // What is to go has not gone yet.
            Status::Applied | Status::Skipped => !gone && !status.leaving,
            Status::Failed | Status::NeedsAttention | Status::Removed => true,
        }
    };
    placement.holders().filter(|site| !settled(site)).map(ToString::to_string).collect()
}

/// Says why sites have not done it.
fn tell_failures(view: &ReplicantView) {
    for (site, status) in &view.sites {
        let desired = status.report.as_ref().and_then(|report| report.desired.as_ref());
        if let Some(said) = desired.filter(|said| said.status != Status::Applied && !said.output.is_empty()) {
            remark(&format!("{site}: {}", said.output));
        }
    }
}

fn exit_of(status: Status) -> Exit {
    match status {
        Status::Applied | Status::Skipped | Status::Removed => Exit::Ok,
        Status::Pending => Exit::Partial,
        Status::Failed | Status::NeedsAttention => Exit::Failed,
    }
}
