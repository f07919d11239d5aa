//! What is asked of the services of one cloud: a few things at once, with a token that is good, and with limits of time and
//! size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method, Response};
use serde_json::Value;
use tokio::sync::{Mutex, Notify, RwLock};
use tokio::time::Instant;

use super::answer::{self, Tried};
use super::cloud::{self, Cloud, Source};
use super::identity::{self, Token};
use super::kinds::Service;
use crate::DriverError;
use crate::text::clipped;
use crate::turns::Turns;

/// How many requests are under way at once.
const AT_ONCE: usize = 8;
/// How many a second, over a longer time, and how many at once after a pause.
const A_SECOND: u32 = 50;
const BURST: u32 = 50;
/// The longest that a connection may take to be made, and a request, but for data of images.
const CONNECT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(20);
const DATA_LIMIT: Duration = Duration::from_secs(40);
/// The longest answer that is read.
const MAX_BYTES: usize = 16 << 20;

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const NEW_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// A request.
pub(super) struct Call<'a> {
    pub(super) service: Service,
    pub(super) method: Method,
    /// After the address of the service.
    pub(super) path: String,
    pub(super) body: Body<'a>,
    pub(super) tried: Tried,
    /// What it is about, in words.
    pub(super) place: &'a str,
}

/// What is sent along.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Nothing,
    Json(&'a Value),
    /// A JSON patch as Glance takes it.
    Patch(&'a Value),
    Data(&'a [u8]),
}

/// A token, and what it is good for.
pub(super) struct Access {
    cloud: Cloud,
    authorities: Vec<u8>,
    http: Client,
    secret: HeaderValue,
    pub(super) token: Token,
    renew_at: Option<Instant>,
}

/// The services of one cloud.
pub(super) struct Session {
    source: Source,
    current: RwLock<Option<Arc<Access>>>,
    /// One asks for a token, and the others wait for that.
    renewing: Mutex<()>,
    turns: Turns,
    /// Wakes up who asks whether the cloud is there.
    suspect: Arc<Notify>,
}

fn unavailable(reason: impl Into<String>) -> DriverError {
    DriverError::Unavailable { reason: reason.into(), retry_after: None }
}

/// An error with what led to it: the outermost of a lost connection says nothing.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    clipped(&text, 1_500)
}

/// What is said of a request without an answer.
fn unanswered(error: &reqwest::Error, tried: Tried, limit: Duration) -> DriverError {
    if error.is_connect() || error.is_builder() || !tried.writes() {
        return unavailable(whole(error));
    }
    match error.is_timeout() {
        true => DriverError::Timeout { after: limit },
        false => DriverError::Unanswered { reason: whole(error) },
    }
}

/// The bytes of an answer.
async fn bytes(mut response: Response, tried: Tried) -> Result<Vec<u8>, DriverError> {
    let mut all = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| unanswered(&error, tried, LIMIT))? {
        if all.len() + part.len() > MAX_BYTES {
            return Err(unavailable(format!("an answer has more than {MAX_BYTES} bytes")));
        }
        all.extend_from_slice(&part);
    }
    Ok(all)
}

/// The authorities that are trusted instead of those of the system, as they are written now.
async fn authorities(path: Option<&Path>) -> Result<Vec<u8>, DriverError> {
    match path {
        Some(path) => cloud::bytes(path).await,
        None => Ok(Vec::new()),
    }
}

fn client(cloud: &Cloud, authorities: &[u8]) -> Result<Client, DriverError> {
    // The library makes no client without it; another driver may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("khufu/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        // A token must not follow a redirect.
        .redirect(reqwest::redirect::Policy::none());
    let builder = match &cloud.ca {
        Some(path) => {
            let wrong = |reason: String| DriverError::invalid(format!("cacert: {}", path.display()), reason);
            let all = Certificate::from_pem_bundle(authorities).map_err(|error| wrong(whole(&error)))?;
            if all.is_empty() {
                return Err(wrong("there is no certificate in it".to_owned()));
            }
            builder.tls_certs_only(all)
        }
        None => builder,
    };
    builder.build().map_err(|error| unavailable(format!("no client can be made: {}", whole(&error))))
}

impl Access {
    fn is_good(&self) -> bool {
        self.renew_at.is_none_or(|at| Instant::now() < at)
    }
}

impl Session {
    /// The services of a cloud, which need not be there yet.
    pub(super) fn new(source: Source, suspect: Arc<Notify>) -> Self {
        let turns = Turns::new(AT_ONCE, A_SECOND, BURST);
        Self { source, current: RwLock::default(), renewing: Mutex::default(), turns, suspect }
    }

    /// A token that is good.
    pub(super) async fn access(&self) -> Result<Arc<Access>, DriverError> {
        if let Some(access) = self.current.read().await.as_ref().filter(|access| access.is_good()) {
            return Ok(access.clone());
        }
        let _renewing = self.renewing.lock().await;
        let last = self.current.read().await.clone();
        if let Some(access) = last.as_ref().filter(|access| access.is_good()) {
            return Ok(access.clone());
        }
        let access = Arc::new(self.renewed(last.as_deref()).await?);
        *self.current.write().await = Some(access.clone());
        Ok(access)
    }

    /// Asks for a token. What is written of the cloud is read again: it may have another password now.
    async fn renewed(&self, last: Option<&Access>) -> Result<Access, DriverError> {
        let cloud = self.source.read().await?;
        let authorities = authorities(cloud.ca.as_deref()).await?;
        let http = match last.filter(|last| last.cloud.ca == cloud.ca && last.authorities == authorities) {
            Some(last) => last.http.clone(),
            None => client(&cloud, &authorities)?,
        };
        let _turn = self.turns.turn().await?;
        let place = format!("Keystone at {}", cloud.auth_url);
        let asked =
            http.post(format!("{}/auth/tokens", cloud.auth_url)).json(&identity::request(&cloud)).timeout(LIMIT);
        let response = asked.send().await.map_err(|error| unavailable(format!("{place}: {}", whole(&error))))?;
        let status = response.status().as_u16();
        let secret = response.headers().get(NEW_TOKEN).cloned();
        let body = bytes(response, Tried::Read).await?;
        if !(200..300).contains(&status) {
            return Err(answer::refused(&place, Tried::Read, status, None, &body));
        }
        let mut secret = secret.ok_or_else(|| unavailable(format!("{place} has given no token")))?;
        secret.set_sensitive(true);
        let answer = serde_json::from_slice(&body)
            .map_err(|error| unavailable(format!("what {place} said is no JSON: {error}")))?;
        let token = Token::read(&cloud, answer)?;
        let renew_at = token.renew_in.map(|after| Instant::now() + after);
        Ok(Access { cloud, authorities, http, secret, token, renew_at })
    }

    /// A token that was refused is used no more.
    async fn forget(&self, refused: &Access) {
        let mut current = self.current.write().await;
        if current.as_ref().is_some_and(|access| access.secret == refused.secret) {
            *current = None;
        }
    }

    /// Asks a service; its answer, or none where it says that there is no such thing.
    ///
    /// # Errors
    /// [`DriverError`] as [`answer::refused`] says; [`DriverError::Timeout`] and [`DriverError::Unanswered`] where something
    /// was to be changed and nobody knows whether it was.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Option<Value>, DriverError> {
        let access = self.access().await?;
        match self.with(&access, call).await? {
            Said::Unknown(error) => {
                // The token may be refused before its end: it was revoked, or the keys of the cloud were changed.
                self.forget(&access).await;
                let access = self.access().await?;
                match self.with(&access, call).await? {
                    Said::Unknown(_) => Err(error),
                    Said::Answer(answer) => Ok(answer),
                }
            }
            Said::Answer(answer) => Ok(answer),
        }
    }

    async fn with(&self, access: &Access, call: &Call<'_>) -> Result<Said, DriverError> {
        let url = format!("{}/{}", access.token.endpoint(call.service)?, call.path);
        let _turn = self.turns.turn().await?;
        let limit = if matches!(call.body, Body::Data(_)) { DATA_LIMIT } else { LIMIT };
        let mut request =
            access.http.request(call.method.clone(), url).header(TOKEN, access.secret.clone()).timeout(limit);
        for (name, value) in call.service.headers() {
            request = request.header(*name, *value);
        }
        let typed =
            |request: reqwest::RequestBuilder, of: &str, body: Vec<u8>| request.header("Content-Type", of).body(body);
        let request = match call.body {
            Body::Nothing => request,
            Body::Json(value) => request.json(value),
            Body::Patch(patch) => {
                typed(request, "application/openstack-images-v2.1-json-patch", patch.to_string().into_bytes())
            }
            Body::Data(data) => typed(request, "application/octet-stream", data.to_vec()),
        };
        let response = request.send().await.map_err(|error| {
            self.suspect.notify_one();
            unanswered(&error, call.tried, limit)
        })?;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let after = answer::retry_after(after);
        let body = bytes(response, call.tried).await?;
        match status {
            200..300 if body.is_empty() => Ok(Said::Answer(Some(Value::Null))),
            200..300 => match serde_json::from_slice(&body) {
                Ok(answer) => Ok(Said::Answer(Some(answer))),
                Err(error) => {
                    let reason = format!("{}: the answer is no JSON: {error}", call.place);
                    Err(if call.tried.writes() { DriverError::Unanswered { reason } } else { unavailable(reason) })
                }
            },
            404 | 410 => Ok(Said::Answer(None)),
            401 => Ok(Said::Unknown(answer::refused(call.place, call.tried, status, after, &body))),
            _ => Err(answer::refused(call.place, call.tried, status, after, &body)),
        }
    }

    /// Whether Keystone is there and knows who asks.
    pub(super) async fn is_ready(&self) -> bool {
        let Ok(access) = self.access().await else { return false };
        let asked = access.http.get(&access.cloud.auth_url).timeout(CONNECT).send().await;
        asked.is_ok_and(|answer| !answer.status().is_server_error())
    }
}

/// What came of a request.
enum Said {
    Answer(Option<Value>),
    /// Whoever asks is not known.
    Unknown(DriverError),
}
