//! Headers that are sent with every request. What is kept in files and variables is read anew for each.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::config::{Basic, Config, ConfigError, Header, Secret};
use crate::DriverError;

/// The most bytes of a secret.
const MAX_BYTES: u64 = 64 << 10;

/// The headers of every request.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    plain: HeaderMap,
    secret: Vec<(HeaderName, Secret)>,
    basic: Option<Basic>,
}

impl Headers {
    /// # Errors
    /// If one cannot be sent, or a secret is not there.
    pub(super) async fn new(config: &Config) -> Result<Self, ConfigError> {
        let (mut plain, mut secret) = (HeaderMap::new(), Vec::new());
        for (name, header) in &config.headers {
            let key = format!("headers.{name}");
            let parsed: HeaderName =
                name.parse().map_err(|_| ConfigError::value(&key, "that is no name of a header"))?;
            match header {
                Header::Plain(value) => {
                    let value = value.parse().map_err(|_| ConfigError::value(&key, "no header can have this value"))?;
                    plain.insert(parsed, value);
                }
                Header::Secret(value) => {
                    check(&key, value)?;
                    secret.push((parsed, value.clone()));
                }
            }
        }
        if let Some(basic) = &config.basic {
            check("basic.password", &basic.password)?;
            if basic.user.contains(':') {
                return Err(ConfigError::value("basic.user", "a user that is sent like this has no colon"));
            }
            if plain.contains_key(AUTHORIZATION) || secret.iter().any(|(name, _)| name == AUTHORIZATION) {
                return Err(ConfigError::value(
                    "basic",
                    "there is an `Authorization` among the headers: take one away",
                ));
            }
        }
        let headers = Self { plain, secret, basic: config.basic.clone() };
        headers.all().await.map_err(|error| ConfigError::value("headers", error.to_string()))?;
        Ok(headers)
    }

    /// All of them, as they are now.
    pub(super) async fn all(&self) -> Result<HeaderMap, DriverError> {
        let mut all = self.plain.clone();
        for (name, secret) in &self.secret {
            all.insert(name.clone(), value(format!("{}{}", secret.before, read(secret).await?))?);
        }
        if let Some(basic) = &self.basic {
            let password = format!("{}{}", basic.password.before, read(&basic.password).await?);
            let encoded = STANDARD.encode(format!("{}:{password}", basic.user));
            all.insert(AUTHORIZATION, value(format!("Basic {encoded}"))?);
        }
        Ok(all)
    }
}

fn check(key: &str, secret: &Secret) -> Result<(), ConfigError> {
    match (&secret.file, &secret.env) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(ConfigError::value(key, "give either `file` or `env`")),
    }
}

fn value(text: String) -> Result<HeaderValue, DriverError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| unavailable("a secret holds what no header can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whoever mends it need not start the node again, so nothing fails for good.
fn unavailable(reason: impl Into<String>) -> DriverError {
    DriverError::Unavailable { reason: reason.into(), retry_after: None }
}

async fn read(secret: &Secret) -> Result<String, DriverError> {
    if let Some(name) = &secret.env {
        return std::env::var(name).map_err(|_| unavailable(format!("the variable {name} is not set, or no text")));
    }
    let file = secret.file.as_deref().unwrap_or(Path::new(""));
    let read = async {
        let size = tokio::fs::metadata(file).await?.len();
        if size > MAX_BYTES {
            return Err(std::io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
        }
        tokio::fs::read_to_string(file).await
    };
    let text = read.await.map_err(|error| unavailable(format!("cannot read {}: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
