//! One kept connection to a node's API. Light, because clients share the processors with the nodes.

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// A connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    /// Connects to `host`, an address and a port.
    pub(crate) async fn new(host: &str) -> Self {
        let stream = TcpStream::connect(host).await.expect("the node serves");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("the node speaks HTTP");
        tokio::spawn(connection);
        Self { sender, host: host.to_owned() }
    }

    /// Sends a request; the body of the answer is still to be read.
    pub(crate) async fn send(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", kind)
            .body(Full::new(body.into()))
            .expect("a request");
        self.sender.ready().await.expect("the connection is kept");
        self.sender.send_request(request).await.expect("an answer")
    }

    /// A request that must succeed.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Bytes {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("the whole answer").to_bytes();
        assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        body
    }

    /// A `GET` of JSON.
    pub(crate) async fn get(&mut self, path: &str) -> Value {
        serde_json::from_slice(&self.ask("GET", path, "").await).expect("JSON")
    }

    /// A `GET` of text.
    pub(crate) async fn text(&mut self, path: &str) -> String {
        String::from_utf8_lossy(&self.ask("GET", path, "").await).into_owned()
    }

    /// Edits one field of a replicant, and gives its heads afterwards.
    pub(crate) async fn edit(&mut self, id: &str, value: usize) -> Vec<String> {
        let body = format!("{{\"n\":{value}}}");
        heads(&self.ask("PATCH", &format!("/v1/replicants/{id}/desired"), body).await)
    }

    /// Edits one field of each of many replicants, in one request.
    pub(crate) async fn edit_many(&mut self, edits: impl Iterator<Item = (&str, usize)>) {
        let requests: Vec<Value> = edits
            .map(|(id, value)| {
                json!({"method": "PATCH", "path": format!("/v1/replicants/{id}/desired"), "body": {"n": value}})
            })
            .collect();
        self.bulk(&requests).await;
    }

    /// Many requests in one, all of which must succeed.
    pub(crate) async fn bulk(&mut self, requests: &[Value]) {
        let body = json!({"requests": requests}).to_string();
        let answer: Value = serde_json::from_slice(&self.ask("POST", "/v1/bulk", body).await).expect("JSON");
        assert_eq!(answer["ok"], true, "{answer}");
    }

    /// The heads of a replicant.
    pub(crate) async fn heads(&mut self, id: &str) -> Vec<String> {
        heads(&self.ask("GET", &format!("/v1/replicants/{id}"), "").await)
    }
}

/// The heads in an answer, without reading all of it.
fn heads(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).expect("text");
    let (_, rest) = text.split_once("\"heads\":[\"").expect("heads");
    // The view's own, which come first: reports speak of theirs further down, or in another field.
    let (list, _) = rest.split_once(']').expect("a list");
    list.split(',').map(|hash| hash.trim_matches('"').to_owned()).collect()
}
