//! Waiting until this site has made of an edit what it can.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use khufu_crdt::{ReplicantId, Report, SiteName, Status};
use khufu_engine::{Happening, ListQuery, ReplicantView, Request, Response};
use tokio::time::Instant;

use super::Front;
use super::answer::Refusal;
use super::delete::Going;
use super::here;
use crate::events::{Events, Followed};

/// How long it is waited.
const PATIENCE: Duration = Duration::from_secs(30);

/// What this site has made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is so now.
    Applied,
    /// It is not, and this is why.
    Failed(String),
    /// The replicant does not live here.
    Elsewhere,
    /// The site is still at it; this is what it last said.
    Late(String),
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn words(report: &Report) -> String {
    let said = report.desired.as_ref().map(|desired| desired.output.clone()).filter(|said| !said.is_empty());
    said.unwrap_or_else(|| "the site has said nothing more about it".to_owned())
}

/// What the site has made of the document as it is now; none while it has not said its last word. What failed before
/// `since` was another edit.
fn state(site: &SiteName, view: &ReplicantView, since: u64) -> Option<Settled> {
    let removed = view.deleted.is_some();
    let status = view.sites.get(site);
    if !removed && !here::lives(site, view) {
        return Some(Settled::Elsewhere);
    }
    let report = status?.report.as_ref()?;
    match report.status {
        Status::Removed if removed => Some(Settled::Applied),
        _ if !status?.current => None,
        Status::Applied | Status::Skipped if !removed => Some(Settled::Applied),
        Status::Failed | Status::NeedsAttention => {
            let tried = report.desired.as_ref().is_some_and(|desired| desired.at >= since);
            tried.then(|| Settled::Failed(words(report)))
        }
        _ => None,
    }
}

/// The next event about a replicant; also returns when some were missed, or the node stops.
async fn next_about(events: &mut Events, id: &ReplicantId) {
    while let Some(Followed::Event(_, event)) = events.next().await {
        match &event.what {
            Happening::Changed { replicant, .. }
            | Happening::Reported { replicant, .. }
            | Happening::Deleted { replicant }
            | Happening::Placed { replicant, .. }
                if replicant == id =>
            {
                return;
            }
            _ => {}
        }
    }
}

impl Front {
    /// A replicant as it is now; none if nobody who can be asked knows it.
    pub(super) async fn view(&self, id: &ReplicantId) -> Result<Option<Box<ReplicantView>>, Refusal> {
        match self.handle.request("kubernetes-front".to_owned(), Request::Get { id: id.clone() }).await {
            Ok(Response::Replicant(view)) => Ok(Some(view)),
            Ok(_) => Err(Refusal::busy("the node has answered something else")),
            Err(khufu_engine::RequestError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether this node has a replicant, without asking others.
    pub(super) async fn is_held(&self, id: &ReplicantId) -> Result<bool, Refusal> {
        let query = ListQuery { only: Some(id.clone()), ..ListQuery::default() };
        match self.handle.request("kubernetes-front".to_owned(), Request::List(query)).await? {
            Response::List(page) => Ok(!page.items.is_empty()),
            _ => Err(Refusal::busy("the node has answered something else")),
        }
    }

    /// Waits until this site has made of an edit, since it was asked for, what it can; or until `gone` says so.
    pub(super) async fn settled(
        &self,
        id: &ReplicantId,
        mut events: Events,
        since: u64,
        gone: Option<Going<'_>>,
    ) -> Result<Settled, Refusal> {
        let until = Instant::now() + PATIENCE;
        loop {
            let view = self.view(id).await?;
            let Some(view) = view else { return Ok(Settled::Elsewhere) };
            if let Some(settled) = state(self.handle.site(), &view, since) {
                return Ok(settled);
            }
            if let Some(gone) = &gone
                && gone.is_gone(self).await
            {
                return Ok(Settled::Applied);
            }
            if Instant::now() >= until {
                let report = view.sites.get(self.handle.site()).and_then(|status| status.report.as_ref());
                return Ok(Settled::Late(report.map(words).unwrap_or_default()));
            }
            // What goes away is looked at now and then: its finalizers may take long.
            let soon = if gone.is_some() { Instant::now() + Duration::from_millis(200) } else { until };
            let _ = tokio::time::timeout_at(soon.min(until), next_about(&mut events, id)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn view(sites: Value, deleted: bool) -> ReplicantView {
        let deleted = deleted.then(|| json!({"at": 1, "by": "paris", "keep": false}));
        let placement = json!({"sites": ["paris"], "mode": "replicate", "expression": "paris", "decided_at": 1, "decided_by": "paris"});
        serde_json::from_value(json!({
            "id": "web", "epoch": 0, "kind": "kubernetes", "scope": "paris", "placement": placement, "policy": {},
            "desired": {}, "overrides": {}, "resolved": [], "operations": [], "deleted": deleted, "heads": [],
            "conflicts": 0, "status": "pending", "sites": sites, "bytes": 1, "warnings": [],
        }))
        .unwrap()
    }

    fn site(status: &str, current: bool, at: u64) -> Value {
        let desired = json!({"status": status, "output": "why", "at": at});
        let report =
            json!({"replicant": "web", "epoch": 0, "site": "paris", "seq": 1, "status": status, "desired": desired});
        json!({"paris": {"state": "alive", "report": report, "current": current, "leaving": false}})
    }

    #[test]
    fn only_the_last_word_on_this_edit_counts() {
        let paris = SiteName::new("paris").unwrap();
        let of = |sites, deleted| state(&paris, &view(sites, deleted), 100);
        assert_eq!(of(json!({}), false), None);
        assert_eq!(of(site("applied", true, 1), false), Some(Settled::Applied));
        assert_eq!(of(site("applied", false, 1), false), None);
        assert_eq!(of(site("pending", true, 200), false), None);
        assert_eq!(of(site("failed", true, 100), false), Some(Settled::Failed("why".into())));
        assert_eq!(of(site("failed", true, 99), false), None);
        assert_eq!(of(site("removed", false, 99), true), Some(Settled::Applied));
        assert_eq!(of(site("applied", true, 99), true), None);
        let elsewhere = SiteName::new("rennes").unwrap();
        assert_eq!(state(&elsewhere, &view(json!({}), false), 0), Some(Settled::Elsewhere));
        let mut spans = view(json!({}), false);
        let placement = spans.placement.as_mut().unwrap();
        (placement.mode, placement.prime) = (khufu_crdt::Mode::Cross, Some(elsewhere.clone()));
        placement.sites.insert(elsewhere);
        assert_eq!(state(&paris, &spans, 0), Some(Settled::Elsewhere), "the prime holds it");
    }
}
