//! `POST /exec/{id}`: an operation at all sites of a resource.

use std::sync::Arc;

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
use super::replies::Replies;
use super::{Cheops, Refused, Shared, matrix};
use crate::api::Caller;

/// The kind of replicants that resources are.
const KIND: &str = "shell";

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
    let policy = form.config.as_deref().map(matrix::policy).transpose()?;
    if !sites.contains(cheops.handle.site()) {
        return Err(Refused::bad("Site is not in locations"));
    }
    if command.is_empty() {
        return Err(Refused::bad("bad request: the command is empty"));
    }
    let who = caller.0.to_string();
    let scope = sites.iter().map(|site| site.as_str()).collect::<Vec<_>>().join(" & ");
    let view = cheops.resource(&who, &id, scope, policy).await?;
    let files: Map<String, Value> =
        form.files.iter().map(|(name, bytes)| (name.clone(), STANDARD.encode(bytes).into())).collect();
    // From before it is asked for, so that no reply is missed.
    let events = cheops.handle.follow(None);
    let payload = json!({"command": command, "files": files});
    let operate = Operate { id: id.clone(), operation: None, op_type, payload, wait_ms: 0 };
    let Response::Operation(answer) = cheops.handle.request(who.clone(), Request::Operate(operate)).await? else {
        return Err(Refused(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal error".into()));
    };
    let sites = view.placement.map(|placement| placement.sites).unwrap_or_default();
    let replies = Replies::new(cheops.handle.clone(), who, id, answer.operation.id, command, sites, events);
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(replies.into_lines())).into_response())
}

impl Cheops {
    /// The replicant of a resource, made if there is none. As in Cheops, the sites of the first request count.
    async fn resource(
        self: &Arc<Self>,
        who: &str,
        id: &ReplicantId,
        scope: String,
        policy: Option<Policy>,
    ) -> Result<ReplicantView, Refused> {
        let known = match self.handle.request(who.to_owned(), Request::Get { id: id.clone() }).await {
            Ok(Response::Replicant(view)) if view.deleted.is_none() => Some(view),
            Ok(_) | Err(RequestError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let put = match known {
            Some(view) if view.kind != KIND => {
                return Err(Refused::bad(format!("bad request: {id} is of kind {:?}, not {KIND:?}", view.kind)));
            }
            Some(view) if policy.as_ref().is_none_or(|policy| says_the_same(policy, &view.policy)) => return Ok(*view),
            // Another matrix than the one before takes its place.
            Some(_) => Put { policy, ..edit(id) },
            None => Put { kind: Some(KIND.into()), scope: Some(scope), policy, ..edit(id) },
        };
        match self.handle.request(who.to_owned(), Request::Put(put)).await? {
            Response::Created(view) | Response::Replicant(view) => Ok(*view),
            _ => Err(Refused(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal error".into())),
        }
    }
}

fn says_the_same(wanted: &Policy, there: &Policy) -> bool {
    wanted.resolutions == there.resolutions && wanted.types == there.types
}

fn edit(id: &ReplicantId) -> Put {
    Put { id: id.clone(), kind: None, scope: None, policy: None, desired: None, overrides: None, base: None }
}
