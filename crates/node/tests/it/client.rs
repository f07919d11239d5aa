//! Small clients, and nodes to talk to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use khufu_drivers::FilesDriver;
use khufu_node::{Builder, Node, Preset};
use khufu_store::MemoryStore;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest that any condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node in memory whose replicas are files in `dir`.
pub(crate) fn builder(site: &str, dir: &std::path::Path) -> Builder {
    Node::builder(site)
        .store(Arc::new(MemoryStore::new()))
        .preset(Preset::Fast)
        .driver(Arc::new(FilesDriver::new(dir).unwrap()))
        .api("127.0.0.1:0".parse().unwrap())
}

/// A node in memory, an API, and a folder that goes with it.
pub(crate) struct Fixture {
    pub(crate) node: Node,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) async fn node() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let node = builder("paris", dir.path()).start().await.unwrap();
    Fixture { node, dir }
}

impl Fixture {
    pub(crate) fn api(&self) -> Api {
        Api::of(&self.node)
    }
}

/// The API of a node.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    http: reqwest::Client,
    token: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Answer {
    /// Checks that it is a problem of that status, and answers its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers.get("content-type").unwrap(), "application/problem+json", "{}", self.text);
        assert_eq!(self.json["status"], status);
        assert!(self.json["type"].as_str().unwrap().starts_with("urn:khufu:problem:"));
        assert!(!self.json["title"].as_str().unwrap().is_empty());
        assert!(self.json["instance"].as_str().unwrap().starts_with('/'));
        self.json["detail"].as_str().unwrap()
    }
}

impl Api {
    pub(crate) fn of(node: &Node) -> Self {
        // The library makes no client without it; a test before may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { address: node.api_address().unwrap(), http: reqwest::Client::new(), token: None }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.timeout(Duration::from_secs(60)).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// Sends a body as it is.
    pub(crate) async fn put_text(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::PUT, path).header("content-type", content_type);
        self.send(request.body(body)).await
    }

    /// Sends exactly these bytes, which end the connection, and answers status line, headers and body as they came.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a self,
        path: &'a str,
        wanted: impl Fn(&Answer) -> bool + 'a,
    ) -> impl Future<Output = Answer> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let started = tokio::time::Instant::now();
            loop {
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                assert!(
                    started.elapsed() < PATIENCE,
                    "{caller}: {path} still answers {} {}",
                    answer.status,
                    answer.text
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let started = tokio::time::Instant::now();
        while !check().await {
            assert!(started.elapsed() < PATIENCE, "{caller}: still not: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
