//! The HTTP API: JSON under `/v1`, problems as RFC 9457, an OpenAPI document made from the code that serves it.

mod bulk;
mod events;
mod extract;
mod guard;
mod health;
mod problem;
mod replicants;
mod server;
mod sites;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use axum::{Extension, Router};
use khufu_engine::{ReplicantView, Request, RequestError, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::server::{Server, bind};

use self::bulk::Inner;
#[cfg(feature = "shell")]
pub(crate) use self::extract::MAX_BODY_BYTES;
#[cfg(feature = "shell")]
pub(crate) use self::guard::guard;
pub(crate) use self::guard::{Caller, Guard};
pub use self::problem::Problem;
use crate::Tokens;
use crate::handle::Handle;
use crate::metrics::HttpLabels;

/// Readers of `/v1/events` at once.
const MAX_FOLLOWERS: usize = 64;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

pub(crate) struct Shared {
    handle: Handle,
    openapi: String,
    followers: Arc<Semaphore>,
}

impl Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    async fn ask(&self, caller: &Caller, request: Request) -> Result<Response, RequestError> {
        self.handle.request(caller.0.to_string(), request).await
    }

    async fn replicant(&self, caller: &Caller, request: Request) -> Result<Box<ReplicantView>, Problem> {
        match self.ask(caller, request).await? {
            Response::Replicant(view) => Ok(view),
            other => Err(unexpected(&other)),
        }
    }
}

/// The engine answered another question than was asked; that is a defect of ours.
fn unexpected(response: &Response) -> Problem {
    tracing::error!(?response, "an answer to another question");
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "other",
        "The request failed",
        "the answer was to another question: please report this",
    )
}

/// The frame of the OpenAPI document; paths and schemas come from the handlers.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Khufu", description = "Geo-distributed resources: what is wanted, where, and what each site made of it."),
    tags(
        (name = "replicants", description = "Resources that live at several sites"),
        (name = "sites", description = "Sites, nodes, scopes, and whether all hold the same"),
        (name = "node", description = "This node")
    )
)]
struct Document;

/// The routes, and everything that each request goes through.
pub(crate) fn router(handle: Handle, address: SocketAddr, tokens: Option<Tokens>) -> Router {
    let faults = handle.faults().is_some();
    let mut routes: OpenApiRouter<Api> = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(replicants::list))
        .routes(routes!(replicants::get, replicants::put, replicants::delete))
        .routes(routes!(replicants::patch))
        .routes(routes!(replicants::operate))
        .routes(routes!(replicants::history))
        .routes(routes!(replicants::conflicts, replicants::pick))
        .routes(routes!(replicants::plan))
        .routes(routes!(bulk::bulk))
        .routes(routes!(sites::sites))
        .routes(routes!(sites::peers))
        .routes(routes!(sites::verify))
        .routes(routes!(sites::explain))
        .routes(routes!(events::events))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics));
    if faults {
        routes = routes.routes(routes!(sites::get_faults, sites::put_faults));
    }
    let (router, mut document) = routes.split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let openapi = document.to_json().unwrap_or_default();
    let guard = Guard::new(address, tokens);
    let shared = Shared { handle, openapi, followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)) };
    let api = Api(Arc::new(shared));
    let router = router
        // Inside of `observe`, so that a request is counted under the route that it matched.
        .fallback(|| async { StatusCode::NOT_FOUND })
        .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED });
    let inner = router.clone().layer(middleware::from_fn(problem::finish)).with_state(api.clone());
    router
        .route("/openapi.json", axum::routing::get(health::openapi))
        .layer(Extension(Inner(inner)))
        .layer(middleware::from_fn_with_state(guard, guard::guard))
        .layer(middleware::from_fn_with_state(api.clone(), observe))
        .layer(middleware::from_fn(problem::finish))
        .with_state(api)
}

/// Counts, times and logs each request.
async fn observe(State(api): State<Api>, request: HttpRequest, next: Next) -> HttpResponse {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let path = request.uri().path().to_owned();
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status();
    let took = started.elapsed();
    tracing::debug!(%method, path, status = status.as_u16(), ?took, "request");
    // Methods are the client's to choose; only the known ones become labels.
    let method = if matches!(method.as_str(), "GET" | "HEAD" | "PUT" | "PATCH" | "POST" | "DELETE") {
        method.as_str().to_owned()
    } else {
        "other".to_owned()
    };
    api.handle.metrics().http(HttpLabels { method, route, status: status.as_u16() }, took);
    response
}

impl axum::response::IntoResponse for Unavailable {
    fn into_response(self) -> HttpResponse {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The node is not ready", self.0).into_response()
    }
}

/// Why a node is not ready.
struct Unavailable(String);
