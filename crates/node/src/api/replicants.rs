//! `/v1/replicants`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use khufu_crdt::{ChangeHash, Conflict, HistoryEntry, OperationId, Policy, ReplicantId, SiteName};
use khufu_engine::{
    ListQuery, Operate, OperationAnswer, Page, Put, ReplicantView, Request, RequestError, Response, SitePlan,
};
use serde::Deserialize;
use serde_json::Value;

use super::extract::{self, Id, Json, MergePatch, NoQuery, Query, Wait};
use super::guard::Caller;
use super::{Api, Problem, unexpected};

/// Lines of a page if the request names no number.
const PAGE: usize = 100;
/// The most lines of a page.
const PAGE_MAX: usize = 1000;
/// Entries of a history if the request names no number.
const HISTORY: usize = 100;
/// The most entries of a history.
const HISTORY_MAX: usize = 10_000;
/// The header by which a client says that it does not need the replicant in the answer (RFC 7240).
pub(crate) const PREFER: &str = "prefer";
/// What it says then.
pub(crate) const MINIMAL: &str = "return=minimal";
/// The longest that a request may wait for the reports of all sites.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Create a replicant, or edit it to be like this. A field that is not given stays as it is.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PutBody {
    /// Which driver; needed to create, and never changed.
    kind: Option<String>,
    /// Where it lives, in the scope language; `here` if a new one is given none.
    scope: Option<String>,
    /// How operations combine.
    #[schema(value_type = Option<Policy>)]
    policy: Option<Value>,
    /// The desired state: any JSON value.
    desired: Option<Value>,
    /// What is laid over the desired state at single sites: a JSON patch (RFC 6902) if it is a list, in whose pointers
    /// `[name=web]` is the element of a list that has this; else a JSON merge patch (RFC 7386).
    overrides: Option<BTreeMap<SiteName, Value>>,
    /// The heads that the answer held which this edit starts from: what others changed since stays. `If-Match` with an
    /// ETag means the same.
    base: Option<Vec<ChangeHash>>,
}

#[utoipa::path(put, path = "/v1/replicants/{id}", tag = "replicants",
    params(("id" = String, Path, description = "The id, the same at every site"),
        ("If-Match" = Option<String>, Header, description = "The ETag this edit starts from: others' later edits stay. `*`: only if it exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it does not exist yet")),
    request_body = PutBody,
    responses((status = 200, description = "Edited", body = ReplicantView),
        (status = 201, description = "Created", body = ReplicantView),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
/// Create a replicant, or edit it to be like this
pub(crate) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    Json(body): Json<PutBody>,
) -> Result<HttpResponse, Problem> {
    let policy = body.policy.map(Policy::parse).transpose();
    let policy = policy.map_err(|error| Problem::bad_request(format!("policy: {error}")))?;
    let (must_exist, matched) = if_match(&headers)?;
    let must_not_exist = if_none_match(&headers)?;
    if must_exist || must_not_exist {
        let exists = match api.ask(&caller, Request::Get { id: id.clone() }).await {
            Ok(Response::Replicant(view)) => view.deleted.is_none(),
            Ok(other) => return Err(unexpected(&other)),
            Err(RequestError::NotFound { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if must_exist && !exists {
            return Err(precondition(format!(
                "If-Match asks that {id} exists, and nobody who can be reached knows it"
            )));
        }
        if must_not_exist && exists {
            return Err(precondition(format!("If-None-Match asks that {id} does not exist, and it does")));
        }
    }
    let put = Put {
        id,
        kind: body.kind,
        scope: body.scope,
        policy,
        desired: body.desired,
        overrides: body.overrides,
        // Whoever was faster since is seen by the engine.
        base: if must_not_exist { Some(Vec::new()) } else { body.base.or(matched) },
    };
    let answer = api.ask(&caller, Request::Put(put)).await.map_err(|error| match error {
        RequestError::Conflict { message } if must_not_exist => precondition(message),
        other => other.into(),
    });
    match answer? {
        Response::Created(view) => Ok((StatusCode::CREATED, Tagged::of(view, &headers)).into_response()),
        Response::Replicant(view) => Ok(Tagged::of(view, &headers).into_response()),
        other => Err(unexpected(&other)),
    }
}

#[utoipa::path(patch, path = "/v1/replicants/{id}/desired", tag = "replicants", params(("id" = String, Path)),
    request_body(content = Object, content_type = "application/merge-patch+json", description = "A JSON merge patch (RFC 7386)"),
    responses((status = 200, description = "Edited", body = ReplicantView),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
/// Edit the desired state by a JSON merge patch
pub(crate) async fn patch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    MergePatch(patch): MergePatch,
) -> Result<Tagged, Problem> {
    Ok(Tagged::of(api.replicant(&caller, Request::Patch { id, patch }).await?, &headers))
}

/// Ask for an operation.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperateBody {
    /// An id of your own, so that asking twice is the same as asking once.
    #[serde(default)]
    id: Option<OperationId>,
    /// The type, which the policy speaks of.
    #[serde(rename = "type")]
    op_type: String,
    /// What the driver gets.
    #[serde(default)]
    payload: Value,
    /// How long to wait for the reports of all sites: `"30s"`, `"500ms"` or a number of milliseconds. At most 10 minutes.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    wait: Wait,
}

#[utoipa::path(post, path = "/v1/replicants/{id}/operations", tag = "replicants", params(("id" = String, Path)),
    request_body = OperateBody,
    responses((status = 200, description = "All sites have said their last word", body = OperationAnswer),
        (status = 202, description = "Kept and on its way; this is what is known so far", body = OperationAnswer),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
/// Ask for an operation, and say what each site makes of it
pub(crate) async fn operate(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
    Json(body): Json<OperateBody>,
) -> Result<HttpResponse, Problem> {
    let OperateBody { id: operation, op_type, payload, wait: Wait(wait) } = body;
    if wait > WAIT_MAX {
        return Err(Problem::bad_request(format!(
            "wait: {} s is more than the {} s allowed: follow /v1/events instead",
            wait.as_secs(),
            WAIT_MAX.as_secs()
        )));
    }
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Operate(Operate { id, operation, op_type, payload, wait_ms });
    match api.ask(&caller, request).await? {
        Response::Operation(answer) => {
            let status = if answer.complete { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok((status, axum::Json(*answer)).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

/// Which replicants to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this kind.
    kind: Option<String>,
    /// Only those that live at this site.
    site: Option<String>,
    /// Only those with this status: `pending`, `applied`, `failed`, `skipped`, `needs-attention` or `removed`.
    status: Option<String>,
    /// Only those after this one: `next` of the page before.
    after: Option<String>,
    /// At most so many, 100 if not given, up to 1000.
    limit: Option<usize>,
}

#[utoipa::path(get, path = "/v1/replicants", tag = "replicants", params(ListParams),
    responses((status = 200, description = "A page, sorted by id", body = Page),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
/// List the replicants that this node holds
pub(crate) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<ListParams>,
) -> Result<axum::Json<Page>, Problem> {
    let limit = params.limit.unwrap_or(PAGE);
    if limit == 0 || limit > PAGE_MAX {
        return Err(Problem::bad_request(format!("limit: {limit} is not between 1 and {PAGE_MAX}")));
    }
    let query = ListQuery {
        kind: params.kind,
        site: params.site.map(extract::site).transpose()?,
        status: params.status.as_deref().map(extract::status).transpose()?,
        after: params.after.map(replicant_id).transpose()?,
        only: None,
        limit,
    };
    match api.ask(&caller, Request::List(query)).await? {
        Response::List(page) => Ok(axum::Json(page)),
        other => Err(unexpected(&other)),
    }
}

#[utoipa::path(get, path = "/v1/replicants/{id}", tag = "replicants", params(("id" = String, Path)),
    responses((status = 200, description = "As it is now, as far as this node knows", body = ReplicantView),
        (status = 404, description = "Nobody who can be reached knows it", body = Problem, content_type = "application/problem+json")))]
/// Read one replicant
pub(crate) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
) -> Result<Tagged, Problem> {
    Ok(Tagged::whole(api.replicant(&caller, Request::Get { id }).await?))
}

/// How much of the history to read.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// At most so many entries, the newest; 100 if not given, up to 10,000.
    limit: Option<usize>,
}

#[utoipa::path(get, path = "/v1/replicants/{id}/history", tag = "replicants", params(("id" = String, Path), HistoryParams),
    responses((status = 200, description = "Newest last", body = Vec<HistoryEntry>),
        (status = 404, description = "Nobody who can be reached knows it", body = Problem, content_type = "application/problem+json")))]
/// Who changed what, when and why
pub(crate) async fn history(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    Query(params): Query<HistoryParams>,
) -> Result<axum::Json<Vec<HistoryEntry>>, Problem> {
    let limit = params.limit.unwrap_or(HISTORY);
    if limit == 0 || limit > HISTORY_MAX {
        return Err(Problem::bad_request(format!("limit: {limit} is not between 1 and {HISTORY_MAX}")));
    }
    match api.ask(&caller, Request::History { id, limit }).await? {
        Response::History(entries) => Ok(axum::Json(entries)),
        other => Err(unexpected(&other)),
    }
}

#[utoipa::path(get, path = "/v1/replicants/{id}/conflicts", tag = "replicants", params(("id" = String, Path)),
    responses((status = 200, description = "The fields that have several values", body = Vec<Conflict>),
        (status = 404, description = "Nobody who can be reached knows it", body = Problem, content_type = "application/problem+json")))]
/// The fields that sites set differently while apart
pub(crate) async fn conflicts(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
) -> Result<axum::Json<Vec<Conflict>>, Problem> {
    match api.ask(&caller, Request::Conflicts { id }).await? {
        Response::Conflicts(conflicts) => Ok(axum::Json(conflicts)),
        other => Err(unexpected(&other)),
    }
}

/// Settle a conflict.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PickBody {
    /// JSON pointer to the field, such as `/desired/spec/replicas`.
    path: String,
    /// The change whose value shall stand.
    change: ChangeHash,
}

#[utoipa::path(post, path = "/v1/replicants/{id}/conflicts", tag = "replicants", params(("id" = String, Path)),
    request_body = PickBody,
    responses((status = 200, description = "Settled", body = ReplicantView),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
/// Settle a conflict by picking one of the values
pub(crate) async fn pick(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
    Json(body): Json<PickBody>,
) -> Result<Tagged, Problem> {
    let PickBody { path, change } = body;
    Ok(Tagged::whole(api.replicant(&caller, Request::Pick { id, path, change }).await?))
}

#[utoipa::path(get, path = "/v1/replicants/{id}/plan", tag = "replicants", params(("id" = String, Path)),
    responses((status = 200, description = "What each site would do now; nothing is changed", body = Vec<SitePlan>),
        (status = 404, description = "Nobody who can be reached knows it", body = Problem, content_type = "application/problem+json")))]
/// Dry run: what each site would do
pub(crate) async fn plan(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    _: NoQuery,
) -> Result<axum::Json<Vec<SitePlan>>, Problem> {
    match api.ask(&caller, Request::Plan { id }).await? {
        Response::Plan(plans) => Ok(axum::Json(plans)),
        other => Err(unexpected(&other)),
    }
}

/// What becomes of the replicas.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Leave the replicas on the platforms.
    keep: bool,
}

#[utoipa::path(delete, path = "/v1/replicants/{id}", tag = "replicants", params(("id" = String, Path), DeleteParams),
    responses((status = 200, description = "Deleted; the sites remove their replicas", body = ReplicantView),
        (status = 404, description = "Nobody who can be reached knows it", body = Problem, content_type = "application/problem+json")))]
/// Delete a replicant, and its replicas unless told to keep them
pub(crate) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    Query(params): Query<DeleteParams>,
    headers: HeaderMap,
) -> Result<Tagged, Problem> {
    Ok(Tagged::of(api.replicant(&caller, Request::Delete { id, keep: params.keep, base: None }).await?, &headers))
}

/// A replicant with its ETag, or the ETag alone.
pub(crate) struct Tagged {
    view: Box<ReplicantView>,
    minimal: bool,
}

impl Tagged {
    fn whole(view: Box<ReplicantView>) -> Self {
        Self { view, minimal: false }
    }

    /// As much as the one who asks prefers.
    fn of(view: Box<ReplicantView>, headers: &HeaderMap) -> Self {
        let preferences = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
        let minimal =
            preferences.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(MINIMAL));
        Self { view, minimal }
    }
}

impl IntoResponse for Tagged {
    fn into_response(self) -> HttpResponse {
        let tag = HeaderValue::from_str(&etag(&self.view.heads));
        let mut response = if self.minimal {
            let applied = [(HeaderName::from_static("preference-applied"), HeaderValue::from_static(MINIMAL))];
            applied.into_response()
        } else {
            axum::Json(self.view).into_response()
        };
        if let Ok(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

fn etag(heads: &[ChangeHash]) -> String {
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    format!("\"{}\"", heads.join("."))
}

/// Whether the replicant must exist, and the heads that the edit starts from.
fn if_match(headers: &HeaderMap) -> Result<(bool, Option<Vec<ChangeHash>>), Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok((false, None)) };
    let text = value.to_str().unwrap_or("?").trim();
    if text == "*" {
        return Ok((true, None));
    }
    let wrong =
        || Problem::bad_request(format!("If-Match: {text} is no ETag of a replicant: hand in one that was answered"));
    let inner = text.strip_prefix("W/").unwrap_or(text);
    let inner = inner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(wrong)?;
    let heads =
        inner.split('.').filter(|head| !head.is_empty()).map(str::parse).collect::<Result<Vec<ChangeHash>, _>>();
    Ok((true, Some(heads.map_err(|_| wrong())?)))
}

fn if_none_match(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(header::IF_NONE_MATCH).map(|value| value.to_str().unwrap_or("?").trim()) {
        None => Ok(false),
        Some("*") => Ok(true),
        Some(other) => Err(Problem::bad_request(format!("If-None-Match: only * is understood with PUT, not {other}"))),
    }
}

fn precondition(detail: String) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "precondition", "The condition of the request is not met", detail)
}

fn replicant_id(text: String) -> Result<ReplicantId, Problem> {
    ReplicantId::new(text).map_err(|error| Problem::bad_request(error.to_string()))
}
