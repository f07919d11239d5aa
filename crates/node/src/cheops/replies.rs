//! What sites make of an operation, a line for each as it becomes known.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use khufu_crdt::{Fate, OperationId, ReplicantId, SiteName, Status};
use khufu_drivers::ShellDriver;
use khufu_engine::{Happening, Liveness, ReplicantView, Request, Response};
use serde::Serialize;
use tokio::time::Instant;

use crate::events::{Events, Followed};
use crate::handle::Handle;

/// So long without a new reply, and sites that cannot be reached are not waited for any more.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long after the request the others are not, either. Within this time every command has ended that did not have to wait
/// for others.
const LONGEST: Duration = ShellDriver::LONGEST;

/// What the sites of a resource were asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Asked {
    pub(super) locations: BTreeSet<SiteName>,
    pub(super) request_id: OperationId,
    pub(super) resource_id: ReplicantId,
    pub(super) input: String,
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    #[serde(flatten)]
    asked: &'a Asked,
    site: &'a SiteName,
    status: &'static str,
    output: String,
    execution_time: String,
    r#type: &'static str,
}

/// Waits for the reports of all sites of a resource.
pub(super) struct Replies {
    handle: Handle,
    who: String,
    asked: Asked,
    missing: BTreeSet<SiteName>,
    /// Those of the missing that work, as far as is known.
    working: BTreeSet<SiteName>,
    events: Events,
    begun: Instant,
    /// When the last reply came.
    last: Instant,
}

impl Replies {
    pub(super) fn new(handle: Handle, who: String, asked: Asked, events: Events) -> Self {
        let (missing, now) = (asked.locations.clone(), Instant::now());
        Self { handle, who, asked, missing, working: BTreeSet::new(), events, begun: now, last: now }
    }

    /// A line of JSON for each site, several at once if they are known at once.
    pub(super) fn into_lines(self) -> impl Stream<Item = Result<String, Infallible>> {
        futures::stream::unfold(self, |mut this| async move { this.next().await.map(|lines| (Ok(lines), this)) })
    }

    /// The next lines; none once every site has one.
    async fn next(&mut self) -> Option<String> {
        while !self.missing.is_empty() {
            let mut lines = self.known().await;
            if lines.is_empty() && tokio::time::timeout_at(self.deadline(), self.news()).await.is_err() {
                // Not everything that is known was told of.
                lines = self.known().await;
                if lines.is_empty() {
                    lines = self.too_late();
                }
            }
            if !lines.is_empty() {
                return Some(lines);
            }
        }
        None
    }

    /// When somebody is not waited for any more.
    fn deadline(&self) -> Instant {
        let (patience, end) = (self.last + PATIENCE, self.begun + LONGEST);
        if patience <= Instant::now() { end } else { patience.min(end) }
    }

    /// The lines of the sites that are not waited for any more.
    fn too_late(&mut self) -> String {
        let end = self.begun + LONGEST <= Instant::now();
        let waits = |site: &SiteName| !end && self.working.contains(site);
        let (waiting, late) = std::mem::take(&mut self.missing).into_iter().partition(waits);
        self.missing = waiting;
        let late: BTreeSet<SiteName> = late;
        late.iter().map(|site| self.line(site, "TIMEOUT", String::new(), None)).collect()
    }

    /// Waits until something has happened to the replicant, or may have.
    async fn news(&mut self) {
        loop {
            match self.events.next().await {
                Some(Followed::Event(_, event)) => match &event.what {
                    Happening::Reported { replicant, .. } | Happening::Changed { replicant, .. }
                        if *replicant == self.asked.resource_id =>
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
        let get = Request::Get { id: self.asked.resource_id.clone() };
        let Ok(Response::Replicant(view)) = self.handle.request(self.who.clone(), get).await else {
            return String::new();
        };
        let mut lines = String::new();
        for site in self.missing.clone() {
            if let Some((status, output, at)) = said(&view, &site, &self.asked.request_id) {
                lines += &self.line(&site, status, output, at);
                self.missing.remove(&site);
                self.last = Instant::now();
            }
        }
        let works = |site: &&SiteName| view.sites.get(*site).is_some_and(|status| status.state == Liveness::Alive);
        self.working = self.missing.iter().filter(works).cloned().collect();
        lines
    }

    fn line(&self, site: &SiteName, status: &'static str, output: String, at_ms: Option<u64>) -> String {
        let at = at_ms.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
        let execution_time = at.unwrap_or_else(Timestamp::now).to_string();
        let reply = Reply { asked: &self.asked, site, status, output, execution_time, r#type: "REPLY" };
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
