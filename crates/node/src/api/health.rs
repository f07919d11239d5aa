//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;

use super::{Api, Problem, Unavailable};

/// That a process answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    /// The version of the software.
    version: &'static str,
    /// The site.
    site: String,
    /// The node's peer id.
    node: String,
}

fn health(api: &Api) -> axum::Json<Health> {
    axum::Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
        site: api.handle.site().to_string(),
        node: api.handle.node().to_string(),
    })
}

#[utoipa::path(get, path = "/healthz", tag = "node", responses((status = 200, description = "The process runs", body = Health)))]
/// Whether the process runs
pub(crate) async fn healthz(State(api): State<Api>) -> axum::Json<Health> {
    health(&api)
}

#[utoipa::path(get, path = "/readyz", tag = "node",
    responses((status = 200, description = "Store, network and engine work", body = Health),
        (status = 503, description = "One of them does not", body = Problem, content_type = "application/problem+json")))]
/// Whether the node can serve
pub(crate) async fn readyz(State(api): State<Api>) -> axum::response::Response {
    match api.handle.ready().await {
        Ok(()) => health(&api).into_response(),
        Err(reason) => Unavailable(reason).into_response(),
    }
}

#[utoipa::path(get, path = "/metrics", tag = "node",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
/// Counters and gauges for Prometheus
pub(crate) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Unavailable> {
    let text = api.handle.scrape().await.map_err(Unavailable)?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// The document that describes this API.
pub(crate) async fn openapi(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.openapi.clone())
}
