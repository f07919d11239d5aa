//! HTTP/1.1 as far as it is needed: one request for each connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::Asked;
use super::notes::Said;

/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most bytes of a line, of all headers, and of a body.
const MAX_LINE: u64 = 64 << 10;
const MAX_HEADERS: usize = 128;
const MAX_BODY: usize = 16 << 20;

/// A certificate of an authority that nobody knows.
#[derive(Debug)]
pub(super) struct Tls {
    authority: String,
    config: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the key fits");
        Self { authority: made.cert.pem(), config: Arc::new(config) }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection.
pub(super) struct Connection(BufReader<Box<dyn Stream>>);

impl Connection {
    pub(super) fn new(stream: TcpStream, tls: Option<&Tls>) -> Option<Self> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls.config.clone()).ok()?, stream)),
            None => Box::new(stream),
        };
        Some(Self(BufReader::new(stream)))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (&mut self.0).take(MAX_LINE).read_line(&mut line).ok()?;
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    /// The request; none if there is none.
    pub(super) fn asked(&mut self) -> Option<Asked> {
        let line = self.line()?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            if headers.len() > MAX_HEADERS {
                return None;
            }
        }
        let mut asked = Asked { method, path, headers, body: Vec::new() };
        let length: usize = asked.header("content-length").map_or(Some(0), |text| text.parse().ok())?;
        if length > MAX_BODY {
            return None;
        }
        asked.body = vec![0; length];
        self.0.read_exact(&mut asked.body).ok()?;
        Some(asked)
    }

    /// Answers with JSON.
    pub(super) fn answer(&mut self, status: u16, headers: &[(&'static str, &str)], body: &Value) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.say(&Said { status, headers, body: body.to_string().into() });
    }

    pub(super) fn say(&mut self, said: &Said) {
        // Whoever has hung up need not hear it.
        let _ = self.write(said, said.body.len());
    }

    /// Breaks off in the middle of the answer.
    pub(super) fn say_half(&mut self, said: &Said) {
        let _ = self.write(said, said.body.len() / 2);
    }

    fn write(&mut self, said: &Said, bytes: usize) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", said.status);
        if said.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", said.body.len()));
        }
        for (name, value) in &said.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(said.body.get(..bytes).unwrap_or_default())?;
        stream.flush()
    }
}
