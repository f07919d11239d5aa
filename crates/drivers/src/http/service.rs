//! One service: what is sent to it, a few requests at once, each with limits.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Url};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::config::{Config, ConfigError};
use super::kinds::statuses_within;
use super::place::{Base, Place};
use super::secrets::Headers;
use super::template::Meanings;
use crate::DriverError;
use crate::turns::Turns;

/// The longest that one piece of work may take with all its requests. A node gives up a call after 60 s.
const BUDGET: Duration = Duration::from_secs(40);
/// The longest that a request may take.
const MAX_TIME_S: u64 = 20;
/// The longest that is waited for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The largest answer that may be allowed.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// So often a request that may be sent again is sent, where the service has an error or says nothing.
const ATTEMPTS: u32 = 3;
/// The first pause before it is sent again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Whoever cannot be reached for so long is said to be away.
const UNREACHED: Duration = Duration::from_secs(3);
/// The most redirects of one request that reads.
const MAX_REDIRECTS: usize = 5;

/// When a piece of work is given up.
pub(super) type Deadline = Instant;

/// The time that there is for a piece of work that begins now.
pub(super) fn deadline() -> Deadline {
    Instant::now() + BUDGET
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    /// The statuses that mean success; all of 200 to 299 if there are none.
    pub(super) success: &'a [u16],
    /// The statuses that mean that there is nothing.
    pub(super) gone: &'a [u16],
    /// Whether it may be sent again when nobody knows what became of it.
    pub(super) repeatable: bool,
    /// Whether it changes nothing.
    pub(super) reads: bool,
}

impl<'a> Ask<'a> {
    /// A request that only reads.
    pub(super) fn get(url: Url, gone: &'a [u16]) -> Self {
        let headers = HeaderMap::new();
        Self { method: Method::GET, url, headers, body: None, success: &[], gone, repeatable: true, reads: true }
    }

    /// Gives it a body of JSON.
    pub(super) fn json(&mut self, value: &Value) {
        self.body = Some(value.to_string().into_bytes());
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }

    fn what(&self) -> String {
        super::shorten(&format!("{} {}", self.method, self.url.path()))
    }

    fn is_success(&self, answer: &Answer) -> bool {
        if self.success.is_empty() {
            answer.status.is_success()
        } else {
            self.success.contains(&answer.status.as_u16())
        }
    }
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Heard {
    /// The service has done it.
    Done(Answer),
    /// It says that there is nothing.
    Gone,
}

/// Why there is no answer.
enum Lost {
    /// It was never sent.
    Unsent(String),
    /// It was, and there was no answer in time.
    Late(Duration),
    /// It was, and the connection was lost.
    Broken(String),
    /// The answer is larger than it may be.
    TooLarge,
}

/// One service.
pub(super) struct Service {
    client: Client,
    pub(super) base: Base,
    headers: Headers,
    turns: Turns,
    probe: Url,
    time_limit: Duration,
    answer_limit: usize,
    not_done: Vec<u16>,
    retry: Vec<u16>,
    suspect: Arc<Notify>,
}

impl Service {
    /// # Errors
    /// If a value cannot be used. The service need not be there.
    pub(super) async fn new(config: &Config, suspect: Arc<Notify>) -> Result<Self, ConfigError> {
        let base = Base::parse(&config.base).map_err(|reason| ConfigError::value("base", reason))?;
        if !(1..=MAX_TIME_S).contains(&config.time_limit_s) {
            return Err(ConfigError::value("time_limit_s", format!("it has to be 1 to {MAX_TIME_S}")));
        }
        if !(1..=MAX_ANSWER_BYTES).contains(&config.answer_limit_bytes) {
            return Err(ConfigError::value("answer_limit_bytes", format!("it has to be 1 to {MAX_ANSWER_BYTES}")));
        }
        if !(1..=1000).contains(&config.rate) || !(1..=256).contains(&config.at_once) {
            return Err(ConfigError::value("rate", "it has to be 1 to 1000, and `at_once` 1 to 256"));
        }
        let wrong = |error: String| ConfigError::value("probe", error);
        let probe = Place::parse(&config.probe).map_err(wrong)?;
        let probe = probe.fill(&Meanings::default()).and_then(|path| base.join(&path));
        Ok(Self {
            client: client(config, &base).await?,
            headers: Headers::new(config).await?,
            turns: Turns::new(config.at_once, config.rate, config.rate),
            probe: probe.map_err(|error| wrong(error.to_string()))?,
            time_limit: Duration::from_secs(config.time_limit_s),
            answer_limit: config.answer_limit_bytes,
            not_done: statuses_within("not_done", &config.not_done, 400..=599)?,
            retry: statuses_within("retry", &config.retry, 400..=499)?,
            base,
            suspect,
        })
    }

    /// Whether the service says anything at all, other than that it cannot serve.
    pub(super) async fn is_there(&self) -> bool {
        let ask = Ask::get(self.probe.clone(), &[]);
        let until = Instant::now() + self.time_limit;
        matches!(self.send(&ask, until).await, Ok(answer) if !matches!(answer.status.as_u16(), 502..=504))
    }

    /// Sends a request, again if that helps and does no harm, until there is an answer or no time.
    ///
    /// # Errors
    /// [`DriverError::Timeout`] and [`DriverError::Unanswered`] if it may have been done, by whichever attempt; with any other
    /// nothing was.
    pub(super) async fn ask(&self, mut ask: Ask<'_>, until: Deadline) -> Result<Heard, DriverError> {
        let what = ask.what();
        let begun = Instant::now();
        let (mut attempts, mut redirects, mut pause) = (0, 0, PAUSE);
        // Whether an attempt before this one may have done it, which nothing that comes after takes back.
        let mut in_doubt = false;
        loop {
            attempts += 1;
            let again = ask.repeatable && attempts < ATTEMPTS;
            let (error, wait) = match self.send(&ask, until).await {
                Ok(answer) if ask.is_success(&answer) => return Ok(Heard::Done(answer)),
                Ok(answer) if ask.gone.contains(&answer.status.as_u16()) => {
                    // What is to go and is not there is done, by whichever attempt.
                    if in_doubt && ask.method != Method::DELETE {
                        return Err(DriverError::Unanswered {
                            reason: doubt(&format!("{what}: {}", answer.text(256))),
                        });
                    }
                    return Ok(Heard::Gone);
                }
                Ok(answer) if answer.is_not_done(&self.not_done) => {
                    let retry_after = answer.retry_after();
                    let reason = format!("{what}: {}", answer.text(256));
                    (DriverError::Unavailable { reason, retry_after }, Some(retry_after.unwrap_or_default()))
                }
                Ok(answer) if ask.reads && answer.status.is_redirection() && redirects < MAX_REDIRECTS => {
                    let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
                    let Some(url) = self.base.follow(&ask.url, to) else {
                        let reason = format!("{what}: it leads away from the service, and is not followed");
                        return Err(DriverError::Failed { reason, again: false });
                    };
                    ask.url = url;
                    (redirects, attempts) = (redirects + 1, attempts - 1);
                    continue;
                }
                Ok(answer) => {
                    if matches!(answer.status.as_u16(), 502..=504) {
                        self.suspect.notify_one();
                    }
                    let error = answer.refused(&what, &self.retry);
                    let wait = (again && matches!(error, DriverError::Unanswered { .. })).then_some(Duration::ZERO);
                    (error, wait)
                }
                Err(Lost::Unsent(reason)) => {
                    self.suspect.notify_one();
                    let wait = (begun.elapsed() < UNREACHED).then_some(Duration::ZERO);
                    (DriverError::Unavailable { reason, retry_after: None }, wait)
                }
                Err(Lost::Late(after)) => {
                    self.suspect.notify_one();
                    (DriverError::Timeout { after }, again.then_some(Duration::ZERO))
                }
                Err(Lost::Broken(reason)) => {
                    (DriverError::Unanswered { reason: format!("{what}: {reason}") }, again.then_some(Duration::ZERO))
                }
                Err(Lost::TooLarge) => {
                    let limit = self.answer_limit;
                    let reason = format!("{what}: the answer has more than {limit} bytes: raise `answer_limit_bytes`");
                    (DriverError::Failed { reason, again: false }, None)
                }
            };
            let error = match error {
                error if ask.reads => error,
                error @ (DriverError::Timeout { .. } | DriverError::Unanswered { .. }) => {
                    in_doubt = true;
                    error
                }
                error if in_doubt => DriverError::Unanswered { reason: doubt(&error.to_string()) },
                error => error,
            };
            let at = wait.map(|wait| Instant::now() + wait.max(pause));
            match at {
                Some(at) if at < until => tokio::time::sleep_until(at).await,
                _ if ask.reads => return Err(unread(error)),
                _ => return Err(error),
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn send(&self, ask: &Ask<'_>, until: Deadline) -> Result<Answer, Lost> {
        let unsent = |error: DriverError| Lost::Unsent(error.to_string());
        let turn = timeout_at(until, self.turns.turn()).await;
        let _turn = turn.map_err(|_| Lost::Unsent("too many requests wait for their turn".into()))?.map_err(unsent)?;
        let mut headers = ask.headers.clone();
        // What the site says of its own service counts.
        headers.extend(self.headers.all().await.map_err(unsent)?);
        let begun = Instant::now();
        let end = until.min(begun + self.time_limit);
        let mut request = self.client.request(ask.method.clone(), ask.url.clone()).headers(headers);
        if let Some(body) = &ask.body {
            request = request.body(body.clone());
        }
        let late = || Lost::Late(begun.elapsed());
        let mut response = match timeout_at(end, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() || error.is_builder() => return Err(Lost::Unsent(chain(&error))),
            Ok(Err(error)) if error.is_timeout() => return Err(late()),
            Ok(Err(error)) => return Err(Lost::Broken(chain(&error))),
            Err(_) => return Err(late()),
        };
        let mut answer =
            Answer { status: response.status(), headers: response.headers().clone(), body: Vec::new(), is_cut: false };
        loop {
            let lost = match timeout_at(end, response.chunk()).await {
                Ok(Ok(Some(chunk))) if answer.body.len() + chunk.len() <= self.answer_limit => {
                    answer.body.extend_from_slice(&chunk);
                    continue;
                }
                Ok(Ok(None)) => return Ok(answer),
                Ok(Ok(Some(_))) => Lost::TooLarge,
                Ok(Err(error)) => Lost::Broken(chain(&error)),
                Err(_) => late(),
            };
            if ask.reads {
                return Err(lost);
            }
            // What the status says is known.
            answer.is_cut = true;
            return Ok(answer);
        }
    }
}

/// What the last attempt came to does not say what became of those before it.
fn doubt(last: &str) -> String {
    format!("it was sent and not answered, and when it was sent again: {last}")
}

/// A look that failed has left nothing in doubt.
fn unread(error: DriverError) -> DriverError {
    match error {
        DriverError::Timeout { after } => {
            DriverError::Unavailable { reason: format!("no answer within {} ms", after.as_millis()), retry_after: None }
        }
        DriverError::Unanswered { reason } => DriverError::Unavailable { reason, retry_after: None },
        other => other,
    }
}

/// All that is said of an error. The URL is left out: what is asked for is said otherwise.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        // The outermost one has the URL.
        let said = if text.is_empty() { "the connection".to_owned() } else { error.to_string() };
        if !text.ends_with(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        next = error.source();
    }
    text
}

async fn client(config: &Config, base: &Base) -> Result<Client, ConfigError> {
    // The library makes no client without it. Where a program has installed another one, that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wrong = |reason: String| ConfigError::value("ca", reason);
    let builder = Client::builder()
        .user_agent(concat!("khufu/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        // Each is looked at before it is followed, and a request is sent again only where that does no harm.
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy();
    let builder = match &config.ca {
        Some(file) => {
            let pem = tokio::fs::read(file).await.map_err(|error| wrong(format!("{}: {error}", file.display())))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
            if authorities.is_empty() {
                return Err(wrong(format!("{} has no certificate", file.display())));
            }
            builder.tls_certs_only(authorities)
        }
        // The machine's list need not be read, nor be there.
        None if base.is_plain() => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(|error| ConfigError::value("base", chain(&error)))
}
