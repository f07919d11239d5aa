//! `POST /exec/{id}`: an operation at all sites of a resource.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response as HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use khufu_crdt::{Policy, ReplicantId};
use khufu_engine::{Operate, Put, ReplicantView, Request, RequestError, Response};
use serde_json::{Map, Value, json};

use super::form::Form;
use super::matrix::Matrix;
use super::replies::{Asked, Replies};
use super::{Cheops, Refused, Shared};
use crate::api::Caller;

/// The kind of replicants that resources are.
const KIND: &str = "shell";
/// How often a resource is looked at again that somebody else has made or edited in the meantime.
const ATTEMPTS: usize = 4;

pub(super) async fn exec(
    State(cheops): Shared,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    form: Form,
) -> Result<HttpResponse, Refused> {
    let id = ReplicantId::new(id).map_err(|error| Refused::bad(format!("bad request: {error}")))?;
    let command = form.command()?.to_owned();
    let op_type = form.op_type.clone().filter(|op_type| !op_type.is_empty());
    let op_type = op_type.ok_or_else(|| Refused::bad("bad request: there is no part `type`"))?;
    let sites = form.sites()?;
    let matrix = form.config.as_deref().map(Matrix::read).transpose()?;
    if !sites.contains(cheops.handle.site()) {
        return Err(Refused::bad("Site is not in locations"));
    }
    if command.is_empty() {
        return Err(Refused::bad("bad request: the command is empty"));
    }
    let who = caller.0.to_string();
    let scope = sites.iter().map(|site| site.as_str()).collect::<Vec<_>>().join(" & ");
    let view = cheops.resource(&who, &id, &scope, matrix.as_ref()).await?;
    let files: Map<String, Value> =
        form.files.iter().map(|(name, bytes)| (name.clone(), STANDARD.encode(bytes).into())).collect();
    // From before it is asked for, so that no reply is missed.
    let events = cheops.handle.follow(None);
    let payload = json!({"command": command, "files": files});
    let operate = Operate { id: id.clone(), operation: None, op_type, payload, wait_ms: 0 };
    let Response::Operation(answer) = cheops.handle.request(who.clone(), Request::Operate(operate)).await? else {
        return Err(Refused::internal());
    };
    let sites = view.placement.map(|placement| placement.sites).unwrap_or_default();
    let asked = Asked { locations: sites, request_id: answer.operation.id, resource_id: id, input: command };
    let replies = Replies::new(cheops.handle.clone(), who, asked, events);
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(replies.into_lines())).into_response())
}

impl Cheops {
    /// What there is of a resource; none if nobody who can be asked has it.
    ///
    /// # Errors
    /// If it is no resource of Cheops.
    pub(super) async fn view(&self, who: &str, id: &ReplicantId) -> Result<Option<ReplicantView>, Refused> {
        let view = match self.handle.request(who.to_owned(), Request::Get { id: id.clone() }).await {
            Ok(Response::Replicant(view)) if view.deleted.is_none() => view,
            Ok(_) | Err(RequestError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if view.kind != KIND {
            return Err(Refused::bad(format!("bad request: {id} is of kind {:?}, not {KIND:?}", view.kind)));
        }
        Ok(Some(*view))
    }

    /// The same, for whoever asks for something to be done at a site where it lives.
    async fn known(&self, who: &str, id: &ReplicantId) -> Result<Option<ReplicantView>, Refused> {
        let Some(view) = self.view(who, id).await? else { return Ok(None) };
        let sites = view.placement.iter().flat_map(|placement| &placement.sites);
        if !sites.clone().any(|site| site == self.handle.site()) {
            let sites = sites.map(|site| site.as_str()).collect::<Vec<_>>().join("&");
            let reason = format!("Site is not in locations: {id} is at {sites}, and not at {}", self.handle.site());
            return Err(Refused::bad(reason));
        }
        Ok(Some(view))
    }

    /// The replicant of a resource, made if there is none. As in Cheops, the sites of the first request count.
    async fn resource(
        &self,
        who: &str,
        id: &ReplicantId,
        scope: &str,
        matrix: Option<&Matrix>,
    ) -> Result<ReplicantView, Refused> {
        let _turn = self.turns.take(id.to_string()).await?;
        let mut refusal = Refused::internal();
        for _ in 0..ATTEMPTS {
            let put = match self.known(who, id).await? {
                Some(view) => match matrix.map(|matrix| matrix.laid_over(&view.policy)) {
                    Some(policy) if policy != view.policy => {
                        Put { policy: Some(policy), base: Some(view.heads), ..edit(id) }
                    }
                    _ => return Ok(view),
                },
                None => Put {
                    kind: Some(KIND.into()),
                    scope: Some(scope.to_owned()),
                    policy: matrix.map(|matrix| matrix.laid_over(&Policy::default())),
                    // Where somebody else makes it at the same time, it is where that one says.
                    base: Some(Vec::new()),
                    ..edit(id)
                },
            };
            match self.handle.request(who.to_owned(), Request::Put(put)).await {
                Ok(Response::Created(view) | Response::Replicant(view)) => return Ok(*view),
                Ok(_) => return Err(Refused::internal()),
                Err(error @ RequestError::Conflict { .. }) => refusal = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(refusal)
    }
}

fn edit(id: &ReplicantId) -> Put {
    Put { id: id.clone(), kind: None, scope: None, policy: None, desired: None, overrides: None, base: None }
}
