//! Requests about one replicant that this node holds.

use std::collections::BTreeMap;

use khufu_crdt::{
    Author, Change, ChangeHash, DocumentId, EditError, OperationId, Payload, Placement, Replicant, ReplicantId,
    SiteName, Spec, cut_after, frontier,
};
use serde_json::Value;

use super::view::not_found;
use crate::engine::Task;
use crate::origin::Origin;
use crate::replicant::Resident;
use crate::work::{Side, Work};
use crate::{Engine, Operate, Put, Request, RequestError, Response};

fn refused(error: EditError) -> RequestError {
    match error {
        EditError::TooLarge { .. } => RequestError::TooLarge { message: error.to_string() },
        other => RequestError::Invalid { message: other.to_string() },
    }
}

/// What a request wants made.
fn spec(put: Put, kind: &str, scope: String, placement: Placement) -> Spec {
    Spec {
        kind: kind.to_owned(),
        scope,
        placement,
        policy: put.policy.unwrap_or_default(),
        desired: put.desired.unwrap_or(Value::Null),
        overrides: put.overrides.unwrap_or_default(),
    }
}

/// Makes each edit that a request asks for.
fn put_all(
    doc: &mut Replicant,
    author: &Author,
    put: &Put,
    placed: Option<&(String, Placement)>,
) -> Result<Vec<Change>, EditError> {
    let mut changes = Vec::new();
    if let Some(desired) = &put.desired {
        changes.extend(doc.set_desired(author, desired, put.base.as_deref())?);
    }
    if let Some(overrides) = &put.overrides {
        changes.extend(doc.set_overrides(author, overrides)?);
    }
    if let Some(policy) = &put.policy {
        changes.extend(doc.set_policy(author, policy, put.base.as_deref())?);
    }
    if let Some((scope, placement)) = placed {
        changes.extend(doc.set_scope(author, scope, placement)?);
    }
    Ok(changes)
}

impl Engine {
    /// Who changes something here now, and why.
    pub(crate) fn author(&mut self, who: &str, why: &str) -> Author {
        let at = self.clock.tick(self.now.wall_ms);
        Author { site: self.config.site.clone(), at, who: who.to_owned(), why: why.to_owned() }
    }

    /// A request about a resident document.
    pub(crate) fn request_for(&mut self, id: &ReplicantId, origin: Origin, who: String, request: Request) {
        let held = self.replicants.resident.get(id).is_some_and(|resident| !resident.provisional);
        if let Some(refusal) = self.refusal(&request) {
            return self.answer(&origin, Err(refusal));
        }
        if !held {
            // It lives here and nothing of it could be read.
            let error = match self.replicants.held(id) {
                Some(entry) if !entry.heads.is_empty() => RequestError::Storage {
                    message: format!(
                        "the document of {id} is damaged on the disk of site {}, and no other site has brought it back yet",
                        self.config.site
                    ),
                },
                _ => not_found(id),
            };
            return self.answer(&origin, Err(error));
        }
        let answer = match request {
            Request::Put(put) => return self.put(id, &origin, &who, put),
            Request::Operate(operate) => return self.operate(id, origin, &who, operate),
            Request::Plan { .. } => return self.plan_everywhere(id, origin),
            Request::Verify { .. } => return self.verify(origin, Some(id.clone())),
            Request::Get { .. } => self.view(id).map(|view| Response::Replicant(Box::new(view))),
            Request::History { limit, .. } => return self.history(id, origin, limit),
            Request::Conflicts { .. } => {
                let resident = self.replicants.resident.get(id);
                resident.map(|resident| Response::Conflicts(resident.doc.conflicts())).ok_or_else(|| not_found(id))
            }
            Request::Patch { patch, .. } => self.edit(id, &who, "patch the desired state", |resident, author| {
                resident.doc.patch_desired(author, &patch)
            }),
            Request::Pick { path, change, .. } => self.edit(id, &who, "settle a conflict", |resident, author| {
                let cleaned = resident.cleaned();
                resident.doc.pick_knowing(author, &path, &change, &cleaned)
            }),
            Request::Delete { keep, base, .. } => self.delete(id, &who, keep, base),
            Request::List(_) | Request::Sites | Request::Explain { .. } => return,
        };
        self.answer(&origin, answer);
    }

    /// Makes one edit of a replicant that is not deleted, and answers with what it is then.
    fn edit(
        &mut self,
        id: &ReplicantId,
        who: &str,
        why: &str,
        make: impl FnOnce(&mut Resident, &Author) -> Result<Option<Change>, EditError>,
    ) -> Result<Response, RequestError> {
        self.alive(id)?;
        let author = self.author(who, why);
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        let change = make(resident, &author).map_err(refused)?;
        self.commit(id, change.into_iter().collect());
        self.view(id).map(|view| Response::Replicant(Box::new(view)))
    }

    fn alive(&self, id: &ReplicantId) -> Result<(), RequestError> {
        let resident = self.replicants.resident.get(id).ok_or_else(|| not_found(id))?;
        match &resident.doc.state().deleted {
            None => Ok(()),
            Some(deleted) => {
                let message = format!(
                    "{id} was deleted at {} (at clock {}): put it again to make a new one",
                    deleted.by, deleted.at
                );
                Err(RequestError::Conflict { message })
            }
        }
    }

    fn delete(
        &mut self,
        id: &ReplicantId,
        who: &str,
        keep: bool,
        base: Option<Vec<ChangeHash>>,
    ) -> Result<Response, RequestError> {
        if !self.is_newest(id, base.map(|base| self.renamed(id, base)).as_deref()) {
            let message = format!("{id} has been edited since it was read: read it again, and delete that");
            return Err(RequestError::Conflict { message });
        }
        let author = self.author(who, if keep { "delete, and keep the replicas" } else { "delete" });
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        if resident.doc.state().deleted.is_none() {
            let change = resident.doc.delete(&author, keep).map_err(refused)?;
            self.commit(id, change.into_iter().collect());
        }
        self.view(id).map(|view| Response::Replicant(Box::new(view)))
    }

    /// Keeps changes made here: on disk first, then told to others and to the driver.
    pub(crate) fn commit(&mut self, id: &ReplicantId, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let placement = self.replicants.held(id).and_then(|entry| entry.placement.clone());
        self.persist_changes(id, &changes, true);
        self.store_clock();
        // Sites that have just been added do not listen to the topic of this replica set yet.
        let direct = self.replicants.held(id).is_none_or(|entry| entry.placement != placement);
        self.tell_changes(id, &changes, direct);
        self.changed(id);
    }

    fn check_put(&self, id: &ReplicantId, put: &Put) -> Result<(), RequestError> {
        self.alive(id)?;
        let resident = self.replicants.resident.get(id).ok_or_else(|| not_found(id))?;
        let kind = &resident.doc.state().kind;
        if let Some(wanted) = put.kind.as_ref().filter(|wanted| *wanted != kind) {
            let message =
                format!("{id} is of kind {kind:?} and cannot become {wanted:?}: delete it first, or use another id");
            return Err(RequestError::Conflict { message });
        }
        if put.sees_nothing() {
            let message = format!("{id} was to be made, and is there already: read it, and edit that");
            return Err(RequestError::Conflict { message });
        }
        if let Some(base) = &put.base
            && let Some(unknown) = base.iter().find(|head| !resident.doc.has(head))
        {
            let message = format!(
                "the version {unknown} that this edit starts from is not known at site {} (yet): read it again here, and edit that",
                self.config.site
            );
            return Err(RequestError::Conflict { message });
        }
        Ok(())
    }

    /// What a user saw, which may have got another name with the epoch since.
    fn renamed(&self, id: &ReplicantId, mut base: Vec<ChangeHash>) -> Vec<ChangeHash> {
        if let Some(resident) = self.replicants.resident.get(id) {
            base.iter_mut().for_each(|head| *head = resident.renamed.get(head).copied().unwrap_or(*head));
        }
        base
    }

    /// Whether what a user saw is how it is now; also if nothing is said of what he saw.
    fn is_newest(&self, id: &ReplicantId, base: Option<&[ChangeHash]>) -> bool {
        let heads = || self.replicants.resident.get(id).map(|resident| resident.doc.heads()).unwrap_or_default();
        base.is_none_or(|base| heads().iter().all(|head| base.contains(head)))
    }

    fn put(&mut self, id: &ReplicantId, origin: &Origin, who: &str, mut put: Put) {
        put.base = put.base.map(|base| self.renamed(id, base));
        let deleted = self.replicants.held(id).is_some_and(|entry| entry.deleted);
        // An edit of what has been deleted since does not make it again.
        let answer = if deleted && (put.sees_nothing() || self.is_newest(id, put.base.as_deref())) {
            self.put_again(id, who, put)
        } else {
            self.check_put(id, &put).and_then(|()| self.put_parts(id, who, put))
        };
        self.answer(origin, answer);
    }

    fn put_parts(&mut self, id: &ReplicantId, who: &str, put: Put) -> Result<Response, RequestError> {
        let entry = self.replicants.held(id).ok_or_else(|| not_found(id))?;
        let (kind, scope_now) = (entry.kind.clone(), entry.scope.clone());
        let here = self.config.site.clone();
        // What can fail is tried before anything is changed.
        let placed = match put.scope.clone().filter(|scope| **scope != *scope_now) {
            Some(scope) => {
                let placement = self.decide(&scope, &here, &kind)?;
                Some((scope, self.with_leaving(id, placement)))
            }
            None => None,
        };
        let author = self.author(who, "put");
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        // All parts are taken, or none. The first that fails changes nothing, so one part alone needs no copy.
        let parts = [put.desired.is_some(), put.overrides.is_some(), put.policy.is_some(), placed.is_some()];
        let before = (parts.into_iter().filter(|given| *given).count() > 1).then(|| resident.doc.clone());
        let changes = put_all(&mut resident.doc, &author, &put, placed.as_ref());
        if changes.is_err()
            && let Some(before) = before
        {
            resident.doc = before;
        }
        self.commit(id, changes.map_err(refused)?);
        self.view(id).map(|view| Response::Replicant(Box::new(view)))
    }

    /// Makes a replicant that was deleted anew.
    fn put_again(&mut self, id: &ReplicantId, who: &str, put: Put) -> Result<Response, RequestError> {
        let entry = self.replicants.held(id).cloned().ok_or_else(|| not_found(id))?;
        let kind = put.kind.clone().unwrap_or_else(|| entry.kind.to_string());
        let scope = put.scope.clone().unwrap_or_else(|| entry.scope.to_string());
        let here = self.config.site.clone();
        let placement = self.decide(&scope, &here, &kind)?;
        // Sites that held the old one and are not among the new ones clean up.
        let placement = self.with_leaving(id, placement);
        let author = self.author(who, "create");
        let wanted = spec(put, &kind, scope, placement);
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        let change = match resident.doc.create(&author, wanted.clone()) {
            Err(EditError::TooLarge { .. }) if self.close_deleted(id) => {
                let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
                resident.doc.create(&author, wanted).map_err(refused)?
            }
            made => made.map_err(refused)?,
        };
        self.commit(id, change.into_iter().collect());
        self.view(id).map(|view| Response::Created(Box::new(view)))
    }

    /// Makes a replicant that lives here.
    pub(crate) fn create(
        &mut self,
        origin: &Origin,
        who: &str,
        put: Put,
        kind: &str,
        scope: String,
        placement: Placement,
    ) {
        let epoch = self.replicants.index.get(&put.id).filter(|entry| entry.dropped).map_or(0, |entry| entry.epoch);
        let id = put.id.clone();
        let made = self.make(who, put, kind, scope, placement, epoch);
        let answer = match made {
            Ok((mut resident, changes)) => {
                resident.used_us = self.now.monotonic_us;
                if let Some(old) = self.replicants.resident.remove(&id) {
                    self.end_sessions_of(&id);
                    resident.keep_work_of(*old);
                }
                self.replicants.resident.insert(id.clone(), Box::new(resident));
                self.adopt(&id, true);
                self.counters.changes_local += 1;
                self.store_clock();
                self.tell_changes(&id, &changes, true);
                self.changed(&id);
                self.view(&id).map(|view| Response::Created(Box::new(view)))
            }
            Err(error) => Err(error),
        };
        self.answer(origin, answer);
    }

    fn make(
        &mut self,
        who: &str,
        put: Put,
        kind: &str,
        scope: String,
        placement: Placement,
        epoch: u64,
    ) -> Result<(Resident, Vec<Change>), RequestError> {
        let invalid = |message: String| RequestError::Invalid { message };
        let document = DocumentId { replicant: put.id.clone(), epoch };
        let mut doc = Replicant::genesis(document, &self.actors.next())
            .map_err(|error| invalid(error.to_string()))?
            .with_limits(self.config.limits.clone());
        let author = self.author(who, "create");
        let change = doc.create(&author, spec(put, kind, scope, placement)).map_err(refused)?;
        let changes = change.into_iter().collect();
        Ok((Resident::new(doc, Work::default(), BTreeMap::<SiteName, _>::new(), true), changes))
    }

    fn operate(&mut self, id: &ReplicantId, origin: Origin, who: &str, operate: Operate) {
        match self.try_operate(id, who, operate.clone()) {
            Ok(operation) => self.wait(id, operation, origin, operate.wait_ms),
            Err(error) => self.answer(&origin, Err(error)),
        }
    }

    fn try_operate(&mut self, id: &ReplicantId, who: &str, operate: Operate) -> Result<OperationId, RequestError> {
        self.alive(id)?;
        if operate.op_type.is_empty() || operate.op_type.len() > 100 {
            let message = "the type of an operation has 1 to 100 bytes".to_owned();
            return Err(RequestError::Invalid { message });
        }
        let author = self.author(who, &format!("operation {}", operate.op_type));
        let operation = match operate.operation {
            Some(operation) => operation,
            None => {
                let name = format!("{}-{}-{}", self.config.site, author.at, self.actor_tag);
                OperationId::new(name).map_err(|error| RequestError::Invalid { message: error.to_string() })?
            }
        };
        let resident = self.replicants.resident.get_mut(id).ok_or_else(|| not_found(id))?;
        let state = resident.doc.state();
        if resident.doc.was_left_out(&operation) {
            let message = format!("operation {operation} was asked for before, and has been replaced since");
            return Err(RequestError::Conflict { message });
        }
        if let Some(known) = state.operation(&operation) {
            // Asked twice, which is the same as once.
            if known.op_type == operate.op_type && known.payload == Payload::Value(operate.payload) {
                return Ok(operation);
            }
            let message = format!("there is another operation with the id {operation}: give this one an id of its own");
            return Err(RequestError::Conflict { message });
        }
        let parents = frontier(&state.operations);
        let cut = cut_after(&state.base, &state.operations, &parents, &operate.op_type, &state.policy);
        let payload = Payload::Value(operate.payload);
        let change = resident
            .doc
            .operate(&author, operation.clone(), &operate.op_type, payload, parents, cut)
            .map_err(refused)?;
        self.commit(id, change.into_iter().collect());
        Ok(operation)
    }

    /// A dry run at this site.
    pub(crate) fn plan_here(&mut self, id: &ReplicantId, origin: Origin) {
        self.run(id.clone(), Task::Side(Side::Diff(origin)));
    }
}
