//! A small HTTP service of a site, that says what it saw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Json, Response};
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A service that runs until it is dropped.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    site: &'static str,
    requests: AtomicUsize,
    /// Answers that are being given.
    open: AtomicUsize,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    fn new(address: SocketAddr, site: &'static str, run: impl FnOnce(Arc<Seen>) -> JoinHandle<()>) -> Self {
        let seen = Arc::new(Seen { site, requests: AtomicUsize::new(0), open: AtomicUsize::new(0) });
        Self { address, task: run(seen.clone()), seen }
    }

    /// One that answers.
    pub(super) async fn start(site: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self::new(address, site, |seen| {
            let router = axum::Router::new().fallback(answer).with_state(seen);
            tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") })
        })
    }

    /// One that reads a part of each request, and goes away.
    pub(super) async fn breaking(site: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self::new(address, site, |seen| {
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    if matches!(stream.read(&mut [0; 16]).await, Ok(1..)) {
                        seen.requests.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
    }

    /// How many requests came.
    pub(super) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// How many answers are being given.
    pub(super) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

async fn answer(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    match parts.uri.path() {
        "/endless" => Body::from_stream(endless(seen)).into_response(),
        path if path.starts_with("/bytes/") => {
            let bytes: usize = path["/bytes/".len()..].parse().expect("a number");
            let piece = Bytes::from(vec![7; 64 << 10]);
            let pieces = bytes.div_ceil(piece.len());
            Body::from_stream(futures::stream::iter((0..pieces).map(move |_| Ok::<_, Infallible>(piece.clone()))))
                .into_response()
        }
        _ => {
            let mut pieces = body.into_data_stream();
            let (mut bytes, mut start) = (0, Vec::new());
            while let Some(piece) = pieces.next().await {
                let Ok(piece) = piece else { break };
                bytes += piece.len();
                start.extend(piece.iter().take(100 - start.len().min(100)));
            }
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let mut headers = Map::new();
            for (name, value) in &parts.headers {
                headers.insert(name.to_string(), text(value.as_bytes()).into());
            }
            let told: Value = json!({
                "site": seen.site, "method": parts.method.as_str(), "uri": parts.uri.to_string(),
                "headers": headers, "bytes": bytes, "start": text(&start),
            });
            ([("x-of-service", seen.site), ("connection", "x-hop"), ("x-hop", "1")], Json(told)).into_response()
        }
    }
}

/// Counts itself for as long as there is somebody who reads.
fn endless(seen: Arc<Seen>) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    struct Open(Arc<Seen>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
    seen.open.fetch_add(1, Ordering::SeqCst);
    futures::stream::unfold(Open(seen), async |open| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(Bytes::from_static(b"more")), open))
    })
}
