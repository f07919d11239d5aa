//! What sites make of an operation, a line for each as it becomes known.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use khufu_crdt::{Fate, OperationId, ReplicantId, SiteName, Status};
use khufu_engine::{Happening, ReplicantView, Request, Response};
use serde::Serialize;
use tokio::time::Instant;

use crate::events::{Events, Followed};
use crate::handle::Handle;

/// So long without a new reply, and the others are not waited for any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// One line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    locations: &'a BTreeSet<SiteName>,
    site: &'a SiteName,
    request_id: &'a OperationId,
    resource_id: &'a ReplicantId,
    status: &'static str,
    input: &'a str,
    output: String,
    execution_time: String,
    r#type: &'static str,
}

/// Waits for the reports of all sites of a resource.
pub(super) struct Replies {
    handle: Handle,
    who: String,
    id: ReplicantId,
    operation: OperationId,
    command: String,
    sites: BTreeSet<SiteName>,
    missing: BTreeSet<SiteName>,
    events: Events,
    deadline: Instant,
}

impl Replies {
    pub(super) fn new(
        handle: Handle,
        who: String,
        id: ReplicantId,
        operation: OperationId,
        command: String,
        sites: BTreeSet<SiteName>,
        events: Events,
    ) -> Self {
        let (missing, deadline) = (sites.clone(), Instant::now() + PATIENCE);
        Self { handle, who, id, operation, command, sites, missing, events, deadline }
    }

    /// A line of JSON for each site, several at once if they are known at once.
    pub(super) fn into_lines(self) -> impl Stream<Item = Result<String, Infallible>> {
        futures::stream::unfold(self, |mut this| async move { this.next().await.map(|lines| (Ok(lines), this)) })
    }

    /// The next lines; none once every site has one.
    async fn next(&mut self) -> Option<String> {
        while !self.missing.is_empty() {
            let lines = self.known().await;
            if !lines.is_empty() {
                self.deadline = Instant::now() + PATIENCE;
                return Some(lines);
            }
            if tokio::time::timeout_at(self.deadline, self.news()).await.is_err() {
                let late = std::mem::take(&mut self.missing);
                return Some(late.iter().map(|site| self.line(site, "TIMEOUT", String::new(), None)).collect());
            }
        }
        None
    }

    /// Waits until something has happened to the replicant, or may have.
    async fn news(&mut self) {
        loop {
            match self.events.next().await {
                Some(Followed::Event(_, event)) => match &event.what {
                    Happening::Reported { replicant, .. } | Happening::Changed { replicant, .. }
                        if *replicant == self.id =>
                    {
                        return;
                    }
                    _ => {}
                },
                Some(Followed::Gap(_)) => return,
                // The node stops, and nothing more will be known here.
                None => std::future::pending().await,
            }
        }
    }

    /// The lines of the sites that have said something since.
    async fn known(&mut self) -> String {
        let asked = self.handle.request(self.who.clone(), Request::Get { id: self.id.clone() });
        let Ok(Response::Replicant(view)) = asked.await else { return String::new() };
        let mut lines = String::new();
        for site in self.missing.clone() {
            if let Some((status, output, at)) = said(&view, &site, &self.operation) {
                lines += &self.line(&site, status, output, at);
                self.missing.remove(&site);
            }
        }
        lines
    }

    fn line(&self, site: &SiteName, status: &'static str, output: String, at_ms: Option<u64>) -> String {
        let at = at_ms.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
        let reply = Reply {
            locations: &self.sites,
            site,
            request_id: &self.operation,
            resource_id: &self.id,
            status,
            input: &self.command,
            output,
            execution_time: at.unwrap_or_else(Timestamp::now).to_string(),
            r#type: "REPLY",
        };
        serde_json::to_string(&reply).unwrap_or_default() + "\n"
    }
}

/// What a site has said of an operation: status, output, and when by its clock. None before its last word.
fn said(view: &ReplicantView, site: &SiteName, operation: &OperationId) -> Option<(&'static str, String, Option<u64>)> {
    let status = view.sites.get(site)?;
    let report = status.report.as_ref()?;
    let noted = report.operations.get(operation);
    match noted.map(|noted| noted.status) {
        Some(Status::Applied) => return noted.map(|noted| ("OK", noted.output.clone(), Some(noted.at))),
        Some(Status::Failed | Status::NeedsAttention | Status::Removed) => {
            return noted.map(|noted| ("KO", noted.output.clone(), Some(noted.at)));
        }
        _ => {}
    }
    // What was said before it had this operation is nothing said of it.
    if report.status == Status::NeedsAttention && (noted.is_some() || status.current) {
        return Some(("KO", "not run: a person has to look at the replica there\n".to_owned(), None));
    }
    // It need not be run where another has taken its place.
    let known = view.operations.iter().find(|known| known.operation.id == *operation)?;
    let is_over = match &known.fate {
        Fate::Live => matches!(noted.map(|noted| noted.status), Some(Status::Skipped)),
        _ => status.current && report.status != Status::Pending,
    };
    is_over.then(|| ("OK", "not run: another operation has taken its place\n".to_owned(), None))
}
