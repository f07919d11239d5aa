//! Where replicants live: scopes turned into placements, and decided anew when sites come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use khufu_crdt::{Mode, Placement, ReplicantId, SiteName};
use khufu_scope::{Anchor, Expr, Item, Scope, SiteView, State, View};

use crate::engine::Task;
use crate::timers::Due;
use crate::{Engine, ExplainedPlace, Explanation, Liveness, RequestError, Response};

/// Whether the value of a scope can change while its text does not. One that says `here` was decided once and for all,
/// by the node that was asked.
pub(crate) fn is_moving(scope: &str) -> bool {
    let Ok(scope) = khufu_scope::parse(scope) else { return false };
    let exprs = || {
        scope.items().iter().filter_map(|item| match item {
            Item::Place { expr, .. } => Some(expr.node()),
            Item::Prime(_) => None,
        })
    };
    exprs().any(chooses) && !exprs().any(says_here)
}

fn chooses(expr: &Expr) -> bool {
    match expr {
        Expr::One(_) => false,
        Expr::All | Expr::Labels(_) | Expr::Around { .. } | Expr::Some { .. } | Expr::Otherwise(_) | Expr::Not(_) => {
            true
        }
        Expr::Replicate(parts) | Expr::Cross(parts) => parts.iter().any(|part| chooses(part.node())),
    }
}

fn says_here(expr: &Expr) -> bool {
    match expr {
        Expr::One(anchor) => matches!(anchor, Anchor::Here),
        Expr::Around { site, .. } => matches!(site.node(), Anchor::Here),
        Expr::Some { of, .. } | Expr::Not(of) => says_here(of.node()),
        Expr::Replicate(parts) | Expr::Cross(parts) | Expr::Otherwise(parts) => {
            parts.iter().any(|part| says_here(part.node()))
        }
        Expr::All | Expr::Labels(_) => false,
    }
}

fn state(liveness: Liveness) -> State {
    match liveness {
        Liveness::Alive => State::Alive,
        Liveness::Suspect => State::Suspect,
        Liveness::Down => State::Down,
    }
}

fn rtt(ms: BTreeMap<SiteName, f64>) -> BTreeMap<String, Duration> {
    // What cannot be a time is left out, so that no measurement of another site can stop this one.
    ms.into_iter()
        .filter_map(|(site, ms)| Some((site.to_string(), Duration::try_from_secs_f64(ms / 1000.0).ok()?)))
        .collect()
}

fn names_prime(scope: &str) -> bool {
    khufu_scope::parse(scope).is_ok_and(|scope| scope.items().iter().any(|item| matches!(item, Item::Prime(_))))
}

/// Keeps sites of an older decision in the next one. Of what spans sites there is one replica, so they keep no more than the
/// document; where the next decision makes several replicas they are among those that leave instead, which give nothing
/// away before others have it either.
fn keep(old: Mode, next: &mut Placement, staying: BTreeSet<SiteName>) {
    if old == Mode::Cross && next.mode == Mode::Replicate && !staying.is_empty() {
        if next.sites.len() > 1 {
            return;
        }
        next.prime = next.sites.first().cloned();
        next.mode = Mode::Cross;
    }
    next.sites.extend(staying);
}

impl Engine {
    /// The sites as seen from here, for a scope that was written at `here`, each in the state that `state_of` gives.
    fn scope_view(&self, here: &SiteName, state_of: impl Fn(&SiteName) -> Liveness) -> View {
        let mut sites = BTreeMap::new();
        for site in self.members.sites() {
            let nodes: Vec<_> = self.members.nodes_of(&site).collect();
            let view = SiteView {
                labels: nodes.iter().flat_map(|node| node.record.labels.clone()).collect(),
                state: state(state_of(&site)),
                load: nodes.iter().map(|node| node.load).fold(0.0, f64::max),
                rtt: nodes.iter().flat_map(|node| rtt(node.rtt_ms.clone())).collect(),
                held: false,
            };
            sites.insert(site.to_string(), view);
        }
        let own = SiteView {
            labels: self.config.labels.clone(),
            state: State::Alive,
            load: self.load(),
            rtt: rtt(self.members.distances()),
            held: false,
        };
        sites.insert(self.config.site.to_string(), own);
        View { here: here.to_string(), sites }
    }

    fn parsed(&self, scope: &str) -> Result<Scope, RequestError> {
        khufu_scope::parse(scope).map_err(|errors| RequestError::Invalid {
            message: format!("the scope {scope:?} cannot be read: {errors}"),
        })
    }

    /// Decides where a replicant of a kind lives, as the sites are at this moment.
    pub(crate) fn decide(&mut self, scope: &str, here: &SiteName, kind: &str) -> Result<Placement, RequestError> {
        let view = self.scope_view(here, |site| self.liveness(site));
        self.decide_in(&view, scope, kind)
    }

    fn decide_in(&mut self, view: &View, scope: &str, kind: &str) -> Result<Placement, RequestError> {
        let parsed = self.parsed(scope)?;
        let value = khufu_scope::evaluate(&parsed, view).map_err(|errors| RequestError::Invalid {
            message: format!("the scope {scope:?} has no value: {errors}"),
        })?;
        let place = value.for_service(kind).ok_or_else(|| RequestError::Invalid {
            message: format!("the scope {scope:?} says nothing of {kind:?}: name it, or leave the service out"),
        })?;
        let site = |name: &String| {
            SiteName::new(name.as_str()).map_err(|error| RequestError::Invalid { message: error.to_string() })
        };
        let sites = place.sites.iter().map(site).collect::<Result<BTreeSet<_>, _>>()?;
        let mode = match place.mode {
            khufu_scope::Mode::Replicate => Mode::Replicate,
            khufu_scope::Mode::Cross => Mode::Cross,
        };
        let placement = Placement {
            sites,
            leaving: BTreeSet::new(),
            mode,
            prime: place.prime.as_ref().map(site).transpose()?,
            expression: scope.to_owned(),
            decided_at: self.clock.tick(self.now.wall_ms),
            decided_by: self.config.site.clone(),
        };
        for site in placement.sites.iter().filter(|site| placement.has_replica(site)) {
            let drives = if *site == self.config.site {
                Some(self.config.kinds.contains_key(kind))
            } else {
                self.members.drives(site, kind)
            };
            if drives == Some(false) {
                let message = format!(
                    "site {site} has no driver of kind {kind:?}: choose another kind, or start its node with one"
                );
                return Err(RequestError::Invalid { message });
            }
        }
        Ok(placement)
    }

    pub(crate) fn explain(&self, scope: &str, here: &SiteName) -> Result<Response, RequestError> {
        let parsed = self.parsed(scope)?;
        let value = khufu_scope::evaluate(&parsed, &self.scope_view(here, |site| self.liveness(site)))
            .map_err(|errors| RequestError::Invalid { message: errors.to_string() })?;
        let places = value
            .places
            .into_iter()
            .map(|place| ExplainedPlace {
                service: place.service,
                sites: place.sites,
                cross: place.mode == khufu_scope::Mode::Cross,
                prime: place.prime,
                reasons: place.reasons,
            })
            .collect();
        Ok(Response::Explain(Explanation { canonical: parsed.to_string(), places }))
    }

    /// What is to be cleaned up when `next` takes the place of what an index entry says.
    pub(crate) fn with_leaving(&self, id: &ReplicantId, mut next: Placement) -> Placement {
        if let Some(entry) = self.replicants.held(id) {
            next.leaving = entry.holders().into_iter().filter(|site| !next.sites.contains(site)).collect();
        }
        next
    }

    /// A site came or went. Placements that depend on it are looked at once it has stayed so for a while, whatever other
    /// sites do meanwhile.
    pub(crate) fn placements_may_change(&mut self) {
        let at = self.now.plus(self.config.settle);
        self.timers.set_by(Due::Place, at);
    }

    pub(crate) fn place_all(&mut self) {
        let moving: Vec<_> = self
            .replicants
            .index
            .iter()
            .filter(|(_, entry)| entry.moving && !entry.dropped && !entry.deleted)
            .map(|(id, _)| id.clone())
            .collect();
        for id in moving {
            // Whoever comes and goes is not counted on to decide.
            if self.decides(&id, |site| self.members.is_steady(site, self.now)) {
                self.run(id, Task::Place);
            }
        }
        if let Some(at_us) = self.members.next_settled_us(self.now) {
            self.timers.set_by(Due::Place, at_us);
        }
    }

    /// Of the holders that are alive, and of which `counts` is true, the first by name decides, so that not all do it at
    /// once. Two that cannot see each other both do; one decision wins.
    pub(crate) fn decides(&self, id: &ReplicantId, counts: impl Fn(&SiteName) -> bool) -> bool {
        let Some(placement) = self.replicants.held(id).and_then(|entry| entry.placement.as_ref()) else { return false };
        let here = &self.config.site;
        let may = |site: &&SiteName| *site == here || (self.liveness(site) == Liveness::Alive && counts(site));
        placement.sites().iter().find(may) == Some(here)
    }

    /// Whether a site is down, or was until a moment ago.
    fn is_down(&self, site: &SiteName) -> bool {
        let settled = *site != self.config.site && self.members.settled_state(site, self.now) == Liveness::Down;
        settled || self.liveness(site) == Liveness::Down
    }

    /// Two concurrent edits can leave a scope beside the placement of another: one site decides again.
    pub(crate) fn place_if_stale(&mut self, id: &ReplicantId) {
        let Some(entry) = self.replicants.held(id) else { return };
        let stale = entry.placement.as_ref().is_some_and(|placement| placement.expression() != &*entry.scope);
        if stale && !entry.deleted && self.decides(id, |_| true) {
            self.place(id);
        }
    }

    /// Decides again where a resident replicant lives, if that has changed.
    pub(crate) fn place(&mut self, id: &ReplicantId) {
        let Some(entry) = self.replicants.held(id).cloned() else { return };
        let Some(old) = &entry.placement else { return };
        // A document that could not be read says nothing, and must not be told as if it did.
        if self.replicants.resident.get(id).is_none_or(|resident| resident.provisional) {
            return;
        }
        let restated = old.expression() != &*entry.scope;
        let here = if restated { self.config.site.clone() } else { old.decided_by().clone() };
        let mut view = self.scope_view(&here, |site| self.members.settled_state(site, self.now));
        for site in old.sites() {
            // Measured times change with every heartbeat: nothing moves because of that alone.
            if let Some(site) = view.sites.get_mut(site.as_str()) {
                site.held = true;
            }
        }
        let mut next = match self.decide_in(&view, &entry.scope, &entry.kind) {
            Ok(next) => next,
            Err(error) => {
                let message = format!("where it lives cannot be decided anew, so it stays: {error}");
                return self.warn(Some(id.clone()), message);
            }
        };
        // A prime that was chosen stays where it is while it works.
        if let (Mode::Cross, Some(prime)) = (next.mode, old.prime())
            && next.sites == *old.sites()
            && !names_prime(&entry.scope)
            && !self.is_down(prime)
        {
            next.prime = Some(prime.clone());
        }
        // Nobody is taken out because of silence, nor before those who follow have the contents.
        let ready = |site: &SiteName| self.liveness(site) == Liveness::Alive && (entry.current.contains(site));
        let all_ready = next.sites.iter().all(ready);
        let wanted = next.sites.clone();
        let stays = |site: &&SiteName| !next.sites.contains(*site) && (self.is_down(site) || !all_ready);
        let staying = old.sites().iter().filter(stays).cloned().collect();
        keep(old.mode(), &mut next, staying);
        let behind = |site: &SiteName| self.liveness(site) == Liveness::Alive && !entry.current.contains(site);
        if wanted != next.sites && wanted.iter().any(behind) {
            // Who is to leave is seen again when those who follow have had their time.
            self.timers.set_by(Due::Place, self.now.plus(self.config.settle));
        }
        if next.sites == *old.sites() && next.mode == old.mode() && next.prime.as_ref() == old.prime() && !restated {
            return;
        }
        let next = self.with_leaving(id, next);
        let author = self.author("khufu", "sites came or went");
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        match resident.doc.set_scope(&author, &entry.scope, &next) {
            Ok(change) => self.commit(id, change.into_iter().collect()),
            Err(error) => self.warn(Some(id.clone()), format!("where it lives cannot be written: {error}")),
        }
        // Who is to leave is seen again when the others have what it has.
        self.placements_may_change();
    }
}
