//! What a test asks of a cloud besides: plain HTTP on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How much of an answer is read, in bytes.
const MOST: u64 = 64 << 20;

/// An answer of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The token in its head, if there is one.
    pub(super) token: Option<String>,
    /// What came after the head.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The answer as JSON; nothing if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// Asks once. None if nobody answers.
pub(super) fn ask(port: u16, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Option<Answer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    send(port, method, path, token, "application/json", body.as_bytes())
}

/// The same, with any body.
pub(super) fn send(
    port: u16,
    method: &str,
    path: &str,
    token: Option<&str>,
    content_type: &str,
    body: &[u8],
) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    // HTTP/1.0: the connection ends with the answer.
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n", body.len());
    head.push_str(&format!("Content-Type: {content_type}\r\nOpenStack-API-Version: compute 2.61\r\n"));
    head.extend(token.map(|token| format!("X-Auth-Token: {token}\r\n")));
    write!(stream, "{head}\r\n").ok()?;
    stream.write_all(body).ok()?;
    let mut whole = Vec::new();
    stream.take(MOST).read_to_end(&mut whole).ok()?;
    let end = whole.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(whole.get(..end)?).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let token = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-subject-token").then(|| value.trim().to_owned())
    });
    Some(Answer { status, token, bytes: whole.get(end + 4..)?.to_vec() })
}
