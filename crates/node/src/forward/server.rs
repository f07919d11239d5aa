//! Takes requests of other sites in.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::{HeaderValue, Version, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use khufu_engine::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connect::Near;
use super::members::Unready;
use super::{Forward, Origin, REFUSED, SERVICE, STRANGER, UNKNOWN_SERVICE, UNREADY};
use crate::body::{Body, boxed, full};
use crate::headers;

/// The most bytes of the headers of a request or an answer.
pub(super) const MAX_HEADERS: usize = 64 * 1024;
/// The headers of a request must have come in so long. Also how long a stream may idle between requests.
const HEADERS: Duration = Duration::from_secs(60);

/// How long a node that is not known is listened to, for the one answer that it gets.
const STRANGERS: Duration = Duration::from_secs(10);
/// Nodes that have just become known are looked for so often, for them to have the places of those that are.
const LOOK: Duration = Duration::from_secs(5);

/// Serves streams until the node stops; requests under way are broken off then, as by a lost connection.
pub(super) async fn run(forward: Forward, mut near: mpsc::Receiver<Near>) {
    let handle = &forward.0.handle;
    let Some(mut streams) = handle.network().incoming_streams() else {
        return tracing::error!("somebody else takes in the streams of other nodes: their requests are refused");
    };
    let mut closed = handle.closed();
    let mut look = tokio::time::interval(LOOK);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            stream = streams.next() => {
                let Some(stream) = stream else { return };
                let (peer, ended) = (NodeId(stream.peer().to_owned()), stream.ended());
                connections.spawn(connection(forward.clone(), peer, stream, ended));
            }
            Some(Near { stream, ended, place }) = near.recv() => {
                let forward = forward.clone();
                connections.spawn(async move {
                    let ended = async { ended.await.map_or(io::ErrorKind::ConnectionReset.into(), |never| match never {}) };
                    connection(forward.clone(), forward.0.handle.node().clone(), stream, ended).await;
                    drop(place);
                });
            }
            _ = look.tick() => {
                let forward = forward.clone();
                connections.spawn(async move { drop(forward.0.members.sites(&forward.0.handle, LOOK / 2).await) });
            }
            _ = closed.wait_for(|closed| *closed) => return,
        }
    }
}

/// Serves one stream. The HTTP server does not see that it has ended while a handler leaves the rest of its request unread, so
/// `ended` is waited for beside it.
async fn connection(
    forward: Forward,
    peer: NodeId,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ended: impl Future<Output = io::Error>,
) {
    let is_known = matches!(forward.0.members.site_of(&forward.0.handle, &peer).await, Ok(Some(_)));
    let service = service_fn(|request: Request<Incoming>| {
        let (forward, peer) = (forward.clone(), peer.clone());
        async move { Ok::<_, Infallible>(forward.answer(peer, is_known, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_known { HEADERS } else { STRANGERS })
        .keep_alive(is_known)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let too_long = async {
        if is_known {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(STRANGERS).await;
    };
    let ended = tokio::select! {
        served = connection => served.map_err(|error| error.to_string()),
        error = ended => Err(error.to_string()),
        () = too_long => Err("it is of no known node, and was open for too long".to_owned()),
    };
    if let Err(reason) = ended {
        tracing::debug!(%peer, reason, "a stream of requests of another node ended badly");
    }
}

impl Forward {
    /// Who was not known when its stream began is not looked up again for it: it has little time left.
    async fn answer(&self, peer: NodeId, is_known: bool, mut request: Request<Incoming>) -> Response<Body> {
        let count = |outcome| self.0.handle.metrics().forwarded("in", outcome);
        let site = match self.0.members.site_of(&self.0.handle, &peer).await {
            Ok(Some(site)) if is_known => site,
            Ok(None) => {
                count(STRANGER);
                return refused(StatusCode::FORBIDDEN, STRANGER);
            }
            Ok(Some(_)) | Err(Unready) => {
                count(UNREADY);
                return refused(StatusCode::SERVICE_UNAVAILABLE, UNREADY);
            }
        };
        let name = request.headers_mut().remove(SERVICE);
        let service = name.as_ref().and_then(|name| self.service(name.to_str().ok()?));
        let Some(service) = service else {
            count(UNKNOWN_SERVICE);
            return refused(StatusCode::BAD_GATEWAY, UNKNOWN_SERVICE);
        };
        headers::end_to_end_or_upgrade(request.headers_mut());
        let mut answer = service(Origin { site, node: peer }, request.map(boxed)).await;
        count("answered");
        answer.headers_mut().remove(REFUSED);
        headers::end_to_end_or_upgrade(answer.headers_mut());
        // An answer in the manner of HTTP/1.0 ends with its connection, so one that broke off would look whole.
        *answer.version_mut() = Version::HTTP_11;
        answer
    }
}

fn refused(status: StatusCode, reason: &'static str) -> Response<Body> {
    let mut response = Response::new(full(reason));
    *response.status_mut() = status;
    response.headers_mut().insert(REFUSED, HeaderValue::from_static(reason));
    // Whoever is refused is not listened to any longer, and a body that nobody wants need not come.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
