//! Talking to the HTTP API of a node.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::Exit;

/// Where a node answers if nobody says otherwise; `khufu node` listens there by default.
pub(crate) const DEFAULT_API: &str = "http://127.0.0.1:7780";
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what the request itself asks the node to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer that are taken.
const MAX_ANSWER_BYTES: usize = 128 * 1024 * 1024;

/// Why a node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    /// The address makes no sense.
    #[error("--api {api}: {message}")]
    Address {
        /// What was given.
        api: String,
        /// What is wrong with it.
        message: String,
    },
    /// The token cannot be sent.
    #[error("the token holds a character that no HTTP header may hold: check --token or KHUFU_TOKEN")]
    Token,
    /// Nobody answers there.
    #[error(
        "no node answers at {api}: {message}\nIs it running (`khufu node`)? Its first line of output says where its API is; hand that in as --api or KHUFU_API."
    )]
    Unreachable {
        /// Where the node should be.
        api: String,
        /// What the connection said.
        message: String,
    },
    /// Somebody took the connection, and broke it off before the answer was whole.
    #[error(
        "the node at {api} broke off before it had answered: {message}\nIt may have stopped just then, so whether it did what it was asked is not known: look, and ask again."
    )]
    Lost {
        /// Where the node was.
        api: String,
        /// What the connection said.
        message: String,
    },
    /// The connection stood, and no answer came.
    #[error("the node at {api} did not answer within {} s: look at its log, or ask another node of the network", seconds.as_secs())]
    TimedOut {
        /// Where the node is.
        api: String,
        /// The time that was given.
        seconds: Duration,
    },
    /// The node said no, and why.
    #[error("{title}: {detail}{}", hint(*status))]
    Problem {
        /// The HTTP status.
        status: u16,
        /// The kind of problem.
        title: String,
        /// What exactly, and the way out.
        detail: String,
    },
    /// The answer cannot be used.
    #[error(
        "the answer of {api} cannot be read: {message} (is another program, or another version, behind this address?)"
    )]
    Answer {
        /// Where it came from.
        api: String,
        /// What is wrong with it.
        message: String,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        401 => "\nHand in a token as --token or KHUFU_TOKEN.",
        403 => "\nUse a token with a higher role.",
        _ => "",
    }
}

impl ClientError {
    /// The exit code that says the same.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Address { .. } | Self::Token => Exit::Usage,
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } => Exit::Unreachable,
            Self::Problem { status, .. } => match status {
                400 | 415 | 422 => Exit::Usage,
                404 => Exit::NotFound,
                401 | 403 | 405 | 409 | 412 | 413 | 507 => Exit::Refused,
                408 | 429 | 502..=504 => Exit::Unreachable,
                _ => Exit::Failed,
            },
            Self::Answer { .. } => Exit::Failed,
        }
    }

    /// Whether the node said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem { status: 404, .. })
    }
}

/// A client of one node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// One request under construction.
#[derive(Debug)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    wait: Duration,
}

impl Ask {
    /// A request for a path under the address of the API, such as `/v1/sites`.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None, wait: Duration::ZERO }
    }

    /// A `GET`.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a pair to the query if there is a value.
    pub(crate) fn query(mut self, key: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (key, value.to_string())));
        self
    }

    /// Sends a JSON body.
    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Gives the node so much more time to answer.
    pub(crate) fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

impl Client {
    /// A client of the node at `api`, `http://host:port`, or `host:port` for short.
    ///
    /// # Errors
    /// [`ClientError::Address`] or [`ClientError::Token`] if one of the two cannot be used.
    pub(crate) fn new(api: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let address = |message: String| ClientError::Address { api: api.to_owned(), message };
        let url = if api.contains("://") { api.to_owned() } else { format!("http://{api}") };
        let base = Url::parse(&url).map_err(|error| address(format!("{error}; write http://HOST:PORT")))?;
        match base.scheme() {
            "http" => {}
            "https" => {
                return Err(address(
                    "this program speaks plain HTTP: go through a TLS proxy of your own, or an SSH tunnel".into(),
                ));
            }
            other => return Err(address(format!("{other:?} is not http; write http://HOST:PORT"))),
        }
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(address("only http://HOST:PORT is understood; a token goes into --token".into()));
        }
        let mut headers = header::HeaderMap::new();
        if let Some(token) = token {
            let mut value =
                header::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        // The library makes no client without it. Where one is installed it is the same: there is no other in the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("khufu/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            // A token must not follow a redirect, and loopback is never behind a proxy.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Only plain HTTP is spoken: the machine's list of authorities need not be read.
            .tls_certs_only([])
            .build()
            .map_err(|error| address(text_of(&error)))?;
        Ok(Self { http, base })
    }

    /// Where the node is, for messages.
    pub(crate) fn api(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Asks, and takes the answer as JSON; null if it has no body.
    ///
    /// # Errors
    /// Any [`ClientError`] but those of [`Client::new`].
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Value, ClientError> {
        self.ask_whether_new(ask).await.map(|(_, value)| value)
    }

    /// Asks, and takes the answer as JSON, with whether what was asked for was created by that (status 201).
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn ask_whether_new(&self, ask: Ask) -> Result<(bool, Value), ClientError> {
        let limit = ANSWER_TIMEOUT + ask.wait;
        let answer = async {
            let response = self.send(ask).await?;
            let new = response.status() == StatusCode::CREATED;
            let body = self.read(response).await?;
            if body.is_empty() {
                return Ok((new, Value::Null));
            }
            let value = serde_json::from_slice(&body).map_err(|error| self.unusable(error.to_string()))?;
            Ok((new, value))
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut { api: self.api(), seconds: limit }))
    }

    /// Asks, and takes the answer as a type; the JSON comes along for those who print it untouched.
    ///
    /// # Errors
    /// As [`Client::ask`], and if the answer is not of that type.
    pub(crate) async fn ask_for<T: DeserializeOwned>(&self, ask: Ask) -> Result<(T, Value), ClientError> {
        let value = self.ask(ask).await?;
        Ok((self.typed(&value)?, value))
    }

    /// An answer as a type.
    ///
    /// # Errors
    /// If it is not of that type.
    pub(crate) fn typed<T: DeserializeOwned>(&self, value: &Value) -> Result<T, ClientError> {
        T::deserialize(value).map_err(|error| self.unusable(error.to_string()))
    }

    /// Opens a stream of server-sent events, from after `last` on.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn events(&self, query: &str, last: Option<&str>) -> Result<Response, ClientError> {
        let mut url = self.url("/v1/events");
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let mut request = self.http.get(url).header(header::ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await;
        let response = sent
            .map_err(|_| ClientError::TimedOut { api: self.api(), seconds: ANSWER_TIMEOUT })?
            .map_err(|error| self.unanswered(&error))?;
        self.check(response).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = self.base.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }

    async fn send(&self, ask: Ask) -> Result<Response, ClientError> {
        let mut url = self.url(&ask.path);
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        let mut request = self.http.request(ask.method, url);
        if let Some(body) = &ask.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unanswered(&error))?;
        self.check(response).await
    }

    /// Turns an answer that says no into the error it speaks of.
    async fn check(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.read(response).await?;
        let problem = serde_json::from_slice(&body).unwrap_or(Problem { title: String::new(), detail: String::new() });
        let title = if problem.title.is_empty() { reason(status) } else { problem.title };
        let detail = if problem.detail.is_empty() {
            format!("{} answered with HTTP status {}", self.api(), status.as_u16())
        } else {
            problem.detail
        };
        Err(ClientError::Problem { status: status.as_u16(), title, detail })
    }

    async fn read(&self, response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.unanswered(&error))?;
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unusable(format!("it has more than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Nobody took the connection, or whoever did broke it off.
    fn unanswered(&self, error: &reqwest::Error) -> ClientError {
        let (api, message) = (self.api(), text_of(error));
        if error.is_connect() { ClientError::Unreachable { api, message } } else { ClientError::Lost { api, message } }
    }

    fn unusable(&self, message: String) -> ClientError {
        ClientError::Answer { api: self.api(), message }
    }
}

fn reason(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("The node refused").to_owned()
}

/// The innermost cause: what the operating system said, without the layers above it.
fn text_of(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(next) = source.source() {
        source = next;
    }
    source.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_that_cannot_work_are_refused_with_the_way_out() {
        for (api, word) in
            [("https://a:1", "TLS"), ("ftp://a", "http"), ("http://u:p@a", "--token"), ("http://", "HOST:PORT")]
        {
            let error = Client::new(api, None).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.exit(), Exit::Usage);
        }
        assert_eq!(Client::new("localhost:7780", None).unwrap().api(), "http://localhost:7780");
        assert!(matches!(Client::new("http://a", Some("a\nb")), Err(ClientError::Token)));
    }

    #[test]
    fn a_path_before_the_api_is_kept() {
        let client = Client::new("http://proxy/khufu/", None).unwrap();
        assert_eq!(client.url("/v1/sites").as_str(), "http://proxy/khufu/v1/sites");
    }

    #[test]
    fn statuses_become_exit_codes() {
        let exit = |status| ClientError::Problem { status, title: String::new(), detail: String::new() }.exit();
        assert_eq!(exit(400), Exit::Usage);
        assert_eq!(exit(404), Exit::NotFound);
        assert_eq!(exit(409), Exit::Refused);
        assert_eq!(exit(413), Exit::Refused);
        assert_eq!(exit(504), Exit::Unreachable);
        assert_eq!(exit(500), Exit::Failed);
    }
}
