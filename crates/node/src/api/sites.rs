//! `/v1/sites`, `/v1/peers`, `/v1/verify`, `/v1/scope/explain` and, for drills, `/v1/faults`.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use khufu_crdt::ReplicantId;
use khufu_engine::{Explanation, Request, Response, SiteView, VerifyReport};
use serde::Deserialize;

use super::extract::{Json, NoQuery, Query};
use super::guard::Caller;
use super::{Api, Problem, unexpected};
use crate::{Faults, PeerView};

#[utoipa::path(get, path = "/v1/sites", tag = "sites",
    responses((status = 200, description = "The sites that this node knows", body = Vec<SiteView>)))]
/// The sites, as this node sees them
pub(crate) async fn sites(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    _: NoQuery,
) -> Result<axum::Json<Vec<SiteView>>, Problem> {
    match api.ask(&caller, Request::Sites).await? {
        Response::Sites(sites) => Ok(axum::Json(sites)),
        other => Err(unexpected(&other)),
    }
}

#[utoipa::path(get, path = "/v1/peers", tag = "sites",
    responses((status = 200, description = "The nodes that this one has a connection with", body = Vec<PeerView>)))]
/// The connections of this node
pub(crate) async fn peers(State(api): State<Api>, _: NoQuery) -> axum::Json<Vec<PeerView>> {
    axum::Json(api.handle.peers().await)
}

/// What to compare.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct VerifyParams {
    /// Only this replicant.
    id: Option<String>,
}

#[utoipa::path(get, path = "/v1/verify", tag = "sites", params(VerifyParams),
    responses((status = 200, description = "What each site holds, by digest", body = VerifyReport),
        (status = 404, description = "Nobody who can be reached knows it", body = Problem, content_type = "application/problem+json")))]
/// Whether all sites hold the same
pub(crate) async fn verify(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<VerifyParams>,
) -> Result<axum::Json<VerifyReport>, Problem> {
    let id = params.id.map(ReplicantId::new).transpose();
    let id = id.map_err(|error| Problem::bad_request(error.to_string()))?;
    match api.ask(&caller, Request::Verify { id }).await? {
        Response::Verify(report) => Ok(axum::Json(report)),
        other => Err(unexpected(&other)),
    }
}

/// What to explain.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainParams {
    /// The expression, such as `paris & rennes`.
    scope: String,
}

#[utoipa::path(get, path = "/v1/scope/explain", tag = "sites", params(ExplainParams),
    responses((status = 200, description = "What the expression means now, and why", body = Explanation),
        (status = 400, description = "It means nothing; the detail says where", body = Problem, content_type = "application/problem+json")))]
/// What a scope would mean now
pub(crate) async fn explain(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<ExplainParams>,
) -> Result<axum::Json<Explanation>, Problem> {
    match api.ask(&caller, Request::Explain { scope: params.scope }).await? {
        Response::Explain(explanation) => Ok(axum::Json(explanation)),
        other => Err(unexpected(&other)),
    }
}

#[utoipa::path(get, path = "/v1/faults", tag = "node",
    responses((status = 200, description = "The faults in force", body = Faults)))]
/// The faults in force; only with --allow-faults
pub(crate) async fn get_faults(State(api): State<Api>, _: NoQuery) -> Result<axum::Json<Faults>, Problem> {
    Ok(axum::Json(switch(&api)?.current()))
}

#[utoipa::path(put, path = "/v1/faults", tag = "node", request_body = Faults,
    responses((status = 200, description = "In force from now on, instead of those before", body = Faults),
        (status = 400, description = "Refused", body = Problem, content_type = "application/problem+json")))]
/// Cut this node off from sites, delay or lose what comes in; only with --allow-faults
pub(crate) async fn put_faults(
    State(api): State<Api>,
    _: NoQuery,
    Json(faults): Json<Faults>,
) -> Result<axum::Json<Faults>, Problem> {
    api.handle.set_faults(faults).await.map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(axum::Json(switch(&api)?.current()))
}

fn switch(api: &Api) -> Result<&crate::faults::Switch, Problem> {
    api.handle.faults().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no-route", "No such path", "no faults here"))
}
