//! Takes requests of other sites in.

use std::convert::Infallible;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use khufu_engine::NodeId;
use khufu_p2p::PeerStream;
use tokio::task::JoinSet;

use super::{Forward, Origin, REFUSED, SERVICE, STRANGER, UNKNOWN_SERVICE};
use crate::body::{Body, boxed, full};
use crate::headers;

/// The most bytes of the headers of a request or an answer.
pub(super) const MAX_HEADERS: usize = 64 * 1024;
/// The headers of a request must have come in so long. Also how long a stream may idle between requests.
const HEADERS: Duration = Duration::from_secs(60);

/// Serves streams until the node stops; requests under way are broken off then, as by a lost connection.
pub(super) async fn run(forward: Forward) {
    let Some(mut streams) = forward.0.handle.network().incoming_streams() else {
        return tracing::error!("somebody else takes in the streams of other nodes: their requests are refused");
    };
    let mut closed = forward.0.handle.closed();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            stream = streams.next() => match stream {
                Some(stream) => drop(connections.spawn(connection(forward.clone(), stream))),
                None => return,
            },
            _ = closed.wait_for(|closed| *closed) => return,
        }
    }
}

async fn connection(forward: Forward, stream: PeerStream) {
    let peer = NodeId(stream.peer().to_owned());
    let service = service_fn(|request: Request<Incoming>| {
        let (forward, peer) = (forward.clone(), peer.clone());
        async move { Ok::<_, Infallible>(forward.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "a stream of requests of another node ended badly");
    }
}

impl Forward {
    async fn answer(&self, peer: NodeId, mut request: Request<Incoming>) -> Response<Body> {
        let count = |outcome| self.0.handle.metrics().forwarded("in", outcome);
        let Some(site) = self.0.members.site_of(&self.0.handle, &peer.0).await else {
            count(STRANGER);
            return refused(StatusCode::FORBIDDEN, STRANGER);
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
        answer
    }
}

fn refused(status: StatusCode, reason: &'static str) -> Response<Body> {
    let mut response = Response::new(full(reason));
    *response.status_mut() = status;
    response.headers_mut().insert(REFUSED, HeaderValue::from_static(reason));
    response
}
