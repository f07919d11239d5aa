//! Asks one site over HTTP; can be copied, and outlives the site.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::{Answer, PATIENCE};

/// Where an API is, and from where to ask.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    /// The network namespace that the API is in, if it is not that of the test.
    within: Option<PathBuf>,
}

impl Client {
    pub(super) fn new(base: String, within: Option<PathBuf>) -> Self {
        Self { http: http(), base, within }
    }

    /// Where the API is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Asks; an error if nobody answers.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, String> {
        match body {
            None => self.send(method, path, &[], Vec::new()).await,
            Some(body) => {
                self.send(method, path, &[("content-type", "application/json")], body.to_string().into()).await
            }
        }
    }

    /// A `POST`; an error if nobody answers or it is refused.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, String> {
        let answer = self.ask(Method::POST, path, Some(body)).await?;
        if (200..300).contains(&answer.status) { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    }

    /// As [`post`](Self::post), for futures that outlive the client.
    pub(crate) async fn post_owned(self, path: &str, body: Value) -> Result<Value, String> {
        self.post(path, body).await
    }

    /// Sends any bytes.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        let request = |http: &reqwest::Client| {
            let request = http.request(method, url).timeout(PATIENCE).body(body);
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        match &self.within {
            None => answer(request(&self.http)).await,
            Some(namespace) => {
                // A namespace belongs to a thread, so this one is for one request and no other.
                let request = request(&http());
                let namespace = namespace.clone();
                let (send, receive) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || {
                    let _ = send.send(super::namespaces::run_within(&namespace, answer(request)));
                });
                receive.await.map_err(|_| "the thread ended".to_owned())?
            }
        }
    }

    /// Opens a stream of events, after the event with this id.
    pub(crate) async fn follow(&self, after: Option<&str>) -> super::Follow {
        let request = self.http.get(format!("{}/v1/events", self.base));
        let request = after.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        super::Follow::new(request.send().await.expect("the API answers").error_for_status().expect("a stream"))
    }
}

/// A client for plain HTTP, to be made.
pub(crate) fn http_builder() -> reqwest::ClientBuilder {
    // The library makes none without it; a test before may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([])
}

/// A client for plain HTTP.
pub(crate) fn http() -> reqwest::Client {
    http_builder().build().expect("a client")
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status().as_u16();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (content_type, etag) = (header("content-type"), header("etag"));
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body, content_type, etag })
}
