//! What users see.

use std::collections::BTreeMap;
use std::ops::Bound;

use khufu_crdt::{Capabilities, Fate, ReplicantId, SiteName, Step, plan};

use crate::output::DiffWork;
use crate::replicant::{Entry, Placed};
use crate::request::sentences;
use crate::{
    DriverDone, DriverFailure, Engine, HealthView, ListQuery, Liveness, OperationView, Page, ReplicantView,
    RequestError, Response, SitePlan, SiteStatus, SiteView, Summary,
};

/// The most lines of one page.
const MAX_PAGE: usize = 1000;

pub(super) fn not_found(id: &ReplicantId) -> RequestError {
    RequestError::NotFound { id: id.clone(), unreachable: Vec::new() }
}

/// What this site would do with a replicant now.
pub(crate) struct Forecast {
    pub(crate) plan: SitePlan,
    pub(crate) work: Vec<DiffWork>,
}

impl Engine {
    pub(crate) fn list(&self, query: &ListQuery) -> Response {
        let limit = if query.limit == 0 { 100 } else { query.limit.min(MAX_PAGE) };
        let range = match (&query.only, &query.after) {
            (Some(only), _) => (Bound::Included(only), Bound::Included(only)),
            (None, Some(after)) => (Bound::Excluded(after), Bound::Unbounded),
            (None, None) => (Bound::Unbounded, Bound::Unbounded),
        };
        let removed = query.status == Some(khufu_crdt::Status::Removed);
        let mut page = Page::default();
        for (id, entry) in self.replicants.index.range::<ReplicantId, _>(range) {
            let sites = entry.placement.as_ref().map(Placed::sites);
            let wanted = !entry.dropped
                && (!entry.deleted || removed)
                && query.kind.as_ref().is_none_or(|kind| **kind == *entry.kind)
                && query.site.as_ref().is_none_or(|site| sites.is_some_and(|sites| sites.contains(site)))
                && query.status.is_none_or(|status| status == entry.status());
            if !wanted {
                continue;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(|item| item.id.clone());
                break;
            }
            page.items.push(Summary {
                id: id.clone(),
                kind: entry.kind.to_string(),
                scope: entry.scope.to_string(),
                sites: sites.cloned().unwrap_or_default(),
                status: entry.status(),
                deleted: entry.deleted,
                operations: entry.operations,
                conflicts: entry.conflicts,
            });
        }
        Response::List(page)
    }

    pub(crate) fn site_views(&self) -> Response {
        let mut sites: Vec<_> = self
            .members
            .sites()
            .into_iter()
            .filter(|site| *site != self.config.site)
            .map(|site| self.members.view(&site, self.now))
            .collect();
        let this = crate::NodeView {
            node: self.config.node.clone(),
            addresses: self.record.addresses.clone(),
            connected: true,
            phi: 0.0,
            version: self.config.version.clone(),
        };
        let others = self.members.view(&self.config.site, self.now).nodes;
        sites.push(SiteView {
            site: self.config.site.clone(),
            here: true,
            state: Liveness::Alive,
            seen_at: Some(self.now.wall_ms),
            labels: self.config.labels.clone(),
            kinds: self.record.kinds.clone(),
            away: self.record.away.clone(),
            nodes: std::iter::once(this).chain(others).collect(),
            rtt_ms: Some(0.0),
        });
        sites.sort_by(|a, b| a.site.cmp(&b.site));
        Response::Sites(sites)
    }

    pub(crate) fn view(&mut self, id: &ReplicantId) -> Result<ReplicantView, RequestError> {
        let entry = self.replicants.held(id).ok_or_else(|| not_found(id))?.clone();
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        let listed = resident.listed();
        let doc = &resident.doc;
        let state = doc.state();
        let state_kind = state.kind.clone();
        let mut warnings = sentences(&state.policy.warnings());
        if doc.is_large() {
            warnings.push(format!(
                "the document is large ({} bytes): split the replicant, or keep large payloads outside of it",
                doc.size()
            ));
        }
        let operations = listed
            .operations(state)
            .values()
            .map(|operation| OperationView {
                fate: listed.resolved.fates.get(&operation.id).cloned().unwrap_or(Fate::Live),
                operation: operation.clone(),
            })
            .collect();
        let sites: BTreeMap<_, _> = entry
            .placement
            .iter()
            .flat_map(|placement| placement.holders())
            .map(|site| {
                let here = *site == self.config.site;
                let state = if here { Liveness::Alive } else { self.members.site_state(site) };
                let report = resident.reports.get(site);
                let heard_at = || self.members.view(site, self.now).seen_at;
                let away = || {
                    if here { self.record.away.get(&state_kind).copied() } else { self.members.away(site, &state_kind) }
                };
                let status = SiteStatus {
                    state,
                    health: report.and_then(|report| HealthView::of(report, state, heard_at(), away())),
                    report: report.cloned(),
                    current: entry.current.contains(site),
                    leaving: entry.placement.as_ref().is_some_and(|placement| placement.leaving().contains(site)),
                };
                (site.clone(), status)
            })
            .collect();
        let mut view = ReplicantView {
            id: id.clone(),
            epoch: entry.epoch,
            kind: state.kind.clone(),
            scope: state.scope.clone(),
            placement: state.placement.clone(),
            policy: state.policy.clone(),
            desired: state.desired.clone(),
            overrides: state.overrides.clone(),
            resolved: listed.resolved.list.clone(),
            operations,
            deleted: state.deleted.clone(),
            heads: doc.heads(),
            conflicts: entry.conflicts,
            status: entry.status(),
            health: None,
            sites,
            bytes: doc.size(),
            warnings,
        };
        self.fill_health(&entry, &mut view.sites);
        let healths = view.sites.iter().filter_map(|(site, status)| Some((site, status.health.as_ref()?)));
        view.health = HealthView::worst(healths);
        Ok(view)
    }

    /// Where some sites say how their replicas are doing, those that are to have one and say nothing are not well.
    fn fill_health(&self, entry: &Entry, sites: &mut BTreeMap<SiteName, SiteStatus>) {
        if sites.values().all(|status| status.health.is_none()) {
            return;
        }
        let has_replica = |site: &SiteName| entry.placement.as_ref().is_some_and(|placed| placed.has_replica(site));
        for (site, status) in sites.iter_mut().filter(|(site, status)| status.health.is_none() && has_replica(site)) {
            let heard_at = self.members.view(site, self.now).seen_at;
            status.health =
                HealthView::unseen(status.report.as_ref(), status.state, heard_at.unwrap_or(self.now.wall_ms));
        }
    }

    /// What this site would do with a resident document now.
    pub(crate) fn forecast(&mut self, id: &ReplicantId) -> Option<Forecast> {
        let here = self.config.site.clone();
        let resident = self.replicants.resident.get_mut(id)?;
        let listed = resident.listed();
        let state = resident.doc.state();
        let (resolved, operations) = (&listed.resolved, listed.operations(state));
        let capabilities = self.config.kinds.get(&state.kind).copied().unwrap_or_default();
        let effective = resident.doc.effective(&here);
        let member = state.deleted.is_none()
            && resident.work.expelled.is_empty()
            && state.placement.as_ref().is_some_and(|placement| placement.has_replica(&here));
        let mut forecast = Forecast {
            plan: SitePlan {
                site: here,
                unknown: None,
                rule: 0,
                rebuild: false,
                steps: Vec::new(),
                needs_attention: None,
                diff: String::new(),
            },
            work: Vec::new(),
        };
        if !member {
            if !resident.work.removed {
                forecast.plan.steps.push("remove the replica".into());
            }
            return Some(forecast);
        }
        let effective = match effective {
            Ok(effective) => effective,
            Err(error) => {
                forecast.plan.needs_attention = Some(error.to_string());
                return Some(forecast);
            }
        };
        let wanted = crate::work::wanted(&effective, &state.policy);
        let mut applied = resident.work.applied.clone();
        let other = wanted != resident.work.desired;
        let again = resident.work.rebuild || (other && (wanted.is_none() || !applied.sequence().is_empty()));
        let capabilities =
            Capabilities { reset: crate::work::may_reset(&capabilities, wanted.is_some(), resolved), ..capabilities };
        if again && capabilities.reset {
            applied = khufu_crdt::Applied::default();
            forecast.plan.rebuild = true;
            // What is wanted is written in place of all that is there.
            if wanted.is_none() {
                forecast.plan.steps.push("reset the replica".into());
                forecast.work.push(DiffWork::Reset);
            }
        }
        if let Some(digest) = &wanted
            && (again || other)
        {
            forecast.plan.steps.push(format!("write the desired state {}", digest.get(..12).unwrap_or(digest)));
            forecast.work.push(DiffWork::Desired(effective));
        }
        let plan = plan(&applied, resolved, operations, &state.policy, &capabilities);
        forecast.plan.rule = plan.rule;
        forecast.plan.rebuild |= plan.rebuild;
        forecast.plan.needs_attention = plan.needs_attention.or_else(|| resident.work.attention.clone());
        for step in &plan.steps {
            let (words, op) = match step {
                Step::Run(op) => ("run", Some(op)),
                Step::Rebase(op) => ("start over with", Some(op)),
                Step::Undo(op) => ("take back", Some(op)),
                Step::Reset => ("reset the replica", None),
                Step::Forget(op) => ("forget what failed:", Some(op)),
            };
            let operation = op.and_then(|op| operations.get(op));
            let what =
                operation.map(|operation| format!(" {} ({})", operation.id, operation.op_type)).unwrap_or_default();
            forecast.plan.steps.push(format!("{words}{what}"));
            match (step, operation) {
                (Step::Reset, _) => forecast.work.push(DiffWork::Reset),
                (Step::Run(_) | Step::Rebase(_), Some(operation)) => {
                    forecast.work.push(DiffWork::Operation(operation.clone()));
                }
                _ => {}
            }
        }
        Some(forecast)
    }

    /// The driver has said what would change.
    pub(crate) fn site_plan(
        &mut self,
        id: &ReplicantId,
        result: Result<DriverDone, DriverFailure>,
    ) -> Result<SitePlan, RequestError> {
        let mut plan = self.forecast(id).ok_or_else(|| not_found(id))?.plan;
        match result {
            Ok(done) => plan.diff = done.output,
            Err(failure) => plan.diff = format!("(the driver cannot say what would change: {})", failure.message),
        }
        Ok(plan)
    }
}
