//! The HTTP API of Cheops, for its clients and the scripts written for it.
//!
//! A resource of Cheops is a replicant of kind `shell`: its site list is the scope, its resolution matrix the policy, its
//! commands are operations. This module must never decide what runs where; it only translates.

mod exec;
mod form;
mod matrix;
mod replies;
mod show;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use khufu_drivers::ShellDriver;
use khufu_engine::RequestError;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::api::{self, Guard, MAX_BODY_BYTES, guard};
use crate::forward::Forward;
use crate::handle::Handle;
use crate::turns::{Late, Turns};
use crate::{StartError, Tokens};

/// Commands that are run at once for somebody who only looks.
const MAX_SHOWS: usize = 16;

/// Where the API of Cheops is served, and by whom its commands are run when somebody only looks.
#[derive(Debug, Clone)]
pub struct CheopsConfig {
    /// The address; Cheops has port 8079.
    pub address: SocketAddr,
    /// The driver of this node, which has to be among its drivers, too.
    pub driver: Arc<ShellDriver>,
    /// Beyond this machine, without tokens: Cheops's own clients know none. Then whoever reaches the address can run commands.
    pub open: bool,
}

/// Why the API of Cheops cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheopsError {
    /// The address is taken, or not of this machine.
    #[error(
        "the API of Cheops cannot listen on {address}: {source}; give it another address, or port 0 for a free one"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Anybody could run commands.
    #[error(
        "the API of Cheops would listen on {address}, beyond this machine, and whoever gets there could run commands: give a \
         token file, listen on 127.0.0.1, or say in plain words that it is to be open"
    )]
    TokensNeeded {
        /// The address.
        address: SocketAddr,
    },
}

/// What handlers share.
pub(crate) struct Cheops {
    handle: Handle,
    driver: Arc<ShellDriver>,
    forward: Forward,
    /// Commands for those who look, and requests to have several sites look.
    shows: Semaphore,
    asks: Semaphore,
    /// Of the first requests for a resource, and of the matrices for one, one is heeded after the other.
    turns: Turns,
}

/// The listening socket, before it is served.
pub(crate) struct Listening {
    server: api::Server,
    config: CheopsConfig,
    tokens: Option<Tokens>,
}

/// Takes the address.
pub(crate) async fn listen(config: &CheopsConfig, tokens: Option<Tokens>) -> Result<Listening, StartError> {
    let address = config.address;
    if tokens.is_none() && !config.open && !address.ip().is_loopback() {
        return Err(CheopsError::TokensNeeded { address }.into());
    }
    let server = api::bind(address).await.map_err(|source| CheopsError::Address { address, source })?;
    Ok(Listening { server, config: config.clone(), tokens: tokens.filter(|_| !config.open) })
}

impl Listening {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn serve(self, handle: Handle, forward: Forward, closed: watch::Receiver<bool>) -> JoinHandle<()> {
        let guards = Guard::new(self.address(), self.tokens);
        let (shows, asks) = (Semaphore::new(MAX_SHOWS), Semaphore::new(MAX_SHOWS));
        let driver = self.config.driver;
        let cheops = Arc::new(Cheops { handle, driver, forward, shows, asks, turns: Turns::default() });
        cheops.let_look(&cheops.forward);
        let router = Router::new()
            .route("/exec/{id}", post(exec::exec))
            .route("/show/{id}", post(show::show))
            .route("/show_local/{id}", post(show::show_local))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(middleware::from_fn_with_state(guards, guard))
            .layer(middleware::from_fn(no_browser))
            .with_state(cheops);
        tokio::spawn(self.server.serve(router, closed))
    }
}

/// A page in a browser may send forms to any server without asking, and a form is all that it takes here to run commands.
/// Browsers say that it is they who send it.
async fn no_browser(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) || request.headers().contains_key("sec-fetch-site") {
        return (StatusCode::FORBIDDEN, "not for browsers: use a program, such as curl\n").into_response();
    }
    next.run(request).await
}

/// Why a request is refused: a status, and a line for people.
#[derive(Debug)]
pub(crate) struct Refused(StatusCode, String);

impl Refused {
    fn bad(reason: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.into())
    }

    /// The engine answered another question than was asked.
    fn internal() -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, "internal error".to_owned())
    }
}

impl From<Late> for Refused {
    fn from(_: Late) -> Self {
        let reason = "other requests for this resource are still under way: try again in a second";
        Self(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
    }
}

impl From<RequestError> for Refused {
    fn from(error: RequestError) -> Self {
        let status = match &error {
            RequestError::Invalid { .. } | RequestError::TooLarge { .. } | RequestError::Conflict { .. } => {
                StatusCode::BAD_REQUEST
            }
            RequestError::NotFound { .. } => StatusCode::NOT_FOUND,
            RequestError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

type Shared = State<Arc<Cheops>>;
